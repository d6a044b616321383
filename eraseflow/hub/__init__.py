"""Files from the Hugging Face Hub, pinned: a source names one commit, and every file is compared with its record there.

A source is "owner/name@commit" (a data set's: "datasets/owner/name@commit") with all 40 digits of the commit, or
an existing local folder, which is used as it is. Downloads lie in huggingface_hub's own cache, which may have been
filled elsewhere and be read-only; hashes.py says what the files are compared with, there too.
"""

import re
import sys
from pathlib import Path
from typing import Any

import huggingface_hub as hf
from huggingface_hub.utils import filter_repo_objects

from eraseflow.hub import hashes, notes
from eraseflow.hub.advice import one_line

ADDRESS = re.compile(r"(?P<data>datasets/)?(?P<repo>[\w.-]+/[\w.-]+)@(?P<revision>[0-9a-f]{40})")
hf.utils.logging.set_verbosity_error()  # each try of six would be a warning; a failure is one line of ours


def is_hub_id(text: str) -> bool:
    """Whether this is a pinned Hub source, "owner/name@commit" or "datasets/owner/name@commit"."""
    return bool(ADDRESS.fullmatch(text))


def snapshot(source: str, patterns: list[str] | None = None) -> Path:
    """A folder that holds the source's files, those that match one of the patterns ("unet/*") or all.

    Raises: SystemExit with one line that says what to do: the source is neither pinned nor a folder, the Hub is
    out of reach and the cache has not the files, repository, commit or file is missing, a licence must be accepted,
    or a hash is wrong.
    """
    if Path(source).is_dir():
        return Path(source)
    address = _address(source)
    with one_line(source):
        known = hashes.known(address, lambda names: bool(list(filter_repo_objects(names, allow_patterns=patterns))))
    names = list(filter_repo_objects(known.hashes, allow_patterns=patterns))
    if not names:
        raise SystemExit(f"{source}: holds no file that matches {' or '.join(patterns or ['*'])}")
    with one_line(source, hashes.lacking(address, names)):
        # Without the Hub's list the library, too, must go by what is there.
        hf.snapshot_download(**address, allow_patterns=patterns, local_files_only=not known.whole)
    return _checked(source, address, known, names)


def names(source: str) -> list[str]:
    """The names of a pinned source's files; where the Hub is out of reach, of those in the cache.

    Raises: SystemExit as `snapshot` does.
    """
    address = _address(source)
    with one_line(source):
        return list(hashes.known(address, lambda names: bool(list(names))).hashes)


def file(source: str, name: str) -> Path:
    """One file of the source. Raises: SystemExit as `snapshot` does."""
    if Path(source).is_dir():
        if not (Path(source) / name).is_file():
            raise SystemExit(f"{source}: has no file {name}")
        return Path(source) / name
    address = _address(source)
    with one_line(source):
        known = hashes.known(address, lambda names: name in names)
    if name not in known.hashes:
        raise SystemExit(f"{source}: has no file {name}")
    with one_line(source, hashes.lacking(address, [name])):
        hf.hf_hub_download(**address, filename=name)
    return _checked(source, address, known, [name]) / name


def _address(source: str) -> dict[str, Any]:
    """The arguments by which huggingface_hub names a repository at a commit."""
    if not (match := ADDRESS.fullmatch(source)):
        raise SystemExit(
            f"{source}: expected a folder that exists, or a Hub repository pinned to a commit, "
            "owner/name@<its 40 hexadecimal digits> (datasets/owner/name@... for a data set)"
        )
    return {
        "repo_id": match["repo"],
        "repo_type": "dataset" if match["data"] else "model",
        "revision": match["revision"],
    }


def _checked(source: str, address: dict[str, Any], known: hashes.Known, names: list[str]) -> Path:
    """The commit's folder, its files compared with their hashes, each once as long as its size and time stay the same.

    Raises: SystemExit where one differs.
    """
    folder, checked = hashes.folder(address), notes.read(address, "checked")
    fresh, unknown = {}, []
    with one_line(source):
        for name in names:
            path, wanted = folder / name, known.hashes[name]
            if wanted is None:
                unknown.append(name)
                continue
            state = [wanted, path.stat().st_size, path.stat().st_mtime_ns]
            if checked.get(name) == state:
                continue
            if (found := hashes.of(path, wanted)) != wanted:
                whose = "the Hub's" if known.whole else "by its name in the cache"
                raise SystemExit(f"{source}: {name} has the hash {found}, {whose} is {wanted}; delete {path.resolve()}")
            fresh[name] = state
    if fresh:
        notes.write(address, "checked", checked | fresh)
    if unknown:
        what = "without the Hub nothing says its hash, for this cache holds copies; it is used as it is"
        print(f"{source}: {', '.join(unknown)}: {what}", file=sys.stderr)
    return folder
