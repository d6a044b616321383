"""The report: tables, figures, picture grids and one page from the cells of params.yaml's table."""

import os
import tempfile
from pathlib import Path

import pandas as pd

from eraseflow.params import Params
from eraseflow.report import grids, page, plots, readable
from eraseflow.report.table import REFERENCE, formatted, metrics, strongest, table

TRAINING = f"training/{REFERENCE}.png"


def build(params: Params, cells: Path, concepts: Path, judges_json: Path, base_report_folder: Path, out: Path) -> None:
    """Write table.csv, .md and .tex, metrics.json, the figures, grids/ and index.html into `out`.

    All is made beside `out` first, so that a failure leaves the last report as it was. Other files in `out` stay,
    except grids and training curves of what has left the table.
    Raises: CellError (one line) where a file is missing or does not fit.
    """
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{out.name}-", dir=out.parent) as folder:
        made = Path(folder)
        frame = table(params, cells, concepts)
        _write_tables(params, frame, made)
        _draw(params, frame, cells, concepts, made)
        html = page.render(params, frame, cells, concepts, judges_json, base_report_folder, made)
        (made / "index.html").write_text(html, encoding="utf-8")
        _replace(made, out)


def _write_tables(params: Params, frame: pd.DataFrame, made: Path) -> None:
    formatted(frame).to_csv(made / "table.csv", index=False, lineterminator="\n")
    (made / "table.md").write_text(readable.markdown(params, frame), encoding="utf-8")
    (made / "table.tex").write_text(readable.latex(params, frame), encoding="utf-8")
    (made / "metrics.json").write_text(metrics(frame))


def _draw(params: Params, frame: pd.DataFrame, cells: Path, concepts: Path, made: Path) -> None:
    figure = plots.fid_vs_attack(params, frame)
    (made / "fid_vs_attack.png").write_bytes(plots.encode(figure, "png"))
    (made / "fid_vs_attack.svg").write_bytes(plots.encode(figure, "svg"))
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


def _replace(made: Path, out: Path) -> None:
    """Move every file into place, the page last, and remove what an earlier table left."""
    for folder in ("grids", "training"):  # the latter is empty where the table is without EraseFlow
        (out / folder).mkdir(parents=True, exist_ok=True)
    new = {path.relative_to(made) for path in made.rglob("*") if path.is_file()}
    for path in sorted(new, key=lambda path: (path.name == "index.html", path)):
        os.replace(made / path, out / path)
    for old in [*out.glob("grids/*.png"), out / TRAINING]:
        if old.relative_to(out) not in new:
            old.unlink(missing_ok=True)
