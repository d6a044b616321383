"""Tables that run in copies of the project (see work_copy), for `make full` and `make claims`."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from eraseflow import timings
from eraseflow.mistakes import nearest
from eraseflow.outputs import heal
from eraseflow.params import Params, Table
from eraseflow.project import locks
from eraseflow.run.slots import places
from eraseflow.work_copy import CELLS, run_tables


@dataclass(frozen=True)
class Tables:
    """What a command makes: tables by the names of their folders, in copies, with the reports in `out`.

    purpose: stands at the head of each of their reports. bare: of which just table.csv and outcomes.parquet are wanted.
    linked: see work_copy.left_out.
    """

    command: str
    tables: Mapping[str, Table]
    copies: Path
    out: Path
    purpose: str
    bare: Sequence[str] = ()
    linked: Sequence[str] = ()


def run(
    made: Tables,
    check: Callable[[], None],
    names: Sequence[str],
    for_dvc: Sequence[str],
    engine: str,
    summarise: Callable[[], None],
) -> int:
    """Check, run the tables of these names (all, if there is none), and put them side by side; returns an exit code.

    Raises: SystemExit with one line where something is wrong or missing, before any stage has begun.
    """
    for name in names:
        if name not in made.tables:
            raise SystemExit(f"{made.command}: there is no table {name!r}{nearest(name, list(made.tables))}")
    check()
    chosen = {name: table for name, table in made.tables.items() if name in names or not names}
    with locks.alone(locks.FULL, "`full` or `claims`"):
        for name in made.tables:
            heal(made.out / name)
        there = places(next(iter(made.tables.values())).testbed, engine=engine)
        code = run_tables(chosen, made.copies, made.out, made.purpose, made.bare, for_dvc, there, made.linked)
        if code == 0:
            name_strangers(made.out, list(made.tables))
            summarise()
    return code


def reports(tables: Mapping[str, Table], copies: Path, out: Path) -> dict[Path, tuple[Table, Path]]:
    """Of the reports in `out` those whose cells lie in their copy: the report's folder, its table and its cells."""
    here = {out / name: (table, copies / name / CELLS) for name, table in tables.items() if (out / name).is_dir()}
    return {folder: (table, cells) for folder, (table, cells) in here.items() if timings.complete(table, cells)}


def name_strangers(out: Path, names: Sequence[str]) -> None:
    """Name the reports that are of no table any more."""
    for folder in sorted(out.glob("[!.]*/")):
        if folder.name not in names:
            print(f"{folder}: params.yaml has no such table any more; remove the folder if nobody needs it")


def of(params: Params, table: Table) -> Params:
    """The same params with another table."""
    return params.model_copy(update={"table": table})
