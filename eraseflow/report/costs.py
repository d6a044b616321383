"""What each training took, from the cells' ledgers (see eraseflow/ledger.py)."""

from collections.abc import Callable
from pathlib import Path

import pandas as pd
from matplotlib.ticker import EngFormatter

from eraseflow.params import Params
from eraseflow.passes import PASSES
from eraseflow.report import collapsed, measured
from eraseflow.report.cells import Cell

KEYS = ["optimiser_steps", *PASSES, "trained_weights", "trained_bytes", "stored_weights", "stored_bytes"]
KEYS += ["device", "precision"]
COLUMNS = ["concept", "method", *KEYS]
size = EngFormatter(unit="B", places=1)  # bytes as `12.0 MB`
CAPTION = (
    "The strongest attack's success against what the training took: pictures through the U-Net, forward and backward. "
    "Closed forms and methods that work at sampling time have none; they stand side by side at 0. Passes, unlike "
    "seconds, are the same everywhere."
)


def costs(params: Params, cells: Path) -> pd.DataFrame:
    """A row for each concept and method of the table, and unet_passes, those forward and backward.

    Raises: CellError where a cell has no such costs.
    """
    rows = [
        {"concept": concept, "method": method, **Cell.of(cells, concept, method).costs(KEYS)}
        for concept in params.table.concepts
        for method in params.table.methods
    ]
    frame = pd.DataFrame(rows)[COLUMNS]
    return frame.assign(unet_passes=frame["unet_forward"] + frame["unet_backward"])


def readable(frame: pd.DataFrame, timed: pd.DataFrame, marked: collapsed.Marks = frozenset()) -> pd.DataFrame:
    """The costs as the page writes them, beside what was measured (measured.measured())."""
    named = list(zip(frame["concept"], frame["method"], strict=True))
    trainings = timed[timed["attack"] == ""].set_index(["concept", "method"])
    columns = {
        "Concept": frame["concept"],
        "Method": [collapsed.titled(concept, method, None, marked)[0] for concept, method in named],
        "Seconds": _measured(trainings["seconds"], named, "{:,.1f}".format),
        "Optimiser steps": frame["optimiser_steps"].map("{:,d}".format),
        "U-Net forward (pictures)": frame["unet_forward"].map("{:,d}".format),
        "U-Net backward (pictures)": frame["unet_backward"].map("{:,d}".format),
        "Text encoder (texts, forward + backward)": [
            f"{row.text_forward:,d} + {row.text_backward:,d}" for row in frame.itertuples()
        ],
        "Peak memory": _measured(trainings["peak_memory_bytes"].dropna(), named, size),
        "Trained weights": _weights(frame, "trained"),
        "Stored weights": _weights(frame, "stored"),
        "Device": frame["device"] + ", " + frame["precision"],
    }
    return pd.DataFrame(columns)


def _measured(values: pd.Series, cells: list[tuple[str, str]], form: Callable[[float], str]) -> list[str]:
    known = values.to_dict()
    return [form(known[cell]) if cell in known else measured.NOT for cell in cells]


def _weights(frame: pd.DataFrame, which: str) -> list[str]:
    numbers = zip(frame[f"{which}_weights"], frame[f"{which}_bytes"], strict=True)
    return [f"{number:,d} ({size(of)})" if number else "0" for number, of in numbers]
