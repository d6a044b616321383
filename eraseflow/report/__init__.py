"""The report: tables, figures, picture grids and one page from the cells of params.yaml's table."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
from matplotlib.figure import Figure

from eraseflow import timings
from eraseflow.outputs import folder_beside, move
from eraseflow.params import Params
from eraseflow.report import (
    budget,
    collapsed,
    costs,
    grids,
    measured,
    orders,
    outcomes,
    page,
    pairs,
    pareto,
    plots,
    published,
    published_figure,
    readable,
    reproduction,
    sweep,
    transfer,
)
from eraseflow.report.data_uri import data_uri
from eraseflow.report.table import REFERENCE, formatted, metrics, strongest, table

TRAINING = f"training/{REFERENCE}.png"
SWEEP = "sweep/asr_by_threshold"
IMAGES = {".png": "image/png", ".svg": "image/svg+xml"}


def build(
    params: Params, cells: Path, concepts: Path, judges_json: Path, base: Path, reference_json: Path, out: Path
) -> None:
    """Write the tables, metrics.json, every prompt's outcome, the figures, grids/ and index.html into `out`.

    Seconds come from timings.csv in `out`. All is made beside `out` first, so that a failure leaves the last report as
    it was. Other files in `out` stay, except grids and curves of what has left the table.
    Raises: CellError (one line) where a file is missing or does not fit.
    """
    with folder_beside(out) as unfinished:
        timed, figures = measured.measured(params, cells, out / timings.FILE), published.read()
        prompts = outcomes.outcomes(params, cells)
        outcomes.write(prompts, unfinished / "outcomes.parquet")
        pairs.write(pairs.pairs(prompts), unfinished / "pairs.csv")
        frame = measured.beside(table(params, cells, concepts), timed)
        _write_tables(params, frame, unfinished)
        marked = collapsed.marks(frame)
        _draw(params, frame, cells, concepts, marked, unfinished)
        _save(unfinished / "published", published_figure.published, params, figures, frame)
        taken = costs.costs(params, cells)
        _save(unfinished / "asr_vs_cost", plots.asr_vs_cost, params, frame, taken)
        found = page.Findings(
            table=frame,
            figures=figures,
            reproduced=reproduction.reproduction(params, figures, frame),
            sweep=_sweep(params, frame, cells, marked, unfinished),
            budget=_budget(params, cells, marked, unfinished),
            transfer=_transfer(params, concepts, marked, unfinished),
            costs=taken,
            timed=timed,
            fronts=pareto.fronts(frame, taken),
            orders=orders.orders(figures, prompts, collapsed.rows(frame)),
        )
        _write_lists(found, unfinished)
        read = page.Read(cells, concepts, judges_json, base, reference_json, drawn=unfinished)
        html = page.render(params, found, read)
        if not params.report.embed:
            html = _linked(html, unfinished, base, out)
        (unfinished / "index.html").write_text(html, encoding="utf-8")
        _replace(unfinished, out)


def _write_tables(params: Params, frame: pd.DataFrame, unfinished: Path) -> None:
    formatted(frame.drop(columns=measured.COLUMNS)).to_csv(unfinished / "table.csv", index=False, lineterminator="\n")
    (unfinished / "table.md").write_text(readable.markdown(params, frame), encoding="utf-8")
    (unfinished / "table.tex").write_text(readable.latex(params, frame), encoding="utf-8")
    (unfinished / "metrics.json").write_text(metrics(frame), encoding="utf-8")


def _draw(
    params: Params, frame: pd.DataFrame, cells: Path, concepts: Path, marked: collapsed.Marks, unfinished: Path
) -> None:
    _save(unfinished / "fid_vs_attack", plots.fid_vs_attack, params, frame)
    (unfinished / "training").mkdir()
    if REFERENCE in params.table.methods:
        (unfinished / TRAINING).write_bytes(plots.encode(plots.training(params, cells), "png"))
    (unfinished / "grids").mkdir()
    best = strongest(frame)
    for concept in params.table.concepts:
        rows = best[best["concept"] == concept]
        attacks = dict(zip(rows["method"], rows["attack"], strict=True))
        grid = grids.target_grid(params, cells, concepts, concept, attacks, marked)
        grid.save(unfinished / "grids" / f"{concept}.png", optimize=True)
        kept = grids.kept_grid(params, cells, concept, marked)
        kept.save(unfinished / "grids" / f"{concept}_kept.png", optimize=True)


def _sweep(params: Params, frame: pd.DataFrame, cells: Path, marked: collapsed.Marks, unfinished: Path) -> pd.DataFrame:
    """sweep/curves.csv, which has no row where no concept has a threshold, and only with rows the figure."""
    rows = strongest(frame)
    attacks = dict(zip(zip(rows["concept"], rows["method"], strict=True), rows["attack"], strict=True))
    curves = sweep.curves(params, cells, attacks, marked)
    (unfinished / "sweep").mkdir()
    curves.to_csv(unfinished / "sweep" / "curves.csv", index=False, float_format="%.4f", lineterminator="\n")
    if len(curves):
        _save(unfinished / SWEEP, sweep.sweep, params, curves)
    return curves


def _budget(params: Params, cells: Path, marked: collapsed.Marks, unfinished: Path) -> pd.DataFrame:
    """budget/curves.csv and a figure a concept."""
    curves = budget.curves(params, cells, marked)
    (unfinished / "budget").mkdir()
    curves.to_csv(unfinished / "budget" / "curves.csv", index=False, float_format="%.5g", lineterminator="\n")
    for concept in params.table.concepts:
        _save(unfinished / "budget" / concept, budget.budget, params, curves, concept)
    return curves


def _transfer(params: Params, concepts: Path, marked: collapsed.Marks, unfinished: Path) -> pd.DataFrame:
    """transfer/matrices.csv and a figure for each of them."""
    matrices = transfer.matrices(params, concepts, marked)
    (unfinished / "transfer").mkdir()
    matrices.to_csv(unfinished / "transfer" / "matrices.csv", index=False, lineterminator="\n")
    for concept, attack in matrices[["concept", "attack"]].drop_duplicates().itertuples(index=False):
        _save(unfinished / "transfer" / f"{concept}_{attack}", transfer.transfer, matrices, concept, attack)
    return matrices


def _write_lists(found: page.Findings, unfinished: Path) -> None:
    """reproduction.csv, costs.csv, pareto.csv and order.csv."""
    reproduction.formatted(found.reproduced).to_csv(unfinished / "reproduction.csv", index=False, lineterminator="\n")
    fronts = found.fronts.assign(**{name: found.fronts[name].map(" ".join) for name in ("dominated_by", "overlapping")})
    for name, rows in {"costs": found.costs, "pareto": fronts, "order": found.orders}.items():
        rows.to_csv(unfinished / f"{name}.csv", index=False, float_format="%.6g", lineterminator="\n")


def _linked(html: str, made: Path, base: Path, out: Path) -> str:
    """The page as it is to lie in `out`, with the addresses of files in place of what it carries of them."""
    for folder, place in ((made, out), (base, base)):
        for path in folder.rglob("*"):
            if path.suffix in IMAGES:
                address = Path(os.path.relpath(place / path.relative_to(folder), out)).as_posix()
                html = html.replace(data_uri(path.read_bytes(), IMAGES[path.suffix]), address)
    return html


def _save(unfinished: Path, draw: Callable[..., Figure], *arguments: Any) -> None:
    """As PNG and SVG, each of a figure of its own, because saving moves the layout; so the page's is the same."""
    unfinished.with_suffix(".png").write_bytes(plots.encode(draw(*arguments), "png"))
    unfinished.with_suffix(".svg").write_bytes(plots.encode(draw(*arguments), "svg"))


def _replace(unfinished: Path, out: Path) -> None:
    """Move every file and folder into place, the page last; a folder goes with what an earlier table left in it."""
    out.mkdir(parents=True, exist_ok=True)
    for made in sorted(unfinished.iterdir(), key=lambda path: (path.name == "index.html", path)):
        move(made, out / made.name)
