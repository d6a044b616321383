"""Reading what an earlier stage or a training has made."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pyarrow as pa
from safetensors import SafetensorError

from eraseflow import memory

UNREADABLE = (OSError, ValueError, LookupError, RuntimeError, pa.ArrowException, SafetensorError)


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """Around the reading of one file or folder. Raises: SystemExit with one line where it is missing or damaged."""
    try:
        yield
    except FileNotFoundError as error:
        raise SystemExit(f"{error.filename or path}: missing; `dvc repro` makes it") from None
    except UNREADABLE as error:
        if memory.is_full(error):
            raise
        said = (str(error).splitlines() or [type(error).__name__])[0]
        raise SystemExit(
            f"{path}: cannot be read ({said}); remove it, and `dvc checkout` or `dvc repro` puts it back"
        ) from None
