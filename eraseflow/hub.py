"""Files from the Hugging Face Hub, pinned: a source names one commit, and every file is compared with its record there.

A source is "owner/name@commit" (a data set's: "datasets/owner/name@commit") with all 40 digits of the commit, or
an existing local folder, which is used as it is. Downloads lie in huggingface_hub's own cache. The hashes are the
Hub's own for that commit: the SHA-256 of a large file (Git LFS), the Git blob SHA-1 of a small one.
"""

import hashlib
import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import huggingface_hub as hf
from huggingface_hub import constants, errors
from huggingface_hub.utils import filter_repo_objects

ADDRESS = re.compile(r"(?P<data>datasets/)?(?P<repo>[\w.-]+/[\w.-]+)@(?P<revision>[0-9a-f]{40})")
hf.utils.logging.set_verbosity_error()  # each try of six would be a warning; a failure is one line of ours
FAILURES = (OSError, ValueError, errors.HTTPError, errors.CorruptedCacheException, errors.XetDownloadError)


def is_hub_id(text: str) -> bool:
    """Whether this is a pinned Hub source, "owner/name@commit" or "datasets/owner/name@commit"."""
    return bool(ADDRESS.fullmatch(text))


def snapshot(source: str, patterns: list[str] | None = None) -> Path:
    """A folder that holds the source's files, those that match one of the patterns ("unet/*") or all.

    Raises: SystemExit with one line that says what to do: the source is neither pinned nor a folder, the Hub is
    out of reach, repository, commit or file is missing, a licence must be accepted, or a hash is wrong.
    """
    if Path(source).is_dir():
        return Path(source)
    address = _address(source)
    with _one_line(source):
        hashes = _hashes(address)
        names = list(filter_repo_objects(hashes, allow_patterns=patterns))
        if not names:
            raise SystemExit(f"{source}: holds no file that matches {' or '.join(patterns or ['*'])}")
        folder = Path(hf.snapshot_download(**address, allow_patterns=patterns))
        _check(source, folder, {name: hashes[name] for name in names})
    return folder


def file(source: str, name: str) -> Path:
    """One file of the source. Raises: SystemExit as `snapshot` does."""
    if Path(source).is_dir():
        if not (Path(source) / name).is_file():
            raise SystemExit(f"{source}: has no file {name}")
        return Path(source) / name
    address = _address(source)
    with _one_line(source):
        hashes = _hashes(address)
        if name not in hashes:
            raise SystemExit(f"{source}: has no file {name}")
        path = Path(hf.hf_hub_download(**address, filename=name))
        _check(source, path.parents[name.count("/")], {name: hashes[name]})
    return path


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


def _notes(address: dict[str, Any], kind: str) -> Path:
    """Where we keep what we know of a commit, beside huggingface_hub's own folders."""
    name = "--".join([address["repo_type"], *address["repo_id"].split("/"), address["revision"]])
    return Path(constants.HF_HUB_CACHE) / "eraseflow" / f"{name}.{kind}.json"


def _read(path: Path) -> dict:
    return json.loads(path.read_text()) if path.is_file() else {}


def _write(path: Path, content: dict) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_suffix(".part")
    unfinished.write_text(json.dumps(content, indent=1) + "\n")
    unfinished.replace(path)


def _hashes(address: dict[str, Any]) -> dict[str, str]:
    """The Hub's hash of each file, SHA-256 (64 digits) or Git blob SHA-1 (40); asked once, a commit never changes."""
    notes = _notes(address, "hashes")
    if not (hashes := _read(notes)):
        for entry in hf.HfApi().list_repo_tree(**address, recursive=True):
            if isinstance(entry, hf.RepoFile):
                hashes[entry.path] = entry.lfs.sha256 if entry.lfs else entry.blob_id
        _write(notes, hashes)
    return hashes


def _check(source: str, folder: Path, hashes: dict[str, str]) -> None:
    """Compare the files' hashes, each file once as long as its size and time stay the same."""
    notes = _notes(_address(source), "checked")
    checked = _read(notes)
    fresh = {}
    for name, wanted in hashes.items():
        path = folder / name
        state = [wanted, path.stat().st_size, path.stat().st_mtime_ns]
        if checked.get(name) == state:
            continue
        if (found := _hash(path, wanted)) != wanted:
            raise SystemExit(f"{source}: {name} has the hash {found}, the Hub's is {wanted}; delete {path.resolve()}")
        fresh[name] = state
    if fresh:
        _write(notes, checked | fresh)


def _hash(path: Path, like: str) -> str:
    """SHA-256 of the file, or its Git blob SHA-1 where `like` has the 40 digits of one."""
    digest = hashlib.sha256()
    if len(like) == 40:
        digest = hashlib.sha1(b"blob %d\0" % path.stat().st_size, usedforsecurity=False)
    with path.open("rb") as stream:
        while part := stream.read(1 << 20):
            digest.update(part)
    return digest.hexdigest()


@contextmanager
def _one_line(source: str) -> Iterator[None]:
    """Turn what huggingface_hub raises into one line that says what to do."""
    try:
        yield
    except FAILURES as error:
        # "Not in the cache" says nothing of why the Hub did not give it: its cause does.
        cause = isinstance(error, errors.LocalEntryNotFoundError) and error.__cause__
        raise SystemExit(f"{source}: {_advice(source, cause or error)}") from error


def _advice(source: str, error: BaseException) -> str:
    page = "https://huggingface.co/" + source.partition("@")[0]
    status = error.response.status_code if isinstance(error, errors.HfHubHTTPError) else None
    if isinstance(error, errors.GatedRepoError) or status == 403:
        return f"access must be granted; accept the licence at {page}, then `hf auth login`, or name a local folder"
    if isinstance(error, errors.RevisionNotFoundError):
        return f"the Hub has no such commit; choose one from {page}/commits/main"
    if isinstance(error, errors.RepositoryNotFoundError) or status in (401, 404):
        return f"the Hub shows no such repository or file; see {page}, and `hf auth login` if it is private"
    if status:
        return f"the Hub answers {status} and the files are not in {constants.HF_HUB_CACHE}; try again later"
    if isinstance(error, OSError) and error.errno and not isinstance(error, ConnectionError):
        return f"cannot be stored: {error.strerror} ({error.filename})"
    if isinstance(error, errors.CorruptedCacheException | ValueError):
        return f"cannot be read from {constants.HF_HUB_CACHE}: {' '.join(str(error).split())}"
    return (
        f"the Hub cannot be reached ({type(error).__name__}) and the files are not in {constants.HF_HUB_CACHE}; "
        "run where there is a network (unset HF_HUB_OFFLINE), or name a local folder that has them"
    )
