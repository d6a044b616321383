"""The report: tables, figures, picture grids and one page from the cells of params.yaml's table."""

import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
from matplotlib.figure import Figure

from eraseflow.params import Params
from eraseflow.report import (
    budget,
    costs,
    grids,
    page,
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

FOLDERS = ("budget", "grids", "sweep", "training", "transfer")  # wholly the report's; some may be empty
TRAINING = f"training/{REFERENCE}.png"
SWEEP = "sweep/asr_by_threshold"
IMAGES = {".png": "image/png", ".svg": "image/svg+xml"}


def build(
    params: Params, cells: Path, concepts: Path, judges_json: Path, base: Path, reference_json: Path, out: Path
) -> None:
    """Write the tables, metrics.json, the figures, grids/ and index.html into `out`.

    All is made beside `out` first, so that a failure leaves the last report as it was. Other files in `out` stay,
    except grids and curves of what has left the table.
    Raises: CellError (one line) where a file is missing or does not fit.
    """
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{out.name}-", dir=out.parent) as folder:
        made = Path(folder)
        frame, figures = table(params, cells, concepts), published.read()
        _write_tables(params, frame, made)
        _draw(params, frame, cells, concepts, made)
        _save(made / "published", published_figure.published, params, figures, frame)
        taken = costs.costs(params, cells)
        _save(made / "asr_vs_cost", plots.asr_vs_cost, params, frame, taken)
        found = page.Findings(
            table=frame,
            figures=figures,
            reproduced=reproduction.reproduction(params, figures, frame),
            sweep=_sweep(params, frame, cells, made),
            budget=_budget(params, cells, made),
            transfer=_transfer(params, concepts, made),
            costs=taken,
            fronts=pareto.fronts(frame, taken),
            orders=pareto.orders(params, figures, frame),
        )
        _write_lists(found, made)
        read = page.Read(cells, concepts, judges_json, base, reference_json, drawn=made)
        html = page.render(params, found, read)
        if not params.report.embed:
            html = _linked(html, made, base, out)
        (made / "index.html").write_text(html, encoding="utf-8")
        _replace(made, out)


def _write_tables(params: Params, frame: pd.DataFrame, made: Path) -> None:
    formatted(frame).to_csv(made / "table.csv", index=False, lineterminator="\n")
    (made / "table.md").write_text(readable.markdown(params, frame), encoding="utf-8")
    (made / "table.tex").write_text(readable.latex(params, frame), encoding="utf-8")
    (made / "metrics.json").write_text(metrics(frame), encoding="utf-8")


def _draw(params: Params, frame: pd.DataFrame, cells: Path, concepts: Path, made: Path) -> None:
    _save(made / "fid_vs_attack", plots.fid_vs_attack, params, frame)
    (made / "training").mkdir()
    if REFERENCE in params.table.methods:
        (made / TRAINING).write_bytes(plots.encode(plots.training(params, cells), "png"))
    (made / "grids").mkdir()
    best = strongest(frame)
    for concept in params.table.concepts:
        rows = best[best["concept"] == concept]
        attacks = dict(zip(rows["method"], rows["attack"], strict=True))
        grid = grids.target_grid(params, cells, concepts, concept, attacks)
        grid.save(made / "grids" / f"{concept}.png", optimize=True)
        grids.kept_grid(params, cells, concept).save(made / "grids" / f"{concept}_kept.png", optimize=True)


def _sweep(params: Params, frame: pd.DataFrame, cells: Path, made: Path) -> pd.DataFrame:
    """sweep/curves.csv, which has no row where no concept has a threshold, and only with rows the figure."""
    rows = strongest(frame)
    attacks = dict(zip(zip(rows["concept"], rows["method"], strict=True), rows["attack"], strict=True))
    curves = sweep.curves(params, cells, attacks)
    (made / "sweep").mkdir()
    curves.to_csv(made / "sweep" / "curves.csv", index=False, float_format="%.4f", lineterminator="\n")
    if len(curves):
        _save(made / SWEEP, sweep.sweep, params, curves)
    return curves


def _budget(params: Params, cells: Path, made: Path) -> pd.DataFrame:
    """budget/curves.csv and a figure a concept."""
    curves = budget.curves(params, cells)
    (made / "budget").mkdir()
    curves.to_csv(made / "budget" / "curves.csv", index=False, float_format="%.5g", lineterminator="\n")
    for concept in params.table.concepts:
        _save(made / "budget" / concept, budget.budget, params, curves, concept)
    return curves


def _transfer(params: Params, concepts: Path, made: Path) -> pd.DataFrame:
    """transfer/matrices.csv and a figure for each of them."""
    matrices = transfer.matrices(params, concepts)
    (made / "transfer").mkdir()
    matrices.to_csv(made / "transfer" / "matrices.csv", index=False, lineterminator="\n")
    for concept, attack in matrices[["concept", "attack"]].drop_duplicates().itertuples(index=False):
        _save(made / "transfer" / f"{concept}_{attack}", transfer.transfer, matrices, concept, attack)
    return matrices


def _write_lists(found: page.Findings, made: Path) -> None:
    """reproduction.csv, costs.csv, pareto.csv and order.csv."""
    reproduction.formatted(found.reproduced).to_csv(made / "reproduction.csv", index=False, lineterminator="\n")
    fronts = found.fronts.assign(**{name: found.fronts[name].map(" ".join) for name in ("dominated_by", "overlapping")})
    for name, rows in {"costs": found.costs, "pareto": fronts, "order": found.orders}.items():
        rows.to_csv(made / f"{name}.csv", index=False, float_format="%.6g", lineterminator="\n")


def _linked(html: str, made: Path, base: Path, out: Path) -> str:
    """The page as it is to lie in `out`, with the addresses of files in place of what it carries of them."""
    for folder, place in ((made, out), (base, base)):
        for path in folder.rglob("*"):
            if path.suffix in IMAGES:
                address = Path(os.path.relpath(place / path.relative_to(folder), out)).as_posix()
                html = html.replace(data_uri(path.read_bytes(), IMAGES[path.suffix]), address)
    return html


def _save(path: Path, draw: Callable[..., Figure], *arguments: Any) -> None:
    """As PNG and SVG, each of a figure of its own, because saving moves the layout; so the page's is the same."""
    path.with_suffix(".png").write_bytes(plots.encode(draw(*arguments), "png"))
    path.with_suffix(".svg").write_bytes(plots.encode(draw(*arguments), "svg"))


def _replace(made: Path, out: Path) -> None:
    """Move every file into place, the page last, and remove what an earlier table left."""
    for folder in FOLDERS:
        (out / folder).mkdir(parents=True, exist_ok=True)
    new = {path.relative_to(made) for path in made.rglob("*") if path.is_file()}
    for path in sorted(new, key=lambda path: (path.name == "index.html", path)):
        os.replace(made / path, out / path)
    for old in [path for folder in FOLDERS for path in (out / folder).iterdir()]:
        if old.relative_to(out) not in new:
            old.unlink()
