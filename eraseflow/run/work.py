"""What a worker does with a stage: it runs its command in the folder of the run, or where it does not reach that, in a
copy of its own project, for which inputs come from DVC's remote and to which outputs go.

The copies lie in .work/worker, one for each params.yaml, so that the worker's own table stays as it is.
"""

import fcntl
import hashlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from eraseflow.outputs import write_text
from eraseflow.run.task import Done, Task, call, log_of

if TYPE_CHECKING:
    from dvc.repo import Repo

COPIES, TURN = Path(".work/worker"), "turn.lock"
SLOTS: dict[int | str, Mapping[str, str]] = {}  # the environment variables of each worker of this process, by its name
BESIDE = "timing-*.json"  # DVC knows nothing of them, see timings.py
prepared: set[tuple[str, Path]] = set()


def run(task: Task) -> Done:
    """Called by Dask in a thread of a worker. Raises: RuntimeError with one line where the command cannot run here."""
    from distributed import get_worker

    worker = get_worker()
    key, slot = worker.get_current_task(), SLOTS.get(worker.name, {})

    def unwanted() -> bool:
        mine = worker.state.tasks.get(key)
        return mine is None or mine.state != "executing"

    if task.is_here():
        return call(task, Path(task.folder), slot, unwanted)
    copy = COPIES.absolute() / hashlib.sha256(task.params.encode()).hexdigest()[:16]
    with in_turn(copy):
        if (task.token, copy) not in prepared:
            prepare(task, copy)
            prepared.add((task.token, copy))
        bring(task, copy, f"worker {worker.name} in {Path.cwd()}")
    done = call(task, copy, slot, unwanted)
    log = log_of(task.stage, copy).read_bytes()
    if done.code:
        return replace(done, log=log)
    with in_turn(copy):
        made = send(task, copy)
    beside = {
        path.relative_to(copy).as_posix(): path.read_text(encoding="utf-8")
        for folder in {(copy / name).parent for name in made}
        for path in folder.glob(BESIDE)
    }
    return replace(done, log=log, made=made, beside=beside)


@contextmanager
def in_turn(copy: Path) -> Iterator[None]:
    """Several workers may share a copy."""
    copy.mkdir(parents=True, exist_ok=True)
    with (copy / TURN).open("a", encoding="utf-8") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def prepare(task: Task, copy: Path) -> None:
    """Bring the copy's files up to those of the worker's project, and its params to those of the run."""
    from eraseflow import work_copy
    from eraseflow.mistakes import read
    from eraseflow.params import Params, read_yaml

    write_text(task.params, copy / work_copy.PARAMS)
    params = read(Params, read_yaml(copy / work_copy.PARAMS))
    work_copy.prepare(Path.cwd(), copy, work_copy.LOCK, work_copy.left_out(params, Path()))


def bring(task: Task, copy: Path, who: str) -> None:
    """Lay the outputs that the stage may read into the copy, and remove those that it makes.

    The copy's cache is the project's. Raises: RuntimeError where the remote has not all of them, or something else that
    the stage reads is another here.
    """
    from dvc.repo import Repo

    from eraseflow.run import remote

    with Repo(copy) as repo, Repo() as project, repo.lock:
        given = []
        for name, hashes in task.brought.items():
            for out in stage_of(repo, name).outs:
                if out.def_path in hashes:
                    out.hash_info = remote.hash_info(hashes[out.def_path])
                    given.append(out)
        remote.fetch(project, {out.hash_info.value for out in given})
        for out in given:
            out.checkout(force=True)
        stage = stage_of(repo, task.stage)
        stage.remove_outs(force=True)
        stage.save_deps()
        for dep in stage.deps:
            if dep.def_path in task.reads and dep.hash_info.value != task.reads[dep.def_path]:
                what = f"{who} has another {dep.def_path} than the run's"
                raise RuntimeError(f"{task.stage}: {what}; both need the same commit, without edits")


def send(task: Task, copy: Path) -> dict[str, str]:
    """Put what the stage has made into the cache and the remote; returns the hashes by path."""
    from dvc.repo import Repo

    from eraseflow.run import remote

    with Repo(copy) as repo, Repo() as project, repo.lock:
        stage = stage_of(repo, task.stage)
        stage.save_outs()
        stage.commit()
        made = {out.def_path: out.hash_info.value for out in stage.outs}
        remote.send(project, made.values())
        return made


def stage_of(repo: "Repo", name: str):
    """One stage as dvc.yaml in the root of a repository has it."""
    return repo.stage.load_one(path=str(Path(repo.root_dir, "dvc.yaml")), name=name)
