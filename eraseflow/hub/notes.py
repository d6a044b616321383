"""What we know of a commit, kept beside huggingface_hub's folders, or in the project where that cache is read-only."""

import contextlib
import json
from pathlib import Path
from typing import Any

from huggingface_hub import constants

from eraseflow.outputs import CannotWrite, write_json

OWN = Path(".work/hub")


def read(address: dict[str, Any], kind: str) -> dict[str, Any]:
    """The note of this kind, "hashes" or "checked", on a commit; empty where there is none or it is damaged."""
    for path in _places(address, kind):
        with contextlib.suppress(OSError, ValueError):
            if isinstance(content := json.loads(path.read_text(encoding="utf-8")), dict):
                return content
    return {}


def write(address: dict[str, Any], kind: str, content: dict[str, Any]) -> None:
    """Whole or not at all. A note spares time and no more, so that nothing fails for want of one."""
    for path in _places(address, kind):
        with contextlib.suppress(OSError, CannotWrite):
            write_json(content, path)
            return


def _places(address: dict[str, Any], kind: str) -> list[Path]:
    name = "--".join([address["repo_type"], *address["repo_id"].split("/"), address["revision"]])
    return [folder / f"{name}.{kind}.json" for folder in (Path(constants.HF_HUB_CACHE) / "eraseflow", OWN)]
