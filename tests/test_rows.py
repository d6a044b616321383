"""Which code and settings a row's training depends on: its parts' own, and nothing else."""

import json
import shutil
from pathlib import Path

import pandas as pd
import pytest
import yaml
from conftest import CONCEPT, miniature

from eraseflow import params, rows
from eraseflow.cells import train as cell
from eraseflow.edits import Edit
from eraseflow.methods import esd, safree

ROOT = Path(__file__).parent.parent


@pytest.fixture
def everything(tmp_path) -> params.Params:
    """The project's own, with `eraseflow+safree` among the table's methods."""
    raw = yaml.safe_load((ROOT / "params.yaml").read_text())
    raw["table"]["methods"] = ["esd", "esd_u", "eraseflow+safree"]
    raw["methods"]["esd_u+safree"] = {"compose": ["esd_u", "safree"]}
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(raw))
    shutil.copytree(ROOT / "prompts", tmp_path / "prompts")
    return params.load(tmp_path / "params.yaml")


def test_parts_settings_and_code_of_each_row(everything, tmp_path):
    rows.write(everything, tmp_path)
    found = {
        path.relative_to(tmp_path).with_suffix(""): json.loads(path.read_text()) for path in tmp_path.rglob("*.json")
    }
    assert not any(path.parts[:2] == ("emoji", "pretrained") for path in found), "it has settings for sd14 alone"
    esd_u, *others = found[Path("emoji/esd_u/unicorn")]
    raw = everything.methods["esd_u"].on["emoji"]
    assert not others and esd_u["module"] == "esd" and esd_u["outside"] == {}
    plain = {key: value for key, value in raw.items() if key != "kinds"}
    assert esd_u["settings"] == plain | raw["kinds"]["fine_grained"], "of another kind's settings nothing"
    assert found[Path("emoji/esd_u/ink_style")][0]["settings"] == plain | raw["kinds"]["style"]
    flow, safree = (found[Path(f"sd14/{row}/nudity")] for row in ("eraseflow", "safree"))
    assert found[Path("sd14/eraseflow+safree/nudity")] == flow + safree
    assert found[Path("emoji/esd/unicorn")][0]["sha256"] == esd_u["sha256"]


def test_code_is_the_module_and_what_it_imports():
    flow = rows.code("eraseflow")
    assert {f"eraseflow.{name}" for name in ("methods.eraseflow", "trajectory_balance", "ddim", "edits")} <= flow.keys()
    assert not flow.keys() & rows.READERS and not {"eraseflow.methods.esd", "eraseflow.methods"} & flow.keys()
    assert "eraseflow.trajectory_balance" not in rows.code("esd")


def test_code_follows_methods_that_import_each_other(tmp_path, monkeypatch):
    package = tmp_path / "eraseflow" / "methods"
    package.mkdir(parents=True)
    (package / "uce.py").write_text("from eraseflow.params import Block\n")
    (package / "rece.py").write_text("def erase():\n    from eraseflow.methods import uce\n")
    (package / "race.py").write_text("import torch\nfrom eraseflow.methods.rece import erase\n")
    monkeypatch.setattr(rows, "ROOT", tmp_path)
    monkeypatch.setattr(rows, "code", getattr(rows.code, "__wrapped__", rows.code))  # small_chain.quick() caches it
    before = rows.code("race")
    assert list(before) == [f"eraseflow.methods.{name}" for name in ("race", "rece", "uce")]
    (package / "uce.py").write_text("# changed\n")
    after = rows.code("race")
    assert {name for name in before if before[name] != after[name]} == {"eraseflow.methods.uce"}


@pytest.fixture
def small(everything, monkeypatch):
    """The cell's stage on the miniature pipeline, ESD in two steps."""
    monkeypatch.setattr("eraseflow.testbeds.emoji.load_pipeline", lambda model, device: miniature())
    short = {"iterations": 2, "num_steps": 2, "kinds": {}}
    row = everything.methods["esd_u"]
    changed = params.Method(module="esd", emoji=row.on["emoji"] | short)
    return everything.model_copy(update={"methods": everything.methods | {"esd_u": changed}})


def test_a_rows_module_is_trained_with_the_rows_settings(small, tmp_path):
    cell.train(small, "unicorn", "esd_u", tmp_path)
    edit = Edit.load(tmp_path / "edit")
    assert edit.tensors.keys() == {f"unet.{name}" for name in esd.trained_names(miniature().unet, "u")}
    assert pd.read_csv(tmp_path / "training.csv").columns[0] == "step"


def test_a_composition_trains_its_parts_on_the_base(small, tmp_path):
    cell.train(small, "unicorn", "esd_u", tmp_path / "one")
    cell.train(small, "unicorn", "esd_u+safree", tmp_path / "both")
    whole = Edit.load(tmp_path / "both" / "edit")
    weights, sampler = whole.parts
    alone = Edit.load(tmp_path / "one" / "edit")
    assert all(weights.tensors[name].equal(tensor) for name, tensor in alone.tensors.items())
    assert sampler.sampler["method"] == "safree" and sampler.sampler["settings"]["targets"] == [["unicorn"]]
    assert sampler.sampler["sha256"] == rows.code("safree"), "what draws with it depends on its code"
    history = pd.read_csv(tmp_path / "both" / "training.csv")
    assert history.part.tolist() == ["esd_u"] * 2 and history.step.tolist() == [0, 1]
    assert json.loads((tmp_path / "both" / "costs.json").read_text())["optimiser_steps"] == 2
    pipeline = whole.apply(miniature())
    assert isinstance(pipeline.eraseflow_sampler, safree.Sampler) and CONCEPT.target == "unicorn"
