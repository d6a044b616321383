"""Settings that the base model limits: by the tokens that it reads, the width of its layers, its timesteps."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

from eraseflow.checks import schedules
from eraseflow.checks.fields import Bound
from eraseflow.checks.words import Reader
from eraseflow.definitions import definition
from eraseflow.mistakes import ParamsError, read

if TYPE_CHECKING:
    from eraseflow.params import Params

ATTACKED_TOKENS = 60  # UnlearnDiffAtk's limit of a prompt, see prompts.py


def check_limits(params: "Params", concept: str, rows: list, reader: Reader, folder: Path) -> None:
    """The settings of the table's methods and attacks for a concept, whose prompts are `rows`. Raises: ParamsError."""
    unet = json.loads((folder / "unet" / "config.json").read_text(encoding="utf-8"))
    texts = [" ".join((row["prompt"] or "").split()) for _, row in rows if "prompt" in row]
    longest = min(ATTACKED_TOKENS, reader.length) - 2
    prompts = [text for text in texts if len(reader.ids(text)) <= longest]
    parts = [part for row in params.table.methods for part in params.parts(row)]
    scheduler, drawing = schedules.config_of(folder), params.testbeds[params.table.testbed].sampling
    _check_schedule(scheduler, drawing.solver, drawing.steps, f"testbeds.{params.table.testbed}.sampling.steps")
    for family, names, beside in (
        ("methods", parts, list(params.concepts[concept].anchors)),
        ("attacks", params.table.attacks, prompts),
    ):
        longest_text = max(beside, key=lambda text: len(reader.ids(text)), default="")
        beside_room = reader.room - len(reader.ids(longest_text))
        limits = {
            Bound.PREFIX: (beside_room, f"tokens that the text encoder reads beside {longest_text[:40]!r}"),
            Bound.ALONE: (reader.room, "tokens that the text encoder reads"),
            Bound.RANK: (min(unet["block_out_channels"]), "the width of the U-Net's narrowest layers"),
            Bound.DRAWING: (drawing.steps - 1, "all solver steps but one"),
            Bound.BLOCKS: (len(unet["up_block_types"]), "a number for each block of the U-Net's decoder"),
        }
        for name in dict.fromkeys(names):
            where, settings = _settings(params, family, name, params.concepts[concept].kind)
            for key, bound in _bounds(type(settings)):
                value = getattr(settings, key)
                if bound is Bound.SCHEDULE:
                    _check_schedule(scheduler, "ddim", value, f"{where}.{key}")
                    continue
                found = len(value) if isinstance(value, list) else value
                most, what = limits[bound]
                if found is not None and found > most:
                    raise ParamsError(f"params.yaml: {where}.{key}: expected {most} at most, {what}, found {found}")


def _check_schedule(scheduler: dict[str, Any], solver: str, steps: int, where: str) -> None:
    try:
        schedules.check(scheduler, solver, steps)
    except ValueError as error:
        raise ParamsError(f"params.yaml: {where}: {error}") from None


def _settings(params: "Params", family: str, name: str, kind: str) -> tuple[str, Any]:
    """Where the settings of a method's row or an attack for a kind of concept are, and what they are."""
    from eraseflow.params import of_kind  # that module imports this one

    testbed = params.table.testbed
    methods = family == "methods"
    module = params.module(name) if methods else params.attack_module(name)
    blocks = (params.methods if methods else params.attacks)[name].on
    where = f"{family}.{name}.{testbed}"
    return where, read(definition(family, module, "Settings"), of_kind(blocks[testbed], kind), where)


def _bounds(model: type) -> Iterator[tuple[str, Bound]]:
    """The fields of a Settings that have a mark, in an alternative of their type too."""
    for key, field in model.model_fields.items():  # type: ignore[attr-defined]
        marks = [*field.metadata, *(mark for side in get_args(field.annotation) for mark in get_args(side))]
        yield from ((key, mark) for mark in marks if isinstance(mark, Bound))
