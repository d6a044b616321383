"""Files in PyTorch's folder of downloads: there already, fetched, damaged, or out of reach."""

import hashlib
import os
from http.client import IncompleteRead
from pathlib import Path

import pytest
import torch

from eraseflow.hub import torch_home

CONTENT = b"weights" * 100
SHA256 = hashlib.sha256(CONTENT).hexdigest()
NOWHERE = "http://127.0.0.1:9/weights.pth"


@pytest.fixture
def folder(tmp_path, monkeypatch) -> Path:
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "hub"))
    return tmp_path / "hub" / "checkpoints"


@pytest.fixture
def filled(folder) -> Path:
    folder.mkdir(parents=True)
    (folder / "weights.pth").write_bytes(CONTENT)
    return folder / "weights.pth"


def refused(url: str, sha256: str = SHA256) -> str:
    with pytest.raises(SystemExit) as failure:
        torch_home.file(url, "weights.pth", sha256)
    assert len(str(failure.value).splitlines()) == 1
    return str(failure.value)


@pytest.mark.parametrize("sha256", [SHA256, SHA256[:8]])
def test_a_file_that_is_there_is_used_without_a_network(filled, sha256):
    filled.parent.chmod(0o500)
    try:
        assert torch_home.file(NOWHERE, "weights.pth", sha256) == filled
    finally:
        filled.parent.chmod(0o700)


@pytest.mark.parametrize("content", [b"", CONTENT[:-1], CONTENT + b"!"])
def test_a_damaged_or_other_file_is_never_handed_out(filled, content):
    filled.write_bytes(content)
    assert f"expected {SHA256}; delete it" in refused(NOWHERE)
    assert f"expected one that begins with {SHA256[:8]}; delete it" in refused(NOWHERE, SHA256[:8])


def test_it_is_fetched_and_checked(folder, tmp_path):
    served = tmp_path / "served"
    served.write_bytes(CONTENT)
    assert torch_home.file(served.as_uri(), "weights.pth", SHA256).read_bytes() == CONTENT
    (folder / "weights.pth").unlink()
    served.write_bytes(b"another")
    assert "invalid hash value" in refused(served.as_uri())
    assert not list(folder.iterdir())


def test_nobody_answers(folder):
    assert f"put this file at {folder / 'weights.pth'}" in refused(NOWHERE)


def test_a_connection_that_breaks_off(folder, monkeypatch):
    def breaks(*_, **__):
        raise IncompleteRead(b"", 9)

    monkeypatch.setattr(torch.hub, "download_url_to_file", breaks)
    assert "cannot be had" in refused(NOWHERE)


def test_a_folder_that_cannot_be_made(folder, tmp_path):
    (tmp_path / "hub").write_text("a file in the way")
    assert "set TORCH_HOME" in refused((tmp_path / "any").as_uri())


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_file_that_may_not_be_read(filled):
    filled.chmod(0)
    assert "Permission denied" in refused(NOWHERE)
