"""`make full`: every method, concept and attack of the emoji testbed, and the default table with further seeds.

Each table goes through the same dvc.yaml as the default one, in a copy of the project of its own (see work_copy). A run
that was stopped goes on where it was, and after an edit just what the edit touches runs again.
"""

import os
import shutil
from collections.abc import Sequence
from pathlib import Path

from eraseflow.params import Params, Table
from eraseflow.params_check import check_table
from eraseflow.ready import ready
from eraseflow.work_copy import LOCK, READ, fill_cache, run_table

TESTBED, REPLAYED = "emoji", "unlearndiffatk"  # of one attack alone: replaying costs as much as attacking once more
COPY, REPORT = Path(".work/full"), Path("reports/full")
SEEDS = 3  # of the default table; all of the full one would take three times its many hours


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


def run(params: Params, arguments: Sequence[str]) -> int:
    """Run the tables, each in its copy, and put the report into reports/full; returns an exit code.

    arguments: of each `dvc repro` that makes cells, such as --pull.
    Raises: SystemExit with one line where something is wrong or missing, before any stage has begun.
    """
    full = table(params)
    checked = params.model_copy(update={"table": full})
    check_table(checked, Path())
    ready(checked)
    further = further_seeds(params)
    code = fill_cache([full, *further.values()], COPY, REPORT / LOCK, arguments, os.cpu_count() or 1)
    code = code or run_table(full, COPY, REPORT / LOCK)
    for name, seeded in further.items():
        print(f"the default table with {name}", flush=True)
        code = code or run_table(seeded, COPY.with_name(name), REPORT / name / LOCK)
    if code == 0:
        publish(COPY, [COPY.with_name(name) for name in further], REPORT)
    return code


def publish(full: Path, further: Sequence[Path], out: Path) -> None:
    """Replace the folder by a copy's report and, of each further seed's copy, the table, in a folder of its name.

    seeds.csv and seeds.md then say how much the seeds differ; each table has the dvc.lock that its numbers are of.
    """
    unfinished = out.with_name(f".{out.name}.part")
    shutil.rmtree(unfinished, ignore_errors=True)
    made, read = full / "reports", [Path(name).name for name in READ]
    shutil.copytree(made, unfinished, ignore=lambda folder, _: read if Path(folder) == made else [])
    shutil.copy2(full / LOCK, unfinished / LOCK)
    for copy in further:
        (unfinished / copy.name).mkdir()
        for name in ("reports/table.csv", LOCK):
            shutil.copy2(copy / name, unfinished / copy.name)
    if further:
        from eraseflow.report import seeds  # takes seconds

        seeds.write([unfinished / "table.csv", *(unfinished / copy.name / "table.csv" for copy in further)], unfinished)
    shutil.rmtree(out, ignore_errors=True)
    unfinished.rename(out)
