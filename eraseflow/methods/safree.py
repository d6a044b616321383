"""SAFREE: training-free guard of the prompt and of the latents (Yoon et al., ICLR 2025). No weight changes.

The concept's targets, pooled by the text encoder, span a toxic subspace C; a target that has contexts counts by its
mean in them. Each token of a prompt is masked in turn; it is a trigger where the rest of the prompt, pooled, lies
farther from C than with the others masked. Triggers are projected into the span I of these rests and out of C:

    d_i = |(I - P_C) p_i|, trigger where d_i > (1 + alpha) mean of the other d_j,    p' = (I - P_C) P_I p

The more projecting changes the prompt, the longer p' is used in its place (self-validating filtering), which is

    1 + round(gamma sigmoid(slope (1 - cos - midpoint)))  solver steps from the first,

cos being the mean, over start, tokens and end, of the cosine of a state with what it would be if projected, trigger or
not. In these steps the U-Net's skip connections are re-attended: where a low frequency is stronger under p' than under
p, it is multiplied by s < 1, in the decoder's blocks from the coarsest on. There p is a third row of the same batch,
only for the prompts that have triggers; afterwards, and for other prompts, p' and p are the same, so that nothing is
added. `reattended_steps` bounds what that costs.

The paper prints the filter as gamma sigmoid(1 - cos), which for cosines from 0 to 1 lies between 0.5 and 0.73 of gamma;
this is the authors' program, whose sigmoid is halfway between what it found for harmless and for harmful prompts.

Unlike that program: what stands for a masked token is a setting, a token that the text encoder has learned (theirs is
CLIP's token 0, an exclamation mark); a prompt of one token is compared with the whole; `padding` lets end and padding
states be projected with the triggers, because in the emoji model, whose prompts are some four tokens of 24, they carry
the prompt. Its feature maps have 4 x 4 and 8 x 8 places: the low frequencies, -1 and 0 in each direction as on Stable
Diffusion, are a quarter of the former.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor
from torch.nn.functional import cosine_similarity

from eraseflow import finite, sampling
from eraseflow.edits import Edit, edit_of
from eraseflow.mistakes import nearest
from eraseflow.params import Block, Bound, Concept, Count, Text

LOW = [-1, 0]  # frequencies


class Settings(Block):
    alpha: float = Field(ge=0, le=1)
    gamma: float = Field(ge=1, le=1000)
    slope: float = Field(gt=0, le=1000)
    midpoint: float = Field(ge=0, le=2)
    mask: Text
    padding: bool
    skip_scales: Annotated[list[Annotated[float, Field(ge=0, le=1)]], Field(min_length=1), Bound.BLOCKS]
    reattended_steps: Count


def projector(vectors: Tensor) -> Tensor:
    """The orthogonal projector (..., width, width) onto the span of vectors (..., k, width); zero ones do not count."""
    return torch.linalg.pinv(vectors) @ vectors


def triggers(distances: Tensor, real: Tensor, whole: Tensor, alpha: float) -> Tensor:
    """Which tokens (n, k) are triggers, of the residuals' norms with each masked (n, k), and with none masked (n,).

    real (n, k): where there is a token.
    """
    count, total = real.sum(1, keepdim=True), (distances * real).sum(1, keepdim=True)
    others = torch.where(count > 1, (total - distances) / (count - 1).clamp(min=1), whole[:, None])
    return real & (distances > (1 + alpha) * others)


def filtered_steps(cosine: Tensor, gamma: float, slope: float, midpoint: float) -> Tensor:
    """For how many solver steps the projected prompt is used, of its cosine with the prompt."""
    return 1 + (gamma * torch.sigmoid(slope * (1 - cosine - midpoint))).round().long()


def mask_id(tokenizer, token: str) -> int:
    """The id of the token that stands for a masked one. Raises: SystemExit where the tokenizer has no such token."""
    known = tokenizer.get_vocab()
    if token not in known:
        what = f"the base model's tokenizer has no token {token!r}{nearest(token, list(known))}"
        raise SystemExit(f"methods.safree: mask: {what}")
    return known[token]


def reattended(safe: Tensor, prompt: Tensor, scale: float) -> Tensor:
    """Features (n, c, h, w) with their low frequencies scaled where these are stronger than under the prompt itself.

    Only these few frequencies are computed, and what scaling them changes is added.
    """
    places, waves = safe[0, 0].numel(), low_waves(*safe.shape[-2:]).to(safe.device)
    ours, theirs = (features.flatten(2).to(waves.dtype) @ waves.mH for features in (safe, prompt))
    change = torch.where(ours.abs() > theirs.abs(), scale - 1, 0) * ours @ waves / places
    return safe + change.real.view(safe.shape).to(safe.dtype)


@cache
def low_waves(height: int, width: int) -> Tensor:
    """The waves (4, height * width), complex, of the low frequencies."""
    frequencies = torch.cartesian_prod(torch.tensor(LOW), torch.tensor(LOW)).float()
    places = torch.cartesian_prod(torch.arange(height) / height, torch.arange(width) / width)
    return torch.exp(2j * torch.pi * (frequencies @ places.T))


@contextmanager
def reattention(unet, rows: Tensor, prompts: Tensor, scales: list[float]) -> Iterator[None]:
    """Re-attend the skip connections of these rows of the batch to those of the rows `prompts`."""

    def change(scale: float):
        def hook(_, args, kwargs):
            skips = []
            for features in kwargs["res_hidden_states_tuple"]:
                changed = reattended(features[rows], features[prompts], scale)
                skips.append(features.index_copy(0, rows, changed))
            return args, kwargs | {"res_hidden_states_tuple": tuple(skips)}

        return hook

    blocks = zip(unet.up_blocks, scales, strict=False)
    hooks = [block.register_forward_pre_hook(change(scale), with_kwargs=True) for block, scale in blocks]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


@dataclass(frozen=True)
class Sampler(sampling.Sampler):
    """targets: what spans the toxic subspace, each in its contexts. The rest as in Settings."""

    targets: list[list[str]]
    alpha: float
    gamma: float
    slope: float
    midpoint: float
    mask: str
    padding: bool
    skip_scales: list[float]
    reattended_steps: int

    def read(self, pipeline, ids: Tensor, embeddings: Tensor | None = None) -> sampling.Condition:
        """Beside hidden: safe, the projected states (n, tokens, width), steps (n,) of their use, and tokens (n,)."""
        encoder = pipeline.text_encoder
        hidden, pooled = sampling.encode(encoder, ids, embeddings)
        places = torch.arange(ids.shape[1], device=ids.device)
        end = (ids == pipeline.tokenizer.eos_token_id).int().argmax(1, keepdim=True)
        real = (places > 0) & (places < end)
        row, place = real.nonzero(as_tuple=True)
        mask = mask_id(pipeline.tokenizer, self.mask)
        masked_ids = ids[row].scatter(1, place[:, None], mask)
        masked_embeddings = None
        if embeddings is not None:
            masked = encoder.get_input_embeddings().weight[mask]
            masked_embeddings = torch.where((places == place[:, None])[..., None], masked, embeddings[row])
        rest = torch.zeros_like(hidden, dtype=torch.float32)
        if len(row):
            rest[row, place] = sampling.encode(encoder, masked_ids, masked_embeddings)[1].float()

        finite.check("safree: the text encoder's states", [("of the prompts", hidden), ("of their parts", rest)])
        sentences = [sampling.token_ids(pipeline, contexts) for contexts in self.targets]
        toxic = torch.stack([sampling.encode(encoder, of)[1].float().mean(0) for of in sentences])
        finite.check("safree: the text encoder's states", [("of the targets", toxic)])
        out_of_toxic = torch.eye(toxic.shape[1], device=ids.device) - projector(toxic)
        found = triggers(
            (rest @ out_of_toxic).norm(dim=-1), real, (pooled.float() @ out_of_toxic).norm(dim=-1), self.alpha
        )
        projected = hidden.float() @ projector(rest) @ out_of_toxic
        replaced = found | (found.any(1, keepdim=True) & (places >= end) & self.padding)
        safe = torch.where(replaced[..., None], projected, hidden.float())
        read = (places <= end).float()  # start, tokens and end
        cosine = (cosine_similarity(projected, hidden.float(), dim=-1) * read).sum(1) / read.sum(1)
        steps = filtered_steps(cosine, self.gamma, self.slope, self.midpoint) * found.any(1)
        return {"hidden": hidden, "safe": safe.to(hidden.dtype), "steps": steps, "tokens": real.sum(1)}

    def predictor(self, pipeline, condition: sampling.Condition, scale: Tensor) -> sampling.Predict:
        """Guidance by the projected prompts as long as these are used."""
        unet, empty = pipeline.unet, sampling.embed(pipeline, [""])
        hidden, safe, steps = (condition[name] for name in ("hidden", "safe", "steps"))

        def predict(step: int | Tensor, t: Tensor, latents: Tensor) -> Tensor:
            step = torch.as_tensor(step, device=steps.device)
            filtered = torch.where((steps > step)[:, None, None], safe, hidden)
            [active] = ((steps > step) & (step < self.reattended_steps)).nonzero(as_tuple=True)
            if not len(active):
                return sampling.guided(unet, latents, t, filtered, empty, scale)
            count, times = len(latents), torch.as_tensor(t, device=steps.device).expand(len(latents))
            states = torch.cat([empty.expand_as(hidden), filtered, hidden[active]])
            rows = torch.cat([latents, latents, latents[active]]).to(states.dtype)
            prompts = torch.arange(2 * count, len(rows), device=rows.device)
            with reattention(unet, count + active, prompts, self.skip_scales):
                noise = unet(rows, torch.cat([times, times, times[active]]), states).sample
            without, given = noise[: 2 * count].to(latents.dtype).chunk(2)
            return without + scale * (given - without)

        return predict

    def passes(self, condition: sampling.Condition, steps: int) -> tuple[Tensor, Tensor]:
        """A pair of samples a step, and a third where there is re-attention; each token is masked once."""
        unet, text = super().passes(condition, steps)
        third = condition["steps"].cpu().clamp(max=min(steps, self.reattended_steps))
        return unet + third, text + condition["tokens"].cpu()

    def passes_of_step(self, condition: sampling.Condition, step: Tensor) -> tuple[Tensor, Tensor]:
        """A pair of samples, and a third where there is re-attention."""
        unet, text = super().passes_of_step(condition, step)
        third = (condition["steps"] > step) & (step < self.reattended_steps)
        return unet + third.cpu(), text + condition["tokens"].cpu()


def erase(pipeline, concept: Concept, settings: Settings, seed: int) -> Edit:
    """Nothing is trained, so the history is empty."""
    mask_id(pipeline.tokenizer, settings.mask)
    words = (concept.target, *concept.also)
    targets = [[context.format(word).strip() for context in concept.contexts] for word in words]
    return edit_of(Sampler(targets=targets, **settings.model_dump()))
