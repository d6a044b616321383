"""How a stage script runs: in a process forked from the launcher's server where one listens, else in its own.

A script imports nothing heavy at its top, so that handing itself over costs next to nothing:

    from eraseflow import stage

    def main() -> None:
        from eraseflow.cells.train import train
        ...

    if __name__ == "__main__":
        stage.run(main)
"""

import json
import os
import signal
import socket
import sys
from collections.abc import Callable
from pathlib import Path

from eraseflow import memory
from eraseflow.project.locks import at_work, is_held
from eraseflow.run import peak

SOCKET = "ERASEFLOW_SERVER"  # environment variable: the path of the server's socket


def run(main: Callable[[], object]) -> None:
    """Run the calling script's `main`, by the server if there is one; then this process ends as that one did."""
    address = os.environ.pop(SOCKET, None)  # the server's process runs the script again, and must not find it
    if address is not None:
        stay_only_with_the_launcher()
    code = hand_over(address) if address else None
    if address and code is None and not is_held(lock(address)):
        sys.exit("the run that this stage belongs to has ended")
    if code is None:
        with memory.explained(sys.argv[0]), at_work():
            main()
            peak.leave()
        return
    if code < 0:
        os.kill(os.getpid(), -code)
    sys.exit(code)


def stay_only_with_the_launcher() -> None:
    """End with the process that waits for us: a stage that is left behind would work beside the next run's."""
    from eraseflow.server import die_with

    die_with(os.getppid(), signal.SIGKILL)


def lock(address: str) -> Path:
    """What the launcher holds for as long as the server at this address is to be used, however it ends."""
    return Path(f"{address}.lock")


def hand_over(address: str) -> int | None:
    """Let the server run this script with our arguments, folder, environment and standard streams.

    Returns its exit code (-n where signal n killed it); None where no server took it up.
    """
    request = {"argv": sys.argv, "path": sys.path, "folder": os.getcwd(), "environment": dict(os.environ)}
    interrupt = signal.signal(signal.SIGINT, signal.SIG_DFL)  # die at once: the server then ends the stage
    try:
        with socket.socket(socket.AF_UNIX) as server:
            server.connect(address)
            socket.send_fds(server, [b"\n"], [0, 1, 2])
            server.sendall(json.dumps(request).encode() + b"\n")
            with server.makefile(encoding="utf-8") as answers:
                if answers.readline():
                    return int(answers.readline() or 1)
    except OSError:
        pass  # nobody listens there any more
    signal.signal(signal.SIGINT, interrupt)
    return None
