"""The engine that places the commands of stages: Dask's scheduler and workers, on this machine or on many.

On this machine both are threads of our process, a worker a core or GPU. On a cluster they run already, started by
`dask scheduler` and `python -m eraseflow worker ADDRESS`, and we are one of their clients.
"""

import secrets
import threading
from collections.abc import Mapping, Sequence
from concurrent.futures import CancelledError
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from eraseflow.outputs import write_text
from eraseflow.run import work
from eraseflow.run.task import TOKEN, Done, Task

if TYPE_CHECKING:
    from distributed import Client, Future


class Engine:
    """slots: of this machine, the environment variables of each; address: of a cluster's scheduler, instead of them."""

    def __init__(self, slots: Sequence[Mapping[str, str]], address: str = "") -> None:
        self.here, self.address, self.token = list(slots), address, secrets.token_hex(8)
        self.turn = threading.Lock()
        self.futures: dict[str, Future] = {}

    @cached_property
    def client(self) -> "Client":
        """Connected when it is first needed, for that takes a second. Raises: SystemExit where nobody answers."""
        from distributed import Client, LocalCluster

        write_text(self.token, TOKEN)
        if self.address:
            try:
                return Client(self.address, timeout=30, set_as_default=False)
            except (OSError, ValueError) as error:
                raise SystemExit(f"{self.address}: no scheduler answers there: {error}") from None
        work.SLOTS.update(enumerate(self.here))
        common = {"processes": False, "threads_per_worker": 1, "memory_limit": 0, "dashboard_address": None}
        return Client(LocalCluster(n_workers=len(self.here), **common), set_as_default=False)

    def connected(self) -> "Client":
        with self.turn:
            return self.client

    @property
    def single(self) -> bool:
        """Whether one command runs at a time, as DVC itself does it."""
        return not self.address and len(self.here) == 1

    @cached_property
    def shared(self) -> bool:
        """Whether all workers that are there now, one at least, were started in the folder that we run in."""
        client = self.connected()
        client.wait_for_workers(1)
        return all(client.run(Task("", (), str(Path.cwd()), self.token).is_here).values())

    def slots(self) -> int:
        """How many commands can run at once; on a cluster so many as it has workers now."""
        return sum(self.connected().nthreads().values()) if self.address else len(self.here)

    def run(self, task: Task) -> Done:
        """Run a command on some worker; where that one ends meanwhile, on another.

        Raises: RuntimeError with one line where no worker could run it, or the run was interrupted.
        """
        from distributed import KilledWorker

        future = self.connected().submit(work.run, task, key=f"{task.stage}-{secrets.token_hex(4)}", pure=False)
        self.futures[task.stage] = future
        try:
            return future.result()
        except KilledWorker as killed:
            raise RuntimeError(f"{task.stage}: its worker ended each time, last that at {killed.last_worker}") from None
        except CancelledError:
            raise RuntimeError(f"{task.stage}: was interrupted") from None
        finally:
            del self.futures[task.stage]

    def where(self) -> dict[str, str]:
        """The names of the workers by the stages that they run."""
        client = self.connected()
        workers = client.scheduler_info(n_workers=-1)["workers"]
        return {
            key.rpartition("-")[0]: workers[address]["name"]
            for address, keys in client.processing().items()
            for key in map(str, keys)
            if address in workers
        }

    def end(self) -> None:
        """On a cluster, end what runs there of ours: an interrupt from the terminal reaches the stages here alone."""
        if self.address and self.futures:
            self.connected().cancel(list(self.futures.values()), force=True)

    def close(self) -> None:
        if "client" in vars(self):
            cluster = self.client.cluster
            self.client.close()
            if cluster:
                cluster.close()
