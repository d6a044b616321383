"""DVC, as `python -m dvc`, but its records are replaced as a whole instead of being written in place.

After each stage it writes all of dvc.lock, which takes a second for the default table. Killed meanwhile it would leave
the first lines, and the next run would take every other stage, the base model's training too, for one never run.
"""

import json
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from dvc.cli import main
from dvc.utils.serialize import _common, _yaml

from eraseflow.outputs import replacing

RUNNING = Path(".dvc/tmp/rwlock")  # which files which process of DVC works on


def dump(path: str, data: Any, dumper: Callable[..., Any], fs: Any = None, **options: Any) -> None:
    """In the place of DVC's function of these arguments."""
    with replacing(Path(path).resolve()) as unfinished, unfinished.open("w", encoding="utf-8") as stream:
        dumper(data, stream, **options)


def heal() -> None:
    """Remove the list of running processes where a kill has left half of it: with that DVC would run nothing more."""
    with suppress(FileNotFoundError):
        try:
            json.loads(RUNNING.read_text(encoding="utf-8"))
        except ValueError:
            RUNNING.unlink()


if __name__ == "__main__":
    _common._dump_data = _yaml._dump_data = dump
    heal()
    sys.exit(main(sys.argv[1:]))
