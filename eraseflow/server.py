"""Runs stages in forked copies of a process that has done the slow imports once.

Started by launcher.py as `python -m eraseflow.server LISTENER LIFELINE MODULE...`: two file descriptors, the
listening socket and a pipe that closes when the launcher ends, and what to import. It only imports: no tensor
work and no CUDA, which a fork would not survive, and no module of this project, so a stage always runs the
code as it is now.
"""

import atexit
import contextlib
import ctypes
import gc
import importlib
import json
import os
import select
import signal
import socket
import sys
import threading
import warnings
from pathlib import Path
from types import ModuleType


def fork() -> int:
    with warnings.catch_warnings():
        # From Python 3.12 on: the threads that importing numpy starts, which numpy itself ends before a fork.
        warnings.simplefilter("ignore", DeprecationWarning)
        return os.fork()


def die_with(parent: int, number: int) -> None:
    """Let this signal come when the parent ends, however that ends; Linux alone can do that."""
    with contextlib.suppress(AttributeError, OSError):
        ctypes.CDLL(None).prctl(1, int(number))  # PR_SET_PDEATHSIG
        if os.getppid() != parent:  # it has ended meanwhile
            os.kill(os.getpid(), number)


def warm() -> None:
    """Do what each stage would do again: transformers lists all renamed weights when the first model is loaded."""
    if renamed := sys.modules.get("transformers.conversion_mapping"):
        renamed.get_checkpoint_conversion_mapping("clip")
    gc.collect()
    gc.freeze()  # so that a stage's collections pass over what is imported, and do not copy its pages


def serve(listener: socket.socket, lifeline: int) -> dict:
    """Fork for every connection until the launcher ends; returns only in a stage's process, with its request."""
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for the keepers
    while True:
        ready, _, _ = select.select([listener.fileno(), lifeline], [], [])
        if lifeline in ready:
            os._exit(0)
        connection, _ = listener.accept()
        if fork() == 0:
            listener.close()
            return keep(connection, lifeline)
        connection.close()


def keep(connection: socket.socket, lifeline: int) -> dict:
    """Fork the stage and answer with its exit code; if the other side or the launcher ends first, so does the stage.

    Returns only in the stage's process, with the request and standard streams of the other side.
    """
    os.setsid()  # one process group of keeper, stage and whatever the stage starts
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    try:
        _, streams, _, _ = socket.recv_fds(connection, 1, 3)
        with connection.makefile(encoding="utf-8") as reader:
            request = json.loads(reader.readline())
        connection.sendall(b"taken\n")
    except (OSError, ValueError):  # it is gone already
        os._exit(0)
    keeper, stage = os.getpid(), fork()
    if stage == 0:
        die_with(keeper, signal.SIGKILL)
        connection.close()
        os.close(lifeline)
        for number, stream in enumerate(streams):
            os.dup2(stream, number)
            os.close(stream)
        return request
    for stream in streams:
        os.close(stream)

    def end_together() -> None:
        select.select([connection.fileno(), lifeline], [], [])
        os.killpg(0, signal.SIGKILL)

    threading.Thread(target=end_together, daemon=True).start()
    code = os.waitstatus_to_exitcode(os.waitpid(stage, 0)[1])
    with contextlib.suppress(OSError):
        connection.sendall(b"%d\n" % code)
    os._exit(0)


def become(request: dict) -> None:
    """Run the request's script as `python script ...` would have."""
    os.chdir(request["folder"])
    os.environ.clear()
    os.environ.update(request["environment"])
    sys.argv[:], sys.path[:] = request["argv"], request["path"]
    del sys.modules["eraseflow"]
    importlib.invalidate_caches()
    script = Path(sys.argv[0]).absolute()
    main = ModuleType("__main__")
    main.__file__ = str(script)
    sys.modules["__main__"] = main
    code: object = 0
    try:
        exec(compile(script.read_bytes(), script, "exec"), vars(main))
    except SystemExit as end:
        code = end.code
    except BaseException as error:
        error.__traceback__ = error.__traceback__ and error.__traceback__.tb_next  # without this frame
        sys.excepthook(type(error), error, error.__traceback__)
        code = 1
    if not isinstance(code, int | None):
        print(code, file=sys.stderr)
        code = 1
    atexit._run_exitfuncs()
    sys.stdout.flush()
    os._exit(code or 0)  # taking down all that was imported would copy it first: two seconds


if __name__ == "__main__":
    # A library that looks for a GPU while it is imported must not start CUDA here.
    os.environ["PYTORCH_NVML_BASED_CUDA_CHECK"] = "1"
    die_with(os.getppid(), signal.SIGKILL)  # amid the imports, too; stages have a keeper that sees to them
    for module in sys.argv[3:]:
        with contextlib.suppress(ImportError):  # the stage that needs it will say so
            importlib.import_module(module)
    warm()
    sys.stdout.reconfigure(line_buffering=True)  # type: ignore[union-attr]
    become(serve(socket.socket(fileno=int(sys.argv[1])), int(sys.argv[2])))
