"""How the attack success rate depends on the judge's threshold, from the raw scores that the cells keep."""

import textwrap
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.artist import Artist
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from eraseflow.definitions import definition
from eraseflow.metrics.rates import Rate
from eraseflow.params import ConceptJudge, Params
from eraseflow.report import collapsed, plausible
from eraseflow.report.cells import Cell, CellError, read_frame
from eraseflow.report.plots import STYLE, looks_of

THRESHOLDS = np.linspace(0, 1, 201).round(3)  # so that 0.6 is the 0.6 of params.yaml
COLUMNS = ["concept", "method", "attack", "threshold", "n_prompts"]
COLUMNS += [*(f"{rate}{end}" for rate in ("pre_asr", "asr") for end in ("", "_low", "_high")), "collapsed"]
CAPTION = (
    "Success of each method's strongest attack at other thresholds. Solid, with its 95 % Wilson band: un-attacked or "
    "attacked; dashed: un-attacked. An attack ends at its first success by the protocol's threshold (vertical line), "
    "and of its pictures the last is kept. So the solid line is exact there, and elsewhere a lower bound."
)


def counted(judge: ConceptJudge) -> tuple[list[str], float | None]:
    """The labels that count for a concept and the score from which on they do; None where first choices decide."""
    protocol = getattr(judge, "protocol", None)
    if protocol is not None:
        entry = definition("judges", judge.name, "PROTOCOLS")[protocol]
        return list(entry["counts"]), entry["threshold"]
    return list(judge.counts), getattr(judge, "threshold", None)


def curves(
    params: Params, cells: Path, attacks: dict[tuple[str, str], str], marked: collapsed.Marks = frozenset()
) -> pd.DataFrame:
    """ASR at every one of THRESHOLDS for the concepts whose judge has a threshold; no row without such a concept.

    attacks: (concept, method) -> the attack to show. Rates are fractions 0..1 with 95 % Wilson intervals; `asr` counts
    prompts that succeed un-attacked or in the picture that the attack ended with. collapsed: whether the row is
    `marked` so.
    Raises: CellError where raw scores are missing.
    """
    rows: list[dict[str, Any]] = []
    for concept in params.table.concepts:
        labels, threshold = counted(params.concepts[concept].judge)
        if threshold is None:
            continue
        for method in params.table.methods:
            attack = attacks[concept, method]
            plain, after, texts = _scores(Cell.of(cells, concept, method), attack, labels)
            before, either = _rates(plain, texts), _rates(np.maximum(plain, after), texts)
            named: dict[str, Any] = {"concept": concept, "method": method, "attack": attack, "n_prompts": len(plain)}
            named["collapsed"] = (concept, method, attack) in marked
            rows += [
                named
                | {"threshold": at}
                | {"pre_asr": pre[0], "pre_asr_low": pre[1], "pre_asr_high": pre[2]}
                | {"asr": asr[0], "asr_low": asr[1], "asr_high": asr[2]}
                for at, pre, asr in zip(THRESHOLDS, before, either, strict=True)
            ]
    return pd.DataFrame(rows, columns=COLUMNS)


def _rates(scores: np.ndarray, texts: pd.Series) -> list[tuple[float, float, float]]:
    """Share of the scores (n,) that reach each of THRESHOLDS, with the ends of its interval."""
    reached = scores >= THRESHOLDS[:, None]
    counts = reached.sum(axis=1).tolist()
    which = dict(zip(counts, reached, strict=True))  # few, and an interval takes its time; as many are the same ones
    rates = {count: Rate.of(one, texts) for count, one in which.items()}
    ends = {count: (rate.value, rate.low, rate.high) for count, rate in rates.items()}
    return [ends[count] for count in counts]


def _scores(cell: Cell, attack: str, labels: list[str]) -> tuple[np.ndarray, np.ndarray, pd.Series]:
    """The highest counted score (n,) of each target prompt, of its un-attacked picture and of the attack's last one;
    and the prompts' texts.
    """
    ranges = dict.fromkeys(labels, plausible.SCORE)
    attacked = cell.attack(attack, tuple(labels))
    plausible.check(cell.folder / f"attack-{attack}.parquet", attacked.reset_index(), ranges, "prompt_id")
    path = cell.folder / "judged.parquet"
    judged = read_frame(path, ["prompt_id", "role", *labels])
    judged = judged[judged["role"] == "target"]
    plausible.check(path, judged, ranges, "prompt_id")
    after, plain = attacked[labels].max(axis=1), judged.set_index("prompt_id")[labels].max(axis=1)
    if not plain.index.is_unique or set(plain.index) != set(after.index):
        raise CellError(f"{path}: not the raw scores of attack-{attack}.parquet's prompts")
    return plain.loc[after.index].to_numpy(), after.to_numpy(), attacked["prompt"]


@mpl.rc_context(STYLE)
def sweep(params: Params, frame: pd.DataFrame, columns: int = 3) -> Figure:
    """The curves, one panel a concept; `frame` is that of `curves` and has at least one concept."""
    concepts, styles = list(frame["concept"].unique()), looks_of(params.table.methods)
    columns = min(columns, len(concepts))
    lines = -(-len(concepts) // columns)
    figure = Figure(figsize=(4.0 * columns + 0.4, 3.6 * lines + 1.2), layout="constrained")
    figure.get_layout_engine().set(wspace=0.06, hspace=0.06)  # type: ignore[union-attr, call-arg]
    panels = list(figure.subplots(lines, columns, squeeze=False, sharex=True, sharey=True).flat)
    for axes, concept in zip(panels, concepts, strict=False):
        _, threshold = counted(params.concepts[concept].judge)
        assert threshold is not None
        of = frame[frame["concept"] == concept]
        for method, rows in of.groupby("method", sort=False):
            colour, _ = styles[str(method)]
            axes.plot(rows["threshold"], 100 * rows["asr"], color=colour, zorder=3)
            axes.plot(rows["threshold"], 100 * rows["pre_asr"], "--", color=colour, linewidth=1, zorder=3)
            if rows["collapsed"].any():  # a cross where the line is exact
                at = rows.loc[(rows["threshold"] - threshold).abs().idxmin()]
                axes.plot(threshold, 100 * at["asr"], "x", color=colour, markersize=8, zorder=4)
            axes.fill_between(
                rows["threshold"], 100 * rows["asr_low"], 100 * rows["asr_high"], color=colour, alpha=0.15, linewidth=0
            )
        axes.axvline(threshold, color="#555555", linewidth=1, zorder=2)
        axes.set(xlim=(0, 1), ylim=(-4, 104), xlabel=f"threshold of {params.concepts[concept].judge.name}")
        axes.set_title(concept, loc="left", fontweight="bold")
        note = f"{of['n_prompts'].iloc[0]} prompts; protocol: {threshold:g}"
        axes.set_title(note, loc="right", fontsize=8.5, color="#555555")
    for axes in panels[::columns]:
        axes.set_ylabel("ASR, % of the prompts (lower is better)")
    for axes in panels[len(concepts) :]:
        axes.set_visible(False)
    title = "Attack success by the judge's threshold: exact at the protocol's (grey line), elsewhere a lower bound"
    figure.suptitle(textwrap.fill(title, 40 * columns), fontweight="bold")
    handles: list[Artist] = [Line2D([], [], color=colour) for colour, _ in styles.values()]
    handles += [Line2D([], [], color="#555555", linestyle="--", linewidth=1), Patch(color="#555555", alpha=0.15)]
    names = [*styles, "un-attacked", "95 % interval"]
    if frame["collapsed"].any():
        handles.append(Line2D([], [], linestyle="none", marker="x", color="#555555"))
        names.append(collapsed.LEGEND)
    figure.legend(handles, names, loc="outside lower center", ncols=min(len(names), 2 * columns))
    return figure
