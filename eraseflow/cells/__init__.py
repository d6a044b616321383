"""The work of one cell of the table, a concept with a method, a module for each of its stages."""

import importlib
import os
from types import ModuleType

import torch

from eraseflow import environment
from eraseflow.params import Concept, Params, Testbed

environment.check()

# These change speed, not what is computed, so they are no params: the device, the precision of the pipeline's
# networks (solvers, losses and trained weights are float32 in any case), and pictures a batch (see `batch`).
DEVICE = environment.device(os.environ.get("ERASEFLOW_DEVICE", ""))
PRECISION = environment.precision(DEVICE)
# What of them moves a result by rounding: unfinished work of another kind of device or compiler is not gone on with.
ROUNDING = (DEVICE.partition(":")[0], PRECISION, os.environ.get("ERASEFLOW_COMPILE", ""))
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


def module(family: str, name: str) -> ModuleType:
    """The module of a method, attack, judge, metric or testbed, found by its name."""
    return importlib.import_module(f"eraseflow.{family}.{name}")


def world_of(testbed: str) -> ModuleType:
    """A testbed's module, whose THREADS, where it has such, PyTorch computes with on a CPU from now on."""
    world = module("testbeds", testbed)
    if threads := getattr(world, "THREADS", None):
        torch.set_num_threads(threads)
    return world


def batch(world: ModuleType) -> int:
    """Pictures a batch: ERASEFLOW_BATCH, or what suits the testbed's model."""
    return int(os.environ.get("ERASEFLOW_BATCH") or world.BATCH)


def setting(params: Params, concept: str) -> tuple[Concept, Testbed, ModuleType]:
    """A concept's entry, its testbed's entry and its testbed's module."""
    entry = params.concepts[concept]
    return entry, params.testbeds[entry.testbed], world_of(entry.testbed)
