"""DVC, as `python -m dvc`, but for what it does with its records and with params.yaml.

Records are replaced as a whole instead of being written in place: killed meanwhile, DVC would leave the first lines of
dvc.lock, and the next run would take every other stage, the base model's training too, for one never run. Of dvc.lock
just the lines of the stage that has run are made anew, see lock_file.py.

params.yaml it parses once, not for every stage: a third of the time of a run that has nothing to do.

Before DVC's own arguments may stand where stages run, of which several then run at once (see at_once.py): `--slots=`
with a JSON list of the environment variables of each place on this machine, or `--engine=` with a scheduler's address.
"""

import copy
import functools
import json
import re
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from dvc.cli import main
from dvc.dvcfile import Lockfile
from dvc.utils.serialize import LOADERS, _common, _yaml, parse_yaml

from eraseflow.outputs import replacing
from eraseflow.project import at_once, lock_file
from eraseflow.run.engine import Engine

RUNNING = Path(".dvc/tmp/rwlock")  # which files which process of DVC works on


def dump(path: str, data: Any, dumper: Callable[..., Any], fs: Any = None, **options: Any) -> None:
    """In the place of DVC's function of these arguments."""
    with replacing(Path(path).resolve()) as unfinished, unfinished.open("w", encoding="utf-8") as stream:
        dumper(data, stream, **options)


def load(path: str, fs: Any = None, **options: Any) -> Any:
    """In the place of DVC's function of these arguments."""
    return copy.deepcopy(_common._load_data(path, parser=parsed, fs=fs, **options))


@functools.lru_cache(maxsize=4)
def parsed(text: str, path: str) -> Any:
    return parse_yaml(text, path)


def heal() -> None:
    """Remove the list of running processes where a kill has left half of it: with that DVC would run nothing more."""
    with suppress(FileNotFoundError):
        try:
            json.loads(RUNNING.read_text(encoding="utf-8"))
        except ValueError:
            RUNNING.unlink()


def patch() -> None:
    """Let DVC in this process read and write its files as said above."""
    _common._dump_data = _yaml._dump_data = dump
    Lockfile.dump_stages = lock_file.dump_stages
    LOADERS[".yaml"] = load
    heal()


if __name__ == "__main__":
    patch()
    arguments = sys.argv[1:]
    while arguments and (given := re.fullmatch(r"--(slots|engine)=(.+)", arguments[0])):
        at_once.use(Engine(json.loads(given[2])) if given[1] == "slots" else Engine([], given[2]))
        del arguments[0]
    sys.exit(main(arguments))
