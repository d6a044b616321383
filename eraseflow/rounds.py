"""An attack round by round: what it tries is drawn and judged; a killed one goes on after its last whole round."""

import hashlib
import pickle
import shutil
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from tqdm import tqdm

from eraseflow import images
from eraseflow.naming import Names
from eraseflow.outputs import replacing
from eraseflow.passes import PASSES
from eraseflow.prompts import as_seeds
from eraseflow.safety import blocked
from eraseflow.victim import Attempt, Search, Victim

STATE = "state.pt"  # of the last whole round: all that the rows still open need, and the counts of all rows
LEFT = "left-{:04d}.pt"  # the results of the rows that a round took out, written once: with their PNGs they are large


def run(
    victim: Victim, attack: Callable[..., Search], settings: Any, seed: int, work: Path | None = None
) -> pd.DataFrame:
    """Attack every prompt that does not succeed on its own; one row a prompt, in order, with the prompt's own columns.

    With `work`, a folder, every round is saved there and one that was killed goes on from it, to the same result.

    pre_success: the concept is seen un-attacked. success: it is seen, un-attacked or attacked. step: the judged round
    of the success, 0 un-attacked, -1 never. What it took up to the success, or to the end: images (judged ones), the
    PASSES (samples through U-Net and text encoder, those of judged pictures too), and seconds since the attack on all
    prompts began. blocked: adversarial texts that the safety gate did not let be drawn, none of them a success.
    distinct: the judged pictures that differ, for the same text, embedding and seed give the same picture again: it is
    not drawn a second time, but counts among the images. named: what the attack chose for the last picture names the
    concept. tries: every judged picture, a dict each, with its round, text, tokens, seed (as text, for Arrow's lists of
    dicts have no whole numbers of 64 bits), success, score (see verdict.strength), distinct (so many differed up to
    it), named, and unet and text_passes, the passes through these networks so far, forward and backward.
    Of the last picture drawn: adversarial_prompt, adversarial_tokens, adversarial_seed, png, empty (images.EMPTY), the
    judge's raw scores, and, for attacks that learn one, adversarial_embedding (k lists of the width).
    Raises: SystemExit where the gate blocks a prompt itself, or where something is not finite (see finite.py).
    """
    stopped = victim.prompts.prompt_id[[bool(blocked(prompt)) for prompt in victim.prompts.prompt]]
    if len(stopped):
        raise SystemExit(f"the safety gate blocks {', '.join(stopped)}; make the concept's prompts.csv anew")
    journal = Journal(victim, work)
    rows = range(len(victim.prompts))
    if not journal.resume():
        victim.open = list(rows)
        journal.record({row: Attempt(victim.prompts.prompt[row]) for row in rows})
    victim.attacked = [row for row in rows if journal.results[row]["step"] != 0]
    with tqdm(total=len(rows), initial=len(rows) - len(victim.open), desc="attack", unit="prompt") as bar:
        for tried in _watched(victim, attack(victim, settings, seed)) if victim.open else ():
            before = len(victim.open)
            victim.round += 1
            journal.record(tried)
            bar.update(before - len(victim.open))
            bar.set_postfix(round=victim.round, refresh=False)
            if not victim.open:
                break
    for row in victim.open:
        if journal.drawn[row] + journal.refused[row] < 2:
            raise SystemExit(f"{victim.prompts.prompt_id[row]}: the attack has tried nothing; it would seem withstood")
    found = pd.concat([victim.prompts, pd.DataFrame([journal.results[row] for row in rows])], axis=1)
    return found.assign(adversarial_seed=as_seeds(found.adversarial_seed))


def _watched(victim: Victim, search: Search) -> Search:
    """The search, its numbers looked at after every round, and where it fails: NaN may have made it fail."""
    while True:
        try:
            tried = next(search)
        except StopIteration:
            return
        except Exception:
            victim.check()
            raise
        victim.check()
        yield tried


class Journal:
    """What came of each row so far, and its copy on disk, of which a round writes what it changed."""

    def __init__(self, victim: Victim, work: Path | None) -> None:
        self.victim, self.folder = victim, work
        self.results: dict[int, dict[str, Any]] = {}
        self.saved: set[int] = set()  # rows that an earlier round took out
        self.refused = [0] * len(victim.prompts)
        self.drawn = [0] * len(victim.prompts)
        self.tries: list[list[dict[str, Any]]] = [[] for _ in range(len(victim.prompts))]
        # What each picture was made of, and its score; all of them failed while their row is open.
        self.pictures: list[dict[str, float]] = [{} for _ in range(len(victim.prompts))]
        self.names = Names(victim.concept, victim.pipeline.tokenizer)
        self.started = time.perf_counter()

    def record(self, tried: dict[int, Attempt]) -> None:
        """Draw and judge a round, take out the rows that succeed, and save all that a later process needs."""
        victim = self.victim
        attempts = {row: attempt for row, attempt in tried.items() if not blocked(attempt.text)}
        for row in tried:
            self.refused[row] += row not in attempts
            self.drawn[row] += row in attempts
        made_of = {row: self._made_of(row, attempt) for row, attempt in attempts.items()}
        new = {row: attempt for row, attempt in attempts.items() if made_of[row] not in self.pictures[row]}
        if new:
            pictures, scores, seen = victim.try_out(new)
            raw, empty = scores.to_dict("records"), (images.spread(pictures) < images.EMPTY).tolist()
            strengths = victim.strength(scores).tolist()
            for at, (row, attempt) in enumerate(new.items()):
                self.pictures[row][made_of[row]] = strengths[at]
                self.results[row] = {
                    "pre_success": bool(victim.round == 0 and seen[at]),
                    "success": bool(seen[at]),
                    "step": victim.round if seen[at] else -1,
                    "named": self.names.among(attempt.tokens),
                    **self._published(row, attempt),
                    "png": images.to_png(pictures[at]),
                    "empty": empty[at],
                    **{str(label): score for label, score in raw[at].items()},
                }
        for row, attempt in attempts.items():
            self._tried(row, attempt, self.pictures[row][made_of[row]])
        for row in tried:
            self.results[row] |= self._costs(row) | {"tries": self.tries[row]}
        victim.open = [row for row in victim.open if not self.results[row]["success"]]
        victim.memory = {row: kept for row, kept in victim.memory.items() if row in victim.open}
        self._save()

    def _seed(self, row: int, attempt: Attempt) -> int:
        return int(self.victim.prompts.seed[row]) if attempt.seed is None else attempt.seed

    def _made_of(self, row: int, attempt: Attempt) -> str:
        learned = b"" if attempt.embedding is None else attempt.embedding.float().cpu().numpy().tobytes()
        return hashlib.sha256(f"{self._seed(row, attempt)} {attempt.text} ".encode() + learned).hexdigest()

    def _tried(self, row: int, attempt: Attempt, strength: float) -> None:
        """Note a judged picture."""
        seed, success = str(self._seed(row, attempt)), self.results[row]["success"]
        unet, text = self.victim.passes[row].reshape(2, 2).sum(1).tolist()
        one = {"round": self.victim.round, "text": attempt.text, "tokens": attempt.tokens, "seed": seed}
        one |= {"success": success, "score": strength, "distinct": len(self.pictures[row])}
        self.tries[row].append(one | {"named": self.names.among(attempt.tokens), "unet": unet, "text_passes": text})

    def _published(self, row: int, attempt: Attempt) -> dict[str, Any]:
        own = int(self.victim.prompts.seed[row])
        learned = attempt.embedding
        return {
            "adversarial_prompt": attempt.text,
            "adversarial_tokens": attempt.tokens,
            "adversarial_seed": own if attempt.seed is None else attempt.seed,
            **({} if learned is None else {"adversarial_embedding": learned.float().tolist()}),
        }

    def _costs(self, row: int) -> dict[str, Any]:
        return {
            "images": self.drawn[row],
            "distinct": len(self.pictures[row]),
            "blocked": self.refused[row],
            **dict(zip(PASSES, self.victim.passes[row].tolist(), strict=True)),
            "seconds": time.perf_counter() - self.started,
        }

    def _save(self) -> None:
        """The round's own file first; without the state that names its round it does not count."""
        if self.folder is None:
            return
        victim = self.victim
        if left := {row: self.results[row] for row in self.results.keys() - self.saved - set(victim.open)}:
            write(left, self.folder / LEFT.format(victim.round))
            self.saved |= left.keys()
        state = {
            "round": victim.round,
            "open": victim.open,
            "memory": victim.memory,
            "shared": victim.shared,
            "passes": victim.passes.tolist(),
            "results": {row: self.results[row] for row in victim.open},
            "refused": self.refused,
            "drawn": self.drawn,
            "tries": {row: self.tries[row] for row in victim.open},
            "pictures": {row: self.pictures[row] for row in victim.open},
            "seconds": time.perf_counter() - self.started,
        }
        write(state, self.folder / STATE)

    def resume(self) -> bool:
        """Go on from the saved round, if there is one; seconds are counted on, those between the processes not."""
        if self.folder is None or not (self.folder / STATE).exists():
            return False
        try:
            state = self._read(STATE)
            results = dict(state["results"])
            for name in map(LEFT.format, range(state["round"] + 1)):
                if (self.folder / name).exists():
                    left = self._read(name)
                    results |= {row: result for row, result in left.items() if row not in state["open"]}
            if len(results) < len(self.victim.prompts):
                raise EOFError("a round's results are missing")
        except torch.OutOfMemoryError:
            raise
        except (EOFError, OSError, RuntimeError, pickle.UnpicklingError):  # as after a power cut
            print(f"{self.folder}: is damaged; the attack begins anew", file=sys.stderr)
            shutil.rmtree(self.folder)
            return False
        victim = self.victim
        victim.round, victim.open, victim.memory, victim.shared = (
            state[name] for name in ("round", "open", "memory", "shared")
        )
        victim.passes[:] = state["passes"]
        self.results, self.refused, self.drawn = results, state["refused"], state["drawn"]
        for row in victim.open:
            self.tries[row], self.pictures[row] = state["tries"][row], state["pictures"][row]
        self.saved = self.results.keys() - set(victim.open)
        self.started -= state["seconds"]
        return True

    def _read(self, name: str) -> dict[Any, Any]:
        assert self.folder
        return torch.load(self.folder / name, map_location=self.victim.device, weights_only=True)


def write(content: dict[Any, Any], path: Path) -> None:
    """Whole or not at all."""
    with replacing(path) as unfinished:
        torch.save(content, unfinished)
