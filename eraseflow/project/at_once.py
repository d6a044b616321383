"""`dvc repro` with several stages at once.

DVC runs one stage after another. Here each stage whose inputs are there runs in a thread of its own. A thread holds
DVC's lock while DVC looks at records, cache and outputs, and lets go of it while the stage's command runs, as DVC does.
So what is stale, the run cache, `--force`, `--pull`, `--keep-going` and what is recorded are DVC's own; the order alone
is another.
"""

import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager, suppress
from functools import partial, wraps
from pathlib import Path
from typing import Any

from dvc.lock import LockError
from dvc.repo import reproduce
from dvc.stage import run
from dvc.stage.exceptions import StageCmdFailedError

from eraseflow.project import lock_file

LOGS = Path(".work/logs")
TAIL = 30  # lines of a failed stage's log that are shown
one_by_one = reproduce._reproduce


def use(count: int) -> None:
    """Let DVC run so many stages at once from now on."""
    reproduce._reproduce = partial(several, count)
    run._run = command


class Desk:
    """Where one thread at a time works with DVC's records, and holds the repository's lock."""

    def __init__(self, repo) -> None:
        self.repo, self.turn = repo, threading.Lock()

    def take(self) -> None:
        self.turn.acquire()
        while not self.repo.lock.is_locked:
            with suppress(LockError):  # another command of DVC has it for longer than DVC waits
                self.repo.lock.lock()

    def leave(self) -> None:
        self.repo.lock.unlock()
        self.repo._reset()
        self.turn.release()

    def unlocked(self, function: Callable) -> Callable:
        """In the place of DVC's decorator of what runs while the repository is not locked."""

        @wraps(function)
        def aside(stage, *given, **named):
            self.leave()
            try:
                return function(stage, *given, **named)
            finally:
                self.take()

        return aside


class Run:
    """A run of stages, each after those that it depends on; graph: has an edge from it to each of these.

    waiting: the stages that have not begun, with what each still waits for.
    """

    def __init__(self, stages: list, graph, on_error: str, force_downstream: bool, force: bool, options: dict) -> None:
        self.graph, self.on_error, self.force_downstream, self.options = graph, on_error, force_downstream, options
        self.desk, self.forced = Desk(stages[0].repo), dict.fromkeys(stages, force)
        self.waiting = {stage: set(graph.successors(stage)).intersection(stages) for stage in stages}
        self.running: dict[Future, Any] = {}
        self.made: list = []
        self.failed: dict[Any, BaseException] = {}

    def stages(self, count: int) -> None:
        """Run so many at once. Raises: KeyboardInterrupt after the end of those that ran when it came."""
        with ThreadPoolExecutor(count) as pool, interrupts() as interrupted:
            while True:
                ready = [stage for stage, needed in self.waiting.items() if not needed and not interrupted]
                for stage in ready[: count - len(self.running)]:
                    del self.waiting[stage]
                    self.running[pool.submit(self.stage, stage)] = stage
                if not self.running:
                    break
                for future in wait(self.running, return_when=FIRST_COMPLETED).done:
                    self.ended(self.running.pop(future), future)
        if interrupted:
            raise KeyboardInterrupt

    def stage(self, stage) -> Any:
        """What DVC does with a stage, in a thread; returns it if it has run or come from the cache."""
        self.desk.take()
        began = time.monotonic()
        try:
            needed, users = self.graph.successors(stage), self.graph.predecessors(stage)
            force = self.forced[stage]
            done = reproduce._reproduce_stage(stage, upstream=list(needed), force=force, **self.options)
            if self.force_downstream and (done or force):
                self.forced.update(dict.fromkeys(users, True))
            if done:
                left = len(self.waiting) + len(self.running) - 1
                print(f"Stage '{stage.addressing}' is done, {time.monotonic() - began:.0f} s; {left} to go", flush=True)
            return done
        finally:
            self.desk.leave()

    def ended(self, stage, future: Future) -> None:
        """Let those begin that waited for it; where it has failed, those do not that --keep-going would not begin."""
        for needed in self.waiting.values():
            needed.discard(stage)
        if error := future.exception():
            self.failed[stage] = error
            skipped = list(self.waiting)
            if self.on_error != "fail":
                skipped = reproduce.handle_error(self.graph, self.on_error, error, stage)
            for other in skipped:
                self.waiting.pop(other, None)
        elif future.result():
            self.made.append(stage)


def several(
    count: int, stages: list, graph=None, force_downstream: bool = False, on_error: str = "fail", force: bool = False,
    **options: Any,
) -> list:  # fmt: skip
    """In the place of DVC's function of these arguments but the first."""
    if count == 1 or graph is None or not stages or options.get("dry") or options.get("interactive"):
        common = {"force_downstream": force_downstream, "on_error": on_error, "force": force}
        return one_by_one(stages, graph=graph, **common, **options)
    whole = Run(stages, graph, on_error, force_downstream, force, options)
    record = Path(whole.desk.repo.root_dir, "dvc.lock")
    known = lock_file.read(record) or {}
    whole.desk.turn.acquire()
    whole.desk.leave()  # DVC has locked the repository for us
    run.unlocked_repo = whole.desk.unlocked
    try:
        whole.stages(count)
    finally:
        whole.desk.take()
        names = [stage.addressing for stage in stages]
        lock_file.in_order(record, [name for name in names if name not in known])  # as if one after another had run
        whole.desk.turn.release()
    if whole.failed and on_error != "ignore":
        reproduce._raise_error(next(iter(whole.failed.values())) if on_error == "fail" else None, *whole.failed)
    return whole.made


@contextmanager
def interrupts() -> Iterator[list[int]]:
    """Ctrl-C, which the running stages get, too: it is taken down, and no further stage begins."""
    seen: list[int] = []
    before = signal.signal(signal.SIGINT, lambda number, _: seen.append(number))
    try:
        yield seen
    finally:
        signal.signal(signal.SIGINT, before)


def command(executable: str | None, cmd: str, **options: Any) -> None:
    """In the place of DVC's function of these arguments: what the stage prints is shown when it ends, its progress not.

    The rest is in `.work/logs/`, by the stage's name; where it fails, the end of that is shown.
    Raises: StageCmdFailedError.
    """
    name = options["env"]["DVC_STAGE"]
    log = LOGS / f"{name.replace('/', '-')}.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("wb") as said:
        done = subprocess.run(run._make_cmd(executable, cmd), stdout=subprocess.PIPE, stderr=said, **options)
    sys.stdout.flush()
    sys.stdout.buffer.write(done.stdout)
    sys.stdout.flush()
    if done.returncode:
        lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
        shown = [line for line in lines if line.strip()][-TAIL:]
        print(*shown, f"{name}: failed, see {log}", sep="\n", file=sys.stderr)
        raise StageCmdFailedError(cmd, done.returncode)
