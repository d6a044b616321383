"""A copy of the project in which the sd14 table is cut down to a rehearsal, with what a user brings to it made up."""

import hashlib
import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import yaml
from PIL import Image

from eraseflow import launcher, timings, work_copy
from eraseflow.judges import imagenet_objects
from eraseflow.metrics import clean_fid_inception

CONCEPTS, METHODS = ["nudity", "van_gogh"], ["original", "eraseflow", "esd", "uce"]
ATTACKS = ["random_prefix", "unlearndiffatk"]
MADE = ["pictures", "words", "base", "judges", "cards"]  # the emoji testbed's stages, whose results are in git
TEXTS = ["a harbour at dawn", "a lamp", "two chairs under a tree", "a letter on a table", "rain", "a red kite"]
CAPTIONS = 48
QUESTIONS = ["question,about,answer", "Is there a lamp in the picture?,concept,no", "Is the picture sharp?,rest,yes"]


@dataclass(frozen=True)
class Size:
    """prompts: of each concept's own; kept: prompts that it must keep; steps: of the solver; rounds: of an attack."""

    prompts: int
    kept: int
    steps: int
    rounds: int


def copy(project: Path, folder: Path) -> None:
    """The project's files, without what git ignores and its results, and a DVC cache of its own.

    What the copy has computed stays.

    Of dvc.lock, which DVC reads and writes after every stage, it gets what is not of the project's cells.
    """
    listed = _call(project, "git", "ls-files", "-co", "--exclude-standard", "-z").split("\0")
    for name in filter(None, listed):
        result = name.startswith("reports/") and not name.startswith((*work_copy.READ, f"reports/{timings.FILE}"))
        if (project / name).is_file() and name != "dvc.lock" and not result:
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(project / name, folder / name)
    if not (folder / "dvc.lock").exists():
        record = work_copy.read_lock(project / "dvc.lock")
        work_copy.write_lock(folder / "dvc.lock", {name: stage for name, stage in record.items() if name in MADE})
    _call(folder, "git", "init", "-q")
    dvc = [sys.executable, "-m", "dvc"]
    _call(folder, *dvc, "config", "--local", "cache.type", "reflink,hardlink,symlink,copy")
    _call(folder, *dvc, "freeze", *MADE)


def accept(folder: Path, hashes: dict[str, str]) -> None:
    """Let the copy's code take these files instead of the published ones, whose hashes it names.

    Everything else is found by its pinned commit in the Hub's cache, where a file's name is its hash.
    """
    published = {
        clean_fid_inception.FILE: ("metrics/clean_fid_inception.py", f'"{clean_fid_inception.SHA256}"'),
        imagenet_objects.WEIGHTS.url.rpartition("/")[2]: (
            "judges/imagenet_objects.py",
            'Path(name).stem.rpartition("-")[2]',
        ),
    }
    for name, sha256 in hashes.items():
        module, old = published[name]
        path = folder / "eraseflow" / module
        text = path.read_text()
        assert text.count(old) == 1, f"{path}: {old} is not there once; the rehearsal must be told of its new form"
        path.write_text(text.replace(old, f'"{sha256}"'))


def params(folder: Path, size: Size, change: Callable[[dict], None] = lambda raw: None) -> None:
    """Cut params.yaml down. ESD-u for nudity, whose optimiser takes 14 GB, becomes ESD-x."""
    path = folder / "params.yaml"
    raw = yaml.safe_load(path.read_text())
    raw["table"] |= {"testbed": "sd14", "concepts": CONCEPTS, "methods": METHODS, "attacks": ATTACKS}
    raw["testbeds"]["sd14"]["i2p"] = "data/i2p.csv"
    raw["testbeds"]["sd14"]["sampling"]["steps"] = size.steps
    for name in CONCEPTS:
        raw["concepts"][name]["kept"]["count"] = size.kept
    raw["concepts"]["nudity"]["scored_by"] = ["imagenet_objects", "vqa"]
    raw["concepts"]["nudity"]["judge"]["questions"] = "data/questions.csv"
    raw["methods"]["eraseflow"]["sd14"] |= {"epochs": 1, "num_steps": 5}
    raw["methods"]["esd"]["sd14"] |= {"iterations": 1, "num_steps": 2, "kinds": {"category": {"variant": "x"}}}
    raw["attacks"]["random_prefix"]["sd14"]["rounds"] = size.rounds
    raw["attacks"]["unlearndiffatk"]["sd14"] |= {"rounds": size.rounds, "iterations": 1}
    change(raw)
    path.write_text(yaml.safe_dump(raw, sort_keys=False))


def data(folder: Path, size: Size) -> None:
    """What a user downloads and accepts: I2P's table with harmless texts, COCO's pictures and captions, paintings."""
    texts = TEXTS[: size.prompts]
    (folder / "data" / "i2p.csv").write_text("\n".join(["prompt", *texts]) + "\n")
    rows = [f"{case},{hashlib.sha256(text.encode()).hexdigest()},6,{case},7,False" for case, text in enumerate(texts)]
    (folder / "data" / "questions.csv").write_text("\n".join(QUESTIONS) + "\n")
    header = "case_number,sha256,tokens,seed,guidance,minor_related_term"
    (folder / "prompts/sd14/nudity.csv").write_text("\n".join([header, *rows]) + "\n")
    path = folder / "prompts/sd14/van_gogh.csv"
    path.write_text("\n".join(path.read_text().splitlines()[: 1 + size.prompts]) + "\n")
    (folder / "prompts/sd14/kept.csv").write_text(f"coco_val2014_captions,seed\n{CAPTIONS // 2},0\n")
    coco, rng = folder / "data" / "coco", np.random.default_rng(0)
    names = [f"COCO_val2014_{n:012d}.jpg" for n in range(CAPTIONS)]
    for n, name in enumerate(names):
        _picture(coco / "val2014" / name, (480, 640 - n, 3), rng)
    pictures = [{"id": n, "file_name": name} for n, name in enumerate(names)]
    captions = [{"id": 100 + n, "image_id": n, "caption": f"A bowl of {n} lemons."} for n in range(CAPTIONS)]
    (coco / "captions_val2014.json").write_text(json.dumps({"images": pictures, "annotations": captions}))
    for n in range(3):
        _picture(folder / "data/references/van_gogh" / f"{n}.png", (300, 400, 3), rng)


def _picture(path: Path, shape: tuple[int, int, int], rng: np.random.Generator) -> None:
    """A picture of soft blots."""
    path.parent.mkdir(parents=True, exist_ok=True)
    coarse = Image.fromarray(rng.integers(0, 256, (6, 8, 3), np.uint8))
    coarse.resize((shape[1], shape[0]), Image.Resampling.BICUBIC).save(path)


def _call(folder: Path, *command: str) -> str:
    done = subprocess.run(command, cwd=folder, env=launcher.environment(), capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)}: {(done.stderr.strip().splitlines() or ['failed'])[-1]}")
    return done.stdout
