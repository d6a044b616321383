"""The folder in which the pipeline runs: links that DVC refuses, locks, and which files are the project's."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from eraseflow import __main__, launcher, stage
from eraseflow.project import files, links, locks

ROOT = Path(__file__).parent.parent
OUTS = ["data/cells/${item.concept}/${item.method}/edit", {"reports/table.csv": {"cache": False}}]


@pytest.fixture
def project(tmp_path, monkeypatch) -> Path:
    """With git, and a dvc.yaml of one stage."""
    folder = tmp_path / "project"
    (folder / ".git").mkdir(parents=True)
    (folder / "dvc.yaml").write_text(yaml.safe_dump({"stages": {"train": {"outs": OUTS}}}))
    monkeypatch.chdir(folder)
    return folder


def link(place: str, target: Path) -> None:
    Path(place).parent.mkdir(parents=True, exist_ok=True)
    target.mkdir(exist_ok=True)
    Path(place).symlink_to(target)


@pytest.mark.parametrize("place", ["data", "data/cells", "data/cells/unicorn", "data/cells/unicorn/esd"])
def test_a_link_above_a_cached_output_is_one_line_that_says_what_to_do_instead(project, tmp_path, place):
    link(place, tmp_path / "disk")
    with pytest.raises(SystemExit, match=f"^{place}: is a link to .*disk.*dvc cache dir"):
        links.check()


@pytest.mark.parametrize("place", ["reports", "models", ".work", "data/cells/unicorn/esd/edit", ".dvc/cache"])
def test_links_that_dvc_takes_are_none_of_our_business(project, tmp_path, place):
    link(place, tmp_path / "disk")
    links.check()


def test_nor_are_links_within_the_project_or_without_git(project, tmp_path):
    link("data/cells", project / "large")
    links.check()
    Path("data/cells").unlink()
    link("data/cells", tmp_path / "disk")
    (project / ".git").rmdir()
    links.check()


def test_a_link_to_a_disk_that_is_not_there_is_one_line(project, tmp_path):
    Path(".work").symlink_to(tmp_path / "unmounted")
    with pytest.raises(SystemExit, match=r"^\.work: is a link to .*unmounted, which is no folder"):
        links.check()


@pytest.mark.slow
def test_dvc_refuses_exactly_these_links(tmp_path):
    """DVC itself, at the end of the stage."""
    command = "mkdir -p data/cells/a/b/edit && echo 1 > data/cells/a/b/edit/w"
    for place, refused in {"data/cells/a": True, "data/cells/a/b/edit": False}.items():
        folder = tmp_path / place.replace("/", "_")
        folder.mkdir()
        subprocess.run(["git", "init", "-q"], cwd=folder, check=True)
        shutil.copytree(ROOT / ".dvc", folder / ".dvc", ignore=shutil.ignore_patterns("cache", "tmp", "config.local"))
        stages = {"train": {"cmd": command, "outs": ["data/cells/a/b/edit"]}}
        (folder / "dvc.yaml").write_text(yaml.safe_dump({"stages": stages}))
        (folder / place).parent.mkdir(parents=True)
        (tmp_path / f"disk-{folder.name}").mkdir()
        (folder / place).symlink_to(tmp_path / f"disk-{folder.name}")
        done = subprocess.run([sys.executable, "-m", "dvc", "repro"], cwd=folder, capture_output=True, text=True)
        assert (done.returncode != 0) == refused, done.stderr


HOLD = """import time
from eraseflow.project import locks
with locks.alone(locks.{}, "x"):
    print("held", flush=True)
    time.sleep(600)
"""


@pytest.fixture
def holder(project):
    """Start a process that holds a lock; it ends with the test."""
    started = []

    def hold(name: str) -> subprocess.Popen:
        environment = os.environ | {"PYTHONPATH": str(ROOT)}
        process = subprocess.Popen([sys.executable, "-c", HOLD.format(name)], env=environment, stdout=subprocess.PIPE)
        started.append(process)
        assert process.stdout.readline() == b"held\n"
        return process

    yield hold
    for process in started:
        process.kill()
        process.wait()


def test_the_second_repro_in_a_folder_is_one_line_until_the_first_ends_however_it_ends(holder, monkeypatch):
    monkeypatch.setattr(launcher, "run", lambda *_: 0)
    first = holder("REPRO")
    with pytest.raises(SystemExit, match=rf"^`repro` runs in .* already \(process {first.pid}\); wait"):
        launcher.repro([])
    first.kill()
    first.wait()
    assert launcher.repro([]) == 0 == launcher.repro([])


@pytest.mark.parametrize("held", ["REPRO", "FULL", "STAGES"])
def test_work_is_not_removed_under_what_runs(holder, project, monkeypatch, held):
    (project / ".work" / "attack-1").mkdir(parents=True)
    monkeypatch.setattr(sys, "argv", ["eraseflow", "clean-work"])
    first = holder(held)
    with pytest.raises(SystemExit, match="already"):
        __main__.main()
    assert (project / ".work" / "attack-1").is_dir()
    first.kill()
    first.wait()
    __main__.main()
    assert not (project / ".work").exists()


def test_a_stage_keeps_its_work_while_it_runs_and_others_may_run_beside_it(project, monkeypatch):
    monkeypatch.delenv(stage.SOCKET, raising=False)

    def main():
        with locks.at_work(), pytest.raises(SystemExit, match="A stage runs"):
            locks.clean_work()
        ran.append("main")

    ran: list[str] = []
    stage.run(main)
    assert ran == ["main"]
    locks.clean_work()
    with pytest.raises(OSError, match="of its own"):
        stage.run(lambda: fail(OSError("of its own")))


def fail(error: Exception) -> None:
    raise error


TREE = {
    ".gitignore": "*.pyc\n/data/cells/\n.work/\n.unfinished-*\n", ".dvc/.gitignore": "/cache\n/tmp\n",
    "a.py": "", "a.pyc": "", "prompts/x.csv": "", "reports/y.png": "", "data/cells/z.json": "", "data/emoji/e.csv": "",
    ".work/w.csv": "", ".dvc/config": "", ".dvc/cache/c": "", "deep/.gitignore": "!a.pyc\nb/\n", "deep/a.pyc": "",
    "deep/b/c.py": "", "deep/cells/z.json": "", "ž .py": "", ".unfinished-1/a": "",
}  # fmt: skip
OURS = {
    ".gitignore", ".dvc/.gitignore", "a.py", "prompts/x.csv", "reports/y.png", "data/emoji/e.csv", ".dvc/config",
    "deep/.gitignore", "deep/a.pyc", "deep/cells/z.json", "ž .py",
}  # fmt: skip


@pytest.mark.parametrize("git", [True, False])
def test_the_files_are_the_same_with_git_and_without_whatever_the_user_ignores(tmp_path, monkeypatch, git):
    for name, text in TREE.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / ".work"))
    (tmp_path / ".work" / "git").mkdir()
    (tmp_path / ".work" / "git" / "ignore").write_text("*.csv\n*.png\n")
    if git:
        subprocess.run(["git", "init", "-q"], cwd=tmp_path, check=True)
        plain = ["git", "ls-files", "-co", "--exclude-standard"]
        assert b"x.csv" not in subprocess.check_output(plain, cwd=tmp_path)  # the trap is set
    assert set(files.names(tmp_path)) == OURS


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives a folder to another user")
def test_a_project_in_a_folder_that_parts_a_list_of_folders(tmp_path, monkeypatch):
    (tmp_path / "a:b").mkdir()
    monkeypatch.chdir(tmp_path / "a:b")
    with pytest.raises(SystemExit, match=r"a:b: a path with ':' in it cannot be on Python's path; move the project"):
        links.check()


def test_the_commit_of_a_project_unless_more_than_its_results_has_changed(tmp_path):
    git = ["git", "-c", "user.name=a", "-c", "user.email=a@b", "-C", str(tmp_path)]
    assert files.commit(tmp_path) is None
    for name in ("code.py", "reports/table.csv"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("1")
    for command in (["init", "-q"], ["add", "."], ["commit", "-qm", "all"]):
        subprocess.run([*git, *command], check=True)
    head = subprocess.run([*git, "rev-parse", "HEAD"], check=True, capture_output=True, text=True).stdout.strip()
    (tmp_path / "reports" / "table.csv").write_text("2")
    assert files.commit(tmp_path) == head
    (tmp_path / "code.py").write_text("2")
    assert files.commit(tmp_path) is None


def test_the_files_of_a_project_that_belongs_to_somebody_else(tmp_path):
    subprocess.run(["git", "init", "-q"], cwd=tmp_path, check=True)
    (tmp_path / "a").touch()
    for path in (tmp_path, tmp_path / ".git"):
        os.chown(path, 12345, 12345)
    assert files.names(tmp_path) == ["a"]


def test_without_git_dvc_is_told_so(tmp_path, monkeypatch):
    shutil.copytree(ROOT / ".dvc", tmp_path / ".dvc", ignore=shutil.ignore_patterns("cache", "tmp", "config.local"))
    (tmp_path / "dvc.yaml").write_text("stages: {a: {cmd: echo 1 > a, outs: [a]}}")
    monkeypatch.chdir(tmp_path)
    command = [sys.executable, "-m", "dvc", "repro"]
    done = subprocess.run(command, env=launcher.environment(), capture_output=True, text=True)
    assert done.returncode == 0 and "a:" not in done.stderr, done.stderr
    assert "md5" in (tmp_path / "dvc.lock").read_text()
