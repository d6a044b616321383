"""What an attack works on: an edited pipeline, its prompts, and the judge that says when the concept is back."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor
from tqdm import tqdm

from eraseflow import images, sampling
from eraseflow.params import SamplingSettings
from eraseflow.safety import blocked

# An attack yields, a round at a time, the prefix token ids to try for every row still in `victim.open`;
# between rounds the rows that have succeeded are taken out.
Search = Iterator[dict[int, list[int]]]


@dataclass
class Victim:
    """One cell under attack.

    prompts: a table with prompt_id, prompt, seed, guidance. originals: the scaled latents (n, c, h, w) of
    the pictures that the unedited model made of these prompts. judge: pictures (n, 3, H, W) uint8 to a
    table of raw scores. seen: that table to a boolean array.
    """

    pipeline: Any
    prompts: pd.DataFrame
    originals: Tensor
    judge: Callable[[Tensor], pd.DataFrame]
    seen: Callable[[pd.DataFrame], np.ndarray]
    sampling: SamplingSettings
    batch_size: int
    open: list[int] = field(default_factory=list)

    def rng(self, row: int, *key: int) -> np.random.Generator:
        """A generator of this prompt's own, so that its result does not depend on the others in the batch."""
        return np.random.default_rng((int(self.prompts.seed[row]), *key))

    def with_prefix(self, row: int, tokens: list[int]) -> str:
        """The adversarial prompt as text, the form in which it is judged and published."""
        return f"{self.pipeline.tokenizer.decode(tokens)} {self.prompts.prompt[row]}".strip()

    def try_out(self, rows: list[int], texts: list[str]) -> tuple[Tensor, pd.DataFrame, np.ndarray]:
        """Draw each row's text with the row's own seed: pictures, raw scores, and where the concept was seen."""
        chosen = self.prompts.loc[rows]
        parts = sampling.sample(
            self.pipeline, texts, list(chosen.seed), list(chosen.guidance), self.sampling, self.batch_size, quiet=True
        )
        pictures = torch.cat(list(parts))
        scores = self.judge(pictures)
        return pictures, scores, self.seen(scores)


def run(victim: Victim, attack: Callable[..., Search], settings, seed: int) -> pd.DataFrame:
    """Attack every prompt that does not succeed on its own; one row a prompt, in order.

    Columns: prompt_id, prompt, seed, guidance, pre_success, success (true also where un-attacked), step (the
    judged round of the success, 0 = un-attacked, -1 = never), images (judged), blocked (adversarial texts that
    the safety gate did not let be drawn, none of them a success), adversarial_prompt (the last one drawn),
    adversarial_tokens, png, and the judge's raw scores of that picture.
    Raises: SystemExit where the gate blocks a prompt itself.
    """
    stopped = victim.prompts.prompt_id[[bool(blocked(prompt)) for prompt in victim.prompts.prompt]]
    if len(stopped):
        raise SystemExit(f"the safety gate blocks {', '.join(stopped)}; make the concept's prompts.csv anew")
    rows = list(range(len(victim.prompts)))
    results: dict[int, dict] = {}
    refused = dict.fromkeys(rows, 0)

    def record(step: int, tried: dict[int, list[int]]) -> None:
        written = {row: victim.with_prefix(row, tokens) for row, tokens in tried.items()}
        texts = {row: text for row, text in written.items() if not blocked(text)}
        for row in written.keys() - texts.keys():
            refused[row] += 1
        if not texts:
            return
        pictures, scores, seen = victim.try_out(list(texts), list(texts.values()))
        for at, (row, text) in enumerate(texts.items()):
            results[row] = {
                "pre_success": bool(step == 0 and seen[at]),
                "success": bool(seen[at]),
                "step": step if seen[at] else -1,
                "images": step + 1 - refused[row],
                "adversarial_prompt": text,
                "adversarial_tokens": tried[row],
                "png": images.to_png(pictures[at]),
                **scores.iloc[at].to_dict(),
            }
        victim.open = [row for row in victim.open if not results[row]["success"]]

    victim.open = rows
    record(0, {row: [] for row in rows})
    with tqdm(total=len(rows), initial=len(rows) - len(victim.open), desc="attack", unit="prompt") as bar:
        rounds = attack(victim, settings, seed) if victim.open else ()
        for step, tried in enumerate(rounds, start=1):
            before = len(victim.open)
            record(step, tried)
            bar.update(before - len(victim.open))
            bar.set_postfix(round=step, refresh=False)
            if not victim.open:
                break
    found = pd.DataFrame([results[row] | {"blocked": refused[row]} for row in rows])
    return pd.concat([victim.prompts, found], axis=1)


@contextmanager
def token_embeddings(text_encoder, embeddings: Tensor):
    """Let the text encoder see these (n, tokens, width) instead of its own token embeddings; gradients pass."""
    hook = text_encoder.get_input_embeddings().register_forward_hook(lambda *_: embeddings)
    try:
        yield
    finally:
        hook.remove()
