"""Where commands run: this machine's places, workers in the run's folder, and workers in folders of their own."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml
from dvc.repo import Repo
from project_clone import ENVIRONMENT, clone, edit_params, few_prompts, repro, shorten, without_figures

from eraseflow import launcher, timings
from eraseflow.run import away, remote, slots, task, work
from eraseflow.run.engine import Engine
from eraseflow.run.task import Task

ROOT = Path(__file__).parent.parent
SMI = """#!/bin/sh
echo '0, GPU-a, NVIDIA H200, 143771'
echo '1, GPU-b, NVIDIA H200, 143771'
echo '2, GPU-c, NVIDIA L4, 23034'
"""


@pytest.fixture
def gpus(tmp_path, monkeypatch) -> Path:
    """A machine with three GPUs, by a stand-in for nvidia-smi; the folder of the project."""
    path = tmp_path / "bin" / "nvidia-smi"
    path.parent.mkdir()
    path.write_text(SMI)
    path.chmod(0o755)
    monkeypatch.setenv("PATH", f"{path.parent}:{os.environ['PATH']}")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.delenv("ERASEFLOW_DEVICE", raising=False)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def devices(jobs: int = 0) -> list[str | None]:
    return [slot.get("CUDA_VISIBLE_DEVICES") for slot in slots.slots("sd14", jobs)]


def test_a_stage_a_gpu(gpus):
    assert devices() == ["0", "1", "2"] and devices(2) == ["0", "1"] and devices(5) == ["0", "1", "2", "0", "1"]


def test_several_stages_on_a_gpu_where_the_largest_training_measured_on_it_fits(gpus):
    row = dict.fromkeys(timings.COLUMNS, "") | {"machine": "NVIDIA H200", "peak_memory_bytes": "50000000000"}
    other = row | {"machine": "AMD EPYC", "peak_memory_bytes": "900000000"}
    (gpus / "reports").mkdir()
    lines = [",".join(timings.COLUMNS), *(",".join(found.values()) for found in (row, other))]
    (gpus / "reports" / timings.FILE).write_text("\n".join(lines) + "\n")
    assert devices() == ["0", "1", "2", "0", "1"], "two of 50 GB in 151, one where nothing was measured"


@pytest.mark.parametrize(
    ("variable", "value", "found"),
    [
        ("CUDA_VISIBLE_DEVICES", "2,0", ["2", "0"]),
        ("CUDA_VISIBLE_DEVICES", "GPU-b", ["GPU-b"]),
        ("CUDA_VISIBLE_DEVICES", "", [None]),
        ("ERASEFLOW_DEVICE", "cuda:1", [None]),
    ],
)
def test_the_users_choice_of_a_gpu_stays(gpus, monkeypatch, variable, value, found):
    monkeypatch.setenv(variable, value)
    assert devices() == found


@pytest.mark.parametrize(("cores", "gigabytes", "count"), [(1, 99, 1), (16, 99, 16), (16, 5, 3), (4, 0.5, 1)])
def test_a_stage_a_core_where_there_is_the_memory(monkeypatch, cores, gigabytes, count):
    monkeypatch.setattr("os.sched_getaffinity", lambda _: set(range(cores)), raising=False)
    monkeypatch.setattr("psutil.virtual_memory", lambda: SimpleNamespace(available=int(gigabytes * 1e9)))
    assert slots.slots("emoji") == [{}] * count


def test_commands_that_run_at_once_have_places_of_their_own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    engine = Engine([{"PLACE": "a"}, {"PLACE": "b"}])
    meet = 'touch $PLACE; until test -e a -a -e b; do sleep .05; done; echo "$PLACE $DVC_STAGE"; echo said >&2; exit 3'
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor() as pool:
        tasks = [Task(name, ["sh", "-c", meet], str(tmp_path), engine.token) for name in ("one", "two")]
        done = list(pool.map(engine.run, tasks))
    engine.close()
    assert sorted(result.printed.decode().split()[0] for result in done) == ["a", "b"]
    assert [result.printed.decode().split()[1] for result in done] == ["one", "two"]
    assert all(result.code == 3 and result.made is None for result in done)
    assert task.log_of("one").read_text() == "said\n"


def test_a_scheduler_that_does_not_answer_is_one_line(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("distributed.Client.__init__", raising(OSError("Timed out")))
    with pytest.raises(SystemExit, match=r"^tcp://127.0.0.1:9: no scheduler answers there: Timed out$"):
        Engine([], "tcp://127.0.0.1:9").slots()


def raising(error: Exception):
    def function(*_, **__):
        raise error

    return function


# A worker's side, without a cluster.


@pytest.fixture
def folders(tmp_path, monkeypatch) -> tuple[Path, Path]:
    """The projects of a run and of a worker, which share a remote; `made` reads a file and what `given` makes."""
    stages = {
        "given": {"cmd": "true", "outs": ["file", "folder"]},
        "made": {"cmd": "true", "deps": ["code", "file", "folder"], "outs": ["out", "outs"]},
    }
    found = []
    for name in ("run", "worker"):
        folder = tmp_path / name
        shutil.copytree(ROOT / ".dvc", folder / ".dvc", ignore=shutil.ignore_patterns("cache", "tmp", "config.local"))
        settings = f"    no_scm = true\n    remote = shared\n['remote \"shared\"']\n    url = {tmp_path / 'remote'}\n"
        (folder / ".dvc/config").open("a").write(settings)
        (folder / "dvc.yaml").write_text(yaml.safe_dump({"stages": stages}, sort_keys=False))
        (folder / "params.yaml").write_text("{}\n")
        (folder / "code").write_text("1\n")
        found.append(folder)
    monkeypatch.chdir(found[1])
    return found[0], found[1]


def sent(run: Path) -> Task:
    """The task of `made`, with what `given` has made in the remote."""
    (run / "folder").mkdir(exist_ok=True)
    (run / "file").write_text("a\n")
    (run / "folder" / "part").write_text("b\n")
    with Repo(run) as repo, repo.lock:
        given, made = (work.stage_of(repo, name) for name in ("given", "made"))
        given.save()
        given.commit()
        made.save_deps()
        remote.send(repo, [out.hash_info.value for out in given.outs])
        return away.task(made, [given], Engine([], "tcp://somewhere"))


def test_inputs_come_from_the_remote_and_outputs_go_there(folders):
    run, worker = folders
    work.bring(sent(run), worker, "worker w")
    assert (worker / "file").read_text() == "a\n" and (worker / "folder" / "part").read_text() == "b\n"
    (worker / "outs").mkdir()
    (worker / "out").write_text("c\n")
    (worker / "outs" / "part").write_text("d\n")
    made = work.send(sent(run), worker)
    with Repo(run) as repo, repo.lock:
        remote.fetch(repo, made.values())
        away.check_out(work.stage_of(repo, "made"), made)
    assert (run / "out").read_text() == "c\n" and (run / "outs" / "part").read_text() == "d\n"


def test_what_an_earlier_stage_left_is_removed_as_dvc_does(folders):
    run, worker = folders
    (worker / "out").write_text("old\n")
    work.bring(sent(run), worker, "worker w")
    assert not (worker / "out").exists()


def test_a_worker_with_another_code_refuses(folders):
    run, worker = folders
    (worker / "code").write_text("2\n")
    with pytest.raises(
        RuntimeError, match=r"^made: worker w has another code than the run's; both need the same commit"
    ):
        work.bring(sent(run), worker, "worker w")


def test_what_the_remote_lacks_is_said(folders, tmp_path):
    run, worker = folders
    found = sent(run)
    whole = shutil.copytree(tmp_path / "remote", tmp_path / "whole")
    for pattern in ("*.dir", "*"):  # a folder's list, and a file
        shutil.rmtree(tmp_path / "remote")
        shutil.copytree(whole, tmp_path / "remote")
        next(path for path in sorted((tmp_path / "remote").rglob(pattern)) if path.is_file()).unlink()
        with pytest.raises(RuntimeError, match=r"remote.*: lacks files that a stage reads or has made"):
            work.bring(found, worker, "worker w")


def test_without_a_remote_it_says_how_to_name_one(folders):
    run, worker = folders
    found = sent(run)
    shutil.copy(ROOT / ".dvc/config", worker / ".dvc/config")
    (worker / ".dvc/config").open("a").write("    no_scm = true\n")
    with pytest.raises(RuntimeError, match="need a default remote of DVC: `dvc remote add -d NAME URL`"):
        work.bring(found, worker, "worker w")


def test_what_stays_with_the_run(folders):
    run, _ = folders
    with Repo(run) as repo:
        stage = work.stage_of(repo, "made")
        assert away.can_leave(stage)
        stage.cmd = ["true", "true"]
        assert not away.can_leave(stage)
        stage.cmd, stage.name = "true", "concept@unicorn"
        assert not away.can_leave(stage)
        stage.name, stage.outs[0].use_cache = "made", False
        assert not away.can_leave(stage)


def test_a_worker_runs_in_the_folder_of_the_run_only_where_it_was_started_there(tmp_path, monkeypatch):
    (tmp_path / "run/.work").mkdir(parents=True)
    (tmp_path / "run" / task.TOKEN).write_text("abc")
    monkeypatch.chdir(tmp_path / "run")
    assert Task("x", (), str(tmp_path / "run"), "abc").is_here()
    assert not Task("x", (), str(tmp_path / "run"), "another").is_here(), "another machine's folder of the same name"
    (tmp_path / "worker").mkdir()
    monkeypatch.chdir(tmp_path / "worker")
    assert not Task("x", (), str(tmp_path / "run"), "abc").is_here()


# A cluster: scheduler and workers as processes.


@pytest.fixture
def scheduler(tmp_path):
    """Its address."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [Path(sys.executable).with_name("dask"), "scheduler", "--host", "127.0.0.1", "--port", str(port)]
    with subprocess.Popen([*command, "--no-dashboard"], cwd=tmp_path, stderr=subprocess.DEVNULL) as running:
        yield f"tcp://127.0.0.1:{port}"
        running.terminate()


def begin_worker(folder: Path, address: str) -> subprocess.Popen:
    command = [sys.executable, "-m", "eraseflow", "worker", address, "--jobs", "1"]
    environment = ENVIRONMENT | {"PYTHONPATH": str(folder)}
    return subprocess.Popen(command, cwd=folder, env=environment, stdout=subprocess.PIPE, text=True, process_group=0)


def results(folder: Path) -> dict[str, bytes]:
    found = [path for name in ("reports", "data/cells") for path in (folder / name).rglob("*") if path.is_file()]
    kept = [path for path in [*found, folder / "dvc.lock"] if not path.name.startswith(("timing", "taken"))]
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in kept}


@pytest.mark.slow
def test_a_table_by_workers_in_folders_of_their_own_one_of_which_is_killed(tmp_path, scheduler):
    """They share a remote alone. The same bytes as one stage after another here."""
    folders = {}
    for name in ("alone", "run", "a", "b"):
        folders[name] = clone(tmp_path / name)
        few_prompts(folders[name], 3)
        without_figures(folders[name])
        with (folders[name] / ".dvc/config").open("a") as config:
            config.write(f"    remote = shared\n['remote \"shared\"']\n    url = {tmp_path / 'remote'}\n")
    for name in ("alone", "run"):
        edit_params(folders[name], shorten)
    workers = [begin_worker(folders[name], scheduler) for name in ("a", "b")]
    run = [sys.executable, "-m", "eraseflow", "repro", "--engine", scheduler]
    environment = ENVIRONMENT | {"PYTHONPATH": str(folders["run"])}
    with subprocess.Popen(run, cwd=folders["run"], env=environment, stdout=subprocess.PIPE, text=True) as running:
        assert running.stdout
        for line in running.stdout:
            if line.startswith("Running stage 'train@"):
                break
        time.sleep(3)
        os.killpg(workers[0].pid, signal.SIGKILL)
        rest = running.stdout.read()
    os.killpg(workers[1].pid, signal.SIGTERM)
    assert running.returncode == 0, rest
    assert list(folders["b"].glob(".work/worker/*/data/cells/unicorn/*/edit")), "it worked in a copy of its own"
    repro(folders["alone"], jobs=1)
    assert results(folders["run"]) == results(folders["alone"])


@pytest.mark.slow
def test_where_the_run_is_killed_what_its_workers_do_for_it_ends(tmp_path, scheduler):
    for name in ("run", "worker"):
        clone(tmp_path / name)
    long = {"stages": {"long": {"cmd": "echo $$ > begun; exec sleep 300", "outs": ["made"]}}}
    (tmp_path / "run/dvc.yaml").write_text(yaml.safe_dump(long))
    worker = begin_worker(tmp_path / "run", scheduler)
    command = [*launcher.DVC, f"--engine={scheduler}", "repro"]
    running = subprocess.Popen(command, cwd=tmp_path / "run", env=ENVIRONMENT | {"PYTHONPATH": str(ROOT)})
    begun = tmp_path / "run/begun"
    until(lambda: begun.exists() and begun.read_text().strip())
    process = int(begun.read_text())
    running.kill()
    running.wait()
    until(lambda: not Path(f"/proc/{process}").exists())
    os.killpg(worker.pid, signal.SIGTERM)
    worker.wait()


def until(condition) -> None:
    for _ in range(1200):
        if condition():
            return
        time.sleep(0.05)
    raise AssertionError("it did not come")
