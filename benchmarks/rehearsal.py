"""A dress rehearsal of the paper's table at Stable Diffusion 1.4's true size, with random weights.

    make rehearsal    or    python benchmarks/rehearsal.py [FOLDER] [--pixels 512]

FOLDER, outside the repository (by default in the system's place for temporary files), gets networks of the published
architectures (17 GB, rehearsal_networks.py), a copy of the project with a cut-down table (rehearsal_project.py), and
what that computes. There it runs `python -m eraseflow repro`, through the project's own dvc.yaml, code and loading, and
goes on where it was stopped. What it finds is what breaks, or takes more than was reckoned, only at size. Its numbers
mean nothing: the networks have learned nothing.

FOLDER/rehearsal.csv and .md have a row a stage: seconds; the peak memory of its process and of the GPU in GB; the TFLOP
that the stage's passes through U-Net and autoencoder take, counted on tensors without data as docs/paper-table.md
reckons them; and how many seconds these would take at the speed of a matrix product here. The rest of a stage is
loading, judging, hashing and writing.
"""

import argparse
import functools
import os
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path

import pandas as pd
import psutil
import rehearsal_networks as networks
import rehearsal_project as project
import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from rehearsal_project import Size
from torch.utils.flop_counter import FlopCounterMode

from eraseflow import launcher
from eraseflow.server import die_with

ROOT = Path(__file__).resolve().parent.parent
COLUMNS = ["stage", "seconds", "peak_gb", "gpu_gb", "tflop", "reckoned_seconds"]
NETWORKS = ["clip_vit_l14", "clip_vit_b32", "clean_fid_inception", "csd", "imagenet_objects", "artist", "vqa"]
EVERY = 0.5  # seconds between two looks at the memory


def operations(shape: networks.Shape) -> dict[str, float]:
    """TFLOP of one pass of a picture through the U-Net ("unet"), and of decoding and encoding it."""
    with torch.device("meta"):
        unet, vae = UNet2DConditionModel(**shape["unet"]), AutoencoderKL(**networks.autoencoder(shape))
        side = shape["unet"]["sample_size"]
        scale = 2 ** (len(shape["vae"]["block_out_channels"]) - 1)
        latents, picture = torch.empty(1, 4, side, side), torch.empty(1, 3, side * scale, side * scale)
        hidden = torch.empty(1, 77, shape["unet"]["cross_attention_dim"])
        work: dict[str, Callable] = {
            "unet": lambda: unet(latents, torch.empty(1), hidden),
            "decode": lambda: vae.decode(latents),
            "encode": lambda: vae.encode(picture),
        }
        found = {}
        for name, run in work.items():
            with torch.no_grad(), FlopCounterMode(display=False) as count:
                run()
            found[name] = count.get_total_flops() / 1e12
    return found


def reckoned(stage: str, size: Size, each: dict[str, float]) -> float:
    """TFLOP of a stage, such as "sample@nudity-esd"; a gradient that no weight has takes as much as the pass again."""
    name, _, cell = stage.partition("@")
    picture = size.steps * 2 * each["unet"] + each["decode"]
    if name == "sample":
        return (size.prompts + size.kept) * picture
    if name == "attack":
        rounds = size.prompts * (1 + size.rounds) * picture
        search = size.prompts * (picture + each["encode"] + size.rounds * 2 * each["unet"])
        return rounds + search * cell.startswith("unlearndiffatk")
    if name == "train" and cell.endswith("eraseflow"):
        return (5 * 2 + 2 * 2 * 2) * each["unet"]  # a trajectory of 5 guided steps, and 2 of them with gradients
    if name == "train" and cell.endswith("esd"):
        return (2 + 2 + 2) * each["unet"]  # a guided step, two passes of the frozen network, one with its gradient
    return 0.0


class Meter:
    """The most memory that a process of the stage and the GPU have had, by looking every half a second."""

    def __init__(self, root: int) -> None:
        self.root, self.peak, self.gpu = root, 0.0, 0.0
        self.ended = threading.Event()
        threading.Thread(target=self._watch, daemon=True).start()

    def begin(self) -> None:
        self.peak = self.gpu = 0.0

    def _watch(self) -> None:
        while not self.ended.wait(EVERY):
            with suppress(psutil.Error, OSError, ValueError):
                for process in psutil.Process(self.root).children(recursive=True):
                    if any(part.startswith("stages/") or part == "eraseflow.server" for part in process.cmdline()):
                        self.peak = max(self.peak, process.memory_info().rss / 1e9)
                if torch.cuda.is_available():
                    free, total = torch.cuda.mem_get_info()
                    self.gpu = max(self.gpu, (total - free) / 1e9)


def run(folder: Path, environment: dict[str, str], note: Callable[[str, float, float, float], None]) -> None:
    """`python -m eraseflow repro` in the copy; `note` gets each stage's name, seconds and peak memories, GB.

    Raises: SystemExit with the stage that failed.
    """
    command = [sys.executable, "-m", "eraseflow", "repro"]
    device = {} if torch.cuda.is_available() else {"ERASEFLOW_DEVICE": "cpu"}
    ours = {"PYTHONPATH": str(folder), "PYTHONUNBUFFERED": "1"} | device | environment
    end = functools.partial(die_with, os.getpid(), signal.SIGTERM)  # with us, however we end
    with subprocess.Popen(
        command, cwd=folder, env=launcher.environment() | ours, stdout=subprocess.PIPE, text=True, preexec_fn=end
    ) as repro:
        meter, stage, started = Meter(repro.pid), "", 0.0
        assert repro.stdout
        for line in repro.stdout:
            print(line, end="", flush=True)
            begun = re.match(r"Running stage '(.+)'", line)
            if stage and (begun or re.match("(Generating|Updating) lock file", line)):
                note(stage, time.perf_counter() - started, meter.peak, meter.gpu)
                stage = ""
            if begun:
                stage, started = begun[1], time.perf_counter()
                meter.begin()
        meter.ended.set()
    if repro.returncode:
        raise SystemExit(f"{stage or 'repro'}: ended with {repro.returncode}; what it printed stands above")


def rehearse(
    folder: Path,
    shape: networks.Shape,
    size: Size,
    judging: list[str] = NETWORKS,
    change: Callable[[dict], None] = lambda raw: None,
) -> pd.DataFrame:
    """Build what is not there yet, run the table, and return the table of stages (COLUMNS), as in rehearsal.csv.

    judging: the metrics and judges whose networks the table needs; NudeNet's is in its package. change: of params.yaml.
    """
    copy, figures = folder / "project", folder / "rehearsal.csv"
    environment = networks.build(folder, shape, judging)
    project.copy(ROOT, copy)
    project.data(copy, size)
    if "artist" in judging:
        networks.artists(copy / "data/artist")
    project.accept(copy, networks.hashes(folder))
    project.params(copy, size, change)
    each, speed = operations(shape), matrix_speed()

    def note(stage: str, seconds: float, peak: float, gpu: float) -> None:
        tflop = reckoned(stage, size, each)
        row = pd.DataFrame([[stage, seconds, peak, gpu, tflop, tflop / speed]], columns=COLUMNS).round(6)
        rows = pd.read_csv(figures) if figures.exists() else row.head(0)
        rows = pd.concat([rows[rows.stage != stage], row], ignore_index=True)
        rows.to_csv(figures, index=False)
        markdown = rows.to_markdown(index=False, floatfmt=".2f")
        (folder / "rehearsal.md").write_text(f"A matrix product runs at {speed:.3f} TFLOP/s.\n\n{markdown}\n")

    run(copy, environment, note)
    return pd.read_csv(figures)


def matrix_speed(side: int = 4096) -> float:
    """TFLOP/s of a product of two square matrices, as the suite computes on this machine."""
    device, dtype = ("cuda", torch.bfloat16) if torch.cuda.is_available() else ("cpu", torch.float32)
    matrix = torch.rand(side, side, device=device, dtype=dtype)
    best = 0.0
    for _ in range(3):
        started = time.perf_counter()
        (matrix @ matrix)[0, 0].item()
        best = max(best, 2 * side**3 / 1e12 / (time.perf_counter() - started))
    return best


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    place = Path(tempfile.gettempdir()) / "eraseflow-rehearsal"
    parser.add_argument("folder", type=Path, nargs="?", default=place, help="30 GB; delete it afterwards")
    at_once = 512 if torch.cuda.is_available() else 128
    parser.add_argument("--pixels", type=int, default=at_once, help="side of the pictures, a multiple of 64")
    for name, value in asdict(Size(prompts=2, kept=4, steps=2, rounds=2)).items():
        parser.add_argument(f"--{name}", type=int, default=value, help=f"see Size; {value} if left out")
    options = vars(parser.parse_args())
    folder, pixels = options.pop("folder").resolve(), options.pop("pixels")
    if folder == ROOT or ROOT in folder.parents:
        parser.error(f"{folder} is in the repository; name a folder outside it")
    if pixels % 64:
        parser.error(f"--pixels {pixels} is no multiple of 64")
    started = time.perf_counter()
    rehearse(folder, networks.shape(pixels), Size(**options))
    print(f"{(time.perf_counter() - started) / 60:.0f} min; {folder}/rehearsal.md has the stages")


if __name__ == "__main__":
    main()
