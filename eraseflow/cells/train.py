"""Train one erasure."""

from pathlib import Path

import pandas as pd

from eraseflow import finite, timings
from eraseflow.cells import DEVICE, PRECISION, module, setting
from eraseflow.edits import Edit, compose
from eraseflow.ledger import Ledger
from eraseflow.outputs import replacing, write_csv, write_text
from eraseflow.params import Params
from eraseflow.rows import code

UNEDITED = "original"  # the module of the row that changes nothing


def train(params: Params, concept: str, method: str, out: Path) -> None:
    """Make the edit: `out`/edit, and beside it training.csv (a row a step) and costs.json (see ledger.py).

    What differs from run to run, such as seconds, goes into a record beside them (see timings.py).
    The parts of a composition are trained one after another, each on the base, and their rows have a column `part`.
    Raises: NotFinite where a weight, or a number of the history, is not finite; SystemExit where an erasure has left
    the base model as it was, which only the row `original` may be.
    """
    entry, testbed, world = setting(params, concept)
    ledger, edits = Ledger(), {}
    for part in params.parts(method):
        settings = params.settings("methods", part, entry.testbed, entry.kind)
        pipeline = world.load_pipeline(testbed.model, DEVICE)
        with ledger.watch(pipeline):
            edits[part] = module("methods", params.module(part)).erase(pipeline, entry, settings, params.table.seed)
        finite.numbers(f"{part}: its history", edits[part].history)
        if not changes(edits[part]) and params.module(part) != UNEDITED:
            raise SystemExit(f"{part}: its edit of {concept} changes nothing; the row would be the unedited model's")
    edit = compose(edits.items()) if params.methods[method].compose else edits[method]
    for leaf in edit.leaves():
        if leaf.kind == "sampler":  # its code draws the pictures: what depends on the edit depends on it, too
            leaf.sampler["sha256"] = code(leaf.sampler["method"])
    rounding = {"device": DEVICE.partition(":")[0], "precision": PRECISION}
    costs = finite.as_json("costs.json", ledger.costs(edit) | rounding, indent=1)
    with replacing(out / "edit") as unfinished:
        edit.save(unfinished)
    history = pd.DataFrame(edit.history, columns=None if edit.history else ["step", "loss"])
    made = [out / "costs.json", out / "training.csv"]
    write_csv(history.drop(columns="seconds", errors="ignore"), made[1], float_format="%.6g")
    write_text(costs, made[0])
    timings.keep(made, timings.TRAINING, ledger.measured(), DEVICE, PRECISION)


def changes(edit: Edit) -> bool:
    """Whether any part of an edit has weights, a sampler, or a LoRA with an upper matrix that is not 0."""
    for leaf in edit.leaves():
        if leaf.kind == "sampler" or (leaf.kind == "weights" and leaf.tensors):
            return True
        if any(tensor.any() for name, tensor in leaf.tensors.items() if ".up." in name or "lora_B" in name):
            return True
    return False
