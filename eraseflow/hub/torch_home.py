"""Files from plain addresses, in PyTorch's own folder of downloads (TORCH_HOME), each compared with its SHA-256."""

import hashlib
from http.client import HTTPException
from pathlib import Path

import torch


def file(url: str, name: str, sha256: str) -> Path:
    """The file `name` of that folder, fetched if it is not there, and checked. sha256: its digits, or the first ones.

    Raises: SystemExit with one line where it cannot be fetched or read, or is another file.
    """
    path = Path(torch.hub.get_dir()) / "checkpoints" / name
    try:
        if not path.is_file():
            path.parent.mkdir(parents=True, exist_ok=True)
            torch.hub.download_url_to_file(url, str(path), hash_prefix=sha256)
        with path.open("rb") as stream:
            found = hashlib.file_digest(stream, "sha256").hexdigest()
    except (OSError, RuntimeError, HTTPException) as error:
        what = " ".join(str(error).split()) or type(error).__name__
        raise SystemExit(f"{url}: cannot be had ({what}); put this file at {path}, or set TORCH_HOME") from error
    if not found.startswith(sha256):
        begin = "" if len(sha256) == 64 else " one that begins with"
        raise SystemExit(f"{path}: has the SHA-256 {found}, expected{begin} {sha256}; delete it")
    return path
