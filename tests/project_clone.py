"""A clone of the project with a table of little work, and what `python -m eraseflow repro` runs in it."""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from functools import cache
from pathlib import Path

import yaml

from eraseflow import work_copy
from eraseflow.stage import SOCKET

ROOT = Path(__file__).parent.parent
ENVIRONMENT = os.environ | {"OMP_NUM_THREADS": "1", "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
ENVIRONMENT |= {"ERASEFLOW_DEVICE": "cpu"}

# Stages whose results are in git. A clone takes these as they are, for to train them takes hours.
IN_GIT = ["pictures", "words", "base", "judges"]
# And whose results a clone takes though its params are others: the exam of 2,500 pictures, see test_emoji.py.
FROZEN = [*IN_GIT, "cards"]
OF_REPORTS = ["matplotlib.pyplot", "statsmodels.stats.contingency_tables", "statsmodels.stats.proportion"]


def call(folder: Path, *command: str, check: bool = True, **variables: str) -> subprocess.CompletedProcess:
    done = subprocess.run(command, cwd=folder, env=ENVIRONMENT | variables, capture_output=True, text=True)
    assert done.returncode == 0 or not check, done.stdout[-2000:] + done.stderr[-3000:]
    return done


@cache
def _serving() -> tuple[subprocess.Popen, str]:
    """The launcher, its server waiting for stages until our end of a pipe closes, with us; and the server's address."""
    code = "import sys; from eraseflow import launcher; launcher.run(sys.argv[1:4], [*launcher.PRELOAD, *sys.argv[4:]])"
    command = [sys.executable, "-c", code, "sh", "-c", 'echo "$ERASEFLOW_SERVER"; exec cat', *OF_REPORTS]
    running = subprocess.Popen(
        command, cwd=ROOT, env=ENVIRONMENT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert running.stdout
    return running, running.stdout.readline().strip()


def hand_over(folder: Path) -> dict[str, str]:
    """Variables with which a stage of the clone finds a server, the same one for all clones and calls.

    What stages import is so imported once in the whole test run, where each `python -m eraseflow` does it anew.
    """
    return {SOCKET: _serving()[1], "PYTHONPATH": str(folder)}


def as_stage(module: str, folder: Path) -> str:
    """A script in this folder that runs what `python -m eraseflow.<module>` does, by a server where one listens."""
    path = folder / "as_stage.py"
    path.write_text(
        f'from eraseflow import {module}, stage\n\nif __name__ == "__main__":\n    stage.run({module}.main)\n'
    )
    return str(path)


def repro(folder: Path, *for_dvc: str, jobs: int = 2) -> set[str]:
    """Run the chain, so many stages at once; the stages that it ran."""
    command = [sys.executable, "-m", "eraseflow", "repro", f"--jobs={jobs}", "--", *for_dvc]
    done = call(folder, *command, **hand_over(folder))
    return set(re.findall(r"^Running stage '(.+)'", done.stdout, re.MULTILINE))


def edit_params(folder: Path, change) -> None:
    path = folder / "params.yaml"
    raw = yaml.safe_load(path.read_text())
    change(raw)
    path.write_text(yaml.safe_dump(raw, sort_keys=False))


def only(raw: dict, concepts: Sequence[str], methods: Sequence[str], attacks: Sequence[str]) -> None:
    """Leave these blocks: DVC copies all that there are into dvc.lock, and reads and writes that after every stage."""
    for family, names in {"concepts": concepts, "methods": methods, "attacks": attacks}.items():
        raw[family] = {name: raw[family][name] for name in names}
    for block in ("tuning", "claims"):  # whose names are not all among these
        raw.pop(block, None)


def shorten(raw: dict) -> None:
    """One concept, two methods, one attack, few steps; of further ones what is soon computed."""
    methods = ["original", "uce", "eraseflow", "esd", "esd_u", "safree"]
    only(raw, ["unicorn", "champagne_bottle", "weapon"], methods, ["random_prefix", "unlearndiffatk"])
    raw["table"] |= {"concepts": ["unicorn"], "methods": ["original", "uce"], "attacks": ["random_prefix"]}
    raw["testbeds"]["emoji"]["sampling"]["steps"] = 2
    raw["attacks"]["random_prefix"]["emoji"]["rounds"] = 1
    raw["attacks"]["unlearndiffatk"]["emoji"] |= {"rounds": 1, "iterations": 1}
    for name in ("esd", "esd_u"):
        raw["methods"][name]["emoji"] |= {"iterations": 1, "num_steps": 2}
    raw["methods"]["eraseflow"]["emoji"] |= {"epochs": 1, "num_steps": 5, "skip_last": 0, "batch_size": 1}
    for concept in raw["concepts"].values():
        concept["kept"]["count"] = 9  # as many as champagne_bottle has neighbours
        concept["preserve"] = concept["preserve"][:3]


def freeze(folder: Path, stage: str) -> None:
    """Let DVC take this stage's outputs as they are, whatever params say."""
    path = folder / "dvc.yaml"
    path.write_text(path.read_text().replace(f"\n  {stage}:\n", f"\n  {stage}:\n    frozen: true\n"))


def without_figures(folder: Path) -> None:
    """Let stand-ins take the place of the report's figures, which take longer than all the rest of it."""
    for name, function in {
        "plots": 'encode(figure, kind):\n    return b"a figure"\n',
        "published_figure": "published(*_, **__):\n    return Figure()\n",
    }.items():
        with (folder / "eraseflow" / "report" / f"{name}.py").open("a") as module:
            module.write(f"\n\ndef {function}")


def few_prompts(folder: Path, count: int) -> None:
    """Leave so many of each concept's own prompts."""
    for prompts in (folder / "prompts" / "emoji").glob("*.csv"):
        if prompts.stem != "kept":
            lines = prompts.read_text(encoding="utf-8").splitlines()
            prompts.write_text("\n".join(lines[: 1 + count]) + "\n", encoding="utf-8")


def clone(folder: Path) -> Path:
    """Copy the working tree, without what git ignores and what nothing reads: former tables and the record of cells."""
    listed = call(ROOT, "git", "ls-files", "-co", "--exclude-standard", "-z").stdout.split("\0")
    for name in filter(None, listed):
        if (ROOT / name).is_file() and not name.startswith("reports/full/"):
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, folder / name)
    lock = folder / "dvc.lock"
    work_copy.write_lock(lock, {name: stage for name, stage in work_copy.read_lock(lock).items() if "@" not in name})
    for stage in FROZEN:
        freeze(folder, stage)
    call(folder, "git", "init", "-q")
    return folder


def cells(concepts, methods, attacks) -> set[str]:
    """The stages of these cells, without those of the concepts and the report."""
    pairs = [f"{concept}-{method}" for concept in concepts for method in methods]
    return {f"{stage}@{pair}" for stage in ("train", "sample", "score") for pair in pairs} | {
        f"attack@{attack}-{pair}" for attack in attacks for pair in pairs
    }
