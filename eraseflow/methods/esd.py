"""ESD: Erasing Concepts from Diffusion Models (Gandikota et al., ICCV 2023, eq. 7).

Fine-tunes so that eps(x_t, c) -> eps_0(x_t) - eta (eps_0(x_t, c) - eps_0(x_t)), eps_0 being the unedited
model. x_t comes from partial denoising under c with the present weights. Variant x trains the
cross-attention, u everything else.

Unlike the authors' program: x_t comes from the present weights, as in their first program (now from the unedited ones,
and drawn at 1,024 pixels, not the model's own size); u trains norms too, not only linear and convolutional layers;
weights are stepped in float32, not bfloat16. Its goal puts eps_0(x_t, c) first, so that its eta of 2 is 1 here.
"""

import copy
from typing import Literal

import torch
from torch.nn.functional import mse_loss

from eraseflow.edits import Edit
from eraseflow.erasing_goal import goal, partly_denoised, trained_names
from eraseflow.fine_tuning import FineTuning
from eraseflow.params import Concept, ErasingSettings
from eraseflow.sampling import embed


class Settings(ErasingSettings):
    variant: Literal["x", "u"]


def erase(pipeline, concept: Concept, settings: Settings, seed: int) -> Edit:
    """Fine-tune the U-Net; the edit holds the trained weights' new values. history: loss, gradient norm, seconds."""
    rng = torch.Generator().manual_seed(seed)
    unet, frozen = pipeline.unet, copy.deepcopy(pipeline.unet).requires_grad_(False)
    # The bare words: nothing would hold on to what else a sentence says, so that it would be erased as well.
    targets, empty = embed(pipeline, [concept.target, *concept.also]), embed(pipeline, [""])
    names = trained_names(unet, settings.variant)
    tuning = FineTuning.of(unet, names, torch.optim.Adam, settings.learning_rate)
    for _ in tuning.steps(settings.iterations, "esd"):
        target = targets[torch.randint(len(targets), (settings.batch_size,), generator=rng)]
        latents, t = partly_denoised(pipeline, target, empty, settings, rng)
        wanted = goal(frozen, latents, t, target, empty, settings.negative_guidance)
        predicted = unet(latents.to(target.dtype), t.to(latents.device), target).sample
        loss = mse_loss(predicted.float(), wanted)
        tuning.backward(loss, wanted.numel())
        tuning.step(loss=loss)
    return tuning.edit("unet", names)
