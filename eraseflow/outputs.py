"""Outputs are written beside their place and moved there when they are whole.

So a stage that is killed, or whose disk is full, leaves the earlier output as it was. And where DVC links the files of
its cache into the project (`cache.type` hardlink or symlink), the link gives way: nothing is written through it.

    with replacing(folder / "scores.json") as unfinished:
        unfinished.write_text(text)
"""

import errno
import os
import re
import shutil
import socket
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from eraseflow import finite

if TYPE_CHECKING:
    from pandas import DataFrame

UNFINISHED, ASIDE = ".unfinished-", ".replaced-"  # .gitignore and .dvcignore leave out what begins so
GIVEN_BACK = {getattr(errno, name) for name in ("ENOSPC", "EDQUOT", "EFBIG", "EIO", "EROFS", "EACCES", "EPERM")}


class CannotWrite(SystemExit):
    """The disk is full or cannot be written: one line, exit status 1."""


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a path of the same name, to write a file or a folder to; at the end of the block it is moved to `path`.

    After an error in the block, or where the process is killed, `path` is as it was. A folder is replaced as a whole.
    Raises: CannotWrite with one line where the disk is full or cannot be written.
    """
    heal(path)
    with folder_beside(path) as folder:
        yield folder / path.name
        move(folder / path.name, path)


@contextmanager
def folder_beside(path: Path) -> Iterator[Path]:
    """An empty folder on the disk of `path`, gone at the end of the block. Raises: CannotWrite as `replacing`."""
    folder: Path | None = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _remove_leftovers(path.parent)
        folder = Path(tempfile.mkdtemp(prefix=f"{_mine()}-", dir=path.parent))
        yield folder
    except Exception as error:
        if not (reason := _reason(error, path.parent)):
            raise
        raise CannotWrite(f"{path}: cannot be written: {reason}; what was there before is as it was") from error
    finally:
        if folder:
            shutil.rmtree(folder, ignore_errors=True)


def move(made: Path, path: Path) -> None:
    """Put a finished file or folder in the place of what is there; a link there is replaced and not followed.

    A folder is first put aside, so that a kill at any moment leaves the one or the other; see `heal`.
    """
    if not path.is_dir() and not made.is_dir():
        os.replace(made, path)
        return
    aside = path.with_name(ASIDE + path.name)
    if os.path.lexists(path):
        remove(aside)
        path.rename(aside)
    made.rename(path)
    remove(aside)


def heal(path: Path) -> None:
    """Bring back what a killed `move` had put aside and not yet replaced, and remove what it had replaced."""
    aside = path.with_name(ASIDE + path.name)
    if os.path.lexists(aside):
        if os.path.lexists(path):
            remove(aside)
        else:
            aside.rename(path)


def remove(path: Path) -> None:
    """A file, a link (and not what it leads to) or a whole folder; nothing where there is none."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def must_be_new(folder: Path) -> None:
    """Raises: SystemExit with one line where a folder to be written is there already, unless it is empty."""
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise SystemExit(f"{folder}: is there already and not empty; name a new folder")


def write_text(text: str, path: Path) -> None:
    with replacing(path) as unfinished:
        unfinished.write_text(text, encoding="utf-8")


def write_bytes(content: bytes, path: Path) -> None:
    with replacing(path) as unfinished:
        unfinished.write_bytes(content)


def write_json(content: Any, path: Path) -> None:
    """Raises: NotFinite, where a number is NaN or infinite, which JSON does not have."""
    write_text(finite.as_json(str(path), content, indent=1, ensure_ascii=False), path)


def write_csv(rows: "DataFrame", path: Path, **form: Any) -> None:
    """Without the index; form: of `to_csv`, such as float_format."""
    with replacing(path) as unfinished:
        rows.to_csv(unfinished, index=False, lineterminator="\n", **form)


def copy_file(source: Path, path: Path) -> None:
    """With its times, as `shutil.copy2`."""
    with replacing(path) as unfinished:
        shutil.copy2(source, unfinished)


def free(folder: Path) -> str:
    """How much room a disk has, for a message."""
    return f"{shutil.disk_usage(folder).free / 1e9:.1f} GB free on the disk of {folder.absolute()}"


def _reason(error: Exception, folder: Path) -> str | None:
    """In words, what kept a file from being written; None where something else went wrong."""
    number = error.errno if isinstance(error, OSError) and _concerns(folder, error.filename) else None
    if found := re.search(r"\(os error (\d+)\)", str(error)):  # safetensors and tokenizers
        number = int(found[1])
    if number is not None and number in GIVEN_BACK:
        said = os.strerror(number)
    elif isinstance(error, RuntimeError) and re.search("inline_container|PytorchStreamWriter", str(error)):
        said = "PyTorch could not write all of it"  # it does not say why
    else:
        return None
    while not folder.is_dir():
        folder = folder.parent
    return f"{said} ({free(folder)})"


def _concerns(folder: Path, name: Any) -> bool:
    """Whether an error's file is in the folder or above it, rather than one that is read meanwhile."""
    return not isinstance(name, str) or Path(name).is_relative_to(folder) or folder.is_relative_to(name)


def _mine() -> str:
    return f"{UNFINISHED}{socket.gethostname()}-{os.getpid()}"


def _remove_leftovers(folder: Path) -> None:
    """What processes of this machine left unfinished that were killed."""
    host = f"{UNFINISHED}{socket.gethostname()}-"
    for left in folder.glob(f"{UNFINISHED}*"):
        process = left.name.removeprefix(host).partition("-")[0]
        if left.name.startswith(host) and process.isdecimal() and not _runs(int(process)):
            shutil.rmtree(left, ignore_errors=True)


def _runs(process: int) -> bool:
    with suppress(PermissionError):  # of another user
        try:
            os.kill(process, 0)
        except ProcessLookupError:
            return False
    return True
