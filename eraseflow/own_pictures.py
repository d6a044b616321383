"""Pictures that a model draws of training sentences, as latents, and what SDEdit makes of them."""

import torch
from diffusers import DDIMScheduler
from torch import Tensor

from eraseflow import finite
from eraseflow.sampling import guided, initial_noise

AT_ONCE = 8  # pictures in one batch, which a GPU holds at 64 x 64 latents


@torch.no_grad()
def draw(pipeline, condition: Tensor, seeds: list[int], steps: int, guidance_scale: float, empty: Tensor) -> Tensor:
    """Scaled latents (n, c, h, w), float32, of hidden states (n, tokens, width), by DDIM; a seed a picture.

    empty (1, tokens, width): what guidance leads away from.
    """
    scheduler = _solver(pipeline, steps)
    parts = []
    for start in range(0, len(seeds), AT_ONCE):
        part = slice(start, start + AT_ONCE)
        latents = initial_noise(pipeline, seeds[part])
        parts.append(
            denoised(pipeline, scheduler, latents, scheduler.timesteps, condition[part], empty, guidance_scale)
        )
    return torch.cat(parts)


@torch.no_grad()
def sdedit(
    pipeline,
    clean: Tensor,
    condition: Tensor,
    avoided: Tensor,
    seeds: list[int],
    strength: float,
    steps: int,
    guidance_scale: float,
) -> Tensor:
    """SDEdit (Meng et al., ICLR 2022): pictures (n, c, h, w) noised for part of the way and drawn anew from there.

    strength: that part, above 0 (nothing changes) and at most 1 (nothing is kept). avoided (n, tokens, width): the
    negative prompts that guidance leads away from.
    """
    scheduler = _solver(pipeline, steps)
    timesteps = scheduler.timesteps[steps - max(round(strength * steps), 1) :]
    noisy = scheduler.add_noise(clean, initial_noise(pipeline, seeds), timesteps[:1].expand(len(clean)))
    parts = []
    for start in range(0, len(clean), AT_ONCE):
        part = slice(start, start + AT_ONCE)
        parts.append(
            denoised(pipeline, scheduler, noisy[part], timesteps, condition[part], avoided[part], guidance_scale)
        )
    return torch.cat(parts)


def noised(pipeline, clean: Tensor, rng: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
    """Pictures (n, c, h, w) noised as in training, their timesteps (n,), drawn uniformly, and the noise."""
    noise = torch.randn(clean.shape, generator=rng).to(clean)
    t = torch.randint(pipeline.scheduler.config.num_train_timesteps, (len(clean),), generator=rng).to(clean.device)
    return pipeline.scheduler.add_noise(clean, noise, t), t, noise


def _solver(pipeline, steps: int) -> DDIMScheduler:
    scheduler = DDIMScheduler.from_config(pipeline.scheduler.config)
    scheduler.set_timesteps(steps, device=pipeline.device)
    return scheduler


def denoised(
    pipeline, scheduler, latents: Tensor, timesteps: Tensor, condition: Tensor, empty: Tensor, guidance_scale: float
) -> Tensor:
    """Latents (n, c, h, w) after these timesteps of a scheduler, with guidance away from `empty`.

    Raises: NotFinite that names the first solver step after which they are not finite.
    """
    watch = finite.Watch()
    for t in timesteps:
        latents = scheduler.step(guided(pipeline.unet, latents, t, condition, empty, guidance_scale), t, latents)[0]
        watch.see(latents)
    if wrong := watch.first():
        what = f"not finite from solver step {wrong[0] + 1} of {len(timesteps)} on"
        raise finite.NotFinite(f"a picture to train on: its latents are {what}")
    return latents
