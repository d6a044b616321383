"""The chain of all stages in this process, in a second or two: a base model of a few thousand weights, four prompts."""

import copy
import json
import math
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import yaml
from conftest import miniature
from matplotlib.figure import Figure
from pydantic import ValidationError

from eraseflow import rows
from eraseflow.cells.attack import attack
from eraseflow.cells.concept import concept
from eraseflow.cells.reference import reference
from eraseflow.cells.sample import sample
from eraseflow.cells.score import score
from eraseflow.cells.train import train
from eraseflow.cells.transfer import matrix
from eraseflow.definitions import definition
from eraseflow.params import Params
from eraseflow.report import build, page, plots, published, published_figure
from eraseflow.testbeds import emoji

ROOT = Path(__file__).parent.parent
ROWS = set(yaml.safe_load((ROOT / "params.yaml").read_text())["methods"])
FIGURES = published.read().head(5)  # of the literature's; the others take as long as a cell
CONCEPTS = ["unicorn", "ink_style", "weapon"]  # one of each kind
TARGETS = {"unicorn": ["a unicorn in flat style"], "ink_style": ["ink style cat"], "weapon": ["a knife in ink style"]}
KEPT = ["a horse in flat style,object/horse;style/flat", "outline style cat,object/cat;style/outline"]
KEPT += ["a hammer in flat style,object/hammer;style/flat"]
PIXEL = b"\x89PNG\r\n\x1a\n"  # in the place of a figure: to draw them takes longer than all the rest


def write(folder: Path) -> dict[str, Any]:
    """Make a project of it: the smallest base model and settings of every method and attack. Returns params.yaml."""
    for name in ("models/judges", "data/emoji", "reports/base"):
        shutil.copytree(ROOT / name, folder / name)
    shutil.copy(ROOT / "reports/judges.json", folder / "reports")
    base().save_pretrained(folder / "models/emoji")
    (folder / "prompts/emoji").mkdir(parents=True)
    for name in ("kept", *TARGETS):
        (folder / f"prompts/emoji/{name}.csv").write_text(prompt_file(name))
    raw = smallest(yaml.load((ROOT / "params.yaml").read_text(), yaml.CSafeLoader))
    (folder / "params.yaml").write_text(yaml.safe_dump(raw, sort_keys=False))
    return raw


def prompt_file(name: str) -> str:
    """The prompts of a concept, or those to keep."""
    return "\n".join(["prompt,expect", *KEPT] if name == "kept" else ["prompt", *TARGETS[name]]) + "\n"


@cache
def base():
    return miniature()


def smallest(raw: dict[str, Any]) -> dict[str, Any]:
    """The project's params with a table of one cell, and every whole number as small as its Settings allow."""
    raw["table"] |= {"concepts": ["unicorn"], "methods": ["uce"], "attacks": ["random_prefix"], "transfer": []}
    raw["testbeds"] = {"emoji": raw["testbeds"]["emoji"]}
    raw["testbeds"]["emoji"]["sampling"]["steps"] = 2
    raw["concepts"] = {name: raw["concepts"][name] for name in CONCEPTS}
    for name, block in raw["concepts"].items():
        block["kept"] |= {"neighbours": [], "count": 2}
        block["preserve"] = block["preserve"][:2]
        block["contexts"] = block.get("contexts", ["{}"])[:2]
        if name == "weapon":
            block["also"] = {"knife": "saw"}
    for family in ("methods", "attacks"):
        for name, row in raw[family].items():
            if "compose" in row:
                continue
            row.pop("sd14", None)
            if block := row.get("emoji"):
                model = definition(family, row.get("module", name), "Settings")
                block.pop("kinds", None)
                block |= {key: 0 for key in ("skip_last", "switch_epoch", "warmup") if key in block}
                for key, value in block.items():
                    if type(value) is int and value:
                        block[key] = next(small for small in (1, 2, 4, 5, value) if _fits(model, block | {key: small}))
    del raw["methods"]["pretrained"], raw["tuning"]
    return raw


def _fits(model, block: dict) -> bool:
    try:
        model.model_validate(block)
    except ValidationError:
        return False
    return True


def another(pipeline):
    """A copy of its own networks; a copied tokenizer would decode nothing."""
    return copy.deepcopy(pipeline, {id(pipeline.tokenizer): pipeline.tokenizer})


@contextmanager
def quick() -> Iterator[None]:
    """The base model is loaded once and then copied, and figures are not drawn."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(emoji, "load_pipeline", lambda model, device: another(base()))
        patch.setattr(rows, "code", cache(rows.code))
        for module in (plots, page):
            patch.setattr(module, "encode", lambda figure, kind: PIXEL)
        for module in (published_figure, page):  # of the literature, whatever params.yaml says
            patch.setattr(module, "published", lambda *_, **__: Figure())
        patch.setattr(published, "read", lambda: FIGURES)
        yield


def run(params: Params) -> None:
    """Every stage of every cell of the table, in the present folder, in the order of dvc.yaml."""
    table, data = params.table, Path("data")
    rows.write(params, data / "methods")
    rows.write_attacks(params, data / "attacks")
    if not (data / "reference").is_dir():  # of the real pictures, which are the same for every table
        reference(params, table.testbed, data / "reference" / table.testbed)
    for name in table.concepts:
        concept(params, name, data / "concepts" / name)
        texts = data / "concepts" / name / "prompts.csv"
        for method in table.methods:
            cell = data / "cells" / name / method
            train(params, name, method, cell)
            sample(params, name, texts, cell / "edit", cell / "samples.parquet")
            for attacker in table.attacks:  # one through samplers is a stage of every row, see cells/attack.py
                attack(params, name, texts, cell / "edit", attacker, cell / f"attack-{attacker}.parquet")
            real = data / "reference" / table.testbed
            score(params, name, cell / "samples.parquet", real, cell / "judged.parquet", cell / "scores.json")
        for replayed in table.transfer:
            found = matrix(params, name, replayed, data / "cells")
            found.to_csv(data / "concepts" / name / f"transfer-{replayed}.csv", index=False)
    out, real = Path("reports"), data / "reference" / table.testbed / "reference.json"
    build(params, data / "cells", data / "concepts", out / "judges.json", out / "base", real, out)


def check_finite(params: Params) -> None:
    """No file of the cells or the report has a number that is none, but for what nobody could have measured."""
    files = [*Path("data/cells").rglob("*.json"), Path("reports/metrics.json")]
    for file in files:
        for key, value in _numbers(json.loads(file.read_text()), ""):
            assert math.isfinite(value), f"{file}: {key} is {value}"
    for file in Path("data/cells").rglob("training.csv"):
        history = pd.read_csv(file)
        for _, part in history.groupby("part") if "part" in history else [("", history)]:
            numbers = part.select_dtypes("number").dropna(axis=1, how="all")
            assert (numbers.abs() < math.inf).all(axis=None), f"{file}: {numbers.tail(1).to_dict('records')}"
    table = pd.read_csv("reports/table.csv")
    assert len(table) == len(params.table.concepts) * len(params.table.methods) * len(params.table.attacks)
    for column in ("fd", "clip_score", "asr"):
        assert (table[column].abs() < math.inf).all(), f"{column}: {table[column].tolist()}"


def _numbers(value: Any, key: str) -> Iterator[tuple[str, float]]:
    if isinstance(value, dict):
        for name, inner in value.items():
            yield from _numbers(inner, f"{key}.{name}")
    elif isinstance(value, list):
        for inner in value:
            yield from _numbers(inner, key)
    elif isinstance(value, float):
        yield key, value
