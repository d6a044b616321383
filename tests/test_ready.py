"""Before any stage: what the table needs is fetched, or missed in one line; what needs nothing is not imported."""

import subprocess
import sys
from pathlib import Path

import pytest
from huggingface_hub import constants

from eraseflow import hub, params
from eraseflow.metrics import clip_vit_b32
from eraseflow.ready import ready

ROOT = Path(__file__).parent.parent


@pytest.fixture
def sd14(monkeypatch) -> params.Params:
    """A table of the sd14 testbed without concepts, whose networks need nothing but the Hub."""
    everything = params.load(ROOT / "params.yaml")
    change = {"coco": None, "features": "emoji_clip", "clip": ["emoji_clip", "clip_vit_b32"]}
    testbed = everything.testbeds["sd14"].model_copy(update=change)
    table = everything.table.model_copy(update={"testbed": "sd14", "concepts": []})
    monkeypatch.setenv("ERASEFLOW_DEVICE", "cpu")
    return everything.model_copy(update={"table": table, "testbeds": everything.testbeds | {"sd14": testbed}})


def with_coco(everything: params.Params, folder: Path) -> params.Params:
    (folder / "val2014").mkdir()
    (folder / "captions_val2014.json").touch()
    testbed = everything.testbeds["sd14"].model_copy(update={"coco": str(folder)})
    return everything.model_copy(update={"testbeds": {"sd14": testbed}})


def test_model_and_networks_are_fetched(sd14, tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr(hub, "snapshot", lambda source, patterns: asked.append(source))
    monkeypatch.setattr(hub, "file", lambda source, name: asked.append(source))
    ready(with_coco(sd14, tmp_path))
    assert asked == [sd14.testbeds["sd14"].model, clip_vit_b32.SOURCE]
    assert all(map(hub.is_hub_id, asked))


def test_no_coco_is_one_line(sd14, monkeypatch):
    monkeypatch.setattr(hub, "snapshot", lambda source, patterns: None)
    with pytest.raises(SystemExit, match=r"^no folder: has no val2014; testbeds\.sd14\.coco must be a folder"):
        ready(sd14)


def test_no_hub_is_one_line(sd14, tmp_path, monkeypatch):
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(SystemExit, match=r"stable-diffusion-v1-4@\w+: the Hub cannot be reached") as failure:
        ready(sd14)
    assert len(str(failure.value).splitlines()) == 1


def test_the_emoji_table_is_checked_without_torch():
    code = "import sys; sys.argv = ['eraseflow', 'check']; from eraseflow.__main__ import main; main(); " + (
        "assert not {'torch', 'diffusers', 'transformers', 'pandas'} & set(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("params.yaml is right")
