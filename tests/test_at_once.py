"""`dvc repro` with several stages at once: what runs, what is recorded, and how it ends."""

import json
import os
import re
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest
import yaml

from eraseflow import launcher

ROOT = Path(__file__).parent.parent
# Each waits until the other has begun too.
MEET = "touch {0}.begun; for i in $(seq 400); do test -e {1}.begun && break; sleep .05; done; test -e {1}.begun"


@pytest.fixture
def project(tmp_path, monkeypatch) -> Path:
    shutil.copytree(ROOT / ".dvc", tmp_path / ".dvc", ignore=shutil.ignore_patterns("cache", "tmp", "config.local"))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def stages(**commands: tuple[str, list[str]]) -> None:
    """Write dvc.yaml: of each stage the command and what it depends on; it makes a file of its name."""
    table = {name: {"cmd": cmd, "deps": deps, "outs": [name]} for name, (cmd, deps) in commands.items()}
    Path("dvc.yaml").write_text(yaml.safe_dump({"stages": table}, sort_keys=False))


def begin(*arguments: str, count: int = 2) -> subprocess.Popen:
    command = [*launcher.DVC, "--slots=" + json.dumps([{}] * count), "repro", *arguments]
    environment = launcher.environment() | {"PYTHONPATH": str(ROOT)}
    pipe = subprocess.PIPE
    return subprocess.Popen(command, env=environment, stdout=pipe, stderr=pipe, text=True, process_group=0)


def repro(*arguments: str, count: int = 2) -> tuple[int, set[str], str, str]:
    """The exit code, the stages that ran, and what was printed."""
    running = begin(*arguments, count=count)
    out, error = running.communicate(timeout=60)
    return running.returncode, set(re.findall(r"Running stage '(.+)'", out)), out, error


def until(condition) -> None:
    for _ in range(400):
        if condition():
            return
        time.sleep(0.05)
    raise AssertionError("it did not come")


def test_stages_run_at_once_and_after_what_they_need(project):
    stages(
        a=(f"{MEET.format('a', 'b')} && echo 1 > a", []),
        b=(f"{MEET.format('b', 'a')} && echo 2 > b", []),
        c=("cat a b > c", ["a", "b"]),
        d=("cp c d && echo d is made", ["c"]),
    )
    code, ran, out, error = repro()
    assert (code, ran) == (0, {"a", "b", "c", "d"}), error
    assert Path("d").read_text() == "1\n2\n" and "d is made\n" in out
    assert re.findall(r"Stage '.' is done, \d+ s; (\d) to go", out) == ["3", "2", "1", "0"]
    assert repro()[:2] == (0, set()), "DVC finds nothing to do"
    plain = subprocess.run(["python", "-m", "dvc", "repro"], env=launcher.environment(), capture_output=True, text=True)
    assert plain.returncode == 0 and "Running stage" not in plain.stdout


def test_records_and_results_are_those_of_one_after_another(project, tmp_path_factory):
    slow = "test ! -e b.slow || sleep 2; echo 2 > b"
    stages(a=("echo 1 > a", []), b=(slow, []), c=("cat a b > c", ["a", "b"]), d=("cp a d", ["a"]))
    other = shutil.copytree(project, tmp_path_factory.mktemp("other") / "project")
    Path("b.slow").touch()  # here alone, so that the stages end in another order
    assert repro()[0] == 0
    made = Path("dvc.lock").read_bytes()
    os.chdir(other)
    assert repro(count=1)[0] == 0 and Path("dvc.lock").read_bytes() == made
    assert Path("c").read_bytes() == (project / "c").read_bytes()


def test_what_has_run_before_comes_from_the_cache(project):
    Path("given").write_text("1\n")
    stages(a=("cp given a", ["given"]), b=("cat a > b", ["a"]), c=("cp a c", ["a"]))
    assert repro()[0] == 0
    for name in ("dvc.lock", "a", "b", "c"):
        Path(name).unlink()
    code, ran, out, _ = repro()
    assert code == 0 and not ran and out.count("is cached - skipping run") == 3 and Path("c").read_text() == "1\n"


def test_a_failure_ends_the_run_and_loses_nothing(project):
    """What runs beside it is finished and recorded; what it says is shown, and where the rest stands."""
    stages(
        bad=(f"{MEET.format('bad', 'good')} && echo so it is >&2 && false", []),
        good=(f"{MEET.format('good', 'bad')} && sleep 1 && echo 1 > good", []),
        after=("cp good after", ["good"]),
        needs=("cp bad needs", ["bad"]),
    )
    code, ran, _, error = repro()
    assert code != 0 and ran == {"bad", "good"}
    assert "so it is\nbad: failed, see .work/logs/bad.log" in error and "failed to reproduce 'bad'" in error
    assert list(yaml.safe_load(Path("dvc.lock").read_text())["stages"]) == ["good"]
    for name in ("bad", "good"):
        Path(f"{name}.begun").touch()
    code, ran, _, error = repro("--keep-going")
    assert code != 0 and ran == {"bad", "after"} and "'needs' will be skipped" in error


def test_force_downstream_and_targets(project):
    stages(a=("echo 1 > a", []), b=("cat a > b", ["a"]), c=("cat b > c", ["b"]), d=("echo 4 > d", []))
    assert repro("c")[:2] == (0, {"a", "b", "c"})
    assert repro("--force-downstream", "-f", "c")[:2] == (0, {"a", "b", "c"})
    assert repro("--single-item", "-f", "b")[:2] == (0, {"b"})
    assert repro("--dry")[1] == {"d"} and not Path("d").exists()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_an_end_at_any_moment_leaves_what_is_done(project, number):
    stages(
        first=("echo 1 > first", []), long=("touch begun; sleep 60; echo 1 > long", []), last=("cp long last", ["long"])
    )
    running = begin()
    until(lambda: Path("begun").exists() and Path("dvc.lock").exists())
    os.killpg(running.pid, number)
    running.communicate(timeout=30)
    assert running.returncode != 0 and not Path("long").exists()
    Path("dvc.yaml").write_text(Path("dvc.yaml").read_text().replace("sleep 60", "true"))
    assert repro()[:2] == (0, {"long", "last"})


def test_another_command_of_dvc_meanwhile_is_waited_for(project):
    """It holds the repository's lock for longer than DVC waits."""
    stages(a=("touch begun; sleep 1; echo 1 > a", []), b=("cp a b", ["a"]))
    hold = "import fcntl, time; file = open('.dvc/tmp/lock', 'a'); fcntl.flock(file, fcntl.LOCK_EX); print(flush=True)"
    running = begin()
    until(lambda: Path("begun").exists())
    other = subprocess.Popen(["python", "-c", f"{hold}; time.sleep(6)"], stdout=subprocess.PIPE, text=True)
    assert other.stdout and other.stdout.readline()
    _, error = running.communicate(timeout=60)
    assert other.poll() is not None, "it has waited for the other's end"
    assert running.returncode == 0 and Path("b").read_text() == "1\n", error
