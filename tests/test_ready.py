"""Before any stage: what the table needs is fetched, or missed in one line; what needs nothing is not imported."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from huggingface_hub import constants

from eraseflow import hub, params
from eraseflow.metrics import clip_vit_b32
from eraseflow.ready import ready
from eraseflow.testbeds import sd14 as sd14_testbed

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
    (folder / "val2014" / "1.jpg").touch()
    captions = {"images": [{"id": 1, "file_name": "1.jpg"}], "annotations": [{"id": 1, "image_id": 1, "caption": "a"}]}
    (folder / "captions_val2014.json").write_text(json.dumps(captions))
    (folder / "kept.csv").write_text("coco_val2014_captions,seed\n1,0\n")
    changes = {"coco": str(folder), "kept": str(folder / "kept.csv")}
    testbed = everything.testbeds["sd14"].model_copy(update=changes)
    return everything.model_copy(update={"testbeds": {"sd14": testbed}})


def refuse(url: str, *_, **__) -> None:
    raise OSError("no network")


def model_in(folder: Path) -> Path:
    """A folder with the files of a pipeline, its weights empty."""
    unwanted = shutil.ignore_patterns("*.safetensors", "*.csv")
    model = Path(shutil.copytree(ROOT / "models" / "emoji", folder / "model", ignore=unwanted, dirs_exist_ok=True))
    for name in sd14_testbed.WEIGHTS:
        (model / name).touch()
    return model


def test_model_and_networks_are_fetched(sd14, tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr(hub, "snapshot", lambda source, patterns: asked.append(source) or model_in(tmp_path))
    monkeypatch.setattr(hub, "file", lambda source, name: asked.append(source))
    ready(with_coco(sd14, tmp_path))
    model = sd14.testbeds["sd14"].model
    assert asked == [model, model, clip_vit_b32.SOURCE], "whole, then what the checks read of it"
    assert all(map(hub.is_hub_id, asked))


def test_no_coco_is_one_line(sd14, monkeypatch):
    monkeypatch.setattr(hub, "snapshot", refuse)
    with pytest.raises(SystemExit, match=r"^no folder: has no val2014; testbeds\.sd14\.coco must be a folder"):
        ready(sd14)


def test_a_picture_of_coco_that_is_missing_is_one_line(sd14, tmp_path):
    everything = with_coco(sd14, tmp_path)
    (tmp_path / "val2014" / "1.jpg").unlink()
    with pytest.raises(SystemExit, match=r"val2014: has no 1\.jpg, the picture of a kept prompt; unpack all"):
        ready(everything)


def test_a_folder_without_a_pipeline_is_one_line(sd14, tmp_path):
    everything = with_coco(sd14, tmp_path)
    testbed = everything.testbeds["sd14"].model_copy(update={"model": str(tmp_path)})
    with pytest.raises(SystemExit, match=r": has no model_index\.json; expected a Stable Diffusion pipeline"):
        ready(everything.model_copy(update={"testbeds": {"sd14": testbed}}))


def test_no_hub_is_one_line(sd14, tmp_path, monkeypatch):
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(SystemExit, match=r"stable-diffusion-v1-4@\w+: the Hub cannot be reached") as failure:
        ready(with_coco(sd14, tmp_path))
    assert len(str(failure.value).splitlines()) == 1


@pytest.fixture
def offline(sd14, tmp_path, monkeypatch) -> params.Params:
    """Nothing in any cache, no Hub, and a model and COCO that are there."""
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "torch"))
    monkeypatch.setattr(torch.hub, "download_url_to_file", refuse)
    everything = with_coco(sd14, tmp_path)
    testbed = everything.testbeds["sd14"].model_copy(update={"clip": ["emoji_clip"], "model": str(model_in(tmp_path))})
    table = everything.table.model_copy(update={"methods": ["original"]})
    return everything.model_copy(update={"testbeds": {"sd14": testbed}, "table": table})


@pytest.mark.parametrize(
    ("concept", "line"),
    [
        ("pegasus", r"Qwen/Qwen2-VL-2B-Instruct@\w+: the Hub cannot be reached"),
        ("caravaggio", r"tomg-group-umd/CSD-ViT-L@\w+: the Hub cannot be reached"),
        (
            "church",
            r"https://download\.pytorch\.org/models/resnet50-.*\(no network\); put this file at .*torch/checkpoints",
        ),
        ("van_gogh", r"data/artist: expected a folder that exists, or a Hub repository"),
    ],
)
def test_a_missing_judge_is_one_line(offline, concept, line):
    with pytest.raises(SystemExit, match=f"^{line}") as failure:
        ready(offline, [concept])
    assert len(str(failure.value).splitlines()) == 1
    ready(offline, [])


def test_the_judge_of_unsafe_pictures_is_asked_too(offline):
    """NudeNet, which judges the concept here, needs nothing."""
    church = offline.concepts["church"].model_copy(update={"judge": offline.concepts["nudity"].judge})
    params = offline.model_copy(update={"concepts": {"church": church}})
    ready(params, ["church"])
    testbed = params.testbeds["sd14"]
    asked = testbed.model_copy(update={"safety_judge": offline.concepts["church"].judge})
    with pytest.raises(SystemExit, match=r"^https://download\.pytorch\.org/models/resnet50-"):
        ready(params.model_copy(update={"testbeds": {"sd14": asked}}), ["church"])


def test_an_empty_folder_is_no_classifier(offline, tmp_path):
    van_gogh = offline.concepts["van_gogh"]
    judge = van_gogh.judge.model_copy(update={"source": str(tmp_path)})
    concepts = {"van_gogh": van_gogh.model_copy(update={"judge": judge})}
    with pytest.raises(SystemExit, match=r"has no config\.json; expected an image classifier"):
        ready(offline.model_copy(update={"concepts": concepts}), ["van_gogh"])


def test_no_gpu_is_said_before_anything_is_fetched(offline, monkeypatch):
    monkeypatch.delenv("ERASEFLOW_DEVICE")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(hub, "snapshot", refuse)
    with pytest.raises(SystemExit, match=r"^sd14: no GPU is found here"):
        ready(offline, [])


def test_the_emoji_table_is_checked_without_torch():
    code = "import sys; sys.argv = ['eraseflow', 'check']; from eraseflow.__main__ import main; main(); " + (
        "assert not {'torch', 'diffusers', 'transformers', 'pandas'} & set(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("params.yaml is right")
