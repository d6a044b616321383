"""Memory that does not suffice ends a command in one line that says what helps. Standard library only."""

import re
from collections.abc import Iterator
from contextlib import contextmanager

BATCH = "set ERASEFLOW_BATCH to fewer pictures a batch, or where a method is trained its batch_size in params.yaml"
# PyTorch's and CUDA's words for it, where the error's class does not say so.
FULL = r"can't allocate memory|out of memory|CUBLAS_STATUS_ALLOC_FAILED|CUDNN_STATUS_ALLOC_FAILED"


def is_full(error: Exception) -> bool:
    """Whether it speaks of too little memory; what cannot be read for that reason is not damaged."""
    named = isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError"
    return named or bool(re.search(FULL, str(error)))


@contextmanager
def explained(command: str, helps: str = BATCH) -> Iterator[None]:
    """Raises: SystemExit in place of an error of too little memory, the processor's or a GPU's."""
    try:
        yield
    except (MemoryError, RuntimeError) as error:  # PyTorch's are of the second kind
        if not is_full(error):
            raise
        why = str(error).splitlines()[0] if str(error) else "the processor's"
        raise SystemExit(f"{command}: out of memory ({why}); {helps}") from error
