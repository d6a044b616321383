"""What a training takes: time, passes through U-Net and text encoder, peak memory, and weights."""

import resource
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.optim.optimizer import register_optimizer_step_post_hook

from eraseflow.edits import Edit
from eraseflow.passes import PASSES

STATUS, CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")  # Linux


class Ledger:
    """Sums what happens within `watch`, which may be entered several times, for each part of a composition.

        ledger = Ledger()
        with ledger.watch(pipeline):
            edit = erase(pipeline, concept, settings, seed)
        costs = ledger.costs(edit)

    seconds: wall time. passes: pictures through the U-Net and texts through the text encoder, by PASSES, also through
    deep copies that the method makes of them; a backward pass is one whose output a gradient has reached. peak_memory:
    bytes; on a GPU the most that PyTorch had allocated, the models included; on a CPU by how much the process grew at
    most, without the models, which are there before.
    """

    def __init__(self) -> None:
        self.seconds = 0.0
        self.passes = dict.fromkeys(PASSES, 0)
        self.peak_memory = 0
        self._trained: dict[tuple, tuple[int, int]] = {}
        self._watching = False

    @contextmanager
    def watch(self, pipeline: Any) -> Iterator[None]:
        """Count what a pipeline's networks do until the block is left."""
        handles = [
            pipeline.unet.register_forward_hook(self._counter("unet")),
            pipeline.text_encoder.register_forward_hook(self._counter("text")),
            register_optimizer_step_post_hook(self._note_optimiser),
        ]
        memory = Memory(pipeline.unet.device)
        self._watching = True
        started = time.perf_counter()
        try:
            yield
        finally:
            self.peak_memory = max(self.peak_memory, memory.peak())  # waits for the GPU
            self.seconds += time.perf_counter() - started
            self._watching = False
            for handle in handles:
                handle.remove()

    def _counter(self, network: str):
        """A forward hook. A deep copy of a network keeps it as it is, because functions are not copied."""

        def count(module, inputs, output) -> None:
            if not self._watching:  # a copy outlives the block
                return
            found: Tensor = output[0]
            self.passes[f"{network}_forward"] += len(found)
            if found.requires_grad:
                found.register_hook(backward)

        def backward(gradient: Tensor) -> None:
            self.passes[f"{network}_backward"] += len(gradient) * self._watching

        return count

    def _note_optimiser(self, optimiser, *_) -> None:
        """By their shapes: an attack inside a training makes an optimiser anew for each of its searches."""
        weights = [weight for group in optimiser.param_groups for weight in group["params"]]
        shapes = tuple(tuple(weight.shape) for weight in weights)
        self._trained[shapes] = (sum(weight.numel() for weight in weights), sum(weight.nbytes for weight in weights))

    def costs(self, edit: Edit) -> dict[str, float | int]:
        """What costs.json says of the edit that was made, the same in every run: optimiser_steps, PASSES, and numbers
        and bytes of weights, trained (by an optimiser) and stored (in the edit)."""
        weights = list(stored(edit))
        return {
            "optimiser_steps": len(edit.history) if self._trained else 0,  # a closed form may have rounds
            **self.passes,
            "trained_weights": sum(number for number, _ in self._trained.values()),
            "trained_bytes": sum(size for _, size in self._trained.values()),
            "stored_weights": sum(weight.numel() for weight in weights),
            "stored_bytes": sum(weight.nbytes for weight in weights),
        }

    def measured(self) -> dict[str, float]:
        """What differs from run to run, for the record of timings (see eraseflow/timings.py)."""
        return {"seconds": round(self.seconds, 2), "peak_memory_bytes": self.peak_memory}


def stored(edit: Edit) -> Iterator[Tensor]:
    """The tensors of an edit and of its parts."""
    yield from edit.tensors.values()
    for part in edit.parts:
        yield from stored(part)


class Memory:
    """The most memory that is in use from now on."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(device)
        else:
            with suppress(OSError):  # where the mark cannot be set back, only what exceeds the earlier one shows
                CLEAR.write_text("5", encoding="utf-8")
            self.start = high_water()

    def peak(self) -> int:
        """Bytes, see Ledger."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
            return torch.cuda.max_memory_allocated(self.device)
        return high_water() - self.start


def high_water() -> int:
    """The most bytes that the process has had in memory since the mark was set back."""
    if STATUS.exists():
        line = next(line for line in STATUS.read_text(encoding="utf-8").splitlines() if line.startswith("VmHWM"))
        return 1024 * int(line.split()[1])
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most if sys.platform == "darwin" else 1024 * most
