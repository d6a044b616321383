"""The report's page: one HTML file that carries its pictures, reads on a phone, and needs no network."""

from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pandas as pd
from matplotlib.figure import Figure

from eraseflow import verdict
from eraseflow.metrics.rates import Rate
from eraseflow.params import Params
from eraseflow.report import (
    baselines,
    budget,
    collapsed,
    costs,
    gallery,
    measured,
    orders,
    pareto,
    reproduction,
    sweep,
    transfer,
)
from eraseflow.report.cells import CellError, read_json, read_reference, withheld
from eraseflow.report.counterparts import TESTBED
from eraseflow.report.data_uri import data_uri
from eraseflow.report.plots import asr_vs_cost, encode, fid_vs_attack
from eraseflow.report.published import FOOTNOTES, LETTERS
from eraseflow.report.published_figure import published
from eraseflow.report.readable import LUCK, at_a_glance, counted, per_attack, readable
from eraseflow.report.table import REFERENCE
from eraseflow.report.templates import template

PACKAGES = ["torch", "diffusers", "transformers"]
TYPES = {".png": "image/png", ".svg": "image/svg+xml"}


@dataclass(frozen=True)
class Findings:
    """What the report has computed, by the modules that made it; a figure without rows is left out.

    table: table.table(). figures: published.read(). reproduced: reproduction.reproduction(). sweep: sweep.curves().
    budget: budget.curves(). transfer: transfer.matrices(). costs: costs.costs(). timed: measured.measured(). fronts:
    pareto.fronts(). orders: orders.orders().
    """

    table: pd.DataFrame
    figures: pd.DataFrame
    reproduced: pd.DataFrame
    sweep: pd.DataFrame
    budget: pd.DataFrame
    transfer: pd.DataFrame
    costs: pd.DataFrame
    timed: pd.DataFrame
    fronts: pd.DataFrame
    orders: pd.DataFrame


@dataclass(frozen=True)
class Read:
    """The files that the page reads beside that: folders of cells, of concepts and of what was measured of the base
    model, the judges' cards, reference.json of the real pictures, and `drawn`, with this report's figures and grids.
    """

    cells: Path
    concepts: Path
    judges: Path
    base: Path
    reference: Path
    drawn: Path


def render(params: Params, found: Findings, read: Read) -> str:
    """The page as HTML text.

    Raises: CellError where a picture or the judges' file is missing or has other contents.
    """
    frame = found.table
    training = read.drawn / "training" / f"{REFERENCE}.png"
    return template("page.html.j2").render(
        params=params,
        testbed=params.testbeds[params.table.testbed],
        reference=REFERENCE,
        blurs=params.report.blur and params.testbeds[params.table.testbed].safety_judge is not None,
        first=frame.iloc[0].to_dict(),
        figures=_screens(read.drawn / "fid_vs_attack.svg", fid_vs_attack, params, frame),
        published=_screens(read.drawn / "published.svg", published, params, found.figures, frame),
        reproduced=_reproduced(params, found.reproduced),
        sweep=_swept(read.drawn, params, found),
        luck=LUCK,
        sweep_caption=sweep.CAPTION,
        budget_caption=budget.CAPTION,
        transfer_caption=transfer.CAPTION,
        asr_vs_cost=_screens(read.drawn / "asr_vs_cost.svg", asr_vs_cost, params, frame, found.costs),
        cost_caption=costs.CAPTION,
        costs=costs.readable(found.costs, found.timed, collapsed.marks(frame)).to_dict("split"),
        measured=measured.said(params, found.timed),
        caution=pareto.CAUTION,
        orders=found.orders.to_dict("records"),
        orders_note=orders.NOTE,
        orders_at_first=[orders.sentence(row) for row in orders.first(found.orders).to_dict("records")],
        training=_image(training) if training.is_file() else None,
        concepts=[
            _concept(params, found, read.cells, read.concepts, name, read.drawn) for name in params.table.concepts
        ],
        judges=_judges(read.judges),
        real=read_reference(read.reference),
        base={name: _image(read.base / f"{name}.png") for name in ("losses", "samples")},
        versions={name: version(name).partition("+")[0] for name in PACKAGES},  # without what it was built for
    )


def _reproduced(params: Params, reproduced: pd.DataFrame) -> dict[str, Any] | None:
    """Rows and footnotes of the reproduction table; None where this table's testbed is not the literature's."""
    if params.table.testbed != TESTBED:
        return None
    rows = reproduction.readable(params, reproduced)
    marks = {mark for row in rows for mark in row["marks"].split(", ")}
    notes = {letter: FOOTNOTES[name] for name, letter in LETTERS.items() if letter in marks}
    return {"rows": rows, "notes": notes}


def _image(path: Path) -> str:
    """A PNG or SVG file as a data URI."""
    if not path.is_file():
        raise CellError(f"{path}: missing, but the page shows it; run `dvc repro`")
    return data_uri(path.read_bytes(), TYPES[path.suffix])


def _swept(drawn: Path, params: Params, found: Findings) -> dict[str, str] | None:
    """The rates by threshold, where a judge of the table has one."""
    if found.sweep.empty:
        return None
    return _screens(drawn / "sweep" / "asr_by_threshold.svg", sweep.sweep, params, found.sweep)


def _screens(drawn: Path, draw: Callable[..., Figure], *arguments: Any) -> dict[str, str]:
    """A figure for wide screens, as it is drawn in the report's folder, and with one panel a row for narrow ones."""
    narrow = encode(draw(*arguments, columns=1), "svg")
    return {"wide": _image(drawn), "narrow": data_uri(narrow, TYPES[".svg"])}


def _spans(methods: list[str]) -> list[int]:
    """Of each row that is the first of its method how many rows the method has, of the others 0."""
    return [0 if at and methods[at - 1] == method else methods.count(method) for at, method in enumerate(methods)]


def _concept(params: Params, found: Findings, cells: Path, concepts: Path, name: str, drawn: Path) -> dict[str, Any]:
    frame = found.table
    text, marked = readable(params, frame, name), collapsed.marks(frame)
    found_prompts = gallery.found(params, cells, name, withheld(concepts, name) if params.report.blur else {})
    for one in found_prompts:
        one["method"], one["attack"] = collapsed.titled(name, one["method"], one["attack"], marked)
    return {
        "name": name,
        "block": params.concepts[name],
        "counted": counted(frame[frame["concept"] == name]),
        "n_prompts": int(frame.loc[frame["concept"] == name, "n_prompts"].iloc[0]),
        "n_attackable": int(frame.loc[frame["concept"] == name, "n_attackable"].iloc[0]),
        "front": [
            *pareto.unerased(frame[frame["concept"] == name]),
            *pareto.sentences(found.fronts[found.fronts["concept"] == name]),
        ],
        "rule": verdict.rule(params.concepts[name].judge),
        "glance": at_a_glance(frame, name),
        "columns": list(text.columns),
        "rows": text.to_numpy().tolist(),
        "spans": _spans(frame.loc[frame["concept"] == name, "method"].tolist()),
        "per_attack": per_attack(frame, name),
        "luck": baselines.sentences(frame[frame["concept"] == name]),
        "grid": _image(drawn / "grids" / f"{name}.png"),
        "budget": _screens(drawn / "budget" / f"{name}.svg", budget.budget, params, found.budget, name),
        "transfer": [_image(drawn / "transfer" / f"{name}_{attack}.svg") for attack in params.table.transfer],
        "kept_grid": _image(drawn / "grids" / f"{name}_kept.png"),
        "found": found_prompts,
        "most_found": gallery.most(params),
    }


def _judges(path: Path) -> list[dict[str, Any]]:
    """The judges' cards, each accuracy with its interval."""
    cards = []
    for name, judge in read_json(path, []).items():
        try:
            rates = [{"what": one["what"], "rate": Rate(one["right"], one["n"])} for one in judge["accuracies"]]
            cards.append({"name": name, "card": judge["card"], "accuracies": rates})
        except (KeyError, TypeError, ValueError) as error:
            raise CellError(f"{path}: {name}: expected card and accuracies (what, right, n): {error!r}") from None
    return cards
