"""What an attack works on: an edited pipeline, its prompts, and the judge that says when the concept is back.

All that an attack asks of the networks goes through `Victim`, which counts it, prompt by prompt. What is judged is
drawn as the edited pipeline draws, with its sampler-time method if it has one. Gradients go through text encoder and
U-Net as they are, so that an attack is blind to such a method and only meets it when its prompts are drawn; an attack
`through_sampler` is not, see `Victim.respond`.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from eraseflow import finite, sampling
from eraseflow.params import Concept, SamplingSettings
from eraseflow.passes import PASSES
from eraseflow.sampling import Condition
from eraseflow.soft_prompts import encoder_input, token_embeddings

PLACEHOLDER = "<concept>"  # stands for a learned embedding in an adversarial prompt's text
TEXTS = 256  # texts that an attack lets the text encoder read at once


@dataclass(frozen=True)
class Attempt:
    """One adversarial prompt to be judged.

    text: what is drawn and published, read by the tokenizer like any prompt. tokens: the ids that the attack chose.
    seed: of the picture, where it is not the prompt's own. embedding: (k, width), what PLACEHOLDER stands for.
    """

    text: str
    tokens: list[int] = field(default_factory=list)
    seed: int | None = None
    embedding: Tensor | None = None


# An attack yields, a round at a time, what to try for every row still in `victim.open`; between rounds the rows that
# have succeeded are taken out.
Search = Iterator[dict[int, Attempt]]


@dataclass
class Victim:
    """One cell under attack.

    pipeline: edited; original: unedited, for attacks that compare the two. prompts: a table with prompt_id, prompt,
    seed, guidance. draw_originals: such a table to the scaled latents (n, c, h, w) of what the unedited model makes of
    its prompts. judge: pictures (n, 3, H, W) uint8 to a table of raw scores. seen:
    that table to a boolean array. strength: to how strongly the concept is seen.

    What an attack must keep between rounds stands in `memory`, a dict of tensors a row, or in `shared`, so that a
    killed attack can go on: both are saved after each round, a row's until it succeeds. `round` counts finished rounds.
    """

    pipeline: Any
    original: Any
    concept: Concept
    prompts: pd.DataFrame
    draw_originals: Callable[[pd.DataFrame], Tensor]
    judge: Callable[[Tensor], pd.DataFrame]
    seen: Callable[[pd.DataFrame], np.ndarray]
    strength: Callable[[pd.DataFrame], np.ndarray]
    sampling: SamplingSettings
    batch_size: int
    open: list[int] = field(default_factory=list)
    attacked: list[int] = field(default_factory=list)  # the rows that did not succeed un-attacked
    round: int = 0
    memory: dict[int, dict[str, Any]] = field(default_factory=dict)
    shared: dict[str, Any] = field(default_factory=dict)
    drawn: dict[int, Tensor] = field(default_factory=dict)  # see `originals`
    seen_passes: list[tuple[str, list[int], Tensor]] = field(default_factory=list)  # of this round, see `check`

    def __post_init__(self) -> None:
        self.passes = np.zeros((len(self.prompts), len(PASSES)))
        self.device = self.pipeline.device
        for pipeline in (self.pipeline, self.original):
            for part in (pipeline.unet, pipeline.text_encoder):
                part.requires_grad_(False)

    def originals(self, rows: Sequence[int]) -> Tensor:
        """The scaled latents (n, c, h, w) of what the unedited model made of these prompts; most attacks never ask.

        They are drawn for all `attacked` rows at once, so that a killed attack, going on, has the same batches.
        """
        if not self.drawn:
            asked = self.attacked or self.open
            self.drawn = dict(
                zip(asked, self.draw_originals(self.prompts.loc[asked].reset_index(drop=True)), strict=True)
            )
        return torch.stack([self.drawn[row] for row in rows])

    def rounds(self, count: int) -> range:
        """The rounds that are left to do of `count`."""
        return range(self.round, count)

    def parts(self) -> list[list[int]]:
        """The open rows in batches."""
        return [self.open[start : start + self.batch_size] for start in range(0, len(self.open), self.batch_size)]

    def rng(self, row: int, *key: int) -> np.random.Generator:
        """A generator of this prompt's own, so that its result does not depend on the others in the batch.

        key: at most two numbers below 2^32 - 1, which stands for one that is not given. numpy mixes four words of 32
        bits, so that a longer seed has the last one for its upper half and is no other seed with another key.
        """
        high, low = divmod(int(self.prompts.seed[row]), 2**32)
        words = (low, *key, *[2**32 - 1] * (2 - len(key)))
        return np.random.default_rng((*words, high) if high else words)

    def generator(self, row: int, *key: int) -> torch.Generator:
        """The same for PyTorch, on the CPU."""
        return torch.Generator().manual_seed(int(self.rng(row, *key).integers(2**62)))

    def texts(self, rows: Sequence[int]) -> list[str]:
        """The rows' prompts."""
        return list(self.prompts.prompt[list(rows)])

    def as_text(self, tokens: list[int]) -> Attempt:
        """Tokens alone as an adversarial prompt."""
        return Attempt(self.pipeline.tokenizer.decode(tokens).strip(), tokens)

    def with_prefix(self, row: int, tokens: list[int]) -> Attempt:
        """The row's prompt after these tokens."""
        return Attempt(f"{self.pipeline.tokenizer.decode(tokens)} {self.prompts.prompt[row]}".strip(), tokens)

    def encode(self, rows: Sequence[int] | None, ids: Tensor, embeddings: Tensor | None = None, original: bool = False):
        """The text encoder's outputs for ids (n, length), each a pass for its row, or shared by all open rows.

        embeddings (n, length, width) take the place of the tokens' own; gradients pass through them.
        """
        encoder = (self.original if original else self.pipeline).text_encoder
        with token_embeddings(encoder, embeddings) if embeddings is not None else nullcontext():
            found = encoder(ids)
        self._count(rows, "text", found[0])
        return found

    @torch.no_grad()
    def read(self, rows: Sequence[int] | None, ids: Tensor, pooled: bool = False, original: bool = False) -> Tensor:
        """Last hidden states (n, length, width), or pooled ones (n, width), of any number of ids, without gradient."""
        if pooled:  # that of each text's end, which does not see the padding behind it
            ends = (ids == self.pipeline.tokenizer.eos_token_id).int().argmax(-1)
            ids = ids[:, : int(ends.max()) + 1]
        starts = range(0, len(ids), TEXTS)
        owners = [None if rows is None else rows[start : start + TEXTS] for start in starts]
        found = [
            self.encode(owner, ids[start : start + TEXTS], original=original)[1 if pooled else 0]
            for start, owner in zip(starts, owners, strict=True)
        ]
        return torch.cat(found)

    def predict(
        self, rows: Sequence[int] | None, noisy: Tensor, t: Tensor, hidden: Tensor, original: bool = False
    ) -> Tensor:
        """The U-Net's noise prediction (n, c, h, w) at t (n,) without guidance, in the precision of `noisy`.

        Each is a pass for its row, or shared by all open rows.
        """
        unet = (self.original if original else self.pipeline).unet
        found = unet(noisy.to(hidden.dtype), t, hidden).sample
        self._count(rows, "unet", found)
        return found.to(noisy.dtype)

    def respond(
        self, rows: Sequence[int] | None, noisy: Tensor, t: Tensor, ids: Tensor, embeddings: Tensor,
        through_sampler: bool,
    ) -> Tensor:  # fmt: skip
        """The noise prediction (n, c, h, w) under token ids with embeddings, in which gradients pass to these.

        through_sampler: with what the pipeline's sampler-time method adds, at a guidance of 1, by which plain guidance
        is the prediction under the prompt alone. It is asked about one timestep, so that what it carries from step to
        step is as at its first; which step that timestep is to it, the number of noisier solver steps says.
        """
        sampler = sampling.sampler_of(self.pipeline)
        if not through_sampler or type(sampler) is sampling.Sampler:
            return self.predict(rows, noisy, t, self.encode(rows, ids, embeddings)[0])
        condition = sampler.read(self.pipeline, ids, embeddings)
        step = (sampling.timesteps(self.pipeline, self.sampling)[None] > t[:, None]).sum(1)
        found = sampler.predictor(self.pipeline, condition, torch.ones(len(noisy), 1, 1, 1).to(noisy))(step, t, noisy)
        unet, text = (passes.cpu().numpy() for passes in sampler.passes_of_step(condition, step))
        for network, count, values in (("unet", unet, found), ("text", text, condition["hidden"])):
            self._count(rows, network, values, count)
        return found

    def noised(self, clean: Tensor, t: Tensor, rngs: Sequence[torch.Generator]) -> tuple[Tensor, Tensor]:
        """Latents (n, c, h, w) at timesteps t (n,), and the noise in them, each row's drawn by its own generator."""
        noise = torch.stack([torch.randn(clean.shape[1:], generator=rng) for rng in rngs]).to(clean)
        alphas = self.pipeline.scheduler.alphas_cumprod.to(clean)[t].view(-1, 1, 1, 1)
        return alphas.sqrt() * clean + (1 - alphas).sqrt() * noise, noise

    def _count(self, rows: Sequence[int] | None, network: str, found: Tensor, passes: np.ndarray | float = 1.0) -> None:
        """Note what a network gave, each row of it after some passes, of each row of the victim or of all open ones.

        Whatever carries a gradient is going to be differentiated once.
        """
        shared = np.broadcast_to(passes, len(found)).sum() / max(len(self.open), 1)
        owners, each = (self.open, shared) if rows is None else (rows, passes)
        for direction in ("forward", "backward")[: 1 + found.requires_grad]:
            np.add.at(self.passes[:, PASSES.index(f"{network}_{direction}")], list(owners), each)
        self.seen_passes.append((network, [] if rows is None else list(rows), finite.row_sums(found)))

    def check(self) -> None:
        """Look at what the networks have given since the last call, and at what the attack has learned.

        Raises: NotFinite that names the prompt, the round and what was not finite first.
        """
        ids, where = list(self.prompts.prompt_id), f"round {self.round + 1}"
        passes, self.seen_passes = self.seen_passes, []
        if passes and not torch.cat([sums for *_, sums in passes]).isfinite().all():  # one wait for a GPU
            for place, (network, rows, sums) in enumerate(passes):
                wrong = (~sums.isfinite()).nonzero().flatten().tolist()
                if wrong:
                    name = ids[rows[wrong[0]]] if rows else "all open prompts"
                    what = {"unet": "U-Net", "text": "text encoder"}[network]
                    nth = sum(other == network for other, *_ in passes[: place + 1])
                    raise finite.NotFinite(f"{name}: {where}: the {what}'s output is not finite in its pass {nth}")
        learned = [(f"{ids[row]}: {name}", one) for row in self.memory for name, one in _tensors(self.memory[row])]
        finite.check(where, [*learned, *_tensors(self.shared)])

    def try_out(self, attempts: dict[int, Attempt]) -> tuple[Tensor, pd.DataFrame, np.ndarray]:
        """Draw each row's attempt with its seed: pictures, raw scores, and where the concept was seen."""
        rows = self.prompts.loc[list(attempts)]
        seeds = [seed if a.seed is None else a.seed for seed, a in zip(rows.seed, attempts.values(), strict=True)]
        condition = self.condition(list(attempts.values()))
        names = [f"{name}: round {self.round}" for name in rows.prompt_id]
        drawn = sampling.draw(
            self.pipeline, condition, seeds, list(rows.guidance), self.sampling, self.batch_size, True, names
        )
        pictures = torch.cat(list(drawn))
        drawing = sampling.sampler_of(self.pipeline).passes(condition, self.sampling.steps)
        for network, passes in zip(("unet_forward", "text_forward"), drawing, strict=True):
            self.passes[list(attempts), PASSES.index(network)] += passes.cpu().numpy()
        scores = self.judge(pictures)
        finite.table("the judge's scores", scores, names)
        return pictures, scores, self.seen(scores)

    @torch.no_grad()
    def condition(self, attempts: list[Attempt]) -> Condition:
        """What is to be drawn of each attempt, as the pipeline's sampler reads it."""
        if all(attempt.embedding is None for attempt in attempts):
            return sampling.read(self.pipeline, [attempt.text for attempt in attempts])
        tokenizer, encoder = self.pipeline.tokenizer, self.pipeline.text_encoder
        parts = []
        for attempt in attempts:
            assert attempt.embedding is not None  # an attack learns embeddings or finds texts, not both
            rest, learned = attempt.text.removeprefix(PLACEHOLDER).strip(), attempt.embedding.to(self.device)
            parts.append(encoder_input(tokenizer, encoder, [rest], learned[None]))
        ids, embeddings = (torch.cat(side) for side in zip(*parts, strict=True))
        return sampling.sampler_of(self.pipeline).read(self.pipeline, ids, embeddings)


def _tensors(memory: dict[str, Any], path: str = "") -> Iterator[tuple[str, Tensor]]:
    """The tensors of nested dicts, by their keys."""
    for key, value in memory.items():
        if isinstance(value, dict):
            yield from _tensors(value, f"{path}{key}.")
        elif isinstance(value, Tensor):
            yield f"{path}{key}", value
