"""Folders that are links to another disk: DVC runs the stages that write there and then does not record them."""

import os
import re
from collections.abc import Iterator
from pathlib import Path

import yaml

from eraseflow.project.files import has_git

HAVE_TO_BE = ("data", "reports", "models", ".work", ".dvc/cache")  # there, or still to be made
INSTEAD = "`dvc cache dir --local FOLDER` and `dvc config --local cache.type symlink` keep the results there"


def check() -> None:
    """Raises: SystemExit with one line that names the first link that DVC would refuse, or that leads nowhere.

    And where the project's own path has a sign that parts the folders in a list of them, as PYTHONPATH is one.
    """
    project = Path().resolve()
    if os.pathsep in str(project):
        raise SystemExit(f"{project}: a path with {os.pathsep!r} in it cannot be on Python's path; move the project")
    for name in HAVE_TO_BE:
        if Path(name).is_symlink() and not Path(name).is_dir():
            raise SystemExit(f"{name}: is a link to {Path(name).readlink()}, which is no folder; is its disk there?")
    for folder in _above_results() if has_git(project) else ():
        if folder.is_symlink() and not folder.resolve().is_relative_to(project):
            what = "outside of the project, where DVC records no results"
            raise SystemExit(f"{folder}: is a link to {folder.readlink()}, {what}; make it a folder, and {INSTEAD}")


def _above_results() -> Iterator[Path]:
    """The folders that are there and in which DVC keeps outputs in its cache, the upper ones first."""
    file = Path("dvc.yaml")
    stages = yaml.load(file.read_text(encoding="utf-8"), yaml.CSafeLoader)["stages"] if file.is_file() else {}
    patterns: dict[str, None] = {}
    for stage in stages.values():
        for out in [*stage.get("outs", []), *stage.get("metrics", [])]:
            if isinstance(out, str):  # else it says `cache: false`
                above = Path(re.sub(r"\$\{[^}]*\}", "*", out)).parents
                patterns |= dict.fromkeys(str(one) for one in reversed(above) if str(one) != ".")
    for pattern in sorted(patterns, key=lambda one: one.count("/")):
        yield from sorted(Path().glob(pattern))
