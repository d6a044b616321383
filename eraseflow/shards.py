"""Long work in shards: finished ones survive a kill, and the output appears only when all are done."""

import hashlib
import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from eraseflow.inputs import reading
from eraseflow.outputs import replacing
from eraseflow.outside import content

WORK = Path(".work")
# Rows of a row group, the part of a parquet file that can be read alone: so many pictures are in memory at once, a
# fifth of a gigabyte at 512 pixels. Judges and metrics work in batches of 8 to 256, so that such parts cut no batch.
PART = 256
CODE = Path(__file__).parent  # part of every fingerprint: unfinished work of other code is not gone on with


def fingerprint(*inputs: object) -> str:
    """A short hash of everything that the work depends on and of our code; folders count by their files' contents."""
    digest = hashlib.sha256()
    for item in (*inputs, CODE):
        if isinstance(item, Path):
            found = content.files(item, ["*.py" if item == CODE else "*"])
            for file, sha256 in content.digests(found).items():  # a base model's gigabytes are read once
                digest.update(f"{Path(file).name} {sha256}".encode())
        elif isinstance(item, pd.DataFrame):
            digest.update(item.to_csv().encode())
        else:
            digest.update(repr(item).encode())
    return digest.hexdigest()[:16]


def in_shards(name: str, count: int, size: int, make: Callable[[slice], pd.DataFrame]) -> Iterator[pd.DataFrame]:
    """The rows that `make` gives for slices of `size` out of `count`, those already in the work folder read back.

    `name` must hold a fingerprint of the inputs. Call `forget(name)` once the result is in place.
    """
    folder = WORK / name
    folder.mkdir(parents=True, exist_ok=True)
    for start in range(0, count, size):
        part, shard = slice(start, min(start + size, count)), folder / f"{start:06d}.parquet"
        if _rows(shard) != part.stop - part.start:
            write_parquet(make(part), shard)
        yield pd.read_parquet(shard)


def _rows(shard: Path) -> int:
    """How many rows a finished shard has; -1 where there is none that can be read, as after a power cut."""
    try:
        return len(pd.read_parquet(shard))
    except (OSError, ValueError, pa.ArrowException):
        return -1


def forget(name: str) -> None:
    """Remove a finished work folder."""
    shutil.rmtree(WORK / name, ignore_errors=True)


def write_parquet(rows: pd.DataFrame | Iterable[pd.DataFrame], path: Path) -> None:
    """Write whole or not at all. Of rows that come one table after another, PART are in memory at once."""
    tables = iter([rows]) if isinstance(rows, pd.DataFrame) else _groups(rows)
    first = pa.Table.from_pandas(next(tables), preserve_index=False)
    with replacing(path) as unfinished, pq.ParquetWriter(unfinished, first.schema) as writer:
        writer.write_table(first, PART)
        for table in tables:
            writer.write_table(pa.Table.from_pandas(table, first.schema, preserve_index=False), PART)


def read_pngs(path: Path, rows: Sequence[int]) -> Iterator[bytes]:
    """The column `png` of some rows of a parquet file, numbered from 0 and ascending; PART are in memory at once.

    Raises: SystemExit with one line where the file cannot be read.
    """
    with reading(path):
        parquet, first = pq.ParquetFile(path), 0
    for group in range(parquet.num_row_groups):
        end = first + parquet.metadata.row_group(group).num_rows
        if inside := [row - first for row in rows if first <= row < end]:
            with reading(path):
                pngs = parquet.read_row_group(group, ["png"])["png"].take(inside).to_pylist()
            yield from pngs
        first = end


def _groups(tables: Iterable[pd.DataFrame]) -> Iterator[pd.DataFrame]:
    """The same rows in tables of PART rows, the last one shorter."""
    pending = pd.DataFrame()
    for table in tables:
        pending = pd.concat([pending, table], ignore_index=True) if len(pending) else table
        while len(pending) >= PART:
            yield pending.iloc[:PART]
            pending = pending.iloc[PART:]
    if len(pending):
        yield pending.reset_index(drop=True)
