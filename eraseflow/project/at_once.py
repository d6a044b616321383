"""`dvc repro` with several stages at once, on this machine or on the workers of a cluster.

DVC runs one stage after another. Here each stage whose inputs are there runs in a thread of its own. A thread holds
DVC's lock while DVC looks at records, cache and outputs, and lets go of it while the stage's command runs, as DVC does.
So what is stale, the run cache, `--force`, `--pull`, `--keep-going` and what is recorded are DVC's own; the order alone
is another. Where the commands run is for the engine (run/engine.py) to say.
"""

import signal
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import replace
from functools import partial, wraps
from pathlib import Path
from typing import Any

from dvc.exceptions import DvcException
from dvc.repo import reproduce
from dvc.stage import run
from dvc.stage.exceptions import StageCmdFailedError

from eraseflow.outputs import write_bytes, write_text
from eraseflow.project import lock_file
from eraseflow.project.desk import Desk
from eraseflow.run import away, taken
from eraseflow.run.engine import Engine
from eraseflow.run.progress import Progress
from eraseflow.run.schedule import makespan, tails
from eraseflow.run.task import Done, Task, log_of

TAIL = 30  # lines of a failed stage's log that are shown
NO_WORKER = "waiting for workers, which `python -m eraseflow worker {}` starts"
one_by_one = reproduce._reproduce


def use(engine: Engine) -> None:
    """Let DVC run stages on an engine from now on."""
    reproduce._reproduce = partial(several, engine)


class Run:
    """A run of stages, each after those that it depends on; graph: has an edge from it to each of these.

    waiting: the stages that have not begun, with what each still waits for. tasks and results: of the commands that
    run, by the stage's name. seconds: what each may take, None where no like of it has been seen.
    """

    def __init__(
        self, engine: Engine, stages: list, graph, on_error: str, force_downstream: bool, force: bool, options: dict
    ) -> None:
        self.engine, self.graph, self.options = engine, graph, options
        self.on_error, self.force_downstream = on_error, force_downstream
        self.desk, self.forced = Desk(stages[0].repo), dict.fromkeys(stages, force)
        self.root = Path(self.desk.repo.root_dir)
        self.commands = away.Away(engine, str(self.root))
        self.waiting = {stage: set(graph.successors(stage)).intersection(stages) for stage in stages}
        self.taken = taken.known(self.root)
        self.seconds = {stage: taken.seconds(stage.addressing, self.taken) for stage in stages}
        self.tails = tails({stage: seconds or 0.0 for stage, seconds in self.seconds.items()}, self.waiting)
        self.running: dict[Future, Any] = {}
        self.tasks: dict[str, Task] = {}
        self.results: dict[str, Done] = {}
        self.made: list = []
        self.failed: dict[Any, BaseException] = {}

    def stages(self) -> None:
        """Run them all. Raises: KeyboardInterrupt after the end of those that ran when it came."""
        where = self.engine.where if self.engine.address else dict
        with (
            ThreadPoolExecutor(len(self.waiting)) as pool,
            Progress(len(self.waiting), self.rest, where) as self.progress,
            interrupts() as interrupted,
        ):
            while True:
                if interrupted:
                    self.waiting.clear()
                    self.engine.end()
                ready = sorted((stage for stage, needed in self.waiting.items() if not needed), key=self.urgency)
                if not ready and not self.running:
                    break
                free = max(0, self.engine.slots() - len(self.running)) if ready else 0
                for stage in ready[:free]:
                    del self.waiting[stage]
                    self.progress.begin(stage.addressing)
                    self.running[pool.submit(self.stage, stage)] = stage
                if not self.running:
                    self.progress.say(NO_WORKER.format(self.engine.address))
                    time.sleep(1)
                for future in wait(self.running, timeout=1, return_when=FIRST_COMPLETED).done:
                    self.ended(self.running.pop(future), future)
                self.progress.show()
        if interrupted:
            raise KeyboardInterrupt

    def urgency(self, stage) -> float:
        """By which the stages that may begin are sorted: the one on which the longest chain waits goes first."""
        return -self.tails[stage]

    def rest(self) -> float | None:
        """The seconds that what is not done may take if all of it runs; None where that is not known of a stage."""
        left: dict[Any, float] = {}
        for stage in [*self.waiting, *self.running.values()]:
            if (seconds := self.seconds[stage]) is None:
                return None
            left[stage] = max(0.0, seconds - self.progress.elapsed(stage.addressing))
        needed = {stage: self.waiting.get(stage, set()).intersection(left) for stage in left}
        return makespan(left, needed, max(1, self.engine.slots()))

    def stage(self, stage) -> Any:
        """What DVC does with a stage, in a thread; returns it if it has run or come from the cache."""
        self.desk.take()
        try:
            needed, users = self.graph.successors(stage), self.graph.predecessors(stage)
            force = self.forced[stage]
            done = reproduce._reproduce_stage(stage, upstream=list(needed), force=force, **self.options)
            if self.force_downstream and (done or force):
                self.forced.update(dict.fromkeys(users, True))
            return done
        finally:
            self.desk.leave()

    def unlocked(self, function: Callable) -> Callable:
        """In the place of DVC's decorator of what runs while the repository is not locked."""

        @wraps(function)
        def aside(stage, *given, **named):
            name = stage.addressing
            self.tasks[name] = away.task(stage, self.graph.successors(stage), self.engine)
            self.desk.leave()
            try:
                function(stage, *given, **named)
            finally:
                self.desk.take()
            done = self.results.pop(name)
            self.taken[name] = done.seconds, done.memory
            taken.keep(self.taken, self.root)
            if done.made:
                away.check_out(stage, done.made)

        return aside

    def command(self, executable: str | None, cmd: str, *, env: dict[str, str], **_: Any) -> None:
        """In the place of DVC's function of these arguments: what the stage prints is shown when it ends.

        Its progress is not; that is in `.work/logs/`, by the stage's name, and where it fails the end of that is shown.
        Raises: StageCmdFailedError; DvcException with one line where no worker could run it.
        """
        name = env["DVC_STAGE"]
        try:
            done = self.commands.run(replace(self.tasks.pop(name), command=run._make_cmd(executable, cmd)))
        except RuntimeError as error:
            raise DvcException(str(error)) from None
        log = log_of(name, self.root)
        if done.log is not None:
            write_bytes(done.log, log)
        for path, text in done.beside.items():
            write_text(text, self.root / path)
        with self.progress.aside():
            sys.stdout.flush()
            sys.stdout.buffer.write(done.printed)
            sys.stdout.flush()
            if done.code:
                lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
                shown = [line for line in lines if line.strip()][-TAIL:]
                print(*shown, f"{name}: failed, see {log.relative_to(self.root)}", sep="\n", file=sys.stderr)
        if done.code:
            raise StageCmdFailedError(cmd, done.code)
        self.results[name] = done

    def ended(self, stage, future: Future) -> None:
        """Let those begin that waited for it; where it has failed, those do not that --keep-going would not begin."""
        for needed in self.waiting.values():
            needed.discard(stage)
        self.progress.end(stage.addressing, ran=not future.exception() and bool(future.result()))
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
    engine: Engine, stages: list, graph=None, force_downstream: bool = False, on_error: str = "fail",
    force: bool = False, **options: Any,
) -> list:  # fmt: skip
    """In the place of DVC's function of these arguments but the first."""
    if engine.single or graph is None or not stages or options.get("dry") or options.get("interactive"):
        common = {"force_downstream": force_downstream, "on_error": on_error, "force": force}
        return one_by_one(stages, graph=graph, **common, **options)
    whole = Run(engine, stages, graph, on_error, force_downstream, force, options)
    record = whole.root / "dvc.lock"
    known = lock_file.read(record) or {}
    whole.desk.turn.acquire()
    whole.desk.leave()  # DVC has locked the repository for us
    run.unlocked_repo, run._run = whole.unlocked, whole.command
    try:
        whole.stages()
    finally:
        engine.close()
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
