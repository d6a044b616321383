"""A user without a name, a home or a place to write gets what the libraries ask for; everyone else is left alone."""

import os
import pwd
import subprocess
import sys
from pathlib import Path

import pytest

from eraseflow import home

ROOT = Path(__file__).parent.parent


@pytest.fixture
def stranger(tmp_path, monkeypatch) -> Path:
    """A user without an entry in the list of users, in a folder of a project; returns the folder."""

    def unknown(uid: int):
        raise KeyError(uid)

    for name in (*home.NAMES, "HOME", "MPLCONFIGDIR"):
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)
    monkeypatch.setattr(pwd, "getpwuid", unknown)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_a_stranger_gets_a_name_and_a_home_in_the_project(stranger):
    home.settle()
    assert os.environ["USER"] == f"uid-{os.getuid()}"
    assert Path(os.environ["HOME"]) == stranger / ".work/home" and Path.home().is_dir()
    assert "MPLCONFIGDIR" not in os.environ


@pytest.mark.parametrize("where", ["/nonexistent", "relative", ""])
def test_a_home_that_is_none(stranger, monkeypatch, where):
    monkeypatch.setenv("HOME", where)
    home.settle()
    assert Path(os.environ["HOME"]) == stranger / ".work/home"


def test_a_home_that_cannot_be_written_stays_the_home(stranger, monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    home.settle()
    assert os.environ["HOME"] == str(tmp_path)
    assert Path(os.environ["MPLCONFIGDIR"]) == stranger / ".work/home/matplotlib"


def test_what_can_be_used_stays_as_it_is(stranger, monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("LOGNAME", "someone")
    before = dict(os.environ)
    home.settle()
    assert dict(os.environ) == before and not (tmp_path / ".work").exists()


def test_folders_of_caches_are_the_same_from_every_folder(stranger, monkeypatch, tmp_path):
    """`full` runs in copies of the project, where a relative one would be fetched and filled anew."""
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in home.FOLDERS:
        monkeypatch.setenv(name, f"caches/{name}")
    monkeypatch.setenv("TORCH_HOME", "~/torch")
    home.settle()
    assert os.environ["HF_HOME"] == str(tmp_path / "caches" / "HF_HOME")
    assert os.environ["TORCH_HOME"] == str(tmp_path / "torch")
    assert all(os.path.isabs(os.environ[name]) for name in home.FOLDERS)


def test_a_terminal_without_dashes_is_no_error():
    code = "import eraseflow; print('–')"
    variables = os.environ | {"PYTHONIOENCODING": "ascii", "PYTHONPATH": str(ROOT)}
    assert subprocess.check_output([sys.executable, "-c", code], env=variables) == b"\\u2013\n"
