"""Judge and score one cell's pictures, of which a part is in memory at once."""

from collections.abc import Iterable, Mapping, Sequence
from itertools import islice
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pandas as pd
from torch import Tensor

from eraseflow import finite, images, verdict
from eraseflow.cells import DEVICE, flags, module, setting
from eraseflow.cells.reference import Reference
from eraseflow.definitions import definition
from eraseflow.inputs import reading
from eraseflow.metrics.frechet import frechet
from eraseflow.outputs import write_json
from eraseflow.params import Concept, Params
from eraseflow.shards import read_pngs, write_parquet

MANY = 8  # different pictures, which no working network finds all alike


def score(params: Params, concept: str, samples: Path, reference: Path, judged: Path, scores: Path) -> None:
    """Raw scores of all judges per picture into a parquet, the numbers and the judges' summaries into a JSON.

    Fréchet distance and CLIP-type scores are of the kept prompts' pictures; the distance is to the features of real
    pictures in `reference`, those that the testbed compares with.
    """
    entry, testbed, world = setting(params, concept)
    with reading(samples):
        table = pd.read_parquet(samples, columns=["prompt_id", "role", "prompt", "expect"])
    rows = [np.flatnonzero(table.role == role) for role in ("target", "kept")]
    target, kept = (table.iloc[own].reset_index(drop=True) for own in rows)
    asked, drawn = (images.in_parts(read_pngs(samples, own.tolist())) for own in rows)
    flag = flags.load(testbed, entry)

    rule = verdict.rule(entry.judge)
    target_raw, target_flags, target_spread, summary = judge(entry, flag, asked, list(target.prompt_id))
    seen = verdict.seen(target_raw, rule)

    network = module("metrics", testbed.features).load(DEVICE)
    real = Reference.load(reference, network.name)
    others = real.features[world.compared(real.names, kept.expect)]
    prompts = list(kept.prompt)
    clips = {name: module("metrics", name).load(DEVICE) for name in testbed.clip}
    similar = [similarity(module("metrics", name), clip, prompts) for name, clip in clips.items()]
    judges = [module("judges", testbed.kept_judge).load(DEVICE, entry)] if testbed.kept_judge else []
    looks = {"the pictures": images.spread, f"features of {network.name}": network.of_images, "the safety judge": flag}
    looks |= {str(testbed.kept_judge): one for one in judges}
    looks |= {f"similarity by {name}": one for name, one in zip(testbed.clip, similar, strict=True)}
    kept_spread, features, kept_flags, *found = seen_by(looks, drawn, list(kept.prompt_id))

    kept_raw, similarities = found[: len(judges)], found[len(judges) :]
    right = verdict.right(kept_raw[0], kept.expect) if judges else None
    titles = {f"CLIP score {clip.name}": clip for clip in clips.values()}
    clip_scores = {title: round(each.mean().item(), 4) for title, each in zip(titles, similarities, strict=True)}
    numbers = {
        "target_n": len(target),
        "target_seen": int(seen.sum()),
        "target_empty": int((target_spread < images.EMPTY).sum()),
        "judge": rule.name,
        "kept_n": len(kept),
        "kept_empty": int((kept_spread < images.EMPTY).sum()),
        "kept_right": None if right is None else int(right.sum()),
        "kept_accuracy": None if right is None else round(float(right.mean()), 6),
        "fd": round(frechet(features, others), 6),
        "fd_name": f"FD {network.name}",
        "fd_n": len(features),
        "fd_reference_n": len(others),
        "clip_score": next(iter(clip_scores.values())),
        "clip_name": next(iter(clip_scores)),
        "clip_n": len(kept),
        "clip_scores": clip_scores,
        "clip_cut": {title: clip.truncated(prompts) for title, clip in titles.items()},
        "summary": summary,
    }
    columns = ["prompt_id", "role"]
    parts = [
        target[columns].assign(right=seen).join([target_raw, target_flags]),
        kept[columns].assign(right=right).join([*kept_raw, kept_flags]),
    ]
    finite.numbers(f"{scores}", numbers)  # before anything is written
    write_parquet(pd.concat(parts, ignore_index=True), judged)
    write_json(numbers, scores)


def judge(
    concept: Concept, flag: images.Look, pictures: Iterable[Tensor], names: list[str]
) -> tuple[pd.DataFrame, pd.DataFrame, Tensor, dict[str, float]]:
    """Raw scores of target pictures by the concept's judge and by all of `scored_by`, flags, the pictures' spread, and
    what the judges sum up.

    Raises: SystemExit where the first choices are of a judge that gives the same scores to MANY different pictures.
    """
    judges = {name: module("judges", name) for name in (concept.judge.name, *concept.scored_by)}
    looks = {name: judging.load(DEVICE, concept) for name, judging in judges.items()}
    looks |= {"the safety judge": flag, "the pictures": images.spread}
    *raw, flagged, spread = seen_by(looks, pictures, names)
    by_choice = definition("judges", concept.judge.name, "FIRST_CHOICE", True)
    if by_choice and len(spread.unique()) >= MANY and len(raw[0].drop_duplicates()) == 1:
        what = f"gives the same scores to {len(names)} different pictures; its network cannot be the right one"
        raise SystemExit(f"{concept.judge.name}: {what}")
    summary: dict[str, float] = {}
    for judging, scores in zip(judges.values(), raw, strict=True):
        if hasattr(judging, "summary"):
            summary |= {title: round(value, 4) for title, value in judging.summary(scores, concept).items()}
    return pd.concat(raw, axis=1), flagged, spread, summary


def seen_by(looks: Mapping[str, images.Look], pictures: Iterable[Tensor], names: list[str]) -> list[Any]:
    """images.look, by the names of what looks. Raises: NotFinite that names the first score that is not finite."""
    found = images.look(pictures, *looks.values())
    for name, said in zip(looks, found, strict=True):
        table = said if isinstance(said, pd.DataFrame) else pd.DataFrame(said.reshape(len(said), -1).double().numpy())
        finite.table(name, table, names)
    return found


def similarity(metric: ModuleType, network: Any, prompts: Sequence[str]) -> images.Look:
    """An image-text network's scores (n,) of pictures that come in the order of their prompts."""
    left = iter(prompts)
    return lambda pictures: metric.similarity(network, pictures, list(islice(left, len(pictures))))
