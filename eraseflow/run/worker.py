"""Workers of a cluster in one process: `python -m eraseflow.run.worker ADDRESS SLOTS`, as `eraseflow worker` starts it.

They end with the scheduler, or when they are told to. SLOTS: a JSON list of the environment variables of each.
"""

import asyncio
import json
import logging
import os
import signal
import socket
import sys

from distributed import Worker

from eraseflow.run import work


async def serve(address: str, slots: list[dict[str, str]]) -> None:
    """Raises: SystemExit with one line where no scheduler answers within half a minute."""
    names = [f"{socket.gethostname()}-{os.getpid()}-{place}" for place in range(len(slots))]
    work.SLOTS.update(zip(names, slots, strict=True))
    workers = [
        Worker(address, name=name, nthreads=1, memory_limit=0, dashboard=False, death_timeout=30) for name in names
    ]
    try:
        await asyncio.gather(*workers)
    except (OSError, ValueError, TimeoutError) as error:
        raise SystemExit(f"{address}: no scheduler answers there: {error}") from None
    print(f"{len(workers)} workers in {os.getcwd()} wait for stages from {address}", flush=True)
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, lambda: os._exit(128 + signal.SIGTERM))  # stages end with their process
    await asyncio.gather(*(worker.finished() for worker in workers))


if __name__ == "__main__":
    logging.getLogger("distributed").setLevel(logging.ERROR)
    asyncio.run(serve(sys.argv[1], json.loads(sys.argv[2])))
