"""Environment variables: what has no meaning, and what asks for a GPU that is not there, is one line."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from eraseflow import environment
from eraseflow.testbeds import sd14

pytestmark = pytest.mark.slow


@pytest.fixture(autouse=True)
def clean(monkeypatch):
    for name in os.environ:
        if name in environment.LIBRARIES or name.startswith(("ERASEFLOW_", "CUDA_")):
            monkeypatch.delenv(name)


@pytest.fixture
def gpus(monkeypatch):
    """A machine with so many GPUs of this compute capability."""

    def there(count: int, capability: tuple[int, int] = (9, 0)) -> None:
        monkeypatch.setattr(torch.cuda, "is_available", lambda: count > 0)
        monkeypatch.setattr(torch.cuda, "device_count", lambda: count)
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: capability)
        monkeypatch.setattr(torch.cuda, "get_device_name", lambda _: "Some GPU")

    return there


def refused(call, *arguments) -> str:
    with pytest.raises(SystemExit) as failure:
        call(*arguments)
    assert len(str(failure.value).splitlines()) == 1
    return str(failure.value)


@pytest.mark.parametrize(
    ("name", "values"),
    {
        "ERASEFLOW_DEVICE": ["gpu", "mps", "xpu", "CUDA", "cuda:", "cuda:-1", "cuda:01", "cuda:٣", " cpu", "0"],
        "ERASEFLOW_PRECISION": ["fp8", "float16", "FP32", "32"],
        "ERASEFLOW_BATCH": ["0", "-1", "1e3", "4.0", "٣", str(10**9), "many"],
        "OMP_NUM_THREADS": ["0", "-2", "all", "2.5", "1,0", str(10**9)],
        "MKL_NUM_THREADS": ["0"],
    }.items(),
)
def test_a_value_without_a_meaning(monkeypatch, name, values):
    for value in values:
        monkeypatch.setenv(name, value)
        message = refused(environment.check)
        assert message.startswith(f"{name}: expected ") and message.endswith(f"found {value!r}")


@pytest.mark.parametrize(
    ("name", "values"),
    {
        "ERASEFLOW_DEVICE": ["", "cpu", "cuda", "cuda:0", "cuda:12"],
        "ERASEFLOW_PRECISION": ["", "fp32", "bf16", "fp16"],
        "ERASEFLOW_BATCH": ["", "1", "512"],
        "OMP_NUM_THREADS": ["", "1", "64", "4,2"],
        "OTHER": ["anything"],
    }.items(),
)
def test_a_value_with_a_meaning(monkeypatch, name, values):
    for value in values:
        monkeypatch.setenv(name, value)
        environment.check()


@pytest.mark.parametrize(
    ("name", "meant"),
    [("ERASEFLOW_DEVISE", "DEVICE"), ("ERASEFLOW_BATCH_SIZE", "BATCH"), ("eraseflow_precision", "PRECISION")],
)
def test_a_name_that_nobody_reads(monkeypatch, name, meant):
    monkeypatch.setenv(name, "1")
    message = refused(environment.check)
    assert message.startswith(f"{name}: no such environment variable")
    assert f"did you mean 'ERASEFLOW_{meant}'" in message or name.islower()


def test_every_variable_that_the_code_reads_is_known():
    sources = Path(environment.__file__).parent.rglob("*.py")
    found = {name for source in sources for name in re.findall("ERASEFLOW_[A-Z]+", source.read_text("utf-8"))}
    assert found == set(environment.VARIABLES)


@pytest.mark.parametrize("count", [0, 1, 4])
def test_a_gpu_that_is_not_there(monkeypatch, gpus, count):
    gpus(count)
    assert environment.device("") == ("cuda" if count else "cpu")
    assert environment.device("cpu") == "cpu"
    for number in range(count):
        assert environment.device(f"cuda:{number}") == f"cuda:{number}"
    message = refused(environment.device, f"cuda:{max(count, 7)}")
    assert {0: "no GPU is found", 1: "the only GPU here is cuda:0", 4: "are cuda:0 to cuda:3"}[count] in message


def test_why_there_is_none(monkeypatch, gpus):
    gpus(0)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert "(CUDA_VISIBLE_DEVICES='')" in refused(environment.device, "cuda")
    assert "(CUDA_VISIBLE_DEVICES='')" in refused(sd14.gpu, "")
    monkeypatch.setattr(torch.backends.cuda, "is_built", lambda: False)
    assert f"PyTorch {torch.__version__} is built without CUDA" in refused(environment.device, "cuda:0")


def test_bf16_needs_a_gpu_that_has_it(monkeypatch, gpus):
    gpus(1, (7, 5))
    assert environment.precision("cpu") == "fp32"
    assert "Some GPU has no bf16" in refused(environment.precision, "cuda")
    assert "Some GPU has no bf16" in refused(sd14.gpu, "")
    for name in ("fp16", "fp32"):
        monkeypatch.setenv("ERASEFLOW_PRECISION", name)
        assert environment.precision("cuda") == name
    gpus(1, (8, 0))
    monkeypatch.delenv("ERASEFLOW_PRECISION")
    assert environment.precision("cuda:0") == "bf16"


def test_a_back_end_that_torch_does_not_have(monkeypatch):
    sd14.compiler()
    for known in ("eager", "cudagraphs"):
        monkeypatch.setenv("ERASEFLOW_COMPILE", known)
        sd14.compiler()
    monkeypatch.setenv("ERASEFLOW_COMPILE", "inducter")
    assert "did you mean 'inductor'" in refused(sd14.compiler)
    monkeypatch.setenv("ERASEFLOW_COMPILE", "inductor")
    monkeypatch.setenv("PATH", "/nowhere")
    assert "compiler" in refused(sd14.compiler)


def test_a_stage_says_it_in_one_line():
    """Also the one that comes first, where nobody has checked before."""
    code = "import eraseflow.cells"
    for name, value in {"ERASEFLOW_DEVICE": "cuda:99", "ERASEFLOW_DEVISE": "cpu"}.items():
        done = subprocess.run(
            [sys.executable, "-c", code], env=os.environ | {name: value}, capture_output=True, text=True
        )
        assert done.returncode == 1 and len(done.stderr.splitlines()) == 1 and done.stderr.startswith(name)
