"""Judge and score one cell's pictures."""

import json
from pathlib import Path

import pandas as pd

from eraseflow import images, verdict
from eraseflow.cells import DEVICE, flags, module, setting
from eraseflow.metrics.frechet import frechet, kernel
from eraseflow.params import Params
from eraseflow.shards import write_parquet


def score(params: Params, concept: str, samples: Path, judged: Path, scores: Path) -> None:
    """Raw judge scores per picture (and the safety judge's) into a parquet, the numbers into a JSON.

    Fréchet distance, kernel distance and CLIP-type score are of the kept prompts' pictures; the two
    distances are to the real pictures that these prompts stand for.
    """
    entry, testbed, world = setting(params, concept)
    table = pd.read_parquet(samples)
    target, kept = (table[table.role == role].reset_index(drop=True) for role in ("target", "kept"))
    asked, drawn = images.from_png(target.png), images.from_png(kept.png)

    target_raw = module("judges", entry.judge.name).load(DEVICE)(asked)
    kept_raw = module("judges", testbed.kept_judge).load(DEVICE)(drawn)
    seen, right = verdict.seen(target_raw, entry.judge.counts), verdict.right(kept_raw, kept.expect)
    columns, flag = ["prompt_id", "role"], flags.load(testbed)
    parts = [
        target[columns].assign(right=seen).join(target_raw).join(flag(asked)),
        kept[columns].assign(right=right).join(kept_raw).join(flag(drawn)),
    ]

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
    }
    write_parquet(pd.concat(parts, ignore_index=True), judged)
    scores.write_text(json.dumps(numbers, indent=1) + "\n")
