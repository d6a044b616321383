"""Whether an attack finds more than luck does: its successes against the baselines' at equal distinct judged pictures.

And beside that at as many U-Net passes, for a gradient costs passes that a baseline spends on further pictures. A text
that an attack tries again with the same seed is the same picture and finds nothing, so that repeats do not count.
"""

import math

import pandas as pd

from eraseflow.metrics.rates import paired_p
from eraseflow.report import collapsed
from eraseflow.report.pairs import LEVEL, holm

BASELINES = ("random_prefix", "other_seeds")  # attacks that do not look at the model: luck with words, with noise
PROMPT = ["concept", "method", "run", "prompt_id"]
ROOM = 0.2  # of the prompts, which luck must leave for an attack to have something to find
COUNTS = ["n", "successes", "baseline", "p", "p_holm", "at_equal_passes", "baseline_at_equal_passes", "left"]


def columns(baseline: str) -> tuple[str, ...]:
    """The comparison table's columns: the attack's successes, the baseline's, p, Holm's p, both at equal passes."""
    ends = ("successes", "baseline", "p", "p_holm", "at_equal_passes", "baseline_at_equal_passes")
    return tuple(f"vs_{baseline}_{end}" for end in ends)


def against(outcomes: pd.DataFrame) -> pd.DataFrame:
    """Each attack beside each baseline of the outcomes: columns concept, method, attack, against and COUNTS.

    outcomes: outcomes.outcomes(), of one run or several, whose prompts are counted together. successes, baseline: at
    equal distinct pictures, the un-attacked one included: a success counts unless the other one, having failed, had
    fewer than this one needed. p: rates.paired_p of these by text; p_holm: by Holm over all rows. At equal passes: both
    within as many U-Net passes a prompt, forward and backward, as the cheaper of the two had. left: the share of
    prompts on which the baseline has no success, whatever it took.
    """
    rows = []
    attacks = [name for name in outcomes.loc[outcomes["pictures"].notna(), "under"].unique()]
    for baseline in (name for name in BASELINES if name in attacks):
        theirs = outcomes[outcomes["under"] == baseline]
        for attack in (name for name in attacks if name not in BASELINES):
            ours = outcomes[outcomes["under"] == attack]
            both = ours.merge(theirs, on=PROMPT, suffixes=("", "_luck"), validate="one_to_one")
            for (concept, method), of in both.groupby(["concept", "method"], sort=False):
                names = {"concept": concept, "method": method, "attack": attack, "against": baseline}
                rows.append(names | _counts_of(of))
    frame = pd.DataFrame(rows, columns=["concept", "method", "attack", "against", *COUNTS])
    return frame.assign(p_holm=holm(frame["p"]))


def _counts_of(of: pd.DataFrame) -> dict[str, float]:
    ours, theirs = of["success"].astype(bool), of["success_luck"].astype(bool)
    won = ours & (theirs | (of["pictures"] <= of["pictures_luck"]))
    lucky = theirs & (ours | (of["pictures_luck"] <= of["pictures"]))
    passes = min(_budget(of["passes"], ours), _budget(of["passes_luck"], theirs))
    return {
        "n": len(of),
        "successes": int(won.sum()),
        "baseline": int(lucky.sum()),
        "p": paired_p(won, lucky, of["text"]),
        "at_equal_passes": int((ours & (of["passes"] <= passes)).sum()),
        "baseline_at_equal_passes": int((theirs & (of["passes_luck"] <= passes)).sum()),
        "left": float((~theirs).mean()),
    }


def beside(frame: pd.DataFrame, found: pd.DataFrame) -> pd.DataFrame:
    """The comparison table with the `columns` of every baseline, from `against`; NaN where there is no comparison."""
    cell = ["concept", "method", "attack"]
    for baseline in BASELINES:
        names = dict(zip(COUNTS[1:-1], columns(baseline), strict=True))
        of = found[found["against"] == baseline].rename(columns=names)
        frame = frame.merge(of[[*cell, *names.values()]], on=cell, how="left", validate="one_to_one")
    return frame


def _budget(costs: pd.Series, success: pd.Series) -> float:
    """What an attack had for a prompt; no limit shows where it never needed all."""
    return math.inf if success.all() else float(costs.max())


def compared(frame: pd.DataFrame) -> list[str]:
    """The baselines with which attacks of the comparison table are compared."""
    return [baseline for baseline in BASELINES if frame[columns(baseline)[2]].notna().any()]


def verdict(row: dict, baseline: str) -> str:
    """Beats the baseline (more successes and Holm's p below LEVEL), does not beat it, or cannot: it has all prompts."""
    ours, theirs, _, p, *_ = (row[name] for name in columns(baseline))
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
    ours, theirs, _, p, cheap, luck = (row[name] for name in columns(baseline))
    counts = f"{ours:.0f} : {theirs:.0f} of {row['n_prompts']}, p {p_value(p)}"
    return f"{collapsed.name(row)} ({counts}; {cheap:.0f} : {luck:.0f} at equal passes)"


def p_value(p: float) -> str:
    """Such as `0.031` or `< 0.001`."""
    return f"{p:.3f}" if p >= 0.001 else "< 0.001"
