"""The Hub's hash of each file of a commit: the SHA-256 of a large one (Git LFS), the Git blob SHA-1 of a small one.

They come from the Hub, which is asked once, for a commit never changes. In a cache that was filled elsewhere they come
from what huggingface_hub has kept: its listing of the commit or, where it has none and the Hub is out of reach, the
names of its blobs, which are these hashes. There snapshots/<commit>/<file> is a link to blobs/<hash>.
"""

import copy
import hashlib
import json
import os
import re
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, NamedTuple

import huggingface_hub as hf
from huggingface_hub import constants, errors, file_download

from eraseflow.hub import notes
from eraseflow.hub.advice import FAILURES, missing

HASH = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")
out_of_reach: BaseException | None = None  # why the Hub did not answer this process


class Known(NamedTuple):
    """By a file's name its hash, None where nothing says it; `whole` if these are all of the commit's files."""

    hashes: dict[str, str | None]
    whole: bool


def known(address: dict[str, Any], enough: Callable[[Iterable[str]], bool]) -> Known:
    """What is known of a commit's files.

    enough: whether these names are what is asked for; if not, it is said why the Hub did not give its list.
    Raises: what huggingface_hub raises, one of FAILURES; SystemExit where the cache has a part of a model.
    """
    if hashes := notes.read(address, "hashes") or _listed(address):
        return Known(hashes, whole=True)
    try:
        hashes = _asked(address)
    except FAILURES as error:
        cached = _cached(address)
        if not enough(cached):
            raise
        _see_to_parts(address, cached, error)
        return Known(cached, whole=False)
    notes.write(address, "hashes", hashes)
    return Known(hashes, whole=True)


def _asked(address: dict[str, Any]) -> dict[str, Any]:
    """By the Hub. Where it is out of reach that takes half a minute or more to find out: once, stages included."""
    global out_of_reach
    if out_of_reach:
        raise copy.copy(out_of_reach)
    try:
        entries = hf.HfApi().list_repo_tree(**address, recursive=True)
        files = [entry for entry in entries if isinstance(entry, hf.RepoFile)]
        return {file.path: file.lfs.sha256 if file.lfs else file.blob_id for file in files}
    except FAILURES as error:
        if not isinstance(error, errors.HfHubHTTPError | ValueError):
            out_of_reach = copy.copy(error)  # itself it holds all frames above, and the networks that are loaded there
            os.environ["HF_HUB_OFFLINE"] = "1"
        raise


def folder(address: dict[str, Any]) -> Path:
    """Where the cache has the commit's files, if it has them."""
    name = file_download.repo_folder_name(repo_id=address["repo_id"], repo_type=address["repo_type"])
    return Path(constants.HF_HUB_CACHE).expanduser() / name / "snapshots" / address["revision"]


def lacking(address: dict[str, Any], names: Iterable[str]) -> str:
    """The first of these files that the cache does not have; empty if there is none."""
    return next((name for name in names if not os.path.exists(folder(address) / name)), "")


def of(path: Path, like: str) -> str:
    """SHA-256 of the file, or its Git blob SHA-1 where `like` has the 40 digits of one."""
    digest = hashlib.sha256()
    if len(like) == 40:
        digest = hashlib.sha1(b"blob %d\0" % path.stat().st_size, usedforsecurity=False)
    with path.open("rb") as stream:
        while part := stream.read(1 << 20):
            digest.update(part)
    return digest.hexdigest()


def _listed(address: dict[str, Any]) -> dict[str, Any]:
    """By the listing that huggingface_hub keeps of a commit since it filled this cache as a whole, if it has.

    Its own reader, `get_cached_repo_tree`, leaves the SHA-256 out.
    """
    path = folder(address).parents[1] / "trees" / f"{address['revision']}.json"
    try:
        files = json.loads(path.read_text(encoding="utf-8"))["files"]
        return {name: entry.get("lfs_sha256") or entry["blob_id"] for name, entry in files.items()}
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        return {}


def _cached(address: dict[str, Any]) -> dict[str, str | None]:
    """By the links of the commit's folder to blobs; None of a copy, which a cache without links has instead."""
    found: dict[str, str | None] = {}
    for here, _, files in os.walk(folder(address)):
        for name in files:
            path = Path(here) / name
            blob = Path(os.readlink(path)).name if path.is_symlink() else ""
            if os.path.exists(path):  # a link may lead nowhere: its blob was never whole, or was removed
                found[path.relative_to(folder(address)).as_posix()] = blob if HASH.fullmatch(blob) else None
    return found


def _see_to_parts(address: dict[str, Any], cached: Iterable[str], error: BaseException) -> None:
    """A large model's index names the files that its weights are in. Raises: SystemExit where one is not here."""
    repository = ("datasets/" * (address["repo_type"] == "dataset")) + f"{address['repo_id']}@{address['revision']}"
    for index in (name for name in cached if name.endswith(".safetensors.index.json")):
        parts = json.loads((folder(address) / index).read_text(encoding="utf-8"))["weight_map"].values()
        for part in sorted({str(Path(index).with_name(part).as_posix()) for part in parts} - set(cached)):
            raise SystemExit(f"{repository}: {missing(error, part)}") from error
