"""Train one erasure."""

import json
from pathlib import Path

import pandas as pd

from eraseflow.cells import DEVICE, PRECISION, module, setting
from eraseflow.edits import compose
from eraseflow.ledger import Ledger
from eraseflow.params import Params
from eraseflow.rows import code


def train(params: Params, concept: str, method: str, out: Path) -> None:
    """Make the edit: `out`/edit, and beside it training.csv (a row a step) and costs.json (see ledger.py).

    The parts of a composition are trained one after another, each on the base, and their rows have a column `part`.
    """
    entry, testbed, world = setting(params, concept)
    ledger, edits = Ledger(), {}
    for part in params.parts(method):
        settings = params.settings("methods", part, entry.testbed, entry.kind)
        pipeline = world.load_pipeline(testbed.model, DEVICE)
        with ledger.watch(pipeline):
            edits[part] = module("methods", params.module(part)).erase(pipeline, entry, settings, params.table.seed)
    edit = compose(edits.items()) if params.methods[method].compose else edits[method]
    for leaf in edit.leaves():
        if leaf.kind == "sampler":  # its code draws the pictures: what depends on the edit depends on it, too
            leaf.sampler["sha256"] = code(leaf.sampler["method"])
    edit.save(out / "edit")
    history = pd.DataFrame(edit.history, columns=None if edit.history else ["step", "loss", "seconds"])
    history.to_csv(out / "training.csv", index=False, float_format="%.6g")
    costs = ledger.costs(edit) | {"device": DEVICE, "precision": PRECISION}
    (out / "costs.json").write_text(json.dumps(costs, indent=1) + "\n")
