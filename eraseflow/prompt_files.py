"""The check of a prompt file, a CSV with the column prompt and, if wanted, expect, seed and guidance."""

from pathlib import Path

from eraseflow import csv_files
from eraseflow.mistakes import ParamsError


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
    if not (row["prompt"] or "").strip():
        return "the prompt is empty"
    if "seed" in row and not (row["seed"] or "").strip().isdigit():
        return f"the seed must be a whole number from 0 up, found {row['seed']!r}"
    try:
        float(row.get("guidance") or 1)
    except ValueError:
        return f"the guidance must be a number, or empty for the testbed's, found {row['guidance']!r}"
    return ""
