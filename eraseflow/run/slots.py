"""The places of this machine in which stages can run at once: cores, or GPUs."""

import json
import os
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil

from eraseflow import timings
from eraseflow.definitions import definition

MEMORY = 1_500_000_000  # bytes of a stage that computes on one core; the largest of the default table has 1.2 GB
FILLED = 0.9  # the part of a GPU's memory that stages may have; the rest is for CUDA itself and for fragments
RUNS = 8  # that go on at once where a cluster's workers compute; each process of theirs has 0.4 GB
QUERY = ["nvidia-smi", "--query-gpu=index,uuid,name,memory.total", "--format=csv,noheader,nounits"]


@dataclass(frozen=True)
class Places:
    """slots: of this machine, each with its environment variables; engine: address of a scheduler, instead of them."""

    slots: Sequence[Mapping[str, str]] = ({},)
    engine: str = ""

    def for_dvc(self) -> list[str]:
        """What project/dvc.py reads before DVC's own arguments."""
        if self.engine:
            return [f"--engine={self.engine}"]
        return [f"--slots={json.dumps(list(self.slots))}"] if len(self.slots) > 1 else []

    def shares(self, count: int) -> "list[Places]":
        """For so many runs at the same time, or fewer if there are not so many places."""
        if self.engine:
            return [self] * min(count, RUNS)
        count = min(count, len(self.slots))
        return [Places(self.slots[place::count]) for place in range(count)]


def places(testbed: str, jobs: int = 0, engine: str = "") -> Places:
    return Places(engine=engine) if engine else Places(slots(testbed, jobs))


def slots(testbed: str, jobs: int = 0) -> list[Mapping[str, str]]:
    """So many as `jobs` says, on the GPUs in turn; if that is 0, so many as fit.

    One a core if the testbed computes a stage on one, and there is the memory for it. Else one a GPU, or as many as the
    largest training that was measured on such a GPU leaves room for; where there is none, a single one with all cores.
    """
    if definition("testbeds", testbed, "THREADS", None) == 1:
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        return [{}] * (jobs or max(1, min(cores, int(psutil.virtual_memory().available // MEMORY))))
    gpus = {} if os.environ.get("ERASEFLOW_DEVICE") else find_gpus()
    if not gpus:
        return [{}] * (jobs or 1)
    measured = timings.read(Path("reports") / timings.FILE)
    fit = {}
    for gpu, (name, memory) in gpus.items():
        peaks = measured.peak_memory_bytes[measured.machine == name]
        peak = max((int(float(value)) for value in peaks if value), default=memory)
        fit[gpu] = max(1, int(FILLED * memory // max(peak, 1)))
    in_turn = [gpu for place in range(max(fit.values())) for gpu, count in fit.items() if place < count]
    return [{"CUDA_VISIBLE_DEVICES": in_turn[place % len(in_turn)]} for place in range(jobs or len(in_turn))]


def find_gpus() -> dict[str, tuple[str, int]]:
    """Name and bytes of memory of each NVIDIA GPU that we may use, by what CUDA_VISIBLE_DEVICES calls it."""
    if not shutil.which(QUERY[0]):
        return {}
    done = subprocess.run(QUERY, capture_output=True, text=True, encoding="utf-8")
    found = {}
    for line in done.stdout.splitlines() if done.returncode == 0 else []:
        index, uuid, name, memory = line.split(", ")
        found[index] = found[uuid] = (name, int(memory) * 2**20)
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    names = [name for name in found if name.isdecimal()] if visible is None else visible.split(",")
    return {name: found[name] for name in names if name in found}
