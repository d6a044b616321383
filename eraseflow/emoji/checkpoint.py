"""A training's state on disk, so that a killed training goes on where it was and ends with the same weights."""

import pickle
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from eraseflow import memory
from eraseflow.outputs import replacing

EVERY = 250  # steps
DAMAGED = (EOFError, OSError, RuntimeError, LookupError, TypeError, ValueError, pickle.UnpicklingError)


def save(path: Path, parts: Mapping[str, Any], losses: list[float]) -> None:
    """Write the states of model, optimiser and so on, and the losses of the steps done; whole or not at all."""
    with replacing(path) as unfinished:
        torch.save({name: part.state_dict() for name, part in parts.items()} | {"losses": losses}, unfinished)


def resume(path: Path, parts: Mapping[str, Any]) -> list[float]:
    """Put the saved states into the parts; the losses so far.

    None where there is no checkpoint or, with a line that says so, where it is damaged, as after a power cut.
    """
    if not path.exists():
        return []
    try:
        saved = torch.load(path, weights_only=True)
        states = {name: saved[name] for name in [*parts, "losses"]}
    except DAMAGED as error:
        if memory.is_full(error):
            raise
        print(f"{path}: is damaged; this training begins anew", file=sys.stderr)
        return []
    for name, part in parts.items():
        part.load_state_dict(states[name])
    return list(states["losses"])
