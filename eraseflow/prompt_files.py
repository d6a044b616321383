"""The check of a prompt file; prompt_sources.py says what columns it may have."""

import csv
import math
import re
from pathlib import Path

from eraseflow import csv_files
from eraseflow.mistakes import ParamsError

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
    rows = csv_files.rows(root, path, where, columns, "prompts")
    for line, row in rows:
        if mistake := _mistake(row):
            raise ParamsError(f"{path}: line {line}: {mistake}")
    return rows


def _mistake(row: dict) -> str:
    """What is wrong with a row, or nothing."""
    if "prompt" in row and not (row["prompt"] or "").strip():
        return "the prompt is empty"
    for column, (pattern, wanted) in FIELDS.items():
        if column in row and not re.fullmatch(pattern, (row[column] or "").strip()):
            return f"{column} must be {wanted}, found {row[column]!r}"
    if "seed" in row and not (row["seed"] or "").strip().isdigit():
        return f"the seed must be a whole number from 0 up, found {row['seed']!r}"
    try:
        guidance = float(row.get("guidance") or 1)
    except ValueError:
        guidance = math.nan
    if not 1 <= guidance < math.inf:
        return f"the guidance must be a number from 1 up, or empty for the testbed's, found {row['guidance']!r}"
    return ""
