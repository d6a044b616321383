"""CSV files that params.yaml names, read with one clear line for whatever is wrong with them."""

import csv
import os
from pathlib import Path

from eraseflow.mistakes import ParamsError, nearest


def inside(path: str, where: str) -> None:
    """Raises: ParamsError unless a path of params.yaml is relative and below the project's folder."""
    if Path(path).is_absolute() or os.path.normpath(path).startswith(".."):
        raise ParamsError(f"params.yaml: {where}: {path!r} is outside the project; expected a path below its folder")


def rows(root: Path, path: str, where: str, columns: list[str], what: str) -> list[tuple[int, dict[str, str]]]:
    """Line number and row of each of the `what` (such as "prompts") in the file that `where` in params.yaml names.

    Raises: ParamsError where the file is missing, no CSV in UTF-8, without one of the columns or without rows, or
    where a row has more fields than the header.
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
            found = [(reader.line_num, row) for row in reader]
    except UnicodeDecodeError:
        raise ParamsError(f"{path}: is not in UTF-8; save it as CSV in UTF-8") from None
    except csv.Error as error:
        raise ParamsError(f"{path}: line {reader.line_num}: is not CSV: {error}") from None
    for column in columns:
        if column not in header:
            raise ParamsError(f"{path}: there is no column {column!r}; expected the header {','.join(columns)}")
    if not found:
        raise ParamsError(f"{path}: there are no {what}; expected at least one row below the header")
    for line, row in found:
        if None in row:
            quoted = f"put a {what.removesuffix('s')} with a comma in quotes"
            raise ParamsError(f"{path}: line {line}: more fields than the header has; {quoted}")
    return found
