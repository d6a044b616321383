"""Sampling in batches, seeded per item, so that an item's picture does not depend on how the work is cut up."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext

import torch
from diffusers import DDIMScheduler, DPMSolverMultistepScheduler, StableDiffusionPipeline
from torch import Tensor
from tqdm import tqdm

from eraseflow import finite
from eraseflow.params import SamplingSettings
from eraseflow.soft_prompts import token_embeddings

SOLVERS = {
    "ddim": DDIMScheduler,  # Song et al. 2021, without added noise
    "dpmsolver++": DPMSolverMultistepScheduler,  # 2M, Lu et al. 2022: as good in a third of the steps
}
TEXTS = 64  # texts that the text encoder reads at once

# What is to be drawn, a row a picture: "hidden", the text encoder's states (n, tokens, width), and what else a sampler
# has read of the prompts.
Condition = dict[str, Tensor]
# Step (from 0; a number or of each row, (n,)), timestep and latents (n, c, h, w) to the noise that the solver follows.
Predict = Callable[[int | Tensor, Tensor, Tensor], Tensor]


class Sampler:
    """How a pipeline reads prompts and predicts noise when it draws: this one by classifier-free guidance alone.

    A method that works at sampling time has a subclass of its own, `Sampler` in its module, a dataclass of plain
    values (see edits.py), which `Edit.apply` hangs on the pipeline. Texts that it needs are read by the very pipeline
    that draws, so that it goes with any edit of the weights. Gradients pass through what it reads and predicts, where
    they are wanted.
    """

    def read(self, pipeline, ids: Tensor, embeddings: Tensor | None = None) -> Condition:
        """What it needs to know of token ids (n, length); embeddings (n, length, width) take the tokens' place."""
        return {"hidden": encode(pipeline.text_encoder, ids, embeddings)[0]}

    def predictor(self, pipeline, condition: Condition, scale: Tensor) -> Predict:
        """The noise prediction of one drawing; scale (n, 1, 1, 1) is the guidance."""
        empty = embed(pipeline, [""])
        return lambda step, t, latents: guided(pipeline.unet, latents, t, condition["hidden"], empty, scale)

    def passes(self, condition: Condition, steps: int) -> tuple[Tensor, Tensor]:
        """Samples through the U-Net (n,) and the text encoder (n,) that drawing each row takes."""
        ones = torch.ones(len(condition["hidden"]))
        return 2 * steps * ones, ones

    def passes_of_step(self, condition: Condition, step: Tensor) -> tuple[Tensor, Tensor]:
        """The same for reading and one prediction, at each row's step (n,)."""
        ones = torch.ones(len(condition["hidden"]))
        return 2 * ones, ones


def sampler_of(pipeline) -> Sampler:
    """The pipeline's sampler-time method, or plain guidance."""
    return getattr(pipeline, "eraseflow_sampler", None) or Sampler()


def initial_noise(pipeline: StableDiffusionPipeline, seeds: Sequence[int]) -> Tensor:
    """Standard normal latents (n, channels, side, side), float32, each item from its own seed, drawn on the CPU.

    seeds: 0 to 2^64 - 1; PyTorch's generator on the CPU, and diffusers with it, looks at their lower 32 bits alone.
    """
    shape = _noise_shape(pipeline, 1)
    each = [torch.randn(shape, generator=torch.Generator().manual_seed(int(seed))) for seed in seeds]
    return torch.cat(each).to(pipeline.device)  # once: a pipeline looks for its device for milliseconds


def fresh_noise(pipeline: StableDiffusionPipeline, count: int, rng: torch.Generator) -> Tensor:
    """Standard normal latents (count, channels, side, side), float32, all from one generator of the CPU."""
    return torch.randn(_noise_shape(pipeline, count), generator=rng).to(pipeline.device)


def _noise_shape(pipeline: StableDiffusionPipeline, count: int) -> tuple[int, int, int, int]:
    config = pipeline.unet.config
    return count, config.in_channels, config.sample_size, config.sample_size


@torch.no_grad()
def embed(pipeline: StableDiffusionPipeline, prompts: Sequence[str]) -> Tensor:
    """The text encoder's hidden states (n, tokens, width), whatever the sampler; equal prompts are encoded once."""
    return _once(prompts, lambda unique: Sampler().read(pipeline, token_ids(pipeline, unique)))["hidden"]


@torch.no_grad()
def read(pipeline: StableDiffusionPipeline, prompts: Sequence[str]) -> Condition:
    """What `draw` draws of these prompts: what the pipeline's sampler reads; equal prompts are read once."""
    return _once(prompts, lambda unique: sampler_of(pipeline).read(pipeline, token_ids(pipeline, unique)))


def _once(prompts: Sequence[str], reading: Callable[[list[str]], Condition]) -> Condition:
    unique = list(dict.fromkeys(prompts))
    rows = [unique.index(prompt) for prompt in prompts]
    return {name: values[rows] for name, values in reading(unique).items()}


def token_ids(pipeline: StableDiffusionPipeline, prompts: list[str]) -> Tensor:
    """Token ids (n, length) on the pipeline's device, padded or cut to the model's length."""
    ids = pipeline.tokenizer(prompts, padding="max_length", truncation=True, return_tensors="pt").input_ids
    return ids.to(pipeline.device)


def encode(encoder, ids: Tensor, embeddings: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Last hidden states (n, length, width) and pooled ones (n, width) of any number of ids (n, length).

    embeddings (n, length, width) take the place of the tokens' own.
    """
    found = []
    for start in range(0, len(ids), TEXTS):
        part = slice(start, start + TEXTS)
        with nullcontext() if embeddings is None else token_embeddings(encoder, embeddings[part]):
            found.append(encoder(ids[part]))
    return torch.cat([out[0] for out in found]), torch.cat([out[1] for out in found])


def together(unet, latents: Tensor, t, conditions: Sequence[Tensor]) -> tuple[Tensor, ...]:
    """Noise predictions (n, c, h, w) under several conditions in one batch, in the latents' precision.

    latents (n, c, h, w); t a number or (n,); conditions (n or 1, tokens, width), the last of them with n.
    """
    count, t = len(conditions), torch.as_tensor(t, device=latents.device).expand(len(latents))
    hidden = torch.cat([condition.expand_as(conditions[-1]) for condition in conditions])
    return (
        unet(torch.cat([latents] * count).to(hidden.dtype), t.repeat(count), hidden)
        .sample.to(latents.dtype)
        .chunk(count)
    )


def guided(unet, latents: Tensor, t, condition: Tensor, empty: Tensor, scale: float | Tensor) -> Tensor:
    """Classifier-free guided noise prediction in the latents' precision, both halves in one batch.

    latents (n, c, h, w); t a number or (n,); condition (n, tokens, width) in the network's precision;
    empty (1, tokens, width); scale a number or (n, 1, 1, 1).
    """
    without, with_prompt = together(unet, latents, t, [empty, condition])
    return without + scale * (with_prompt - without)


def solver(pipeline: StableDiffusionPipeline, settings: SamplingSettings):
    """The solver on the pipeline's noise schedule, at its steps."""
    own = {} if settings.spacing == "model" else {"timestep_spacing": settings.spacing}
    scheduler = SOLVERS[settings.solver].from_config(pipeline.scheduler.config, **own)
    scheduler.set_timesteps(settings.steps, device=pipeline.device)
    return scheduler


def timesteps(pipeline: StableDiffusionPipeline, settings: SamplingSettings) -> Tensor:
    """Where the solver asks for a prediction (steps,), the noisiest first."""
    return solver(pipeline, settings).timesteps


@torch.no_grad()
def denoise(
    pipeline: StableDiffusionPipeline,
    condition: Condition,
    seeds: Sequence[int],
    settings: SamplingSettings,
    guidance: Sequence[float],
    names: Sequence[str] = (),
) -> Tensor:
    """Latents (n, c, h, w) of what `read` has read; the solver works in float32 whatever the networks' precision.

    names: what a message calls the rows, such as their prompts' ids.
    Raises: NotFinite that names the first row and solver step whose latents are not finite.
    """
    scheduler = solver(pipeline, settings)
    latents = initial_noise(pipeline, seeds) * scheduler.init_noise_sigma
    scale = torch.tensor(guidance, device=latents.device, dtype=latents.dtype).view(-1, 1, 1, 1)
    predict = sampler_of(pipeline).predictor(pipeline, condition, scale)
    watch = finite.Watch()
    watch.see(condition["hidden"])
    for step, t in enumerate(scheduler.timesteps):
        latents = scheduler.step(predict(step, t, latents), t, latents).prev_sample
        watch.see(latents)
    if wrong := watch.first():
        step, row = wrong
        what = f"the latents are not finite from solver step {step} of {len(scheduler.timesteps)} on"
        what = what if step else "the text encoder's states are not finite"
        raise finite.NotFinite(f"{finite.named(names, row)}: {what}")
    return latents


@torch.no_grad()
def decode(pipeline: StableDiffusionPipeline, latents: Tensor, names: Sequence[str] = ()) -> Tensor:
    """Pictures (n, 3, H, W) as uint8 of latents; names: as `denoise`'s.

    Raises: NotFinite that names the first picture that is not finite, as in half precision an autoencoder's may be.
    """
    vae, watch = pipeline.vae, finite.Watch()
    images = vae.decode((latents / vae.config.scaling_factor).to(vae.dtype)).sample
    watch.see(images)
    if wrong := watch.first():
        what = f"the autoencoder's picture is not finite in {vae.dtype}, though its latents are"
        raise finite.NotFinite(f"{finite.named(names, wrong[1])}: {what}; ERASEFLOW_PRECISION sets the precision")
    return ((images.float() / 2 + 0.5).clamp(0, 1) * 255).round().to(torch.uint8).cpu()


def sample(
    pipeline: StableDiffusionPipeline,
    prompts: Sequence[str],
    seeds: Sequence[int],
    guidance: Sequence[float],
    settings: SamplingSettings,
    batch_size: int,
    quiet: bool = False,
    names: Sequence[str] = (),
) -> Iterator[Tensor]:
    """Pictures of the prompts, a batch (b, 3, H, W) of uint8 at a time, in order; names: as `denoise`'s."""
    yield from draw(pipeline, read(pipeline, prompts), seeds, guidance, settings, batch_size, quiet, names)


def draw(
    pipeline: StableDiffusionPipeline,
    condition: Condition,
    seeds: Sequence[int],
    guidance: Sequence[float],
    settings: SamplingSettings,
    batch_size: int,
    quiet: bool = False,
    names: Sequence[str] = (),
) -> Iterator[Tensor]:
    """Pictures of what `read` has read, a batch (b, 3, H, W) of uint8 at a time, in order; names: as `denoise`'s."""
    with tqdm(total=len(seeds), desc="sampling", unit="image", disable=quiet) as bar:
        for start in range(0, len(seeds), batch_size):
            part = slice(start, start + batch_size)
            rows = {name: values[part] for name, values in condition.items()}
            latents = denoise(pipeline, rows, seeds[part], settings, guidance[part], names[part])
            yield decode(pipeline, latents, names[part])
            bar.update(len(latents))
