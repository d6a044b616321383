"""The work of one cell of the table, a concept with a method, a module for each of its stages."""

import importlib
import os
from types import ModuleType

import torch

from eraseflow.params import Concept, Params, Testbed

# These change speed, not results, so they are no params: the device, and pictures a batch.
DEVICE = os.environ.get("ERASEFLOW_DEVICE") or ("cuda" if torch.cuda.is_available() else "cpu")
BATCH = int(os.environ.get("ERASEFLOW_BATCH", "48"))


def module(family: str, name: str) -> ModuleType:
    """The module of a method, attack, judge, metric or testbed, found by its name."""
    return importlib.import_module(f"eraseflow.{family}.{name}")


def setting(params: Params, concept: str) -> tuple[Concept, Testbed, ModuleType]:
    """A concept's entry, its testbed's entry and its testbed's module."""
    entry = params.concepts[concept]
    return entry, params.testbeds[entry.testbed], module("testbeds", entry.testbed)
