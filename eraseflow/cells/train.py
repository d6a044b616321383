"""Train one erasure."""

import json
import time
from pathlib import Path

import pandas as pd

from eraseflow.cells import DEVICE, PRECISION, module, setting
from eraseflow.params import Params


def train(params: Params, concept: str, method: str, out: Path) -> None:
    """Make the edit: `out`/edit, and beside it training.csv (a row a step) and costs.json."""
    entry, testbed, world = setting(params, concept)
    settings = params.settings("methods", method, entry.testbed, entry.kind)
    pipeline = world.load_pipeline(testbed.model, DEVICE)
    started = time.perf_counter()
    edit = module("methods", method).erase(pipeline, entry, settings, params.table.seed)
    seconds = time.perf_counter() - started
    edit.save(out / "edit")
    history = pd.DataFrame(edit.history, columns=None if edit.history else ["step", "loss", "seconds"])
    history.to_csv(out / "training.csv", index=False, float_format="%.6g")
    costs = {
        "train_seconds": round(seconds, 2),
        "optimiser_steps": len(history),
        "device": DEVICE,
        "precision": PRECISION,
    }
    (out / "costs.json").write_text(json.dumps(costs, indent=1) + "\n")
