"""Whether a base model's scheduler has timesteps for so many solver steps: they are made, as diffusers makes them.

fields.py knows only the number of steps; the spacing, and with it what rounding leaves, is the model's.
"""

import json
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from eraseflow.checks.fields import TIMESTEPS, check_steps

MISSES = 0.1  # of a DDIM step's length, by which its end may lie beside the beginning of the next


def config_of(folder: Path) -> dict[str, Any]:
    """The config of a pipeline's scheduler; empty where it cannot be read, of which base_model.py says why."""
    try:
        found = json.loads((folder / "scheduler" / "scheduler_config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def timesteps(config: dict[str, Any], solver: str, steps: int) -> list[int]:
    """Those of diffusers' DDIMScheduler ("ddim") or DPMSolverMultistepScheduler ("dpmsolver++"), from noise on."""
    last = int(solver == "dpmsolver++")  # it cuts the timesteps into one part more
    if config.get("timestep_spacing", "leading") == "trailing":
        return (np.arange(TIMESTEPS, 0, -TIMESTEPS / steps).round().astype(int) - 1).tolist()
    stride, offset = TIMESTEPS // (steps + last), config.get("steps_offset", 0)
    return [place * stride + offset for place in range(last, steps + last)][::-1]


def wrong(config: dict[str, Any], solver: str, steps: int) -> str:
    """What is wrong with them, or nothing: as many as steps, each below the last, none outside of the training's.

    And a step of DDIM, always as many whole timesteps long, must end near where the next one begins.
    """
    found = timesteps(config, solver, steps)
    if len(found) != steps or min(found) < 0 or max(found) >= TIMESTEPS:
        return f"makes {len(found)} timesteps of {steps}, the last {found[-1]}"
    if same := next((one for one, other in pairwise(found) if one <= other), None):
        return f"makes timestep {same} twice"
    stride = TIMESTEPS // steps
    if (
        solver == "ddim"
        and (off := max((abs(a - stride - b) for a, b in pairwise(found)), default=0)) > MISSES * stride
    ):
        return f"makes steps of {stride} timesteps that end {off} beside the next"
    return ""


def check(config: dict[str, Any], solver: str, steps: int) -> None:
    """Raises: ValueError that says what is wrong, with the nearest numbers of steps that can be done."""
    if not config or not (what := wrong(config, solver, steps)):
        return
    can = [other for other in range(1, TIMESTEPS) if _can(config, solver, other)]
    near = sorted(sorted(can, key=lambda other: abs(other - steps))[:2])
    spacing = config.get("timestep_spacing", "leading")
    nearest = f"the nearest that can be done are {' and '.join(map(str, near))}"
    raise ValueError(f"{steps} solver steps: the model's {spacing} spacing {what}; {nearest}")


def _can(config: dict[str, Any], solver: str, steps: int) -> bool:
    try:
        check_steps(steps, last=int(solver == "dpmsolver++"))
    except ValueError:
        return False
    return not wrong(config, solver, steps)
