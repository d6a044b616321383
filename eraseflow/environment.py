"""The environment variables that this package reads, none of which changes what is computed but for rounding.

Nothing here imports torch but `device` and `precision`, which see whether the GPU that is asked for is there.
"""

import os
import re

from eraseflow.mistakes import nearest

THREADS = (r"[1-9][0-9]{0,3}(,[1-9][0-9]{0,3})*", "a whole number from 1 to 9999")
VARIABLES = {
    "ERASEFLOW_DEVICE": (r"cpu|cuda(:(0|[1-9][0-9]*))?", "cpu, cuda or cuda:<number>"),
    "ERASEFLOW_PRECISION": (r"fp32|bf16|fp16", "fp32, bf16 or fp16"),
    "ERASEFLOW_BATCH": (r"[1-9][0-9]{0,3}", "a whole number from 1 to 9999, the pictures a batch"),
    "ERASEFLOW_COMPILE": (r"\w+", "a back end of torch.compile, such as inductor; sd14 reads it"),
    "ERASEFLOW_SERVER": (r".*", "the path of the launcher's socket, which sets it for its stages"),
}
# The libraries' own, of which they ignore what they cannot read and take all cores.
LIBRARIES = {"OMP_NUM_THREADS": THREADS, "MKL_NUM_THREADS": THREADS, "OPENBLAS_NUM_THREADS": THREADS}


def check() -> None:
    """Raises: SystemExit with one line where a variable has no meaning, or ERASEFLOW_... is no name of ours."""
    for name in os.environ:
        if name.upper().startswith("ERASEFLOW_") and name not in VARIABLES:
            raise SystemExit(f"{name}: no such environment variable is read here{nearest(name, VARIABLES)}")
    for name, (pattern, wanted) in (VARIABLES | LIBRARIES).items():
        value = os.environ.get(name)
        if value and not re.fullmatch(pattern, value):
            raise SystemExit(f"{name}: expected {wanted}, found {value!r}")


def device(wanted: str) -> str:
    """`wanted`, of ERASEFLOW_DEVICE; if empty a GPU where there is one. Raises: SystemExit where it is not there."""
    import torch

    if not wanted:
        return "cuda" if torch.cuda.is_available() else "cpu"
    if wanted == "cpu":
        return wanted
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    number = int(wanted.partition(":")[2] or 0)
    if number >= count:
        raise SystemExit(f"ERASEFLOW_DEVICE: {wanted!r}, but {gpus(count)}")
    return wanted


def precision(device: str) -> str:
    """ERASEFLOW_PRECISION, by default bf16 on a GPU and fp32 on a CPU. Raises: SystemExit where a GPU has no bf16."""
    wanted = os.environ.get("ERASEFLOW_PRECISION") or ("fp32" if device == "cpu" else "bf16")
    if wanted == "bf16" and device != "cpu":
        import torch

        if torch.version.hip is None and torch.cuda.get_device_capability(device) < (8, 0):
            name = torch.cuda.get_device_name(device)
            raise SystemExit(f"ERASEFLOW_PRECISION: {name} has no bf16; set it to fp32 or fp16")
    return wanted


def gpus(count: int) -> str:
    """How many GPUs there are, and why there may be fewer than one thinks."""
    import torch

    if count:
        return f"the GPUs here are cuda:0 to cuda:{count - 1}" if count > 1 else "the only GPU here is cuda:0"
    if not torch.backends.cuda.is_built():
        return f"PyTorch {torch.__version__} is built without CUDA"
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    return "no GPU is found here" + ("" if visible is None else f" (CUDA_VISIBLE_DEVICES={visible!r})")
