"""The most memory that a stage has had: only its own process can tell, and leaves a note beside the stage's log."""

import os
import resource
import sys
from contextlib import suppress
from pathlib import Path

NOTE = "{}.memory"


def leave() -> None:
    """Note the bytes that this process had in memory at most, if it is a stage of a run."""
    if not (stage := os.environ.get("DVC_STAGE")):
        return
    with suppress(OSError):
        path = note(Path(".work/logs"), stage)
        path.write_text(str(_most()), encoding="utf-8")


def take(logs: Path, stage: str) -> int:
    """What the stage has noted in the folder of its log, once; 0 where it has not."""
    with suppress(OSError, ValueError):
        path = note(logs, stage)
        found = int(path.read_text(encoding="utf-8"))
        path.unlink()
        return found
    return 0


def note(logs: Path, stage: str) -> Path:
    return logs / NOTE.format(stage.replace("/", "-"))


def _most() -> int:
    with suppress(OSError, StopIteration):  # a fork has its own mark, and resource's includes the parent's
        lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
        return 1024 * int(next(line for line in lines if line.startswith("VmHWM")).split()[1])
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most if sys.platform == "darwin" else 1024 * most
