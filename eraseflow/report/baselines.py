"""Whether an attack finds more than luck does: its successes against the baselines' at as many distinct pictures.

And beside that at as many U-Net passes, for a gradient costs passes that a baseline spends on further pictures. A text
that an attack tries again with the same seed is the same picture: it is judged once more and finds nothing, so that
repeats do not count.
"""

import math

import pandas as pd

from eraseflow.metrics.rates import mcnemar_exact
from eraseflow.passes import PASSES
from eraseflow.report import collapsed
from eraseflow.report.cells import Cell, same_prompts

BASELINES = ("random_prefix", "other_seeds")  # attacks that do not look at the model: luck with words, with noise
LEVEL = 0.05


def columns(baseline: str) -> tuple[str, str, str, str, str]:
    """The comparison table's columns: the attack's successes, the baseline's, p, and both at equal passes."""
    ends = ("successes", "baseline", "p", "at_equal_passes", "baseline_at_equal_passes")
    first, second, third, fourth, fifth = (f"vs_{baseline}_{end}" for end in ends)
    return first, second, third, fourth, fifth


def against(cell: Cell, attack: str, attacks: list[str]) -> dict[str, float]:
    """The `columns` of every baseline; NaN for a baseline itself, and where the baseline is not among the attacks.

    Each prompt is compared within as many distinct pictures as both had for it, the un-attacked one included; what
    succeeded would have had as many as any. p is of McNemar's exact test, two-sided. At equal passes: within as many
    U-Net passes a prompt, forward and backward, as the cheaper of the two had.
    Raises: CellError where a file is missing or both have other prompts.
    """
    values: dict[str, float] = {}
    for baseline in BASELINES:
        numbers = [float("nan")] * 5
        if attack not in BASELINES and baseline in attacks:
            ours, theirs = (cell.attack(name, ("distinct", *PASSES[:2])) for name in (attack, baseline))
            theirs = same_prompts(ours, theirs, f"{cell.folder}/attack-{baseline}.parquet")
            won, luck = (
                rows["success"] & (rows["distinct"] <= _allowed(others))
                for rows, others in ((ours, theirs), (theirs, ours))
            )
            passes = min(_budget(rows[PASSES[:2]].sum(axis=1), rows["success"]) for rows in (ours, theirs))
            cheap = [(rows["success"] & (rows[PASSES[:2]].sum(axis=1) <= passes)).sum() for rows in (ours, theirs)]
            numbers = [float(won.sum()), float(luck.sum()), mcnemar_exact(won, luck), *map(float, cheap)]
        values |= dict(zip(columns(baseline), numbers, strict=True))
    return values


def _allowed(rows: pd.DataFrame) -> pd.Series:
    """The distinct pictures that an attack had for each prompt; where it succeeded, the most it had for any."""
    return rows["distinct"].where(~rows["success"], _budget(rows["distinct"], rows["success"]))


def _budget(costs: pd.Series, success: pd.Series) -> float:
    """What an attack had for a prompt; no limit shows where it never needed all."""
    return math.inf if success.all() else float(costs.max())


def compared(frame: pd.DataFrame) -> list[str]:
    """The baselines with which attacks of the comparison table are compared."""
    return [baseline for baseline in BASELINES if frame[columns(baseline)[2]].notna().any()]


def verdict(row: dict, baseline: str) -> str:
    """Beats the baseline (more successes and p below 0.05), does not beat it, or cannot: it has all prompts already."""
    ours, theirs, p, *_ = (row[name] for name in columns(baseline))
    if theirs == row["n_prompts"]:
        return "cannot"
    return "beats" if ours > theirs and p < LEVEL else "does not beat"


def sentences(rows: pd.DataFrame) -> list[str]:
    """What one concept's rows of the comparison table say: a sentence an attack and baseline, failures first."""
    said = []
    for baseline in compared(rows):
        for attack, of in rows.dropna(subset=columns(baseline)[2]).groupby("attack", sort=False):
            groups: dict[str, list[dict]] = {"does not beat": [], "beats": [], "cannot": []}
            for row in of.to_dict("records"):
                groups[verdict(row, baseline)].append(row)
            parts = [
                f"{what} it on {', '.join(_counts(row, baseline) for row in groups[what])}"
                for what in ("does not beat", "beats")
                if groups[what]
            ]
            if full := ", ".join(collapsed.name(row) for row in groups["cannot"]):
                parts.append(f"cannot beat it on {full}, where the baseline succeeds on every prompt")
            said.append((not groups["does not beat"], f"{attack} against {baseline}: {'; '.join(parts)}."))
    return [text for _, text in sorted(said, key=lambda one: one[0])]


def _counts(row: dict, baseline: str) -> str:
    ours, theirs, p, cheap, luck = (row[name] for name in columns(baseline))
    counts = f"{ours:.0f} : {theirs:.0f} of {row['n_prompts']}, p {p_value(p)}"
    return f"{collapsed.name(row)} ({counts}; {cheap:.0f} : {luck:.0f} at equal passes)"


def p_value(p: float) -> str:
    """Such as `0.031` or `< 0.001`."""
    return f"{p:.3f}" if p >= 0.001 else "< 0.001"
