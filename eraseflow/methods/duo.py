"""DUO: Direct Unlearning Optimization for Robust and Safe Text-to-Image Models (Park et al., NeurIPS 2024).

Diffusion-DPO on pairs: x- is a picture of the target, the preferred x+ its safe counterpart, which SDEdit makes of it
under the anchor with the target as negative prompt. A LoRA eps is trained against the unedited eps_0,

    -log sigmoid(-beta ((|e - eps(x+_t)|^2 - |e - eps_0(x+_t)|^2) - (|e - eps(x-_t)|^2 - |e - eps_0(x-_t)|^2)))
        + lambda |eps(x_T) - eps_0(x_T)|^2,

the second term, output-preserving regularisation, on pure noise at the last timestep. As in the authors' program a
square is the mean over a latent's elements, beta includes the weight T omega(t), a pair shares its noise, and in the
published setting all is unprompted: it is pictures that are unlearned. Unlike it, a pair shares its timestep too (as in
the equation), and no detector sorts the pictures.
"""

from typing import Literal

import torch
from pydantic import Field
from torch import Tensor
from torch.nn.functional import logsigmoid

from eraseflow import own_pictures
from eraseflow.edits import Edit, add_lora, lora_of
from eraseflow.fine_tuning import FineTuning
from eraseflow.params import Block, Concept, Count, Guidance, LearningRate, LossScale, Rank, Scale, Steps
from eraseflow.sampling import embed


class Settings(Block):
    pairs: Count
    strength: float = Field(gt=0, le=1)
    num_steps: Steps
    guidance_scale: Guidance
    prompt: Literal["empty", "target"]
    iterations: Count
    batch_size: Count
    learning_rate: LearningRate
    max_grad_norm: Scale = 1.0
    beta: Scale
    preserve_scale: LossScale
    lora_rank: Rank


def preference_loss(predicted: Tensor, reference: Tensor, noise: Tensor, beta: float) -> Tensor:
    """The Diffusion-DPO loss. predicted, reference (2 n, c, h, w): the n preferred first; noise (n, c, h, w)."""
    noise = torch.cat([noise, noise])
    worse = (predicted - noise).square().flatten(1).mean(1) - (reference - noise).square().flatten(1).mean(1)
    preferred, other = worse.chunk(2)
    return -logsigmoid(-beta * (preferred - other)).mean()


def erase(pipeline, concept: Concept, settings: Settings, seed: int) -> Edit:
    """Train a LoRA on the U-Net's attentions. history: loss, its preference and preserving terms, norm, seconds."""
    unet, scheduler, size = pipeline.unet, pipeline.scheduler, settings.batch_size
    rng = torch.Generator().manual_seed(seed)
    torch.manual_seed(seed)  # the LoRA's start
    targets, anchors = (embed(pipeline, sentences) for sentences in zip(*concept.pairs, strict=True))
    empty = embed(pipeline, [""])
    rows = torch.arange(settings.pairs) % len(targets)
    seeds, again = (torch.randint(2**62, (settings.pairs,), generator=rng).tolist() for _ in range(2))
    steps, guidance = settings.num_steps, settings.guidance_scale
    unsafe = own_pictures.draw(pipeline, targets[rows], seeds, steps, guidance, empty)
    edited = (anchors[rows], targets[rows], again, settings.strength, steps, guidance)
    safe = own_pictures.sdedit(pipeline, unsafe, *edited)
    prompts = targets[rows] if settings.prompt == "target" else empty.expand(settings.pairs, -1, -1)

    tuning = FineTuning(add_lora(unet, settings.lora_rank), torch.optim.AdamW, settings.learning_rate)
    last = scheduler.config.num_train_timesteps - 1
    for _ in tuning.steps(settings.iterations, "duo"):
        chosen = torch.randint(settings.pairs, (size,), generator=rng)
        noise, pure = torch.randn(2, *unsafe[chosen].shape, generator=rng).to(unsafe)
        t = torch.randint(last + 1, (size,), generator=rng).to(unsafe.device)
        pair = scheduler.add_noise(torch.cat([safe[chosen], unsafe[chosen]]), torch.cat([noise, noise]), t.repeat(2))
        inputs = (
            torch.cat([pair, pure]).to(empty.dtype),
            torch.cat([t, t, torch.full_like(t, last)]),
            torch.cat([prompts[chosen], prompts[chosen], empty.expand(size, -1, -1)]),
        )
        with torch.no_grad():
            unet.disable_adapters()
            reference = unet(*inputs).sample.float()
            unet.enable_adapters()
        predicted = unet(*inputs).sample.float()
        preference = preference_loss(predicted[: 2 * size], reference[: 2 * size], noise, settings.beta)
        changed = (predicted - reference)[2 * size :].square().mean()
        loss = preference + settings.preserve_scale * changed
        tuning.backward(loss)
        tuning.step(settings.max_grad_norm, loss=loss, preference=preference, preserving=changed)
    return lora_of(unet, tuning.history)
