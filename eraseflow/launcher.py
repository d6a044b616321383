"""Runs `dvc repro` beside a server that has imported torch and diffusers once, for all of its stages.

These imports take ten seconds a process; a fork of a process that has done them takes a fraction of one.
"""

import os
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from eraseflow.stage import SOCKET

if TYPE_CHECKING:
    from eraseflow.params import Params

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
    "peft",
    "pandas",
    "pyarrow.parquet",
    "pydantic.main",
    "open_clip",
    "cleanfid.fid",
    "tqdm",
)

# glibc gives large blocks back to the system when they are freed, and PyTorch asks for them again at once: a tenth of
# the time went into these pages.
ALLOCATOR = {
    "MALLOC_MMAP_THRESHOLD_": str(1 << 32),
    "MALLOC_TRIM_THRESHOLD_": str(1 << 33),
    "MALLOC_TOP_PAD_": str(1 << 28),
}


def take_note(params: "Params", arguments: Sequence[str] = ()) -> int:
    """Run the stages again that note what lies where DVC does not look (see outside/), if their notes are not right.

    By what they write DVC sees which cells are out of date. arguments: those of the `dvc repro` that follows; if it is
    a dry one, nothing runs. Returns an exit code.
    """
    from eraseflow.outside import notes

    again = notes.stale(params)
    for stage, file in again.items():
        print(f"{stage} takes note of {file}, which DVC does not watch", flush=True)
    return repro(["--single-item", "--force", *again]) if again and "--dry" not in arguments else 0


def repro(arguments: Sequence[str]) -> int:
    """`dvc repro` with these arguments; returns its exit code."""
    return run([sys.executable, "-m", "dvc", "repro", *arguments], PRELOAD)


def run(command: Sequence[str], preload: Sequence[str]) -> int:
    """Run a command in whose environment stage scripts find a server that has imported `preload`.

    The server imports while the command starts; a stage that comes early waits for it. Both end when the
    command does, or this process. Returns the command's exit code (128 + n where signal n killed it).
    """
    with tempfile.TemporaryDirectory(prefix="eraseflow-") as folder, socket.socket(socket.AF_UNIX) as listener:
        address = str(Path(folder) / "socket")
        listener.bind(address)
        listener.listen()
        lifeline, held = os.pipe()
        inherited = (listener.fileno(), lifeline)
        server = subprocess.Popen(
            [sys.executable, "-m", "eraseflow.server", *map(str, inherited), *preload],
            env=os.environ | ALLOCATOR,
            pass_fds=inherited,
            process_group=0,  # Ctrl-C is for the stages, not for the server
        )
        os.close(lifeline)
        listener.close()
        child = subprocess.Popen(command, env=environment(address))
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # the child has got it too, and ends in its own way
        signal.signal(signal.SIGTERM, lambda *_: child.terminate())
        code = child.wait()
        os.close(held)
        server.kill()
        server.wait()
    return code if code >= 0 else 128 - code


def environment(address: str = "") -> dict[str, str]:
    """Ours, with this interpreter as `python`, this folder's package before any installed, and the server's socket.

    Without an address stages find no server.
    """
    binaries = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)])
    packages = os.pathsep.join(filter(None, [os.getcwd(), os.environ.get("PYTHONPATH")]))
    return os.environ | {SOCKET: address, "PATH": binaries, "PYTHONPATH": packages}
