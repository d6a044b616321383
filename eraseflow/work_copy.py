"""A table run in a copy of the project, a folder below .work, so that the project's own table stays as it is.

Only `table:` differs between tables, and DVC reads that from the params.yaml of the folder in which it runs: so each
runs in a folder of its own, which has its own dvc.lock, cells and report. All folders share one cache, so none computes
a cell again that another has made.

DVC writes dvc.lock anew after each stage, some 10 ms for each stage in it: with a thousand stages hours in all. So the
concepts run one after the other, each with a dvc.lock of its own stages, and at last the report over all of them.

DVC runs one stage at a time. So workers, each in a copy of its own, first make the cells of several concepts at once,
a core each; the run of the table then finds all of them in the cache.
"""

import contextlib
import filecmp
import multiprocessing
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from eraseflow import launcher
from eraseflow.params import Table

LOCK, PARAMS = Path("dvc.lock"), Path("params.yaml")
WHOLE, COPIED = Path(".dvc/tmp/whole.lock"), Path(".dvc/tmp/copied")  # in the copy: all stages; the project's files
READ = ("reports/judges.json", "reports/base/")  # what the report reads of reports/; the rest it writes


def fill_cache(tables: Sequence[Table], copy: Path, record: Path, arguments: Sequence[str], workers: int) -> int:
    """Make the cells of all tables, a concept a worker at a time; returns an exit code.

    Each worker has a copy of the folder we are in, beside `copy` and named after it, and a log of the same name for
    what DVC and the stages print. Where one fails, the others end with their concept.
    """
    workers = min(workers, sum(len(table.concepts) for table in tables))
    print(f"{workers} workers, each with one concept at a time; see {copy}-worker-*.log", flush=True)
    spawn = multiprocessing.get_context("spawn")
    todo, following = [(table, concept) for table in tables for concept in table.concepts], spawn.Value("i", 0)
    names = [copy.with_name(f"{copy.name}-worker-{place}") for place in range(workers)]
    team = [spawn.Process(target=_work, args=(todo, following, name, record, arguments), daemon=True) for name in names]
    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))  # and with us end the workers
    for worker in team:
        worker.start()
    for worker in team:
        worker.join()
    return next((worker.exitcode for worker in team if worker.exitcode), 0)


def _work(todo: list[tuple[Table, str]], following, copy: Path, record: Path, arguments: Sequence[str]) -> None:
    """Make one concept of a table after another, until none is left that no worker has taken."""
    os.environ["OMP_NUM_THREADS"] = "1"  # a core a worker
    copy.parent.mkdir(parents=True, exist_ok=True)
    said, log = os.fdopen(os.dup(1), "w", buffering=1), copy.with_name(f"{copy.name}.log").open("w")
    for stream in (1, 2):
        os.dup2(log.fileno(), stream)
    prepare(Path.cwd(), Path.cwd() / copy, record)
    os.chdir(copy)
    while True:
        with following.get_lock():
            place, following.value = following.value, following.value + 1
        if place >= len(todo):
            return
        table, concept = todo[place]
        what, started = f"{concept}, seed {table.seed} ({place + 1} of {len(todo)})", time.monotonic()
        print(f"{what}: begun", file=said)
        if code := _run_concept(table, concept, arguments):
            following.value = len(todo)
            print(f"{what}: failed, see {copy}.log", file=said)
            sys.exit(code)
        print(f"{what}: done in {(time.monotonic() - started) / 60:.0f} min", file=said)


def _run_concept(table: Table, concept: str, arguments: Sequence[str]) -> int:
    """In a copy: all stages of one of the table's concepts but the report; returns an exit code."""
    write_table(table.model_copy(update={"concepts": [concept]}))
    write_lock(LOCK, of_concept(read_lock(WHOLE), concept, table.concepts))
    code = launcher.repro([*arguments, "cards", "score", "attack", *(["transfer"] if table.transfer else [])])
    write_lock(WHOLE, read_lock(WHOLE) | read_lock(LOCK))
    return code


def run_table(table: Table, copy: Path, record: Path) -> int:
    """Run a table in a copy of the folder we are in; returns an exit code, and leaves the report in its reports/.

    record: the dvc.lock of the last run that was published.
    """
    prepare(Path.cwd(), Path.cwd() / copy, record)
    with contextlib.chdir(copy):
        for place, concept in enumerate(table.concepts):
            print(f"{concept}, {place + 1} of {len(table.concepts)} concepts", flush=True)
            if code := _run_concept(table, concept, ()):
                return code
        write_table(table)
        write_lock(LOCK, read_lock(WHOLE))
        code = launcher.repro(["--single-item", "report"])
        write_lock(WHOLE, read_lock(WHOLE) | read_lock(LOCK))
    return code


def prepare(project: Path, copy: Path, record: Path) -> None:
    """Bring the copy's code and inputs up to the project's; what it has computed stays, in the project's cache."""
    listed = _call(project, "git", "ls-files", "-co", "--exclude-standard", "-z").split("\0")
    names = {name for name in listed if _is_input(name) and (project / name).is_file()}
    marker = copy / COPIED
    for name in (set(marker.read_text().split("\n")) if marker.exists() else set()) - names:
        (copy / name).unlink(missing_ok=True)
    for name in sorted(names):
        if not (copy / name).is_file() or not filecmp.cmp(project / name, copy / name, shallow=False):
            (copy / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(project / name, copy / name)
    marker.parent.mkdir(parents=True, exist_ok=True)
    marker.write_text("\n".join(sorted(names)))
    if (project / ".dvc/config.local").exists():
        shutil.copy2(project / ".dvc/config.local", copy / ".dvc/config.local")
    dvc = [sys.executable, "-m", "dvc"]
    cache = _call(project, *dvc, "cache", "dir").strip()
    # The copy lies in a folder that git ignores, where DVC would take none of its own files.
    for name, value in (("core.no_scm", "true"), ("cache.dir", cache)):
        _call(copy, *dvc, "config", "--local", name, value)
    shutil.copy2(project / PARAMS, copy / PARAMS)
    stages: dict[str, Any] = {}
    for path in (project / record, copy / WHOLE, copy / LOCK):
        stages |= read_lock(path)
    # What came with the project's files, such as the base model, is described by the project's dvc.lock.
    stages |= {name: stage for name, stage in read_lock(project / LOCK).items() if "@" not in name and name != "report"}
    write_lock(copy / WHOLE, stages)


def _is_input(name: str) -> bool:
    """Whether a file of the project is the copy's too, rather than a result or replaced there."""
    written = name.startswith("reports/") and not name.startswith(READ)
    return bool(name) and not written and Path(name) not in (LOCK, PARAMS)


def of_concept(stages: dict[str, Any], concept: str, concepts: Sequence[str]) -> dict[str, Any]:
    """Those of a dvc.lock's stages, such as attack@p4d-unicorn-esd, that are not another concept's."""
    others = set(concepts) - {concept}
    return {name: stage for name, stage in stages.items() if not others & set(re.split("[@-]", name))}


def write_table(names: Table) -> None:
    """Put a table into the copy's params.yaml."""
    raw = yaml.safe_load(PARAMS.read_text())
    PARAMS.write_text(yaml.safe_dump(raw | {"table": names.model_dump()}, sort_keys=False))


def read_lock(path: Path) -> dict[str, Any]:
    """The stages of a dvc.lock; none where there is no file."""
    return yaml.load(path.read_text(), yaml.CSafeLoader)["stages"] if path.exists() else {}


def write_lock(path: Path, stages: dict[str, Any]) -> None:
    """Whole or not at all, as DVC reads it."""
    unfinished = path.with_name(path.name + ".part")
    unfinished.write_text(yaml.dump({"schema": "2.0", "stages": stages}, Dumper=yaml.CSafeDumper, sort_keys=False))
    unfinished.replace(path)


def _call(folder: Path, *command: str) -> str:
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)}: {(done.stderr.strip().splitlines() or ['failed'])[-1]}")
    return done.stdout
