"""Too little memory, the processor's or a GPU's, is one line that says what helps."""

import os
import subprocess
import sys
import weakref
from pathlib import Path

import pytest
import torch
from small_chain import quick, write

from eraseflow import memory, stage, train
from eraseflow.allocator import KEEPING
from eraseflow.cells import attack, concept
from eraseflow.cells import train as training
from eraseflow.emoji import checkpoint
from eraseflow.params import load
from eraseflow.testbeds import emoji

ERRORS = [
    MemoryError(),
    RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried 9 bytes\nat"),
    torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.\nIf reserved but"),
    torch.cuda.OutOfMemoryError("CUDA out of memory."),
    RuntimeError("CUDA error: out of memory\nCUDA kernel errors might be"),
    RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
]


@pytest.mark.parametrize("error", ERRORS)
def test_a_stage_without_enough_memory_is_one_line(error, tmp_path, monkeypatch):
    def main() -> None:
        raise error

    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv(stage.SOCKET, raising=False)
    with pytest.raises(SystemExit, match=r"out of memory \(.+\); set ERASEFLOW_BATCH to fewer pictures a batch") as end:
        stage.run(main)
    assert "\n" not in str(end.value) and str(end.value).endswith("its batch_size in params.yaml")


def test_another_error_keeps_its_traceback():
    with pytest.raises(RuntimeError, match=r"^shapes$"), memory.explained("it"):
        raise RuntimeError("shapes")


@pytest.mark.parametrize(("module", "helps"), [("eraseflow", "ERASEFLOW_BATCH"), ("eraseflow.train", "--batch_size")])
def test_a_command_without_enough_memory_is_one_line(module, helps):
    code = (
        "import argparse, runpy, sys\n"
        "def full(*_, **__): raise MemoryError\n"
        "argparse.ArgumentParser.parse_known_args = full\n"
        f"sys.argv = ['x', 'check']; runpy.run_module({module!r}, run_name='__main__', alter_sys=True)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 1 and done.stderr.count("\n") == 1, done.stderr
    assert done.stderr.startswith(f"python -m {module}: out of memory (") and helps in done.stderr


@pytest.mark.parametrize("error", ERRORS)
def test_what_does_not_fit_into_memory_is_not_called_damaged(error, tmp_path, monkeypatch):
    (tmp_path / "state.pt").touch()

    def load(*_, **__):
        raise error

    monkeypatch.setattr(torch, "load", load)
    with pytest.raises(type(error)):
        train.resume(None, {}, tmp_path)
    with pytest.raises(type(error)):
        checkpoint.resume(tmp_path / "state.pt", {})


@pytest.mark.slow
def test_the_networks_of_an_attack_are_gone_when_judges_sum_up(tmp_path, monkeypatch):
    """A judge that does can be larger than both pipelines."""
    write(tmp_path)
    monkeypatch.chdir(tmp_path)
    params, cell, texts = load(), Path("data/cells/unicorn/uce"), Path("data/concepts/unicorn/prompts.csv")
    loaded: list[weakref.ref] = []
    left: list[int] = []

    def load_pipeline(*arguments, load=emoji.load_pipeline):
        made = load(*arguments)
        loaded.extend(weakref.ref(part) for part in (made.unet, made.vae, made.text_encoder))
        return made

    with quick(), pytest.MonkeyPatch.context() as patch:
        concept.concept(params, "unicorn", texts.parent)
        training.train(params, "unicorn", "uce", cell)
        patch.setattr(emoji, "load_pipeline", load_pipeline)
        patch.setattr(attack, "summaries", lambda *_: left.append(sum(one() is not None for one in loaded)) or {})
        for name in params.attacks:
            attack.attack(params, "unicorn", texts, cell / "edit", name, cell / f"attack-{name}.parquet")
    assert left == [0] * len(left) and len(left) >= 6


@pytest.mark.skipif(sys.platform != "linux", reason="where the resident memory stands in /proc")
def test_free_memory_goes_back_though_the_launcher_lets_it_be_kept():
    code = (
        "import sys, torch; from pathlib import Path; from eraseflow import allocator\n"
        "resident = lambda: int(Path('/proc/self/statm').read_text().split()[1]) * 4096\n"
        "before, held = resident(), torch.ones(64, 1 << 20)\n"
        "with_it = resident(); del held; kept = resident(); allocator.give_back()\n"
        "print(before, with_it, kept, resident())"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=os.environ | KEEPING)
    before, with_it, kept, after = map(int, done.stdout.split())
    assert with_it - before > 2.6e8 and kept > with_it - 1e7, "glibc keeps it"
    assert after < kept - 2e8
