"""The run's side of a command: it goes to a worker, with its inputs through DVC's remote where that is elsewhere.

The worker's side is work.py.
"""

import threading
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from dvc.dependency import ParamsDependency
from dvc.repo import Repo

from eraseflow.run import remote
from eraseflow.run.engine import Engine
from eraseflow.run.task import Done, Task, call

HERE = ("concept", "methods")  # they note what lies where DVC does not look, on the machine of the run


def can_leave(stage: Any) -> bool:
    """Whether DVC's cache has all that a stage makes, so that it can be made elsewhere.

    A stage of several commands stays, for each of them would begin with removing its outputs.
    """
    single = isinstance(stage.cmd, str) and len(stage.cmd.splitlines()) == 1
    return single and stage.name.partition("@")[0] not in HERE and all(out.use_cache for out in stage.outs)


def task(stage: Any, needed: Iterable[Any], engine: Engine) -> Task:
    """Of a stage whose dependencies DVC has just hashed, without its command; needed: the stages that it depends on."""
    root = Path(stage.repo.root_dir)
    if not engine.address or not can_leave(stage):
        return Task(stage.name, (), str(root), engine.token, stays=True)
    return Task(
        stage.name,
        (),
        str(root),
        engine.token,
        params=(root / "params.yaml").read_text(encoding="utf-8"),
        reads={dep.def_path: dep.hash_info.value for dep in stage.deps if not isinstance(dep, ParamsDependency)},
        brought={
            other.name: {out.def_path: out.hash_info.value for out in other.outs if out.use_cache} for other in needed
        },
    )


class Away:
    """Runs commands on an engine; DVC's default remote has one transfer at a time.

    Beside what other threads do with DVC: so with a repository object of its own. there: hashes that the remote has.
    """

    def __init__(self, engine: Engine, root: str) -> None:
        self.engine, self.root, self.turn = engine, root, threading.Lock()
        self.there: set[str] = set()

    def run(self, task: Task) -> Done:
        """Raises: RuntimeError with one line where no worker could run it."""
        if self.engine.address and task.stays:
            return call(task, Path(task.folder), {}, lambda: False)
        if self.engine.address and not self.engine.shared:
            with self.turn, Repo(self.root) as repo:
                wanted = {value for hashes in task.brought.values() for value in hashes.values()} - self.there
                remote.send(repo, wanted)
                self.there |= wanted
        done = self.engine.run(task)
        if done.made:
            with self.turn, Repo(self.root) as repo:
                remote.fetch(repo, done.made.values())
                self.there.update(done.made.values())
        return done


def check_out(stage: Any, made: Mapping[str, str]) -> None:
    """Lay the stage's outputs, which the cache has, into the project."""
    for out in stage.outs:
        out.hash_info = remote.hash_info(made[out.def_path])
        out.checkout(force=True)
