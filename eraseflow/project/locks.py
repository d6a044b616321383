"""One command at a time where two would be in each other's way; a lock goes with its process, however that ends."""

import fcntl
import os
import shutil
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

WORK = Path(".work")
REPRO, FULL, STAGES = WORK / "repro.lock", WORK / "full.lock", WORK / "stages.lock"


@contextmanager
def alone(path: Path, what: str) -> Iterator[None]:
    """Hold the lock while the block runs. On a network disk that knows no locks nobody is kept out.

    Raises: SystemExit with one line where another process holds it.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        file = path.open("a+", encoding="utf-8")
    except OSError as error:
        raise SystemExit(f"{path}: cannot be written: {error.strerror}") from None
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            who = f" (process {number})" if (number := file.read().strip()) else ""
            raise SystemExit(f"{what} runs in {Path.cwd()} already{who}; wait until it is done, or end it") from None
        except OSError:
            pass
        with suppress(OSError):  # a full disk
            file.truncate(0)
            file.write(str(os.getpid()))
            file.flush()
        yield


def is_held(path: Path) -> bool:
    """Whether a process holds the lock, as far as the disk can tell."""
    try:
        with path.open(encoding="utf-8") as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except OSError:
        return True
    return False


@contextmanager
def at_work() -> Iterator[None]:
    """A stage, of which several may run: what is in .work stays while the block runs."""
    with ExitStack() as held:
        with suppress(OSError):
            WORK.mkdir(exist_ok=True)
            fcntl.flock(held.enter_context(STAGES.open("a", encoding="utf-8")), fcntl.LOCK_SH | fcntl.LOCK_NB)
        yield


def clean_work() -> None:
    """Remove .work. Raises: SystemExit with one line where something still works there."""
    if WORK.exists():
        with alone(REPRO, "`repro`"), alone(FULL, "`full`"), alone(STAGES, "A stage"):
            shutil.rmtree(WORK)
