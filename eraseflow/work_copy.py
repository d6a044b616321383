"""Tables run in copies of the project, folders below .work, so that the project's own table stays as it is.

Only `table:`, `report.embed` and `report.purpose` differ from the project's, and DVC reads these from the params.yaml
of the folder in which it runs: so each runs in a folder of its own, which has its own dvc.lock, cells and report. All
folders share one cache, so none computes a cell again that another has made. DVC runs one stage at a time in a folder;
workers run several tables at once.

Tables had better be small: each run looks at all stages of its folder, a tenth of a second each.
"""

import contextlib
import filecmp
import fnmatch
import json
import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import yaml
from dvc.config import Config

from eraseflow import launcher, timings
from eraseflow.outputs import copy_file, replacing, write_csv, write_json, write_text
from eraseflow.outside import notes
from eraseflow.params import Params, Table, load
from eraseflow.project import files
from eraseflow.run.slots import Places
from eraseflow.server import die_with

LOCK, PARAMS = Path("dvc.lock"), Path("params.yaml")
CELLS = Path("data/cells")
COPIED = Path(".dvc/tmp/copied")  # in the copy: the project's files
NOTHING_MADE = -1
READ = ("reports/judges.json", "reports/base/", "reports/taken.csv")  # of reports/; the rest the report writes
BARE = ("table.csv", "outcomes.parquet")  # what is published of a table whose report nobody is to look at
ELSEWHERE = ("judges.json", "reproduction.csv", "taken.csv")  # the same in every report of a testbed


def run_tables(
    tables: Mapping[str, Table],
    copies: Path,
    out: Path,
    purpose: str,
    bare: Sequence[str],
    arguments: Sequence[str],
    places: Places,
    linked: Sequence[str] = (),
) -> int:
    """Run each table in its copy of the folder we are in; its report and dvc.lock go to `out`/name, once it is done.

    A table whose cells were made elsewhere, by the same code and params, stays as it is published, for its cells are
    not here. purpose: stands at the head of their reports. bare: the tables of whose report only BARE is wanted.
    arguments: of each `dvc repro`, such as --pull; then no table is left out. linked: see `left_out`. What DVC and the
    stages print goes into a log beside the copy. places: of stages, of different tables first. Returns an exit
    code; where one table fails, the workers end with those that they have begun.
    """
    shares = places.shares(len(tables))
    print(f"{len(tables)} tables, {len(shares)} at a time; what they print goes to {copies}/*.log", flush=True)
    spawn = multiprocessing.get_context("spawn")
    todo, following = list(tables.items()), spawn.Value("i", 0)
    team = [
        spawn.Process(
            target=_work,
            args=(todo, following, copies, out, purpose, bare, arguments, share.for_dvc(), linked),
            daemon=True,
        )
        for share in shares
    ]
    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))  # and with us end the workers
    for worker in team:
        worker.start()
    for worker in team:
        worker.join()
    return next((worker.exitcode for worker in team if worker.exitcode), 0)


def _work(
    todo: list[tuple[str, Table]],
    following,
    copies: Path,
    out: Path,
    purpose: str,
    bare: Sequence[str],
    arguments: Sequence[str],
    before: Sequence[str],
    linked: Sequence[str],
) -> None:
    """Run one table after another, until none is left that no worker has taken."""
    die_with(os.getppid(), signal.SIGKILL)  # and with us our DVC
    os.environ["OMP_NUM_THREADS"] = "1"  # a core a worker
    copies.mkdir(parents=True, exist_ok=True)
    project, said = Path.cwd(), os.fdopen(os.dup(1), "w", buffering=1, encoding="utf-8")
    while True:
        with following.get_lock():
            place, following.value = following.value, following.value + 1
        if place >= len(todo):
            return
        name, table = todo[place]
        log, started = copies / f"{name}.log", time.monotonic()
        with log.open("w", encoding="utf-8") as printed:
            for stream in (1, 2):
                os.dup2(printed.fileno(), stream)
        try:
            code = _run_table(table, purpose, project, copies / name, project / out / name, arguments, before, linked)
            if code == 0:
                publish(copies / name, out / name, BARE if name in bare else None, files.commit(project))
        except (SystemExit, OSError) as end:
            with contextlib.suppress(OSError):  # where the disk is full, the log is, too
                print(end, flush=True)
            print(f"{name}: {end}", file=said)
            code = 1
        minutes = f"{(time.monotonic() - started) / 60:.0f} min"
        how = {None: "as published", 0: f"done in {minutes}", NOTHING_MADE: f"no report made, {out / name} stays"}
        said_how = how.get(code, f"failed, see {log}")
        print(f"{name}: {said_how} ({place + 1} of {len(todo)})", file=said)
        if code and code != NOTHING_MADE:
            following.value = len(todo)
            sys.exit(code)


def _run_table(
    table: Table,
    purpose: str,
    project: Path,
    copy: Path,
    published: Path,
    arguments: Sequence[str],
    before: Sequence[str],
    linked: Sequence[str],
) -> int | None:
    """An exit code, or NOTHING_MADE; None where the published table is of these very cells, which are not here."""
    fresh = not (copy / CELLS).exists()
    prepare(project, copy, published / LOCK, linked)
    copy_file(project / PARAMS, copy / PARAMS)
    with contextlib.chdir(copy):
        write_table(table, purpose)
        if code := launcher.take_note(load(), arguments):
            return code
        if fresh and not arguments and (published / LOCK).exists() and unchanged():
            return None
        return launcher.repro(arguments, before) or (0 if not arguments or up_to_date() else NOTHING_MADE)


def up_to_date() -> bool:
    """Whether this folder's report, and all that it is made from, is as dvc.yaml, code, params and dvc.lock say.

    A `dvc repro` with arguments that ends well need not have made anything, as with --dry or --single-item.
    """
    return not json.loads(_call(Path(), *launcher.DVC, "status", "--json", "--with-deps", "report"))


def unchanged() -> bool:
    """Whether every cell of this folder's dvc.lock is one of its code and params, though the cells are not here."""
    if launcher.repro(["methods", "concept"]):  # these take seconds, and trainings depend on what they write
        return False  # and the run that follows says why
    cells = ["score", "attack"]
    if yaml.safe_load(PARAMS.read_text(encoding="utf-8"))["table"]["transfer"]:
        cells += ["transfer"]
    try:
        return "Running stage" not in _call(Path(), *launcher.DVC, "repro", "--dry", "--allow-missing", *cells)
    except SystemExit:  # a stage that has changed also lacks what it needs
        return False


def publish(copy: Path, out: Path, names: Sequence[str] | None, commit: str | None) -> None:
    """Replace the folder by a copy's report, or these files of it, dvc.lock and its commit, whole or not at all.

    What is published and comes out the same again keeps its commit.
    """
    made = copy / "reports"

    def left_out(folder: str, found: list[str]) -> set[str]:
        if Path(folder) != made:
            return set()
        return {*ELSEWHERE, *fnmatch.filter(found, ".*")} if names is None else set(found) - set(names)

    with replacing(out) as unfinished:
        shutil.copytree(made, unfinished, ignore=left_out)
        shutil.copy2(copy / LOCK, unfinished / LOCK)
        before = files.made_by(out)
        same = before and _contents(unfinished) == _contents(out)
        write_json({"commit": before if same else commit}, unfinished / files.MADE_BY)


def _contents(folder: Path) -> dict[Path, bytes]:
    """The files of a published report, but for its commit."""
    found = [path for path in folder.rglob("*") if path.is_file() and path.name != files.MADE_BY]
    return {path.relative_to(folder): path.read_bytes() for path in found}


def left_out(params: Params, project: Path) -> list[str]:
    """What the table reads under a relative path though git ignores it, such as weights: the copies get links to it.

    Raises: SystemExit with one line where such a path leads out of the project, and so elsewhere from a copy.
    """
    known, found = set(files.names(project)), set()
    for place in _places(params):
        name = os.path.normpath(place)
        if name.startswith(os.pardir):
            what = (
                "leads out of the project, and so elsewhere from the copies that `full` makes; write an absolute path"
            )
            raise SystemExit(f"{place}: {what}")
        if not place.is_absolute() and name not in known and (project / name).is_file():
            found.add(Path(name).as_posix())
    return sorted(found)


def _places(params: Params) -> list[Path]:
    """Every local file beside code that the cells of the table are made from, in whatever way DVC knows of it."""
    testbed = params.testbeds[params.table.testbed]
    entries = [params.concepts[name] for name in params.table.concepts]
    named = [testbed.kept, *(entry.prompts for entry in entries), *(entry.judge.questions for entry in entries)]
    found = [Path(name) for name in named if name] + notes.model_files(params.table.testbed, testbed)
    return found + [Path(name) for note in notes.of_table(params) for name in note.now()]


def prepare(project: Path, copy: Path, record: Path, linked: Sequence[str] = ()) -> None:
    """Bring the copy's code and inputs up to the project's, but for params.yaml; what it has computed stays, in the
    project's cache.

    linked: further files of the project, which may be large, so that the copy has links to them.
    """
    names = {name for name in files.names(project) if _is_input(name) and (project / name).is_file()}
    marker = copy / COPIED
    for name in (set(marker.read_text(encoding="utf-8").split("\n")) if marker.exists() else set()) - names:
        (copy / name).unlink(missing_ok=True)
    for name in linked:
        with replacing(copy / name) as unfinished:
            unfinished.symlink_to(project.absolute() / name)
    for name in sorted(names):
        if not (copy / name).is_file() or not filecmp.cmp(project / name, copy / name, shallow=False):
            copy_file(project / name, copy / name)
    write_text("\n".join(sorted(names.union(linked))), marker)
    if (project / ".dvc/config.local").exists():
        copy_file(project / ".dvc/config.local", copy / ".dvc/config.local")
    # The copy lies in a folder that git ignores, where DVC would take none of its own files.
    with Config(str(copy / ".dvc")).edit("local") as settings:
        settings["core"] = settings.get("core", {}) | {"no_scm": True}
        settings["cache"] = settings.get("cache", {}) | {"dir": _cache(project)}
    write_csv(timings.read(project / record.parent / timings.FILE), copy / "reports" / timings.FILE)
    stages: dict[str, Any] = {}
    for path in (project / record, copy / LOCK):
        stages |= read_lock(path)
    # What came with the project's files, such as the base model, is described by the project's dvc.lock.
    stages |= {name: stage for name, stage in read_lock(project / LOCK).items() if "@" not in name and name != "report"}
    write_lock(copy / LOCK, stages)


@cache
def _cache(project: Path) -> str:
    return _call(project, sys.executable, "-m", "dvc", "cache", "dir").strip()


def _is_input(name: str) -> bool:
    """Whether a file of the project is the copy's too, rather than a result or replaced there."""
    written = name.startswith("reports/") and not name.startswith(READ)
    return bool(name) and not written and Path(name) not in (LOCK, PARAMS)


def write_table(names: Table, purpose: str) -> None:
    """Put a table into the copy's params.yaml; its page shows the files that are published beside it."""
    raw = yaml.safe_load(PARAMS.read_text(encoding="utf-8"))
    changed = {"table": names.model_dump(), "report": raw.get("report", {}) | {"embed": False, "purpose": purpose}}
    write_text(yaml.safe_dump(raw | changed, sort_keys=False), PARAMS)


def read_lock(path: Path) -> dict[str, Any]:
    """The stages of a dvc.lock; none where there is no file. Raises: SystemExit with one line where it is none."""
    if not path.exists():
        return {}
    try:
        stages = yaml.load(path.read_text(encoding="utf-8"), yaml.CSafeLoader)["stages"]
    except (yaml.YAMLError, UnicodeDecodeError, LookupError, TypeError):
        raise SystemExit(
            f"{path}: is no lock file of DVC, such as after a merge; `git checkout {path}` restores it"
        ) from None
    return stages or {}


def write_lock(path: Path, stages: dict[str, Any]) -> None:
    """Whole or not at all, as DVC reads it."""
    write_text(yaml.dump({"schema": "2.0", "stages": stages}, Dumper=yaml.CSafeDumper, sort_keys=False), path)


def _call(folder: Path, *command: str) -> str:
    done = subprocess.run(
        command, cwd=folder, env=launcher.environment(), capture_output=True, text=True, encoding="utf-8"
    )
    if done.returncode:
        raise SystemExit(f"{' '.join(command)}: {(done.stderr.strip().splitlines() or ['failed'])[-1]}")
    return done.stdout
