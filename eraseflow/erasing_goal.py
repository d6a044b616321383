"""What ESD (Gandikota et al., ICCV 2023, eq. 7) asks of a model and at which latents, also for what builds on it."""

import copy

import torch

from eraseflow.own_pictures import denoised
from eraseflow.params import ErasingSettings
from eraseflow.sampling import fresh_noise, guided


def trained_names(unet, variant: str) -> list[str]:
    """The parameters that a variant trains: attn2 is the cross-attention of every block."""
    return [name for name, _ in unet.named_parameters() if ("attn2" in name) == (variant == "x")]


@torch.no_grad()
def goal(frozen, latents, t, target, empty, negative_guidance: float):
    """eps_0(x_t) - eta (eps_0(x_t, c) - eps_0(x_t)): guidance with the opposite sign."""
    return guided(frozen, latents, t, target, empty, -negative_guidance)


@torch.no_grad()
def partly_denoised(pipeline, target, empty, settings: ErasingSettings, rng: torch.Generator, start=None):
    """Latents (n, c, h, w) on the way under the targets (n, tokens, width), and their timestep, at a random step.

    start: the noise that the way begins with, where it is needed afterwards.
    """
    scheduler = copy.deepcopy(pipeline.scheduler)
    scheduler.set_timesteps(settings.num_steps)
    stop = int(torch.randint(0, settings.num_steps, (1,), generator=rng))
    latents = fresh_noise(pipeline, len(target), rng) if start is None else start
    way, scale = scheduler.timesteps[:stop], settings.guidance_scale
    return denoised(pipeline, scheduler, latents, way, target, empty, scale), scheduler.timesteps[stop]
