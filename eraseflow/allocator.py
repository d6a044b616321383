"""How this process's C library keeps and gives back memory, where it is glibc."""

import contextlib
import ctypes
import gc

# glibc gives large blocks back to the system when they are freed, and PyTorch asks for them again at once: a tenth of
# the time went into these pages. These variables, set before a process starts, let it keep them.
KEEPING = {
    "MALLOC_MMAP_THRESHOLD_": str(1 << 32),
    "MALLOC_TRIM_THRESHOLD_": str(1 << 33),
    "MALLOC_TOP_PAD_": str(1 << 28),
}


def give_back() -> None:
    """Return what is free to the system: kept, it serves the next tensors, but not the next file of weights."""
    gc.collect()  # what holds itself, as an error does whose frames hold it
    with contextlib.suppress(AttributeError, OSError):  # another C library
        ctypes.CDLL(None).malloc_trim(0)
