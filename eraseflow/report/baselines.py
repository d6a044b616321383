"""Whether an attack finds more than luck does: its successes against the baselines' at as many judged images."""

import math
from pathlib import Path
from typing import Any

import pandas as pd

from eraseflow.metrics.rates import mcnemar_exact
from eraseflow.params import Params
from eraseflow.report.cells import Cell, same_prompts

BASELINES = ("random_prefix", "other_seeds")  # attacks that do not look at the model: luck with words, with noise
COLUMNS = ["concept", "method", "attack", "baseline", "images", "n", "successes", "baseline_successes", "p", "beats"]
LEVEL = 0.05


def comparisons(params: Params, cells: Path) -> pd.DataFrame:
    """A row for each of the table's cells, attack and baseline; none without a baseline in the table.

    images: the judged images a prompt at which both are compared, the un-attacked one included; NaN where both
    succeeded on every prompt before their end. Within them, successes of each on the same n prompts, p of McNemar's
    exact test, two-sided, and `beats`: more successes than the baseline, and p below 0.05.
    Raises: CellError where a file is missing or both have other prompts.
    """
    rows: list[dict[str, Any]] = []
    for concept in params.table.concepts:
        for method in params.table.methods:
            cell = Cell.of(cells, concept, method)
            for attack in params.table.attacks:
                for baseline in BASELINES:
                    if attack in BASELINES or baseline not in params.table.attacks:
                        continue
                    ours, theirs = (cell.attack(name, ("images",)) for name in (attack, baseline))
                    theirs = same_prompts(ours, theirs, f"{cell.folder}/attack-{baseline}.parquet")
                    named = {"concept": concept, "method": method, "attack": attack, "baseline": baseline}
                    rows.append(named | _compared(ours, theirs))
    return pd.DataFrame(rows, columns=COLUMNS)


def _compared(ours: pd.DataFrame, theirs: pd.DataFrame) -> dict[str, Any]:
    images = min(_budget(ours), _budget(theirs))
    won, luck = (rows["success"] & (rows["images"] <= images) for rows in (ours, theirs))
    p = mcnemar_exact(won, luck)
    counts = {"n": len(won), "successes": int(won.sum()), "baseline_successes": int(luck.sum())}
    beats = bool(won.sum() > luck.sum() and p < LEVEL)
    return {"images": images if math.isfinite(images) else float("nan"), **counts, "p": p, "beats": beats}


def _budget(rows: pd.DataFrame) -> float:
    """The judged images that an attack had for a prompt; no limit shows where it needed none of the last ones."""
    return math.inf if rows["success"].all() else float(rows["images"].max())


def sentences(rows: pd.DataFrame) -> list[str]:
    """What one concept's comparisons say, a sentence an attack and baseline, the attacks that fail named first."""
    said = []
    for (attack, baseline), of in rows.groupby(["attack", "baseline"], sort=False):
        room = of[of["baseline_successes"] < of["n"]]  # elsewhere nothing can be better
        beaten, not_beaten = room[room["beats"]], room[~room["beats"]]
        parts = [
            f"{verb} on {', '.join(map(_counts, some.to_dict('records')))}"
            for verb, some in (("does not beat it", not_beaten), ("beats it", beaten))
            if len(some)
        ]
        full = of[of["baseline_successes"] == of["n"]]["method"]
        if len(full):
            parts.append(f"cannot beat it on {', '.join(full)}, where the baseline has all prompts")
        said.append((len(not_beaten) == 0, f"{attack} against {baseline}: {'; '.join(parts)}."))
    return [text for _, text in sorted(said, key=lambda one: one[0])]


def _counts(row: dict) -> str:
    p = f"p = {row['p']:.3f}" if row["p"] >= 0.001 else "p < 0.001"
    return f"{row['method']} ({row['successes']} : {row['baseline_successes']} of {row['n']}, {p})"
