"""The content of files as SHA-256. A file is read again only when its size, times or inode have changed."""

import hashlib
import json
import os
import re
import time
from collections.abc import Iterable, Iterator
from contextlib import suppress
from fnmatch import fnmatch
from pathlib import Path

from eraseflow.outputs import CannotWrite, write_text

KNOWN = Path(".work/hashes.json")  # hashes by resolved path, with the state of the file when it was read
SETTLED = 2.0  # seconds: a file changed more recently could change again within one tick of its timestamps

Digests = dict[str, str | None]


def local(source: str) -> list[Path]:
    """The path that a source of params.yaml names; none where it is one on the Hub at a commit (see hub.py)."""
    on_hub = re.search(r"@[0-9a-f]{40}(/|$)", source)
    return [] if on_hub and not Path(source).exists() else [Path(source)]


def files(place: Path, patterns: Iterable[str] = ("*",)) -> list[Path]:
    """A file itself; of a folder the files below it, links followed, whose path in it matches one of the patterns.

    Hidden files, such as .DS_Store and ._*, and hidden folders are left out, for no reader reads them. A place that is
    not there is returned itself.
    """
    if not place.is_dir():
        return [place]
    found = [file for file in _below(place, ()) if not is_hidden(file.relative_to(place))]
    return sorted(file for file in found if any(fnmatch(str(file.relative_to(place)), one) for one in patterns))


def digests(found: Iterable[Path]) -> Digests:
    """SHA-256 of each file by its path as it was given; None for one that is not there, or in whose place is a folder.

    Raises: SystemExit with one line where a file cannot be read.
    """
    known = _known()
    result: Digests = {}
    fresh = {}
    for file in found:
        try:
            state, path = _state(file), str(file.resolve())
            if state and (entry := known.get(path)) and entry["state"] == state:
                result[str(file)] = entry["sha256"]
                continue
            result[str(file)] = sha256 = _sha256(file) if state else None
            if state and _state(file) != state:
                raise SystemExit(f"{file}: changes while it is read; wait until it is whole")
        except OSError as error:
            raise SystemExit(f"{file}: cannot be read: {error.strerror}") from None
        if state and state[2] < (time.time() - SETTLED) * 1e9:
            fresh[path] = {"state": state, "sha256": sha256}
    if fresh:
        _remember(fresh)
    return result


def _below(folder: Path, above: tuple[Path, ...]) -> Iterator[Path]:
    """The files below a folder; a link that leads back to a folder `above` is not followed."""
    here = (*above, folder.resolve())
    try:
        entries = sorted(folder.iterdir())
    except OSError as error:
        raise SystemExit(f"{folder}: cannot be read: {error.strerror}") from None
    for entry in entries:
        if not entry.is_dir():
            yield entry
        elif entry.resolve() not in here:
            yield from _below(entry, here)


def is_hidden(path: Path) -> bool:
    """Whether a path in a folder names a hidden file or leads through a hidden folder."""
    return any(part.startswith(".") for part in path.parts)


def _state(file: Path) -> list[int] | None:
    """What changes when a file is replaced. ctime is in it, for an archive's files keep their mtimes, old and new."""
    if not file.is_file():
        return None
    found = os.stat(file)
    return [found.st_size, found.st_mtime_ns, found.st_ctime_ns, found.st_ino]


def _sha256(file: Path) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _known() -> dict[str, dict]:
    try:
        return json.loads(KNOWN.read_text(encoding="utf-8"))
    except (OSError, ValueError):  # what is lost is read again
        return {}


def _remember(fresh: dict[str, dict]) -> None:
    with suppress(CannotWrite):  # then they are read again
        write_text(json.dumps(_known() | fresh), KNOWN)
