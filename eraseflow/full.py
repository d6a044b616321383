"""`make full`: every method, concept and attack of the emoji testbed, and the default table with further seeds.

Each concept is a table of its own with a report of its own, and so is each further seed; they go through the same
dvc.yaml as the default one, in copies of the project (see work_copy). A run that was stopped goes on where it was, and
after an edit just what the edit touches runs again. At last their results are put side by side (see report/whole.py).
"""

import os
from collections.abc import Sequence
from pathlib import Path

from eraseflow import timings
from eraseflow.checks import check_table
from eraseflow.mistakes import nearest
from eraseflow.outputs import heal
from eraseflow.params import Params, Table
from eraseflow.project import locks
from eraseflow.ready import ready
from eraseflow.work_copy import CELLS, left_out, run_tables

TESTBED, REPLAYED = "emoji", "unlearndiffatk"  # of one attack alone: replaying costs as much as attacking once more
COPIES, REPORT = Path(".work/full"), Path("reports/full")
SEEDS = 3  # of the default table; all of the full one would take three times its many hours
TUNED_ON = ["drink", "glossy_style", "penguin"]  # by benchmarks/tune.py; one of each kind, none in the default table


def table(params: Params) -> Table:
    """All concepts of the testbed, and all methods and attacks with a block for it; the unedited model first."""
    methods = [name for name in params.methods if not params.lacking(name, TESTBED)]
    attacks = [name for name, block in params.attacks.items() if TESTBED in block]
    names = {
        "testbed": TESTBED,
        "concepts": [name for name, concept in params.concepts.items() if concept.testbed == TESTBED],
        "methods": sorted(methods, key=lambda name: name != "original"),
        "attacks": attacks,
        "transfer": [REPLAYED] if REPLAYED in attacks else [],
    }
    return params.table.model_copy(update=names)


def further_seeds(params: Params) -> dict[str, Table]:
    """The default table with each further seed, under the name of its folder; none where it is not of this testbed."""
    default = params.table
    seeds = range(default.seed + 1, default.seed + SEEDS) if default.testbed == TESTBED else ()
    return {f"seed-{seed}": default.model_copy(update={"seed": seed}) for seed in seeds}


def tables(params: Params) -> dict[str, Table]:
    """The tables by the names of their folders: a concept each, then the default one with further seeds."""
    full = table(params)
    return {name: full.model_copy(update={"concepts": [name]}) for name in full.concepts} | further_seeds(params)


def run(params: Params, names: Sequence[str], for_dvc: Sequence[str] = ()) -> int:
    """Run the tables and put their reports into reports/full; returns an exit code.

    names: of tables, all of them if there is none. for_dvc: arguments of each `dvc repro`, such as --pull.
    Raises: SystemExit with one line where something is wrong or missing, before any stage has begun.
    """
    every = tables(params)
    for name in names:
        if name not in every:
            raise SystemExit(f"full: there is no table {name!r}{nearest(name, list(every))}")
    full = params.model_copy(update={"table": table(params)})
    check_table(full, Path())
    ready(full)
    chosen = {name: one for name, one in every.items() if name in names or not names}
    linked = left_out(full, Path())
    with locks.alone(locks.FULL, "`full`"):
        for name in every:
            heal(REPORT / name)
        bare, workers = list(further_seeds(params)), os.cpu_count() or 1
        code = run_tables(chosen, COPIES, REPORT, bare, for_dvc, workers, linked)
        if code == 0:
            summarise(full, list(every), REPORT)
    return code


def reports(params: Params) -> dict[Path, tuple[Table, Path]]:
    """The folder of the default table's report, and of each concept's whose cells are here: its table and its cells."""
    found = {Path("reports"): (params.table, CELLS)}
    for name in table(params).concepts:  # of further seeds nothing but table.csv is published
        one, cells = tables(params)[name], COPIES / name / CELLS
        if (REPORT / name).is_dir() and timings.complete(one, cells):
            found[REPORT / name] = (one, cells)
    return found


def summarise(full: Params, every: Sequence[str], out: Path) -> None:
    """Put the reports that are there side by side; name those that are of no table any more."""
    for folder in sorted(out.glob("[!.]*/")):
        if folder.name not in every:
            print(f"{folder}: params.yaml has no such table any more; remove the folder if nobody needs it")
    if not any((out / name / "table.csv").is_file() for name in full.table.concepts):
        return
    from eraseflow.report import whole  # takes seconds

    whole.write(full, list(further_seeds(full)), TUNED_ON, out)
