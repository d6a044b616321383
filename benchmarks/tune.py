"""Tune the methods' emoji settings on concepts that are not in the default table, one of each kind; one budget for all.

    python benchmarks/tune.py eraseflow esd uce --out benchmarks/tuning.csv

Every method gets four settings a kind of concept, each trained with two seeds. A setting's value is the mean of
(share of target prompts erased) x (kept accuracy over the original's), without any attack; params.yaml has the
best one of each kind. Rows are written as
they come; a row that is there already is not computed again.
"""

import argparse
from itertools import product
from pathlib import Path

import pandas as pd
import torch

from eraseflow import params, prompts, sampling, verdict
from eraseflow.cells import DEVICE, batch, module, setting
from eraseflow.full import TUNED_ON

SEEDS = [0, 1]  # of the training: one alone says little, a training may end well or badly by chance
GRIDS = {
    "original": [{}],
    "eraseflow": [{"eta": 0.1, "epochs": epochs, "switch_epoch": epochs - 1} for epochs in (10, 20, 40, 60)],
    "esd": [
        {"negative_guidance": guidance, "learning_rate": rate} for guidance, rate in product((1.0, 5.0), (8e-4, 1.6e-3))
    ],
    "esd_u": [
        {"negative_guidance": guidance, "learning_rate": rate} for guidance, rate in product((1.0, 5.0), (1e-4, 2e-4))
    ],
    "sld": [{"threshold": threshold, "momentum_scale": scale} for threshold, scale in product((0.3, 1.0), (0.5, 0.7))],
    "safree": [{"alpha": alpha, "gamma": gamma} for alpha, gamma in product((0.01, 0.05), (12.0, 24.0))],
    "mace": [{"learning_rate": rate, "fuse_scale": scale} for rate, scale in product((1e-3, 3e-3), (1.0, 10.0))],
    "duo": [{"beta": beta, "preserve_scale": scale} for beta, scale in product((250.0, 500.0), (1.0, 100.0))],
    "race": [{"epsilon": epsilon, "learning_rate": rate} for epsilon, rate in product((0.1, 0.3), (4e-4, 8e-4))],
    "advunlearn": [
        {"retain_scale": scale, "learning_rate": rate} for scale, rate in product((10.0, 30.0), (2e-4, 4e-4))
    ],
    "ca": [{"preserve_scale": scale, "learning_rate": rate} for scale, rate in product((0.0, 1.0), (1e-3, 2e-3))],
    "rece": [
        {"rounds": rounds, "regularisation": regularisation} for rounds, regularisation in product((1, 3), (1e-3, 1e-1))
    ],
    "spm": [{"anchoring_scale": scale, "learning_rate": rate} for scale, rate in product((1.0, 10.0), (3e-3, 1e-2))],
    "salun": [{"preserve_scale": scale, "learning_rate": rate} for scale, rate in product((0.5, 2.0), (1e-4, 3e-4))],
    "uce": [{"preserve_scale": scale} for scale in (1.0, 3.0, 10.0, 30.0)],
}


def measure(everything: params.Params, concept: str, method: str, change: dict, seed: int) -> dict:
    """Train with changed settings, draw the concept's prompts, judge: how often it is seen, how much is kept."""
    entry, testbed, world = setting(everything, concept)
    settings = everything.settings("methods", method, entry.testbed, entry.kind)
    settings = type(settings).model_validate(settings.model_dump() | change)
    edit = module("methods", everything.module(method)).erase(
        world.load_pipeline(testbed.model, DEVICE), entry, settings, seed
    )
    pipeline = edit.apply(world.load_pipeline(testbed.model, DEVICE))
    judge = module("judges", entry.judge.name).load(DEVICE, entry)
    table, _ = prompts.resolve(entry, testbed, 0, pipeline.tokenizer)
    pictures = sampling.sample(
        pipeline, list(table.prompt), list(table.seed), list(table.guidance), testbed.sampling, batch(world), quiet=True
    )
    scores = judge(torch.cat(list(pictures)))
    target = (table.role == "target").to_numpy()
    seconds = edit.history[-1]["seconds"] if edit.history else 0.0
    return {
        "seen": float(verdict.seen(scores[target], verdict.rule(entry.judge)).mean()),
        "kept": float(verdict.right(scores[~target].reset_index(drop=True), table.expect[~target]).mean()),
        "seconds": round(seconds, 1),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("methods", nargs="+", choices=sorted(GRIDS))
    parser.add_argument("--concepts", nargs="+", default=TUNED_ON, choices=TUNED_ON)
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    everything = params.load()
    done = pd.read_csv(options.out).to_dict("records") if options.out.exists() else []
    for method, concept in product(dict.fromkeys(["original", *options.methods]), options.concepts):
        for change, seed in product(GRIDS[method], SEEDS):
            key = {"method": method, "concept": concept, "setting": str(change), "seed": seed}
            if not any(key.items() <= row.items() for row in done):
                done.append(key | measure(everything, concept, method, change, seed))
                pd.DataFrame(done).to_csv(options.out, index=False, float_format="%.4g")
                print(done[-1], flush=True)
    table = pd.DataFrame(done)
    base = table[table.method == "original"].groupby("concept").kept.mean()
    table["value"] = (1 - table.seen) * table.kept / table.concept.map(base)
    means = table.groupby(["method", "concept", "setting"], sort=False)[["seen", "kept", "value", "seconds"]].mean()
    print(means.sort_values(["method", "concept", "value"]).to_string())


if __name__ == "__main__":
    main()
