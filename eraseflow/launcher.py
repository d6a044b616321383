"""Runs `dvc repro` beside a server that has imported torch and diffusers once, for all of its stages.

These imports take ten seconds a process; a fork of a process that has done them takes a fraction of one.
"""

import contextlib
import functools
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from eraseflow.allocator import KEEPING
from eraseflow.project import left_over, locks
from eraseflow.project.files import has_git
from eraseflow.server import die_with
from eraseflow.stage import SOCKET, lock

if TYPE_CHECKING:
    from eraseflow.params import Params

FOLDERS = ("", "/tmp", "/var/tmp", "/dev/shm")  # for the socket; "" is TMPDIR, where that will do
FOLDER, SOCKET_NAME = "eraseflow-", "socket"  # how its own folder in there begins, and the file in it
WITHOUT_GIT = Path(__file__).parent / "project" / "without_git"
DVC = (sys.executable, "-m", "eraseflow.project.dvc")

# What the stages of a cell import.
PRELOAD = (
    "torch",
    "diffusers.models.autoencoders.autoencoder_kl",
    "diffusers.models.unets.unet_2d_condition",
    "diffusers.pipelines.stable_diffusion.pipeline_stable_diffusion",
    "diffusers.schedulers.scheduling_ddim",
    "diffusers.schedulers.scheduling_dpmsolver_multistep",
    "transformers.models.clip.modeling_clip",
    "transformers.models.clip.tokenization_clip",
    "transformers.conversion_mapping",
    "peft",
    "pandas",
    "pyarrow.parquet",
    "pydantic.main",
    "open_clip",
    "cleanfid.fid",
    "tqdm",
)


def take_note(params: "Params", arguments: Sequence[str] = ()) -> int:
    """Put aside what is of other tables (see project/left_over.py), and run the stages again that note what lies where
    DVC does not look (see outside/), if their notes are not right.

    By what they write DVC sees which cells are out of date. arguments: those of the `dvc repro` that follows; if it is
    a dry one, nothing is moved and nothing runs. Returns an exit code.
    """
    from eraseflow.outside import notes

    if "--dry" not in arguments:
        with locks.alone(locks.REPRO, "`repro`"):
            left_over.put_aside(params.table.model_dump())
    again = notes.stale(params)
    for stage, file in again.items():
        print(f"{stage} takes note of {file}, which DVC does not watch", flush=True)
    return repro(["--single-item", "--force", *again]) if again and "--dry" not in arguments else 0


def repro(arguments: Sequence[str], before: Sequence[str] = ()) -> int:
    """`dvc repro` with these arguments; returns its exit code.

    before: where the stages run (run/slots.py), if not one after another here. Raises: SystemExit where it runs here
    already.
    """
    with locks.alone(locks.REPRO, "`repro`"):
        return run([*DVC, *before, "repro", *arguments], PRELOAD)


def run(command: Sequence[str], preload: Sequence[str]) -> int:
    """Run a command in whose environment stage scripts find a server that has imported `preload`.

    The server imports while the command starts; a stage that comes early waits for it. Both end when the
    command does, or this process. Where no folder takes a socket, there is no server, and each stage imports.
    A server that our own environment names serves this command too: we are part of another run.
    Returns the command's exit code (128 + n where signal n killed it).
    """
    if address := os.environ.get(SOCKET):
        code = subprocess.call(command, env=environment(address))
        return code if code >= 0 else 128 - code
    with contextlib.ExitStack() as kept, socket.socket(socket.AF_UNIX) as listener:
        address = listen(listener, kept)
        lifeline, held = os.pipe()
        inherited = (listener.fileno(), lifeline)
        server = serve(inherited, preload) if address else None
        os.close(lifeline)
        listener.close()
        die = functools.partial(die_with, os.getpid(), signal.SIGTERM)
        child = subprocess.Popen(command, env=environment(address), preexec_fn=die)
        # Ctrl-C: the child has got it too, and ends in its own way. A later child must not inherit that it is ignored.
        before = (
            signal.signal(signal.SIGINT, signal.SIG_IGN),
            signal.signal(signal.SIGTERM, lambda *_: child.terminate()),
        )
        code = child.wait()
        for number, handler in zip((signal.SIGINT, signal.SIGTERM), before, strict=True):
            signal.signal(number, handler)
        os.close(held)
        kept.close()  # before the server ends: a stage that it has not taken is not to run by itself
        if server:
            server.kill()
            server.wait()
    return code if code >= 0 else 128 - code


def serve(inherited: tuple[int, int], preload: Sequence[str]) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, "-m", "eraseflow.server", *map(str, inherited), *preload],
        env=os.environ | KEEPING,
        pass_fds=inherited,
        process_group=0,  # Ctrl-C is for the stages, not for the server
    )


def listen(listener: socket.socket, kept: contextlib.ExitStack) -> str:
    """Let it listen at a path that is short enough and that no other user reaches; "" where there is none."""
    for base in FOLDERS:
        with contextlib.suppress(OSError):  # too long, full, not there
            parent = base or tempfile.gettempdir()
            remove_left_over(Path(parent))
            folder = tempfile.TemporaryDirectory(prefix=FOLDER, dir=parent, ignore_cleanup_errors=True)
            address = str(Path(kept.enter_context(folder)) / SOCKET_NAME)
            listener.bind(address)
            listener.listen()
            kept.enter_context(locks.alone(lock(address), address))
            return address
    print("no temporary folder takes a socket, so that every stage imports torch anew; see TMPDIR", file=sys.stderr)
    return ""


def remove_left_over(parent: Path) -> None:
    """Remove the folders of launchers that were killed; what is a minute old and not locked is no living one's."""
    for folder in parent.glob(f"{FOLDER}*"):
        with contextlib.suppress(OSError):  # another user's, or gone
            address = str(folder / SOCKET_NAME)
            ours = {SOCKET_NAME, lock(address).name}.issuperset(os.listdir(folder))
            if ours and folder.stat().st_mtime < time.time() - 60 and not locks.is_held(lock(address)):
                shutil.rmtree(folder)


def environment(address: str = "") -> dict[str, str]:
    """Ours, with this interpreter as `python`, this folder's package before any installed, and the server's socket.

    Without an address stages find no server. Where the project is no git repository, DVC does without.
    """
    binaries = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)])
    packages = os.pathsep.join(filter(None, [os.getcwd(), os.environ.get("PYTHONPATH")]))
    gitless = {} if has_git(Path.cwd()) else {"DVC_SYSTEM_CONFIG_DIR": str(WITHOUT_GIT)}
    return os.environ | {SOCKET: address, "PATH": binaries, "PYTHONPATH": packages} | gitless
