"""`make full`: every method, concept and attack of the emoji testbed.

Each concept is a table of its own with a report of its own; they go through the same dvc.yaml as the default one, in
copies of the project (see work_copy). A run that was stopped goes on where it was, and after an edit just what the edit
touches runs again. At last their results are put side by side (see report/whole.py).
"""

from collections.abc import Sequence
from pathlib import Path

from eraseflow import tables as tables_of
from eraseflow.checks import check_table
from eraseflow.params import Params, Table
from eraseflow.ready import ready
from eraseflow.work_copy import CELLS, left_out

TESTBED, REPLAYED = "emoji", "unlearndiffatk"  # of one attack alone: replaying costs as much as attacking once more
COPIES, REPORT = Path(".work/full"), Path("reports/full")
PURPOSE = (
    "One concept of the full table, with every method and attack and one seed: what each does on it, to look up. "
    "Nothing is claimed from it; that is for the claims table, reports/claims/index.html."
)


def table(params: Params) -> Table:
    """All concepts of the testbed, and all methods and attacks with a block for it; the unedited model first."""
    methods = [name for name in params.methods if not params.lacking(name, TESTBED)]
    attacks = [name for name, attack in params.attacks.items() if TESTBED in attack.on]
    names = {
        "testbed": TESTBED,
        "concepts": [name for name, concept in params.concepts.items() if concept.testbed == TESTBED],
        "methods": sorted(methods, key=lambda name: name != "original"),
        "attacks": attacks,
        "transfer": [REPLAYED] if REPLAYED in attacks else [],
        "prompts": None,
        "kept": None,
    }
    return params.table.model_copy(update=names)


def tables(params: Params) -> dict[str, Table]:
    """The tables by the names of their folders, a concept each."""
    full = table(params)
    return {name: full.model_copy(update={"concepts": [name]}) for name in full.concepts}


def run(params: Params, names: Sequence[str], for_dvc: Sequence[str] = (), engine: str = "") -> int:
    """Run the tables and put their reports into reports/full; returns an exit code.

    names: of tables, all of them if there is none. for_dvc: arguments of each `dvc repro`, such as --pull. engine: see
    run/slots.py. Raises: SystemExit with one line where something is wrong or missing, before any stage has begun.
    """
    full = tables_of.of(params, table(params))

    def check() -> None:
        check_table(full, Path())
        ready(full)

    return tables_of.run(made(params), check, names, for_dvc, engine, lambda: summarise(full, REPORT))


def made(params: Params) -> tables_of.Tables:
    linked = left_out(tables_of.of(params, table(params)), Path())
    return tables_of.Tables("full", tables(params), COPIES, REPORT, PURPOSE, linked=linked)


def reports(params: Params) -> dict[Path, tuple[Table, Path]]:
    """The folder of the default table's report, and of each concept's whose cells are here: its table and its cells."""
    return {Path("reports"): (params.table, CELLS)} | tables_of.reports(tables(params), COPIES, REPORT)


def summarise(full: Params, out: Path) -> None:
    """Put the reports that are there side by side."""
    if not any((out / name / "table.csv").is_file() for name in full.table.concepts):
        return
    from eraseflow.report import whole  # takes seconds

    tuned_on = list(full.tuning.concepts.values()) if full.tuning else []
    whole.write(full, tuned_on, out)
