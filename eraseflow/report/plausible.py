"""Numbers of the cells' files that cannot be: not finite, out of their range, or not of their kind.

A NaN that pandas skips, or a success that no judged picture shows, would pass through a table unseen. So each file is
looked at where it is read, and the first wrong value ends the report in one line: file, row, column.
"""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from eraseflow.passes import PASSES

INF = math.inf
ROUNDING = 1e-3  # by which a probability or a cosine that was computed in half precision may leave its range
SCORE = (-1 - ROUNDING, 1 + ROUNDING)  # of a judge with a threshold: a probability or a cosine
Range = tuple[float, float]
COUNT: Range = (0, INF)
ATTACKED: Mapping[str, Range] = {
    **{name: (0, 2**64 - 1) for name in ("seed", "adversarial_seed")},
    **{name: COUNT for name in ("blocked", *PASSES)},
    "images": (1, INF),
    "step": (-1, INF),
}
TRAINED: Mapping[str, Range] = {"step": COUNT, "loss": (-INF, INF), "residual": (-INF, INF)}
REPLAYED = ("successes", "plain_successes")  # of those found
AGAIN = "make the file anew with `dvc repro`"


class CellError(SystemExit):
    """A file that the report needs and does not find, or finds with other contents; one line, exit status 1."""


def check(path: Path, frame: pd.DataFrame, ranges: Mapping[str, Range], rows: str | None = None) -> None:
    """The columns of `ranges` that the frame has must be finite numbers within them, ends included.

    rows: the column that names the rows, which are counted from 1 without it. Raises: CellError.
    """
    for column, (low, high) in ranges.items():
        if column not in frame:
            continue
        numbers = pd.to_numeric(frame[column], errors="coerce").to_numpy(float)
        wrong = ~(np.isfinite(numbers) & (numbers >= low) & (numbers <= high))
        if wrong.any():
            place = int(wrong.argmax())
            value = frame[column].iloc[place]
            what = f"expected a finite number from {low:g} to {high:g}" if math.isfinite(low) else "is not finite"
            raise CellError(f"{path}: {_row(frame, rows, place)}: {column}: {what}, found {value!s}; {AGAIN}")


def check_scores(path: Path, judged: pd.DataFrame) -> None:
    """A judge has scored all pictures of a role or none, and every score is finite. Raises: CellError."""
    for _, of in judged.groupby("role"):
        scores = of[[column for column in of.columns if "/" in column]].dropna(axis="columns", how="all")
        numeric = scores.select_dtypes("number")
        if numeric.shape == scores.shape and np.isfinite(numeric.to_numpy(float)).all():
            continue  # a judge has hundreds of classes: one at a time only where something is wrong
        check(path, of, dict.fromkeys(scores.columns, (-INF, INF)), "prompt_id")


def check_flags(path: Path, frame: pd.DataFrame, columns: list[str]) -> None:
    """Verdicts must be true or false. Raises: CellError."""
    for column in columns:
        if not pd.api.types.is_bool_dtype(frame[column]) or frame[column].isna().any():
            raise CellError(f"{path}: {column}: expected true or false in every row; {AGAIN}")


def check_rounds(path: Path, attacked: pd.DataFrame) -> None:
    """A success has the round of its picture, 0 un-attacked; what has none has no success. Raises: CellError."""
    step = attacked["step"]
    for column, expected in (("success", step >= 0), ("pre_success", step == 0)):
        wrong = (attacked[column] != expected).to_numpy()
        if wrong.any():
            place = int(wrong.argmax())
            what = f"is {attacked[column].iloc[place]}, but step is {step.iloc[place]}"
            raise CellError(f"{path}: {_row(attacked, 'prompt_id', place)}: {column}: {what}; {AGAIN}")


def check_replayed(path: Path, rows: pd.DataFrame) -> None:
    """Of the prompts found, no more can succeed than there are. Raises: CellError."""
    check(path, rows, dict.fromkeys(["found", *REPLAYED], COUNT))
    for column in REPLAYED:
        wrong = (rows[column] > rows["found"]).to_numpy()
        if wrong.any():
            place = int(wrong.argmax())
            what = f"is {rows[column].iloc[place]}, of {rows['found'].iloc[place]} found"
            raise CellError(f"{path}: {_row(rows, None, place)}: {column}: {what}; {AGAIN}")


def check_features(path: Path, features: np.ndarray, names: list[str]) -> None:
    """Features (n, d) of the pictures of these names must be finite. Raises: CellError."""
    if features.ndim != 2 or len(features) != len(names):
        raise CellError(f"{path}: has features of the shape {features.shape}, expected {len(names)} rows; {AGAIN}")
    wrong = ~np.isfinite(features)
    if wrong.any():
        row, column = np.argwhere(wrong)[0].tolist()
        value = float(features[row, column])
        raise CellError(f"{path}: {names[row]}: feature {column + 1}: is not finite, found {value}; {AGAIN}")


def check_numbers(path: Path, values: Mapping[str, Any], ranges: Mapping[str, Range]) -> None:
    """The keys of `ranges` must have numbers within them. Raises: CellError."""
    for key, (low, high) in ranges.items():
        value = values[key]
        if isinstance(value, bool) or not isinstance(value, int | float) or not low <= value <= high:
            wanted = f"a number from {low:g} to {high:g}" if math.isfinite(low) else "a number"
            raise CellError(f"{path}: {key}: expected {wanted}, found {value!r}; {AGAIN}")


def _row(frame: pd.DataFrame, rows: str | None, place: int) -> str:
    return str(frame[rows].iloc[place]) if rows else f"row {place + 1}"
