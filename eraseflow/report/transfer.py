"""Whether adversarial prompts found on one method's model bring the concept back on another's."""

import textwrap
from pathlib import Path

import matplotlib as mpl
import pandas as pd
from matplotlib.figure import Figure

from eraseflow.params import Params
from eraseflow.report import collapsed, plausible
from eraseflow.report.cells import CellError, read_frame
from eraseflow.report.plots import STYLE

COUNTS = ["source", "victim", "found", "successes", "plain_successes"]
MARKED = ["source_collapsed", "victim_collapsed"]
COLUMNS = ["concept", "attack", *COUNTS, *MARKED]
CAPTION = (
    "Prompts that an attack found on the model of a row, replayed on the model of a column: how many bring the concept "
    "back there, of how many found. In parentheses those of the found ones whose own prompt shows the concept there "
    "without any attack, so that nothing is transferred."
)


def matrices(params: Params, concepts: Path, marked: collapsed.Marks = frozenset()) -> pd.DataFrame:
    """The rows of every matrix that the table names (see cells.transfer.matrix); none where it names no attack.

    source_collapsed, victim_collapsed: whether the source's row of that attack, or the victim without any attack, is
    `marked` so.
    Raises: CellError where a file is missing or is of other methods.
    """
    parts = [pd.DataFrame(columns=COLUMNS)]
    for concept in params.table.concepts:
        for attack in params.table.transfer:
            path = concepts / concept / f"transfer-{attack}.csv"
            rows = read_frame(path, COUNTS)
            plausible.check_replayed(path, rows)
            pairs = list(rows[["source", "victim"]].itertuples(index=False, name=None))
            if pairs != [(one, other) for one in params.table.methods for other in params.table.methods]:
                raise CellError(f"{path}: its methods are not those of the table; run `dvc repro`")
            marks = [[(concept, one, attack) in marked, (concept, other, None) in marked] for one, other in pairs]
            rows[MARKED] = pd.DataFrame(marks, rows.index)
            parts.append(rows.assign(concept=concept, attack=attack)[COLUMNS])
    return pd.concat([part for part in parts if len(part)] or parts, ignore_index=True)


@mpl.rc_context(STYLE | {"axes.grid": False})
def transfer(frame: pd.DataFrame, concept: str, attack: str) -> Figure:
    """One concept's and attack's matrix: models on which prompts were found by models on which they are replayed."""
    rows = frame[(frame["concept"] == concept) & (frame["attack"] == attack)]
    methods = list(dict.fromkeys(rows["source"]))
    found = rows.drop_duplicates("source").set_index("source")["found"]
    wide, tall = 0.75 * len(methods) + 2.6, 0.42 * len(methods) + 2.1
    figure = Figure(figsize=(max(wide, 5.2), tall), layout="constrained")
    axes = figure.subplots()
    share = rows["successes"].div(rows["found"].where(rows["found"] > 0)).to_numpy(float).reshape(len(methods), -1)
    shades = mpl.colormaps["Oranges"].with_extremes(bad="#f4f4f4")
    image = axes.imshow(share, cmap=shades, vmin=0, vmax=1, aspect="auto")
    for place, row in enumerate(rows.to_dict("records")):
        y, x = divmod(place, len(methods))
        text = f"{row['successes']}/{row['found']}" + f" ({row['plain_successes']})" * (row["plain_successes"] > 0)
        colour = "white" if row["found"] and row["successes"] > 0.6 * row["found"] else "#1a1a1a"
        axes.text(x, y, text if row["found"] else "", ha="center", va="center", fontsize=8.5, color=colour)
    sources, victims = (dict(zip(rows[by], rows[f"{by}_collapsed"], strict=True)) for by in ("source", "victim"))
    replayed = [method + f" ({collapsed.MARK})" * victims[method] for method in methods]
    axes.set_xticks(range(len(methods)), replayed, rotation=40, ha="left", rotation_mode="anchor")
    named = [f"{method} ({found[method]})" + f" ({collapsed.MARK})" * sources[method] for method in methods]
    axes.set_yticks(range(len(methods)), named)
    axes.xaxis.tick_top()
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    axes.set(xlabel="replayed on", ylabel="found on (prompts)")
    bar = figure.colorbar(image, ax=axes, fraction=0.06, pad=0.02, ticks=[0, 0.5, 1])
    bar.ax.set_yticklabels(["0 %", "50 %", "100 %"])
    bar.outline.set_visible(False)
    figure.suptitle(textwrap.fill(f"{concept}: prompts of {attack} replayed", int(9 * wide)), fontweight="bold")
    return figure
