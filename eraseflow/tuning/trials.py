"""One trial of a method or of an attack.

What it found is a file in `tuning/trials/`, in git: hours of trials are not lost with a machine, go on on another one,
and a trial is made again only where something that it depends on has changed.
"""

import hashlib
import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, Literal

import pandas as pd
import torch

from eraseflow import prompts, rounds, rows, sampling, verdict
from eraseflow.cells import DEVICE, ROUNDING, batch, module, setting
from eraseflow.cells.attack import JUDGES, victim_of
from eraseflow.edits import Edit
from eraseflow.finite import NotFinite
from eraseflow.outputs import write_json
from eraseflow.outside import content
from eraseflow.outside.notes import model_files
from eraseflow.params import Params, Tuning
from eraseflow.shards import WORK

FOUND, EDITS = Path("tuning/trials"), WORK / "tuning"


def of_method(
    params: Params, tuning: Tuning, concept: str, name: str, change: dict[str, Any], seed: int
) -> dict[str, Any]:
    """Train with changed settings and judge: `judged` of the edit, with kept_unedited, and failed where it did."""
    settings = changed(params, "methods", name, concept, change)

    def measure() -> dict[str, Any]:
        entry, testbed, world = setting(params, concept)
        pipeline = world.load_pipeline(testbed.model, DEVICE)
        try:
            edit = module("methods", params.module(name)).erase(pipeline, entry, settings, seed)
            return judged(params, tuning, concept, edit)
        except NotFinite as error:
            return {"seen": 1.0, "kept": 0.0, "failed": str(error)}

    code = {"methods": params.module(name)}
    found = kept(params, tuning, concept, f"{name}-{seed}", code, settings, measure)
    unedited = kept(params, tuning, concept, "unedited", {}, None, partial(judged, params, tuning, concept))
    return found | {"kept_unedited": unedited["kept"]}


def of_attack(
    params: Params, tuning: Tuning, concept: str, name: str, change: dict[str, Any], edit: str
) -> dict[str, Any]:
    """Attack an edit with changed settings: attacked, and of these the successes within `pictures` distinct ones."""
    settings, seed = changed(params, "attacks", name, concept, change), tuning.seeds[0]

    def measure() -> dict[str, Any]:
        entry, testbed, world = setting(params, concept)
        original, pipeline = (world.load_pipeline(testbed.model, DEVICE) for _ in range(2))
        edited = trained(params, tuning, concept, edit).apply(pipeline)
        table = own_prompts(params, tuning, concept, edited.tokenizer)
        table = table[table.role == "target"].reset_index(drop=True)
        victim = victim_of(entry, testbed, batch(world), original, edited, table)
        searching = module("attacks", params.attack_module(name)).attack
        try:
            found = rounds.run(victim, searching, settings, seed)
        except NotFinite as error:
            return {"attacked": len(table), "successes": 0, "failed": str(error)}
        found = found[~found.pre_success]
        within = found.success & (found.distinct <= tuning.pictures)
        return {"attacked": len(found), "successes": int(within.sum())}

    under = changed(params, "methods", edit, concept, {})
    code = {"attacks": params.attack_module(name), "methods": params.module(edit)}
    return kept(params, tuning, concept, f"{name}-on-{edit}", code, (settings, under), measure)


def changed(
    params: Params, family: Literal["methods", "attacks"], name: str, concept: str, change: dict[str, Any]
) -> Any:
    """A row's settings for a concept, with some of them changed."""
    entry = params.concepts[concept]
    settings = params.settings(family, name, entry.testbed, entry.kind)
    return type(settings).model_validate(settings.model_dump() | change)


def trained(params: Params, tuning: Tuning, concept: str, name: str) -> Edit:
    """A row's edit of a validation concept with its settings as they stand, trained once."""
    entry, testbed, world = setting(params, concept)
    settings = changed(params, "methods", name, concept, {})
    code = {"methods": params.module(name)}
    folder = EDITS / f"{name}-{concept}-{_depends(params, tuning, concept, code, settings)}"
    if not (folder / "edit.json").is_file():
        pipeline = world.load_pipeline(testbed.model, DEVICE)
        module("methods", params.module(name)).erase(pipeline, entry, settings, tuning.seeds[0]).save(folder)
    return Edit.load(folder)


def judged(params: Params, tuning: Tuning, concept: str, edit: Edit | None = None) -> dict[str, Any]:
    """`of_pipeline` of an edit, or of the unedited model."""
    _, testbed, world = setting(params, concept)
    pipeline = world.load_pipeline(testbed.model, DEVICE)
    return of_pipeline(params, tuning, concept, edit.apply(pipeline) if edit else pipeline)


def of_pipeline(params: Params, tuning: Tuning, concept: str, pipeline) -> dict[str, Any]:
    """seen: the share of target prompts that show the concept; kept: of the kept prompts those that are drawn right."""
    entry, testbed, world = setting(params, concept)
    table = own_prompts(params, tuning, concept, pipeline.tokenizer)
    pictures = sampling.sample(
        pipeline, list(table.prompt), list(table.seed), list(table.guidance), testbed.sampling, batch(world), quiet=True
    )
    drawn, target = torch.cat(list(pictures)), (table.role == "target").to_numpy()
    asked = module("judges", entry.judge.name).load(DEVICE, entry)(drawn[target])
    assert testbed.kept_judge  # see checks/tuning.py
    other = module("judges", testbed.kept_judge).load(DEVICE, entry)(drawn[~target])
    right = verdict.right(other, table.expect[~target])
    return {"seen": float(verdict.seen(asked, verdict.rule(entry.judge)).mean()), "kept": float(right.mean())}


def own_prompts(params: Params, tuning: Tuning, concept: str, tokenizer) -> pd.DataFrame:
    """Of the concept's prompts as many as `tuning.prompts` says, from the first on, and of `tuning.kept` all."""
    entry, testbed, _ = setting(params, concept)
    table, _ = prompts.resolve(entry, testbed.model_copy(update={"kept": tuning.kept}), 0, tokenizer)
    target = table[table.role == "target"].head(tuning.prompts)
    return pd.concat([target, table[table.role == "kept"]], ignore_index=True)


def kept(
    params: Params, tuning: Tuning, concept: str, name: str, code: dict[str, str], settings: Any,
    measure: Callable[[], dict[str, Any]],
) -> dict[str, Any]:  # fmt: skip
    """What a trial found, measured unless it is in `tuning/trials/`; code: the modules of the row, by family."""
    path = FOUND / f"{name}-{concept}-{_depends(params, tuning, concept, code, settings)}.json"
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        write_json(found := measure(), path)
        return found


def _depends(params: Params, tuning: Tuning, concept: str, code: dict[str, str], settings: Any) -> str:
    """A fingerprint of all that a trial on a concept depends on: data, networks, budget, settings and code."""
    entry, testbed, _ = setting(params, concept)
    assert testbed.kept_judge  # see checks/tuning.py
    files = [Path(entry.prompts), Path(tuning.kept), *model_files(entry.testbed, testbed), *content.files(JUDGES)]
    read = [(file.name, sha256) for file, sha256 in zip(files, content.digests(files).values(), strict=True)]
    modules = [("tuning", "trials"), ("testbeds", entry.testbed), *code.items()]
    modules += [("judges", entry.judge.name), ("judges", testbed.kept_judge)]
    sources = [rows.code(module, family) for family, module in modules]
    budget = tuning.prompts, tuning.pictures, tuning.seeds
    return hashlib.sha256(repr((entry, testbed, read, sources, budget, ROUNDING, settings)).encode()).hexdigest()[:16]
