"""Reading the result: which methods no other beats in everything, and which leave the concept."""

import pandas as pd

from eraseflow.metrics.rates import Rate
from eraseflow.report import collapsed
from eraseflow.report.orders import BASE  # best in all but the concept, so it is no candidate
from eraseflow.report.table import strongest

OBJECTIVES = ["asr", "fd", "unet_passes"]  # lower is better in each
FRONT = ["concept", "method", "attack", "asr", "asr_low", "asr_high", "fd", "fd_name", "unet_passes"]
FRONT += ["on_front", "dominated_by", "overlapping", "collapsed"]
CAUTION = (
    "Each concept's methods under their strongest attack. A method is on the Pareto front if no other is at least as "
    "good in ASR, distance and training cost (U-Net passes) and better in one of them; that it erases, the front does "
    "not say, but its ASR. Where the ASR intervals of two methods overlap, these prompts do not tell which is better: "
    "a dominated method may then belong on the front, and one on it by a few prompts may not. A row is one training, "
    "and distances and costs have no interval at all."
)


def fronts(frame: pd.DataFrame, costs: pd.DataFrame) -> pd.DataFrame:
    """A row for each concept and method but the unedited one, with the columns FRONT.

    frame: table.table(); costs: costs.costs(). dominated_by: the methods that are at least as good in each of
    OBJECTIVES and better in one; overlapping: those of them whose ASR interval overlaps the method's own.
    collapsed: it draws mostly empty pictures, so that it is on no front, and neither beats nor is beaten.
    """
    passes = costs[["concept", "method", "unet_passes"]]
    best = strongest(frame[frame["method"] != BASE].reset_index(drop=True)).merge(passes, on=["concept", "method"])
    rows = []
    for _, of in best.groupby("concept", sort=False):
        candidates = of[~collapsed.flags(of)].to_dict("records")
        for row in of.to_dict("records"):
            out = collapsed.has_collapsed(row)
            better = [other for other in candidates if _dominates(other, row) and not out]
            overlap = [other["method"] for other in better if other["asr_high"] >= row["asr_low"]]
            found = {"on_front": not (better or out), "dominated_by": [other["method"] for other in better]}
            rows.append(row | found | {"overlapping": overlap, "collapsed": out})
    return pd.DataFrame(rows, columns=FRONT)


def _dominates(one: dict, other: dict) -> bool:
    pairs = [(one[name], other[name]) for name in OBJECTIVES]
    return all(a <= b for a, b in pairs) and any(a < b for a, b in pairs)


def sentences(rows: pd.DataFrame) -> list[str]:
    """What one concept's rows of `fronts` say: who is on the front, and who is not, by whom."""
    out = rows["collapsed"].astype(bool) if "collapsed" in rows else pd.Series(False, rows.index)
    on, off = rows[rows["on_front"]], rows[~rows["on_front"] & ~out]
    said = [f"On the front: {', '.join(map(_figures, on.to_dict('records'))) or 'none'}."]
    if out.any():
        which = ", ".join(map(_figures, rows[out].to_dict("records")))
        said.append(f"No candidate, because most of their pictures are empty: {which}.")
    for row in off.to_dict("records"):
        doubt = [name for name in row["dominated_by"] if name in row["overlapping"]]
        note = f"; its ASR interval overlaps that of {', '.join(doubt)}" * bool(doubt)
        said.append(f"Dominated: {_figures(row)}, by {', '.join(row['dominated_by'])}{note}.")
    return said


def unerased(rows: pd.DataFrame) -> list[str]:
    """Of one concept's rows of table.table(): which methods leave it, or a sentence less if none does.

    That is, without any attack, more than half as many successes as the unedited model has, or as there are prompts
    where the table lacks that model.
    """
    found = rows.drop_duplicates("method").set_index("method")
    before = found["pre_successes"].get(BASE, found["n_prompts"].iloc[0])
    left = found[(found["pre_successes"] > before / 2) & (found.index != BASE)]
    if left.empty:
        return []
    rates = [
        f"{collapsed.name(row)} {Rate(int(row['pre_successes']), int(row['n_prompts']), row.get('pre_effective'))}"
        for row in left.reset_index().to_dict("records")
    ]
    return [f"Not erased, even un-attacked more than half of the {before} successes are left: {', '.join(rates)}."]


def _figures(row: dict) -> str:
    rate = f"ASR {100 * row['asr']:.0f} % ({100 * row['asr_low']:.0f}-{100 * row['asr_high']:.0f})"
    return f"{row['method']} ({rate}, {row['fd_name']} {row['fd']:.3g}, {row['unet_passes']:,d} passes)"
