"""What DVC records is there whole, whatever ends it: dvc.lock, and its list of running processes."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from eraseflow import launcher
from eraseflow.project import dvc

ROOT = Path(__file__).parent.parent
# A run that is killed while it writes dvc.lock, half of which is on the disk by then.
KILLED = """import os, runpy, signal, sys
from ruamel.yaml import YAML
whole = YAML.dump
def half(self, data, stream):
    stream.write("schema: '2.0'\\nstages:\\n  a:\\n")
    stream.flush()
    os.kill(os.getpid(), signal.SIGKILL)
YAML.dump = half
runpy.run_module("eraseflow.project.dvc", run_name="__main__")
"""


@pytest.fixture
def project(tmp_path, monkeypatch) -> Path:
    """With two stages, of which one has been made."""
    shutil.copytree(ROOT / ".dvc", tmp_path / ".dvc", ignore=shutil.ignore_patterns("cache", "tmp", "config.local"))
    stages = {name: {"cmd": f"echo {name} > {name}", "outs": [name]} for name in ("a", "b")}
    (tmp_path / "dvc.yaml").write_text(yaml.safe_dump({"stages": stages}))
    monkeypatch.chdir(tmp_path)
    assert repro("a").returncode == 0
    return tmp_path


def repro(*arguments: str, command: tuple[str, ...] = launcher.DVC) -> subprocess.CompletedProcess:
    environment = launcher.environment() | {"PYTHONPATH": str(ROOT)}
    return subprocess.run([*command, "repro", *arguments], env=environment, capture_output=True, text=True)


def test_a_kill_while_dvc_lock_is_written_leaves_the_earlier_one(project):
    before = Path("dvc.lock").read_text()
    assert repro("b", command=(sys.executable, "-c", KILLED)).returncode == -9
    assert Path("dvc.lock").read_text() == before and "  a:" in before
    done = repro()
    assert done.returncode == 0 and "Running stage 'a'" not in done.stdout, done.stderr
    assert list(yaml.safe_load(Path("dvc.lock").read_text())["stages"]) == ["a", "b"]
    assert not list(project.glob(".unfinished-*"))


def test_half_a_list_of_running_processes_stops_no_run(project):
    dvc.RUNNING.write_text('{"write": {"')
    assert repro("b").returncode == 0


def test_a_whole_one_is_left_to_dvc(project):
    text = f'{{"write": {{"{project}/b": {{"pid": {os.getpid()}, "cmd": "another"}}}}, "read": {{}}}}'
    dvc.RUNNING.write_text(text)
    done = repro("b")
    assert done.returncode != 0 and "another" in done.stderr


def test_a_linked_dvc_lock_stays_a_link(project, tmp_path_factory):
    elsewhere = tmp_path_factory.mktemp("elsewhere") / "dvc.lock"
    Path("dvc.lock").rename(elsewhere)
    Path("dvc.lock").symlink_to(elsewhere)
    assert repro("b").returncode == 0
    assert Path("dvc.lock").is_symlink() and "  b:" in elsewhere.read_text()


def test_it_is_what_dvc_itself_writes(project, tmp_path_factory):
    """A stage that is new, one that has changed and stands first, and one with params, which two stages read."""
    Path("params.yaml").write_text("one: {rate: 1.0e-3, names: [x, y], text: 'yes'}\ntwo: null\n")
    stages = yaml.safe_load(Path("dvc.yaml").read_text())["stages"]
    stages["a"]["cmd"] += " && echo and a command that is so long that it is written in more than one line of the file"
    stages |= {name: {"cmd": f"cp a {name}", "deps": ["a"], "params": ["one", "two"], "outs": [name]} for name in "cd"}
    Path("dvc.yaml").write_text(yaml.safe_dump({"stages": stages}))
    theirs = shutil.copytree(project, tmp_path_factory.mktemp("theirs") / "project")
    assert repro().returncode == 0
    plain = [sys.executable, "-m", "dvc", "repro"]
    subprocess.run(plain, cwd=theirs, env=launcher.environment(), check=True, capture_output=True)
    assert Path("dvc.lock").read_bytes() == (theirs / "dvc.lock").read_bytes()
    assert list(yaml.safe_load(Path("dvc.lock").read_text())["stages"]) == ["a", "b", "c", "d"]


def test_what_somebody_has_added_to_it_stays(project):
    with Path("dvc.lock").open("a") as lock:
        lock.write("datasets: []\n")
    assert repro("b").returncode == 0
    assert {"stages", "datasets"} <= set(yaml.safe_load(Path("dvc.lock").read_text()))


def test_an_edit_of_params_between_two_stages_is_seen(project):
    """The first of them makes it."""
    Path("params.yaml").write_text("rate: 1\n")
    first = {"cmd": "echo 'rate: 2' > params.yaml && echo 1 > first", "outs": ["first"]}
    then = {"cmd": "cp params.yaml then", "deps": ["first"], "params": ["rate"], "outs": ["then"]}
    Path("dvc.yaml").write_text(yaml.safe_dump({"stages": {"first": first, "then": then}}))
    assert repro().returncode == 0
    assert yaml.safe_load(Path("dvc.lock").read_text())["stages"]["then"]["params"] == {"params.yaml": {"rate": 2}}
