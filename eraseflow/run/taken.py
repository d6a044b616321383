"""What stages have taken, by their names: seconds of their command, and the most memory, in bytes.

From it is reckoned what like stages will take. A run keeps it in .work/taken.json. `python -m eraseflow timings` writes
that of the default table into reports/taken.csv, so that a fresh clone knows, too. Nothing that is computed reads it.
"""

import json
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from statistics import median
from typing import Any

import yaml

from eraseflow.outputs import write_json, write_text

HERE, PUBLISHED = Path(".work/taken.json"), Path("reports/taken.csv")
COLUMNS = ["stage", "seconds", "memory_bytes"]
# How alike two stages of a kind are: what they share of their names' parts, which dvc.yaml's matrices order.
WEIGHTS = {"attack": (4, 1, 2), "transfer": (2, 1)}  # attack, concept, method
OF_A_CELL = (1, 2)  # concept, method

Taken = dict[str, tuple[float, float]]


def known(project: Path) -> Taken:
    """What is known of stages of the table's testbed: published, and from this folder's runs, which goes before."""
    found: Taken = {}
    with suppress(OSError):
        for line in (project / PUBLISHED).read_text(encoding="utf-8").splitlines()[1:]:
            stage, seconds, memory = line.split(",")
            found[stage] = float(seconds), float(memory)
    with suppress(OSError, ValueError):
        here = json.loads((project / HERE).read_text(encoding="utf-8"))
        found |= {stage: (seconds, memory) for stage, (seconds, memory) in here.items()}
    return of_testbed(found, project)


def publish(stages: Iterable[str], project: Path) -> None:
    """Write what is known here of these stages, in their order, where a clone finds it."""
    found = known(project)
    lines = [f"{stage},{found[stage][0]:.1f},{found[stage][1]:.0f}" for stage in stages if stage in found]
    write_text("\n".join([",".join(COLUMNS), *lines, ""]), project / PUBLISHED)


def of_testbed(stages: Mapping[str, Any], project: Path) -> dict[str, Any]:
    """Those of stages by name whose concept or testbed is of the table's testbed, or that are of neither."""
    path = project / "params.yaml"
    params = yaml.load(path.read_text(encoding="utf-8"), yaml.CSafeLoader) if path.is_file() else None
    if not params:
        return dict(stages)
    testbed, concepts = params["table"]["testbed"], params["concepts"]
    names = {name for name, concept in concepts.items() if concept["testbed"] == testbed} | {testbed}
    return {
        stage: found
        for stage, found in stages.items()
        if "@" not in stage or names & set(stage.partition("@")[2].split("-"))
    }


def keep(taken: Taken, project: Path) -> None:
    write_json(taken, project / HERE)


def like(stage: str, taken: Mapping[str, tuple[float, float]]) -> tuple[float, float] | None:
    """What it takes if it is like those stages of its kind that share the most with it; None where there is none."""
    if stage in taken:
        return taken[stage]
    kind = stage.partition("@")[0]
    alike: dict[int, list[tuple[float, float]]] = {}
    for other, found in taken.items():
        if other.partition("@")[0] == kind:
            alike.setdefault(shared(stage, other), []).append(found)
    if not alike:
        return None
    nearest = alike[max(alike)]
    return median(seconds for seconds, _ in nearest), max(memory for _, memory in nearest)


def seconds(stage: str, taken: Mapping[str, tuple[float, float]]) -> float | None:
    found = like(stage, taken)
    return found and found[0]


def shared(one: str, other: str) -> int:
    kind, _, parts = one.partition("@")
    pairs = zip(WEIGHTS.get(kind, OF_A_CELL), parts.split("-"), other.partition("@")[2].split("-"), strict=False)
    return sum(weight for weight, mine, theirs in pairs if mine == theirs)
