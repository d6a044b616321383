"""ESD: Erasing Concepts from Diffusion Models (Gandikota et al., ICCV 2023, eq. 7).

Fine-tunes so that eps(x_t, c) -> eps_0(x_t) - eta (eps_0(x_t, c) - eps_0(x_t)), eps_0 being the unedited
model. x_t comes from partial denoising under c with the present weights. Variant x trains the
cross-attention, u everything else.
"""

import copy
import time
from typing import Literal

import torch
from pydantic import Field, PositiveInt
from tqdm import trange

from eraseflow.edits import Edit, Masters
from eraseflow.erasing_goal import goal, partly_denoised, trained_names
from eraseflow.params import Block, Concept
from eraseflow.sampling import embed


class Settings(Block):
    iterations: PositiveInt
    batch_size: PositiveInt
    learning_rate: float = Field(gt=0)
    negative_guidance: float = Field(gt=0)
    num_steps: PositiveInt
    guidance_scale: float = Field(ge=1)
    variant: Literal["x", "u"]


def erase(pipeline, concept: Concept, settings: Settings, seed: int) -> Edit:
    """Fine-tune the U-Net; the edit holds the trained weights' new values. history: loss, gradient norm, seconds."""
    started = time.perf_counter()
    rng = torch.Generator().manual_seed(seed)
    unet, frozen = pipeline.unet, copy.deepcopy(pipeline.unet).requires_grad_(False)
    # The bare words: nothing would hold on to what else a sentence says, so that it would be erased as well.
    targets, empty = embed(pipeline, [concept.target, *concept.also]), embed(pipeline, [""])
    names = trained_names(unet, settings.variant)
    unet.requires_grad_(False)
    masters = Masters([unet.get_parameter(name) for name in names])
    optimiser = torch.optim.Adam(masters.copies, lr=settings.learning_rate)
    history: list[dict] = []
    for step in (bar := trange(settings.iterations, desc="esd", unit="step")):
        target = targets[torch.randint(len(targets), (settings.batch_size,), generator=rng)]
        latents, t = partly_denoised(pipeline, target, empty, settings, rng)
        wanted = goal(frozen, latents, t, target, empty, settings.negative_guidance)
        predicted = unet(latents.to(target.dtype), t.to(latents.device), target).sample
        loss = torch.nn.functional.mse_loss(predicted.float(), wanted)
        masters.backward(loss, wanted.numel())
        norm = torch.nn.utils.get_total_norm([weight.grad for weight in masters.copies if weight.grad is not None])
        optimiser.step()
        masters.write()
        seconds = time.perf_counter() - started
        history.append({"step": step, "loss": loss.item(), "grad_norm": norm.item(), "seconds": seconds})
        bar.set_postfix(loss=f"{loss.item():.4f}", refresh=False)
    return Edit("weights", dict(zip((f"unet.{name}" for name in names), masters.copies, strict=True)), history)
