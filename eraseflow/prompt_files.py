"""The check of a prompt file, a CSV with the column prompt and, if wanted, expect, seed and guidance."""

import csv
import os
from pathlib import Path

from eraseflow.mistakes import ParamsError, nearest


def inside(path: str, where: str) -> None:
    """Raises: ParamsError unless a path of params.yaml is relative and below the project's folder."""
    if Path(path).is_absolute() or os.path.normpath(path).startswith(".."):
        raise ParamsError(f"params.yaml: {where}: {path!r} is outside the project; expected a path below its folder")


def check(root: Path, path: str, where: str, columns: list[str]) -> list[tuple[int, dict[str, str]]]:
    """Line number and row of each prompt in the file that `where` in params.yaml names, with these columns at least.

    Raises: ParamsError where the file is missing, no CSV in UTF-8 or without prompts, or a row is wrong.
    """
    inside(path, where)
    full = root / path
    if not full.is_file():
        others = sorted(str(other.relative_to(root)) for other in full.parent.glob("*.csv"))
        raise ParamsError(f"params.yaml: {where}: there is no file {path!r}{nearest(path, others)}")
    try:
        with full.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file, strict=True)
            header = reader.fieldnames or []
            rows = [(reader.line_num, row) for row in reader]
    except UnicodeDecodeError:
        raise ParamsError(f"{path}: is not in UTF-8; save it as CSV in UTF-8") from None
    except csv.Error as error:
        raise ParamsError(f"{path}: line {reader.line_num}: is not CSV: {error}") from None
    for column in columns:
        if column not in header:
            raise ParamsError(f"{path}: there is no column {column!r}; expected the header {','.join(columns)}")
    if not rows:
        raise ParamsError(f"{path}: there are no prompts; expected at least one row below the header")
    for line, row in rows:
        if mistake := _mistake(row):
            raise ParamsError(f"{path}: line {line}: {mistake}")
    return rows


def _mistake(row: dict) -> str:
    """What is wrong with a row, or nothing."""
    if None in row:
        return "more fields than the header has; put a prompt with a comma in quotes"
    if not (row["prompt"] or "").strip():
        return "the prompt is empty"
    if "seed" in row and not (row["seed"] or "").strip().isdigit():
        return f"the seed must be a whole number from 0 up, found {row['seed']!r}"
    try:
        float(row.get("guidance") or 1)
    except ValueError:
        return f"the guidance must be a number, or empty for the testbed's, found {row['guidance']!r}"
    return ""
