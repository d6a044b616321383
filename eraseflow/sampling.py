"""Sampling in batches, seeded per item, so that an item's picture does not depend on how the work is cut up."""

from collections.abc import Iterator, Sequence

import torch
from diffusers import DPMSolverMultistepScheduler, StableDiffusionPipeline
from torch import Tensor
from tqdm import tqdm


def initial_noise(pipeline: StableDiffusionPipeline, seeds: Sequence[int]) -> Tensor:
    """Standard normal latents (n, channels, side, side), each item from its own seed, drawn on the CPU."""
    config = pipeline.unet.config
    shape = (config.in_channels, config.sample_size, config.sample_size)
    noise = [torch.randn(shape, generator=torch.Generator().manual_seed(int(seed))) for seed in seeds]
    return torch.stack(noise).to(pipeline.device, pipeline.unet.dtype)


@torch.no_grad()
def embed(pipeline: StableDiffusionPipeline, prompts: Sequence[str]) -> Tensor:
    """The text encoder's hidden states (n, tokens, width); equal prompts are encoded once."""
    unique = list(dict.fromkeys(prompts))
    ids = pipeline.tokenizer(unique, padding="max_length", truncation=True, return_tensors="pt").input_ids
    hidden = torch.cat([pipeline.text_encoder(part.to(pipeline.device))[0] for part in ids.split(64)])
    return hidden[[unique.index(prompt) for prompt in prompts]]


def guided(unet, latents: Tensor, t, condition: Tensor, empty: Tensor, scale: float | Tensor) -> Tensor:
    """Classifier-free guided noise prediction, both halves in one batch.

    latents (n, c, h, w); t a number or (n,); condition (n, tokens, width); empty (1, tokens, width);
    scale a number or (n, 1, 1, 1).
    """
    t = torch.as_tensor(t, device=latents.device).expand(len(latents))
    both = torch.cat([empty.expand_as(condition), condition])
    without, with_prompt = unet(torch.cat([latents, latents]), torch.cat([t, t]), both).sample.chunk(2)
    return without + scale * (with_prompt - without)


@torch.no_grad()
def denoise(
    pipeline: StableDiffusionPipeline, condition: Tensor, seeds: Sequence[int], steps: int, guidance: Sequence[float]
) -> Tensor:
    """Latents (n, c, h, w) of these hidden states by DPM-Solver++ (2M, Lu et al. 2022)."""
    scheduler = DPMSolverMultistepScheduler.from_config(pipeline.scheduler.config)
    scheduler.set_timesteps(steps, device=pipeline.device)
    latents = initial_noise(pipeline, seeds) * scheduler.init_noise_sigma
    scale = torch.tensor(guidance, device=latents.device, dtype=latents.dtype).view(-1, 1, 1, 1)
    empty = embed(pipeline, [""])
    for t in scheduler.timesteps:
        noise = guided(pipeline.unet, latents, t, condition, empty, scale)
        latents = scheduler.step(noise, t, latents).prev_sample
    return latents


@torch.no_grad()
def decode(pipeline: StableDiffusionPipeline, latents: Tensor) -> Tensor:
    """Pictures (n, 3, H, W) as uint8 of latents."""
    images = pipeline.vae.decode(latents / pipeline.vae.config.scaling_factor).sample
    return ((images.float() / 2 + 0.5).clamp(0, 1) * 255).round().to(torch.uint8).cpu()


def sample(
    pipeline: StableDiffusionPipeline,
    prompts: Sequence[str],
    seeds: Sequence[int],
    guidance: Sequence[float],
    steps: int,
    batch_size: int,
    quiet: bool = False,
) -> Iterator[Tensor]:
    """Pictures of the prompts, a batch (b, 3, H, W) of uint8 at a time, in order."""
    condition = embed(pipeline, prompts)
    with tqdm(total=len(prompts), desc="sampling", unit="image", disable=quiet) as bar:
        for start in range(0, len(prompts), batch_size):
            part = slice(start, start + batch_size)
            latents = denoise(pipeline, condition[part], seeds[part], steps, guidance[part])
            yield decode(pipeline, latents)
            bar.update(len(latents))
