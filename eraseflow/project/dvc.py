"""DVC, as `python -m dvc`, but for what it does with its records and with params.yaml.

Records are replaced as a whole instead of being written in place: killed meanwhile, DVC would leave the first lines of
dvc.lock, and the next run would take every other stage, the base model's training too, for one never run. And in
dvc.lock just the lines of the stage that has run are made anew. DVC reads and writes all of it after each stage, four
seconds for the default table: six minutes of a run of all its stages.

params.yaml it parses once, not for every stage: a third of the time of a run that has nothing to do.
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
from dvc.dvcfile import Lockfile, logger
from dvc.stage.serialize import to_lockfile
from dvc.utils.serialize import LOADERS, _common, _yaml, dumps_yaml, parse_yaml

from eraseflow.outputs import replacing

RUNNING = Path(".dvc/tmp/rwlock")  # which files which process of DVC works on
HEAD = "schema: '2.0'\nstages:\n"
dump_all = Lockfile.dump_stages


def dump(path: str, data: Any, dumper: Callable[..., Any], fs: Any = None, **options: Any) -> None:
    """In the place of DVC's function of these arguments."""
    with replacing(Path(path).resolve()) as unfinished, unfinished.open("w", encoding="utf-8") as stream:
        dumper(data, stream, **options)


def dump_stages(lockfile: Lockfile, stages: list, **options: Any) -> None:
    """In the place of DVC's method: replace the lines of these stages in dvc.lock, or add them at its end."""
    path = Path(lockfile.path).resolve()
    text = path.read_text(encoding="utf-8") if path.is_file() else ""
    head, *blocks = re.split(r"^(?=  \S)", text, flags=re.MULTILINE)
    if head != HEAD or re.search(r"^[^ ]", "".join(blocks), re.MULTILINE):  # new, or with something else in it
        return dump_all(lockfile, stages, **options)
    found = {block.partition("\n")[0]: block for block in blocks}
    for stage in stages:
        for name, record in to_lockfile(stage, **options).items():
            _, _, block = dumps_yaml({"stages": {name: record}}).partition("\n")
            found[block.partition("\n")[0]] = block
    if (changed := head + "".join(found.values())) != text:
        logger.info("Updating lock file '%s'", lockfile.relpath)
        with replacing(path) as unfinished:
            unfinished.write_text(changed, encoding="utf-8")
        lockfile.repo.scm_context.track_file(lockfile.relpath)


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


if __name__ == "__main__":
    _common._dump_data = _yaml._dump_data = dump
    Lockfile.dump_stages = dump_stages
    LOADERS[".yaml"] = load
    heal()
    sys.exit(main(sys.argv[1:]))
