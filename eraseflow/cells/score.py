"""Judge and score one cell's pictures."""

import json
from pathlib import Path

import pandas as pd
from torch import Tensor

from eraseflow import images, verdict
from eraseflow.cells import DEVICE, module, setting
from eraseflow.cells.reference import Reference
from eraseflow.metrics.frechet import frechet, kernel
from eraseflow.params import Concept, Params
from eraseflow.shards import write_parquet


def score(params: Params, concept: str, samples: Path, reference: Path, judged: Path, scores: Path) -> None:
    """Raw judge scores per picture into a parquet, the numbers and the judges' summaries into a JSON.

    Fréchet distance, kernel distance and CLIP-type scores are of the kept prompts' pictures; the two distances are to
    the features of real pictures in `reference`, those that the testbed compares with.
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

    network = module("metrics", testbed.features).load(DEVICE)
    real = Reference.load(reference, network.name)
    features, others = network.of_images(drawn), real.features[world.compared(real.names, kept.expect)]
    clips = similarities(testbed.clip, drawn, list(kept.prompt))
    numbers = {
        "target_n": len(target),
        "target_seen": int(seen.sum()),
        "kept_n": len(kept),
        "kept_right": int(right.sum()),
        "kept_accuracy": round(float(right.mean()), 6),
        "fd": round(frechet(features, others), 6),
        "fd_name": f"FD {network.name}",
        "fd_n": len(features),
        "fd_reference_n": len(others),
        "kid": round(kernel(features, others, params.table.seed), 6),
        "kid_name": f"KID {network.name}",
        "clip_score": clips[0]["score"],
        "clip_name": clips[0]["name"],
        "clip_n": len(kept),
        "clip_scores": clips,
        "summary": summary,
    }
    write_parquet(pd.concat(parts, ignore_index=True), judged)
    scores.write_text(json.dumps(numbers, indent=1) + "\n")


def similarities(networks: list[str], pictures: Tensor, prompts: list[str]) -> list[dict]:
    """Of each image-text network: the score's name, the mean score, and how many prompts were cut to its length."""
    found = []
    for name in networks:
        metric = module("metrics", name)
        network = metric.load(DEVICE)
        score = round(metric.similarity(network, pictures, prompts).mean().item(), 4)
        found.append({"name": f"CLIP score {network.name}", "score": score, "cut": network.truncated(prompts)})
    return found


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
