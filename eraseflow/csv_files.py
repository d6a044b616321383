"""CSV files as people have them, read in one way for every use, with one clear line for whatever is wrong with them.

Read are UTF-8 and what spreadsheets call Unicode text (UTF-16); commas, semicolons and tabs; quotes, line breaks within
them, and any ends of lines; trailing rows and columns that are empty, and an index column as pandas writes it.
"""

import codecs
import csv
import io
import os
import re
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass, field
from pathlib import Path

from eraseflow.mistakes import ParamsError, nearest

DELIMITERS = ",;\t"
NEWLINE = "\n"
INDEX = r"(unnamed:_?\d+(\.\d+)?)?"  # pandas' own column of row numbers, before and after it is read and saved again
NONE: Set[str] = frozenset()
Rows = list[tuple[int, dict[str, str]]]


@dataclass(frozen=True)
class Sheet:
    """A file's rows. rows: the line that each begins in, and its cells by what their columns mean.

    read_as: the columns whose names are not what they mean, and what that is. unused: columns that are not read.
    """

    columns: list[str]
    rows: Rows
    read_as: dict[str, str] = field(default_factory=dict)
    unused: list[str] = field(default_factory=list)


def inside(path: str, where: str) -> None:
    """Raises: ParamsError unless a path of params.yaml is relative and below the project's folder."""
    if Path(path).is_absolute() or os.path.normpath(path).startswith(".."):
        raise ParamsError(f"params.yaml: {where}: {path!r} is outside the project; expected a path below its folder")


def find(root: Path, path: str, where: str) -> Path:
    """The CSV file that `where` in params.yaml names. Raises: ParamsError where it is missing or outside."""
    inside(path, where)
    full = root / path
    if not full.is_file():
        others = sorted(str(other.relative_to(root)) for other in full.parent.glob("*.csv"))
        raise ParamsError(f"params.yaml: {where}: there is no file {path!r}{nearest(path, others)}")
    return full


def read(
    path: Path,
    name: str,
    known: Mapping[str, Set[str]],
    unused: Set[str] | None = NONE,
    needed: Sequence[str] = (),
    what: str = "rows",
    padded: bool = True,
) -> Sheet:
    """The `what` (such as "prompts") of a file, which messages call `name`.

    known: the meanings of columns, each with its other spellings; capitals, spaces, hyphens and underscores make no
    difference. unused: the spellings of columns that may be there and are not read; None allows any. needed: meanings
    that must be there. padded: spaces after a comma are no part of a cell.
    Raises: ParamsError where the file cannot be read or is no CSV, a needed column is missing, a column is unknown or
    means what another one does, there are no rows, or a row has more fields than the header.
    """
    records = _records(_text(path, name), name, padded)
    header = [column.strip() for column in records[0][1]] if records else []
    rows = [(line, cells) for line, cells in records[1:]]
    while rows and not any(rows[-1][1]):  # as spreadsheets leave them at the end
        rows.pop()
    columns = _columns(header, rows, name, known, unused, needed)
    if not rows:
        raise ParamsError(f"{name}: there are no {what}; expected at least one row below the header")
    for line, cells in rows:
        if any(cells[len(header) :]):
            quoted = f"put a {what.removesuffix('s')} with a comma in quotes"
            raise ParamsError(f"{name}: line {line}: more fields than the header has; {quoted}")
    places = {meaning: place for place, meaning in columns.items() if meaning}
    return Sheet(
        list(places),
        [(line, {m: cells[at] if at < len(cells) else "" for m, at in places.items()}) for line, cells in rows],
        {header[place]: meaning for meaning, place in places.items() if header[place] != meaning},
        [header[place] or f"column {place + 1}" for place, meaning in columns.items() if not meaning],
    )


def _text(path: Path, name: str) -> str:
    try:
        data = path.read_bytes()
    except OSError as error:
        raise ParamsError(f"{name}: cannot be read: {error.strerror}") from None
    wide = data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    try:
        text = data.decode("utf-16" if wide else "utf-8-sig").removeprefix("\ufeff")
    except UnicodeDecodeError as error:
        place = f"{name}: line {1 + data[: error.start].count(NEWLINE.encode())}" if not wide else name
        raise ParamsError(f"{place}: is not in UTF-8; save it as CSV in UTF-8") from None
    before, nul, _ = text.partition("\0")
    if nul:
        line = 1 + before.count(NEWLINE)
        raise ParamsError(f"{name}: line {line}: has a NUL character; save it as CSV in UTF-8")
    return text


def _records(text: str, name: str, padded: bool) -> list[tuple[int, list[str]]]:
    """The header and the rows, each with the line that it begins in; blank lines are left out."""
    first = next((line for line in io.StringIO(text, newline="") if line.strip()), "")
    fields = {mark: first.count(mark) for mark in DELIMITERS}
    delimiter = max(fields, key=fields.__getitem__)  # of the header; the first of equals
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True, skipinitialspace=padded)
    found, begins = [], 1
    try:
        for cells in reader:
            if cells:
                found.append((begins, cells))
            begins = reader.line_num + 1
    except csv.Error as error:
        raise ParamsError(f"{name}: line {begins}: is not CSV: {error}") from None
    return found


def _columns(
    header: list[str],
    rows: list[tuple[int, list[str]]],
    name: str,
    known: Mapping[str, Set[str]],
    unused: Set[str] | None,
    needed: Sequence[str],
) -> dict[int, str]:
    """What each column means by its place, "" where it is not read; an empty one without a name is left out."""
    spellings = {spelling: meaning for meaning, others in known.items() for spelling in (meaning, *others)}
    found: dict[int, str] = {}
    strange = []
    for place, column in enumerate(header):
        key = plain(column)
        if key in spellings:
            found[place] = spellings[key]
        elif unused is None or key in unused:
            found[place] = ""
        elif re.fullmatch(INDEX, key):
            cells = [(line, cells[place]) for line, cells in rows if place < len(cells) and cells[place]]
            if wrong := next(((line, cell) for line, cell in cells if not re.fullmatch("[0-9]+", cell)), None):
                what = f"column {place + 1} has no name, but holds {wrong[1][:40]!r}"
                raise ParamsError(f"{name}: line {wrong[0]}: {what}; name it or take it out")
            if cells:
                found[place] = ""
        else:
            strange.append(column)
    for meaning in needed:
        if meaning not in found.values():
            other = f", found {','.join(header)[:80]}" if header else ""
            raise ParamsError(f"{name}: there is no column {meaning!r}; expected the header {','.join(needed)}{other}")
    if strange:
        meant = nearest(strange[0], [*known])
        raise ParamsError(f"{name}: the column {strange[0]!r} is not known{meant} (or take it out)")
    for meaning in known:
        if len(same := [header[place] for place, other in found.items() if other == meaning]) > 1:
            raise ParamsError(f"{name}: the columns {' and '.join(map(repr, same))} both mean {meaning}; keep one")
    return found


def plain(column: str) -> str:
    """A column's name without what makes no difference."""
    return re.sub(r"[\s_-]+", "_", column.strip()).casefold()


def said(sheet: Sheet, name: str) -> str:
    """One line on how the columns of a file were read, or "" where all of them are named as they are meant."""
    reading = [
        f"{column} {'as' if at else 'read as'} {what}" for at, (column, what) in enumerate(sheet.read_as.items())
    ]
    parts = [", ".join(reading)] * bool(reading) + [f"{', '.join(sheet.unused)} not used"] * bool(sheet.unused)
    return f"{name}: {'; '.join(parts)}" if parts else ""
