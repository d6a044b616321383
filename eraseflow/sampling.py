"""Sampling in batches, seeded per item, so that an item's picture does not depend on how the work is cut up."""

from collections.abc import Iterator, Sequence

import torch
from diffusers import DDIMScheduler, DPMSolverMultistepScheduler, StableDiffusionPipeline
from torch import Tensor
from tqdm import tqdm

from eraseflow.params import SamplingSettings

SOLVERS = {
    "ddim": DDIMScheduler,  # Song et al. 2021, without added noise
    "dpmsolver++": DPMSolverMultistepScheduler,  # 2M, Lu et al. 2022: as good in a third of the steps
}


def initial_noise(pipeline: StableDiffusionPipeline, seeds: Sequence[int]) -> Tensor:
    """Standard normal latents (n, channels, side, side), float32, each item from its own seed, drawn on the CPU."""
    config = pipeline.unet.config
    shape = (config.in_channels, config.sample_size, config.sample_size)
    noise = [torch.randn(shape, generator=torch.Generator().manual_seed(int(seed))) for seed in seeds]
    return torch.stack(noise).to(pipeline.device)


@torch.no_grad()
def embed(pipeline: StableDiffusionPipeline, prompts: Sequence[str]) -> Tensor:
    """The text encoder's hidden states (n, tokens, width); equal prompts are encoded once."""
    unique = list(dict.fromkeys(prompts))
    ids = pipeline.tokenizer(unique, padding="max_length", truncation=True, return_tensors="pt").input_ids
    hidden = torch.cat([pipeline.text_encoder(part.to(pipeline.device))[0] for part in ids.split(64)])
    return hidden[[unique.index(prompt) for prompt in prompts]]


def guided(unet, latents: Tensor, t, condition: Tensor, empty: Tensor, scale: float | Tensor) -> Tensor:
    """Classifier-free guided noise prediction in the latents' precision, both halves in one batch.

    latents (n, c, h, w); t a number or (n,); condition (n, tokens, width) in the network's precision;
    empty (1, tokens, width); scale a number or (n, 1, 1, 1).
    """
    t = torch.as_tensor(t, device=latents.device).expand(len(latents))
    both = torch.cat([empty.expand_as(condition), condition])
    noise = unet(torch.cat([latents, latents]).to(both.dtype), torch.cat([t, t]), both).sample
    without, with_prompt = noise.to(latents.dtype).chunk(2)
    return without + scale * (with_prompt - without)


@torch.no_grad()
def denoise(
    pipeline: StableDiffusionPipeline,
    condition: Tensor,
    seeds: Sequence[int],
    settings: SamplingSettings,
    guidance: Sequence[float],
) -> Tensor:
    """Latents (n, c, h, w) of these hidden states; the solver works in float32 whatever the networks' precision."""
    scheduler = SOLVERS[settings.solver].from_config(pipeline.scheduler.config)
    scheduler.set_timesteps(settings.steps, device=pipeline.device)
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
    vae = pipeline.vae
    images = vae.decode((latents / vae.config.scaling_factor).to(vae.dtype)).sample
    return ((images.float() / 2 + 0.5).clamp(0, 1) * 255).round().to(torch.uint8).cpu()


def sample(
    pipeline: StableDiffusionPipeline,
    prompts: Sequence[str],
    seeds: Sequence[int],
    guidance: Sequence[float],
    settings: SamplingSettings,
    batch_size: int,
    quiet: bool = False,
) -> Iterator[Tensor]:
    """Pictures of the prompts, a batch (b, 3, H, W) of uint8 at a time, in order."""
    yield from draw(pipeline, embed(pipeline, prompts), seeds, guidance, settings, batch_size, quiet)


def draw(
    pipeline: StableDiffusionPipeline,
    condition: Tensor,
    seeds: Sequence[int],
    guidance: Sequence[float],
    settings: SamplingSettings,
    batch_size: int,
    quiet: bool = False,
) -> Iterator[Tensor]:
    """Pictures of hidden states (n, tokens, width), a batch (b, 3, H, W) of uint8 at a time, in order."""
    with tqdm(total=len(condition), desc="sampling", unit="image", disable=quiet) as bar:
        for start in range(0, len(condition), batch_size):
            part = slice(start, start + batch_size)
            latents = denoise(pipeline, condition[part], seeds[part], settings, guidance[part])
            yield decode(pipeline, latents)
            bar.update(len(latents))
