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
            with suppress(
                LockError
            ):  # another command of DVC looks at the repository, which can take longer than DVC waits
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


def several(
    count: int, stages: list, graph=None, force_downstream: bool = False, on_error: str = "fail", force: bool = False,
    **options: Any,
) -> list:  # fmt: skip
    """In the place of DVC's function, with so many at once; graph: from each stage to those that it depends on."""
    if count == 1 or graph is None or not stages or options.get("dry") or options.get("interactive"):
        return one_by_one(
            stages, graph=graph, force_downstream=force_downstream, on_error=on_error, force=force, **options
        )
    desk, forced = Desk(stages[0].repo), dict.fromkeys(stages, force)
    waiting = {stage: set(graph.successors(stage)).intersection(stages) for stage in stages}
    running: dict[Future, Any] = {}
    made, failed = [], {}
    record = Path(desk.repo.root_dir, "dvc.lock")
    new = [stage.addressing for stage in stages if stage.addressing not in (lock_file.read(record) or {})]

    def one(stage):
        desk.take()
        began = time.monotonic()
        try:
            needs, users = list(graph.successors(stage)), list(graph.predecessors(stage))
            done = reproduce._reproduce_stage(stage, upstream=needs, force=forced[stage], **options)
            if force_downstream and (done or forced[stage]):
                forced.update(dict.fromkeys(users, True))
            if done:
                left = len(waiting) + len(running) - 1
                print(f"Stage '{stage.addressing}' is done, {time.monotonic() - began:.0f} s; {left} to go", flush=True)
            return done
        finally:
            desk.leave()

    desk.turn.acquire()
    desk.leave()  # DVC has locked the repository for us
    run.unlocked_repo = desk.unlocked
    try:
        with ThreadPoolExecutor(count) as pool, interrupts() as interrupted:
            while True:
                ready = [stage for stage, needed in waiting.items() if not needed]
                for stage in ready[: count - len(running)] if not interrupted else []:
                    del waiting[stage]
                    running[pool.submit(one, stage)] = stage
                if not running:
                    break
                for future in wait(running, return_when=FIRST_COMPLETED).done:
                    stage = running.pop(future)
                    for needed in waiting.values():
                        needed.discard(stage)
                    if error := future.exception():
                        failed[stage] = error
                        skipped = (
                            waiting if on_error == "fail" else reproduce.handle_error(graph, on_error, error, stage)
                        )
                        for other in list(skipped):
                            waiting.pop(other, None)
                    elif future.result():
                        made.append(stage)
    finally:
        desk.take()
        lock_file.in_order(record, new)  # as if they had run one after another
        desk.turn.release()
    if interrupted:
        raise KeyboardInterrupt
    if failed and on_error != "ignore":
        reproduce._raise_error(next(iter(failed.values())) if on_error == "fail" else None, *failed)
    return made


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
    with log.open("w+", encoding="utf-8", errors="replace") as said:
        done = subprocess.run(run._make_cmd(executable, cmd), stdout=subprocess.PIPE, stderr=said, text=True, **options)
    sys.stdout.write(done.stdout)
    if done.returncode:
        lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
        print(
            *[line for line in lines if line.strip()][-TAIL:], f"{name}: failed, see {log}", sep="\n", file=sys.stderr
        )
        raise StageCmdFailedError(cmd, done.returncode)
