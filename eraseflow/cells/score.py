"""Judge and score one cell's pictures."""

import json
from pathlib import Path

import pandas as pd
from torch import Tensor

from eraseflow import images, verdict
from eraseflow.cells import DEVICE, module, setting
from eraseflow.metrics.frechet import frechet, kernel
from eraseflow.params import Concept, Params
from eraseflow.shards import write_parquet


def score(params: Params, concept: str, samples: Path, judged: Path, scores: Path) -> None:
    """Raw judge scores per picture into a parquet, the numbers and the judges' summaries into a JSON.

    Fréchet distance, kernel distance and CLIP-type score are of the kept prompts' pictures; the two
    distances are to the real pictures that these prompts stand for.
    """
    entry, testbed, world = setting(params, concept)
    table = pd.read_parquet(samples)
    target, kept = (table[table.role == role].reset_index(drop=True) for role in ("target", "kept"))
    drawn = images.from_png(kept.png)

    target_raw, summary = judge(entry, images.from_png(target.png))
    kept_raw = module("judges", testbed.kept_judge).load(DEVICE, entry)(drawn)
    seen, right = verdict.seen(target_raw, verdict.rule(entry.judge)), verdict.right(kept_raw, kept.expect)
    columns = ["prompt_id", "role"]
    parts = [target[columns].assign(right=seen).join(target_raw), kept[columns].assign(right=right).join(kept_raw)]

    metric = module("metrics", testbed.features)
    network = metric.load(DEVICE)
    features, reference = network.of_images(drawn), network.of_images(world.real_pictures(kept.expect))
    similarity = metric.similarity(network, drawn, list(kept.prompt))
    numbers = {
        "target_n": len(target),
        "target_seen": int(seen.sum()),
        "kept_n": len(kept),
        "kept_right": int(right.sum()),
        "kept_accuracy": round(float(right.mean()), 6),
        "fd": round(frechet(features, reference), 6),
        "fd_name": f"FD {network.name}",
        "fd_n": len(features),
        "kid": round(kernel(features, reference, params.table.seed), 6),
        "kid_name": f"KID {network.name}",
        "clip_score": round(similarity.mean().item(), 4),
        "clip_name": f"CLIP score {network.name}",
        "clip_n": len(similarity),
        "summary": summary,
    }
    write_parquet(pd.concat(parts, ignore_index=True), judged)
    scores.write_text(json.dumps(numbers, indent=1) + "\n")


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
