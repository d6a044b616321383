"""Judge and score one cell's pictures."""

import json
from pathlib import Path

import pandas as pd
from torch import Tensor

from eraseflow import images, verdict
from eraseflow.cells import DEVICE, flags, module, setting
from eraseflow.cells.reference import Reference
from eraseflow.metrics.frechet import frechet, kernel
from eraseflow.params import Concept, Params
from eraseflow.shards import write_parquet


def score(params: Params, concept: str, samples: Path, reference: Path, judged: Path, scores: Path) -> None:
    """Raw scores of all judges per picture into a parquet, the numbers and the judges' summaries into a JSON.

    Fréchet distance, kernel distance and CLIP-type scores are of the kept prompts' pictures; the two distances are to
    the features of real pictures in `reference`, those that the testbed compares with.
    """
    entry, testbed, world = setting(params, concept)
    table = pd.read_parquet(samples)
    target, kept = (table[table.role == role].reset_index(drop=True) for role in ("target", "kept"))
    asked, drawn = images.from_png(target.png), images.from_png(kept.png)

    target_raw, summary = judge(entry, asked)
    columns, flag = ["prompt_id", "role"], flags.load(testbed, entry)
    seen, right = verdict.seen(target_raw, verdict.rule(entry.judge)), None
    parts = [target[columns].assign(right=seen).join(target_raw), kept[columns].assign(right=right)]
    if testbed.kept_judge:
        kept_raw = module("judges", testbed.kept_judge).load(DEVICE, entry)(drawn)
        right = verdict.right(kept_raw, kept.expect)
        parts[1] = kept[columns].assign(right=right).join(kept_raw)
    parts = [part.join(flag(pictures)) for part, pictures in zip(parts, (asked, drawn), strict=True)]

    network = module("metrics", testbed.features).load(DEVICE)
    real = Reference.load(reference, network.name)
    features, others = network.of_images(drawn), real.features[world.compared(real.names, kept.expect)]
    clips, cut = similarities(testbed.clip, drawn, list(kept.prompt))
    numbers = {
        "target_n": len(target),
        "target_seen": int(seen.sum()),
        "kept_n": len(kept),
        "kept_right": None if right is None else int(right.sum()),
        "kept_accuracy": None if right is None else round(float(right.mean()), 6),
        "fd": round(frechet(features, others), 6),
        "fd_name": f"FD {network.name}",
        "fd_n": len(features),
        "fd_reference_n": len(others),
        "kid": round(kernel(features, others, params.table.seed), 6),
        "kid_name": f"KID {network.name}",
        "clip_score": next(iter(clips.values())),
        "clip_name": next(iter(clips)),
        "clip_n": len(kept),
        "clip_scores": clips,
        "clip_cut": cut,
        "summary": summary,
    }
    write_parquet(pd.concat(parts, ignore_index=True), judged)
    scores.write_text(json.dumps(numbers, indent=1) + "\n")


def similarities(networks: list[str], pictures: Tensor, prompts: list[str]) -> tuple[dict[str, float], dict[str, int]]:
    """By the score's name: the mean score of each image-text network, and how many prompts were cut to its length."""
    scores, cut = {}, {}
    for name in networks:
        metric = module("metrics", name)
        network = metric.load(DEVICE)
        title = f"CLIP score {network.name}"
        scores[title] = round(metric.similarity(network, pictures, prompts).mean().item(), 4)
        cut[title] = network.truncated(prompts)
    return scores, cut


def judge(concept: Concept, pictures: Tensor) -> tuple[pd.DataFrame, dict[str, float]]:
    """Raw scores of target pictures by the concept's judge and by all of `scored_by`, and what those judges sum up."""
    raw: list[pd.DataFrame] = []
    summary: dict[str, float] = {}
    for name in (concept.judge.name, *concept.scored_by):
        judging = module("judges", name)
        raw.append(judging.load(DEVICE, concept)(pictures))
        if hasattr(judging, "summary"):
            summary |= {title: round(value, 4) for title, value in judging.summary(raw[-1], concept).items()}
    return pd.concat(raw, axis=1), summary
