"""A stage's command as it is sent to a worker, and what comes back."""

import os
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from eraseflow.run import peak

LOGS = Path(".work/logs")
TOKEN = Path(".work/run")  # in the folder of a run: what tells it from other folders of the same path


@dataclass(frozen=True)
class Task:
    """The command of a stage, for the folder of the run that it belongs to.

    stays: it runs on the machine of the run. A worker that was not started in that folder needs the rest. params: the
    text of params.yaml. reads: the hash of each
    path that the stage depends on. brought: by stage the outputs of other stages that it may read, with their hashes.
    """

    stage: str
    command: Sequence[str]
    folder: str
    token: str
    stays: bool = False
    params: str = ""
    reads: Mapping[str, str] = field(default_factory=dict)
    brought: Mapping[str, Mapping[str, str]] = field(default_factory=dict)

    def is_here(self) -> bool:
        """Whether this process was started in the folder of the run, or one around it, be it over a network disk."""
        try:
            token = Path(self.folder, TOKEN).read_text(encoding="utf-8")
        except OSError:
            return False
        return token == self.token and Path(self.folder).is_relative_to(Path.cwd())


@dataclass(frozen=True)
class Done:
    """How a command ended. seconds: of it alone; memory: the most bytes that it had, 0 where that is not known.

    Of a command that did not run in the folder of the run: log: what it printed to its standard error; made: the hashes
    of its outputs, which lie in the remote; beside: small files beside these that DVC does not know, such as seconds.
    """

    code: int
    printed: bytes
    seconds: float
    memory: int
    log: bytes | None = None
    made: Mapping[str, str] | None = None
    beside: Mapping[str, str] = field(default_factory=dict)


def log_of(stage: str, folder: Path = Path()) -> Path:
    return folder / LOGS / f"{stage.replace('/', '-')}.log"


def call(task: Task, folder: Path, slot: Mapping[str, str], unwanted: Callable[[], bool]) -> Done:
    """Run the command in a folder; its standard error goes to the stage's log there.

    slot: environment variables of the place that it has, such as its GPU. unwanted: asked each second; where it says
    so, nobody waits for the result any more, and the command is ended.
    """
    log, began = log_of(task.stage, folder), time.monotonic()
    log.parent.mkdir(parents=True, exist_ok=True)
    packages = os.pathsep.join(filter(None, [str(folder), os.environ.get("PYTHONPATH")]))
    environment = {**os.environ, "PYTHONPATH": packages, "DVC_ROOT": str(folder), "DVC_STAGE": task.stage, **slot}
    with log.open("wb") as said:
        process = subprocess.Popen(task.command, cwd=folder, env=environment, stdout=subprocess.PIPE, stderr=said)
        while True:
            try:
                printed, _ = process.communicate(timeout=1)
                seconds, memory = time.monotonic() - began, peak.take(log.parent, task.stage)
                return Done(process.returncode, printed, seconds, memory)
            except subprocess.TimeoutExpired:
                if unwanted():
                    process.terminate()
