"""What ESD (Gandikota et al., ICCV 2023, eq. 7) asks of a model and at which latents, also for what builds on it."""

import copy

import torch

from eraseflow.sampling import guided


def trained_names(unet, variant: str) -> list[str]:
    """The parameters that a variant trains: attn2 is the cross-attention of every block."""
    return [name for name, _ in unet.named_parameters() if ("attn2" in name) == (variant == "x")]


@torch.no_grad()
def goal(frozen, latents, t, target, empty, negative_guidance: float):
    """eps_0(x_t) - eta (eps_0(x_t, c) - eps_0(x_t)): guidance with the opposite sign."""
    return guided(frozen, latents, t, target, empty, -negative_guidance)


def fresh_noise(pipeline, count: int, rng: torch.Generator):
    """Standard normal latents (count, c, h, w), float32."""
    config = pipeline.unet.config
    shape = (count, config.in_channels, config.sample_size, config.sample_size)
    return torch.randn(shape, generator=rng).to(pipeline.device)


@torch.no_grad()
def partly_denoised(pipeline, target, empty, settings, rng: torch.Generator, start=None):
    """Latents (n, c, h, w) on the way under the targets (n, tokens, width), and their timestep, at a random step.

    settings: num_steps, guidance_scale. start: the noise that the way begins with, where it is needed afterwards.
    """
    unet, scheduler = pipeline.unet, copy.deepcopy(pipeline.scheduler)
    scheduler.set_timesteps(settings.num_steps)
    stop = int(torch.randint(0, settings.num_steps, (1,), generator=rng))
    latents = fresh_noise(pipeline, len(target), rng) if start is None else start
    for t in scheduler.timesteps[:stop]:
        latents = scheduler.step(guided(unet, latents, t, target, empty, settings.guidance_scale), t, latents)[0]
    return latents, scheduler.timesteps[stop]
