"""A training's state on disk, so that a killed training goes on where it was and ends with the same weights."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

EVERY = 250  # steps


def save(path: Path, parts: Mapping[str, Any], losses: list[float]) -> None:
    """Write the states of model, optimiser and so on, and the losses of the steps done; whole or not at all."""
    unfinished = path.with_suffix(".part")
    torch.save({name: part.state_dict() for name, part in parts.items()} | {"losses": losses}, unfinished)
    unfinished.replace(path)


def resume(path: Path, parts: Mapping[str, Any]) -> list[float]:
    """Put the saved states into the parts; the losses so far, none where there is no checkpoint.

    Raises: SystemExit with one line where the file is damaged.
    """
    if not path.exists():
        return []
    try:
        saved = torch.load(path, weights_only=True)
        for name, part in parts.items():
            part.load_state_dict(saved[name])
    except Exception as error:
        raise SystemExit(f"{path}: is no whole checkpoint ({type(error).__name__}); delete it to begin again") from None
    return list(saved["losses"])
