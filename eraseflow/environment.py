"""The environment variables that change speed and not what is computed, checked without importing torch."""

import os
import re

VARIABLES = {
    "ERASEFLOW_DEVICE": (r"cpu|cuda(:\d+)?", "cpu, cuda or cuda:<number>"),
    "ERASEFLOW_PRECISION": (r"fp32|bf16|fp16", "fp32, bf16 or fp16"),
    "ERASEFLOW_BATCH": (r"[1-9]\d*", "a whole number from 1 up"),
}


def check() -> None:
    """Raises: SystemExit with one line where a variable that is set has no meaning."""
    for name, (pattern, wanted) in VARIABLES.items():
        value = os.environ.get(name)
        if value and not re.fullmatch(pattern, value):
            raise SystemExit(f"{name}: expected {wanted}, found {value!r}")
