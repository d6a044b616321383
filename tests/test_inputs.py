"""What an earlier stage made and is damaged or missing is one line that names the file."""

import os

import pandas as pd
import pytest
import torch
from safetensors.torch import save_file

from eraseflow import launcher, shards
from eraseflow.cells.reference import Reference
from eraseflow.cells.transfer import _attacked
from eraseflow.edits import Edit
from eraseflow.outputs import write_json
from eraseflow.project import locks
from eraseflow.stage import lock


@pytest.fixture
def cut():
    """Cuts a file to its half."""
    return lambda path: path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def refused(path, act) -> None:
    with pytest.raises(SystemExit) as raised:
        act()
    assert str(raised.value).startswith(f"{path}: ") and "\n" not in str(raised.value)


def test_cut_pictures(tmp_path, cut):
    path = tmp_path / "samples.parquet"
    refused(path, lambda: list(shards.read_pngs(path, [0])))
    shards.write_parquet(pd.DataFrame({"png": [b"x" * 999] * 3}), path)
    assert [len(png) for png in shards.read_pngs(path, [0, 2])] == [999, 999]
    cut(path)
    refused(path, lambda: list(shards.read_pngs(path, [0])))


def test_a_cut_attack(tmp_path, cut):
    path = tmp_path / "rose" / "esd" / "attack-p4d.parquet"
    path.parent.mkdir(parents=True)
    shards.write_parquet(pd.DataFrame({"prompt_id": ["a"]}), path)
    cut(path)
    refused(path, lambda: _attacked(tmp_path, "rose", "esd", "p4d"))


def test_damaged_features_of_real_pictures(tmp_path, cut):
    features = tmp_path / "features.safetensors"
    write_json({"network": "n", "names": ["a"]}, tmp_path / "reference.json")
    refused(features, lambda: Reference.load(tmp_path, "n"))
    save_file({"features": torch.ones(1, 9)}, features)
    assert Reference.load(tmp_path, "n").names == ["a"]
    cut(features)
    refused(features, lambda: Reference.load(tmp_path, "n"))
    (tmp_path / "reference.json").write_text("{}")
    refused(tmp_path / "reference.json", lambda: Reference.load(tmp_path, "n"))


def test_a_damaged_edit(tmp_path, cut):
    refused(tmp_path / "edit.json", lambda: Edit.load(tmp_path))
    Edit("weights", {"unet.a": torch.ones(9)}).save(tmp_path)
    assert Edit.load(tmp_path).tensors["unet.a"].sum() == 9
    cut(tmp_path / "weights.safetensors")
    refused(tmp_path / "weights.safetensors", lambda: Edit.load(tmp_path))


def test_folders_of_killed_launchers_go_and_no_others(tmp_path):
    left, young, living, users = (tmp_path / f"{launcher.FOLDER}{name}" for name in ("left", "young", "living", "data"))
    for folder in (left, young, living, users):
        folder.mkdir()
        lock(str(folder / launcher.SOCKET_NAME)).touch()
    (users / "results.csv").touch()
    for folder in (left, living, users):
        os.utime(folder, (0, 0))
    with locks.alone(lock(str(living / launcher.SOCKET_NAME)), "a run"):
        launcher.remove_left_over(tmp_path)
    assert set(tmp_path.iterdir()) == {young, living, users}
