"""Long work in shards: finished ones survive a kill, and the output appears only when all are done."""

import hashlib
import shutil
from collections.abc import Callable
from pathlib import Path

import pandas as pd

WORK = Path(".work")
CODE = Path(__file__).parent  # part of every fingerprint: unfinished work of other code is not gone on with


def fingerprint(*inputs: object) -> str:
    """A short hash of everything that the work depends on and of our code; folders count by their files' contents."""
    digest = hashlib.sha256()
    for item in (*inputs, CODE):
        if isinstance(item, Path):
            files = sorted(item.rglob("*.py" if item == CODE else "*")) if item.is_dir() else [item]
            for file in files:
                if file.is_file():
                    digest.update(file.name.encode())
                    with file.open("rb") as stream:  # a base model's files are too large to read at once
                        while part := stream.read(1 << 20):
                            digest.update(part)
        elif isinstance(item, pd.DataFrame):
            digest.update(item.to_csv().encode())
        else:
            digest.update(repr(item).encode())
    return digest.hexdigest()[:16]


def in_shards(name: str, count: int, size: int, make: Callable[[slice], pd.DataFrame]) -> pd.DataFrame:
    """The rows that `make` gives for slices of `size` out of `count`, those already in the work folder read back.

    `name` must hold a fingerprint of the inputs. Call `forget(name)` once the result is in place.
    """
    folder = WORK / name
    folder.mkdir(parents=True, exist_ok=True)
    parts = []
    for start in range(0, count, size):
        shard = folder / f"{start:06d}.parquet"
        if not shard.exists():
            write_parquet(make(slice(start, min(start + size, count))), shard)
        parts.append(pd.read_parquet(shard))
    return pd.concat(parts, ignore_index=True)


def forget(name: str) -> None:
    """Remove a finished work folder."""
    shutil.rmtree(WORK / name, ignore_errors=True)


def write_parquet(rows: pd.DataFrame, path: Path) -> None:
    """Write whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_suffix(".part")
    rows.to_parquet(unfinished, index=False)
    unfinished.replace(path)
