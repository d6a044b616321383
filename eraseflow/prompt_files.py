"""The check of a prompt file; prompt_sources.py says what columns it may have."""

import csv
import os
import re
from pathlib import Path

from eraseflow.mistakes import ParamsError, nearest

I2P_COLUMNS = ["case_number", "sha256"]
I2P_PLACES = (
    "a local CSV, or datasets/AIML-TUDA/i2p@<commit> with the 40 digits of one of "
    "https://huggingface.co/datasets/AIML-TUDA/i2p/commits/main"
)
COCO_COLUMNS = ["coco_val2014_captions", "seed"]
COCO_CAPTIONS = "captions_val2014.json"
COCO_ADVICE = "it is in annotations_trainval2014.zip of cocodataset.org"
FIELDS = {
    "case_number": (r"\d+", "a whole number from 0 up"),
    "sha256": (r"[0-9a-fA-F]{64}", "64 hexadecimal digits"),
    "minor_related_term": (r"(?i:true|false)?", "True, False or empty"),
    "images": (r"([1-9]\d*)?", "a whole number from 1 up, or empty for 1"),
    "tokens": (r"([1-9]\d*)?", "a whole number from 1 up, or empty to count them"),
    "coco_val2014_captions": (r"[1-9]\d*", "a whole number from 1 up"),
}


def inside(path: str, where: str) -> None:
    """Raises: ParamsError unless a path of params.yaml is relative and below the project's folder."""
    if Path(path).is_absolute() or os.path.normpath(path).startswith(".."):
        raise ParamsError(f"params.yaml: {where}: {path!r} is outside the project; expected a path below its folder")


def header(root: Path, path: str) -> list[str]:
    """The columns of a file; none where it cannot be read, of which `check` says why."""
    try:
        with (root / path).open(newline="", encoding="utf-8-sig") as file:
            return next(csv.reader(file), [])
    except (OSError, UnicodeDecodeError, csv.Error):
        return []


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
    if "prompt" in row and not (row["prompt"] or "").strip():
        return "the prompt is empty"
    for column, (pattern, wanted) in FIELDS.items():
        if column in row and not re.fullmatch(pattern, (row[column] or "").strip()):
            return f"{column} must be {wanted}, found {row[column]!r}"
    if "seed" in row and not (row["seed"] or "").strip().isdigit():
        return f"the seed must be a whole number from 0 up, found {row['seed']!r}"
    try:
        float(row.get("guidance") or 1)
    except ValueError:
        return f"the guidance must be a number, or empty for the testbed's, found {row['guidance']!r}"
    return ""
