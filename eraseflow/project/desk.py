"""DVC's records, for several threads of one process."""

import threading
from contextlib import suppress
from typing import TYPE_CHECKING

from dvc.lock import LockError

if TYPE_CHECKING:
    from dvc.repo import Repo


class Desk:
    """Where one thread at a time works with DVC's records, and holds the repository's lock."""

    def __init__(self, repo: "Repo") -> None:
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
