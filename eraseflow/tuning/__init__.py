"""`make tune`: the same number of trials for every method and every attack, on the validation concepts alone.

The settings of a trial are a point of the search space that params.yaml's `tuning` names (see space.py); everything
else of a row's block stays. Its value, on each validation concept:

a method's: the harmonic mean of what is erased (the share of target prompts that do not show the concept, un-attacked)
and what is kept (kept prompts drawn right over the unedited model's, at most 1), for each seed of training;
an attack's: of the prompts that the edits of `edits` withstand un-attacked, all of a concept together, the share that
succeeds within `pictures` distinct pictures. They are trained on the validation concepts, by methods of neither the
default nor the claims table, so that no attack is fitted to what it is going to be compared on.

A trial whose numbers stop being finite, as with a learning rate that diverges, has the value 0. The best of many is
partly the luckiest: what it is worth, other concepts say.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd

from eraseflow.outputs import replacing, write_csv
from eraseflow.params import Params, Tuning
from eraseflow.tuning import trials
from eraseflow.tuning.space import OBJECTIVES, points, table

KEY = ["family", "name", "kind"]


def tune(params: Params, tuning: Tuning, out: Path) -> None:
    """Write trials.csv, space.csv and chosen.csv into the folder `out`; what was in it stays until all is done."""
    done = pd.DataFrame([*of_methods(params, tuning), *of_attacks(params, tuning)])
    with replacing(out) as unfinished:
        unfinished.mkdir()
        for name, rows in {"trials": done, "space": table(tuning), "chosen": chosen(done)}.items():
            write_csv(rows, unfinished / f"{name}.csv", float_format="%.6g")


def of_methods(params: Params, tuning: Tuning) -> Iterator[dict[str, Any]]:
    """A row for each method, trial, validation concept and seed of training."""
    for name, space in tuning.methods.items():
        for trial, change in enumerate(points(space, f"methods/{name}", tuning.trials)):
            for kind, concept in tuning.concepts.items():
                for seed in tuning.seeds:
                    found = trials.of_method(params, tuning, concept, name, change, seed)
                    value = harmonic(1 - found["seen"], min(found["kept"] / (found["kept_unedited"] or 1.0), 1.0))
                    yield (
                        _row("methods", name, kind, concept, trial, change) | {"seed": seed} | found | {"value": value}
                    )


def of_attacks(params: Params, tuning: Tuning) -> Iterator[dict[str, Any]]:
    """A row for each attack, trial, validation concept and edit; no value where the edit withstands nothing."""
    for name, space in tuning.attacks.items():
        for trial, change in enumerate(points(space, f"attacks/{name}", tuning.trials)):
            for kind, concept in tuning.concepts.items():
                for edit in tuning.edits:
                    found = trials.of_attack(params, tuning, concept, name, change, edit)
                    value = found["successes"] / found["attacked"] if found["attacked"] else float("nan")
                    row = _row("attacks", name, kind, concept, trial, change) | {"seed": tuning.seeds[0], "edit": edit}
                    yield row | found | {"value": value}


def _row(family: str, name: str, kind: str, concept: str, trial: int, change: dict[str, Any]) -> dict[str, Any]:
    where = {"family": family, "name": name, "kind": kind, "concept": concept}
    return where | {"trial": trial, "settings": json.dumps(change)}


def harmonic(erased: float, kept: float) -> float:
    """Of two shares; 0 where one of them is."""
    return 2 * erased * kept / (erased + kept) if erased and kept else 0.0


def chosen(done: pd.DataFrame) -> pd.DataFrame:
    """The trial with the highest mean value of each method or attack and kind, and over all kinds ("all").

    Of equals the first. An attack's trial on an edit that withstands nothing has no value and does not count.
    """
    every = pd.concat([done, done.assign(kind="all")])
    # An edit counts by the prompts that it leaves to attack.
    weight = every.get("attacked", pd.Series(1, every.index)).where(every["family"] == "attacks", 1)
    every = every.assign(weighed=every["value"] * weight, weight=weight.where(every["value"].notna(), 0))
    sums = every.groupby([*KEY, "trial", "settings"], sort=False)[["weighed", "weight"]].sum()
    means = (sums["weighed"] / sums["weight"]).rename("value").reset_index()
    best = means.fillna({"value": 0.0}).groupby(KEY, sort=False)["value"].idxmax()
    return means.loc[best].sort_values(KEY[:2], kind="stable").assign(trials=done["trial"].max() + 1)


__all__ = ["OBJECTIVES", "tune"]
