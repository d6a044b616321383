"""Rows that draw mostly empty pictures: in these no judge sees the concept, and yet nothing has been erased.

Such a row is marked wherever it stands, and no best of anything: it is on no Pareto front and in no order of methods.
"""

from collections.abc import Mapping, Set
from typing import Any

import pandas as pd

# Columns of the comparison table with numbers of empty pictures (see images.spread), their denominators and what they
# are of: the target and the kept prompts' un-attacked pictures, and the last picture of each prompt under the attack.
COUNTS = {
    "target_empty": ("n_prompts", "target"),
    "kept_empty": ("kept_n", "kept"),
    "attacked_empty": ("n_prompts", "attacked"),
}
UNATTACKED = ("target_empty", "kept_empty")
MARK = "collapsed"
LEGEND = "collapsed: draws empty pictures"  # beside a cross, which stands for the marker in a figure
# Concept, method and attack of what has collapsed; None for the attack where the un-attacked pictures have.
Marks = Set[tuple[str, str, str | None]]


def has_collapsed(row: Mapping[Any, Any], counts: tuple[str, ...] = tuple(COUNTS)) -> bool:
    """Whether more than half of one of these sets of a row's pictures are empty; False where they are not counted."""
    return any((count := _number(row.get(name))) and 2 * count > row[COUNTS[name][0]] for name in counts)


def flags(frame: pd.DataFrame) -> pd.Series:
    """`has_collapsed` for each row of a comparison table, also one that was written before empty pictures counted."""
    return pd.Series([has_collapsed(row) for row in frame.to_dict("records")], frame.index, dtype=bool)


def rows(frame: pd.DataFrame) -> set[tuple[str, str]]:
    """Concept and method of the rows whose un-attacked pictures have collapsed."""
    return {(row["concept"], row["method"]) for row in frame.to_dict("records") if has_collapsed(row, UNATTACKED)}


def marks(frame: pd.DataFrame) -> Marks:
    """What of a comparison table is to be marked elsewhere."""
    found: set[tuple[str, str, str | None]] = set()
    for row in frame.to_dict("records"):
        of = (row["concept"], row["method"])
        found |= {(*of, row["attack"])} if has_collapsed(row) else set()
        found |= {(*of, None)} if has_collapsed(row, UNATTACKED) else set()
    return found


def titled(concept: str, method: str, attack: str | None, marked: Marks) -> tuple[str, str]:
    """Method and attack as text: the method has the mark, or where only attacked pictures are empty the attack."""
    whole = (concept, method, None) in marked
    alone = not whole and (concept, method, attack) in marked
    return method + f" ({MARK})" * whole, (attack or "") + f" ({MARK})" * alone


def name(row: Mapping[Any, Any]) -> str:
    """A row's method, with the mark where it or its attack's pictures have collapsed."""
    return f"{row['method']} ({MARK})" if has_collapsed(row) else row["method"]


def attack(row: Mapping[Any, Any]) -> str:
    """A row's attack, with a mark where it is blind to the method's own sampler."""
    return f"{row['attack']} (blind)" if row.get("blind") else row["attack"]


def names(rows: pd.DataFrame) -> tuple[list[str], list[str]]:
    """Methods and attacks of a table's rows, `titled`; an attack that is blind to the method's sampler says so."""
    marked, found = marks(rows), []
    for row in rows.to_dict("records"):
        method, attacked = titled(row["concept"], row["method"], row["attack"], marked)
        found.append((method, attacked.replace(row["attack"], attack(row), 1)))
    methods, attacks = zip(*found, strict=True)
    return list(methods), list(attacks)


def any_empty(rows: pd.DataFrame) -> bool:
    """Whether there is any empty picture in these rows."""
    return any(name in rows and (rows[name].fillna(0) > 0).any() for name in COUNTS)


def empty(row: Mapping[Any, Any]) -> str:
    """A row's counts, such as `0/36, 3/144, 1/36`."""
    return ", ".join(f"{_number(row.get(count)):.0f}/{row[of]}" for count, (of, _) in COUNTS.items())


TITLE = f"Empty pictures ({', '.join(what for _, what in COUNTS.values())})"


def said(rows: pd.DataFrame) -> str:
    """A sentence on one concept's rows that have collapsed, or nothing."""
    marked = rows[flags(rows)]
    found = "; ".join(f"{row['method']} under {row['attack']}" for row in marked.to_dict("records"))
    what = "Collapsed, more than half of their target, kept or attacked pictures being empty, so that their rates say "
    return f"{what}nothing of erasure: {found}." if found else ""


def _number(value: Any) -> float:
    return 0 if value is None or pd.isna(value) else float(value)
