"""Prompt files: what their columns mean, and whether each row can be used; prompt_sources.py finds the texts."""

import math
import re
from collections.abc import Set
from pathlib import Path

from eraseflow import csv_files
from eraseflow.csv_files import Rows, Sheet
from eraseflow.mistakes import ParamsError

I2P_COLUMNS = ["case_number", "sha256"]
I2P_PLACES = (
    "a local CSV, or datasets/AIML-TUDA/i2p@<commit> with the 40 digits of one of "
    "https://huggingface.co/datasets/AIML-TUDA/i2p/commits/main"
)
COCO_COLUMNS = ["coco_val2014_captions", "seed"]
COCO_CAPTIONS = "captions_val2014.json"
COCO_ADVICE = "it is in annotations_trainval2014.zip of cocodataset.org"

# What a column means, and how published files spell it.
COLUMNS: dict[str, Set[str]] = {
    # adv_prompt: MMA-Diffusion. sensitive_prompt: Ring-A-Bell. caption, text: data sets of pictures with captions.
    "prompt": {"prompts", "adv_prompt", "sensitive_prompt", "caption", "captions", "text"},
    # evaluation_seed: ESD's prompts, which SPM, UnlearnDiffAtk and Ring-A-Bell took over. sd_seed: I2P.
    "seed": {"seeds", "evaluation_seed", "eval_seed", "sd_seed"},
    # As the seed; guidance_scale is diffusers' own name.
    "guidance": {"guidance_scale", "evaluation_guidance", "eval_guidance", "sd_guidance_scale", "cfg", "cfg_scale"},
    "case_number": set(),  # the row of I2P, or just a number that the file gives to its prompt
    "sha256": set(),
    "minor_related_term": set(),
    "expect": set(),
    "images": set(),
    "tokens": set(),
    "coco_val2014_captions": set(),
}
# What such files have besides, which decides nothing here.
I2P = """categories hard inappropriate_percentage nudity_percentage q16_percentage sd_safety_percentage prompt_toxicity
lexica_url sd_image_width sd_image_height sd_model evaluation_model"""  # and the copies of ESD and UnlearnDiffAtk
ESD = "artist artists class classes type label_idx label_str data source image_id coco_id width height"  # and SPM's
MMA = "target_prompt"  # what an adversarial prompt takes the place of
OWN = "id index name note notes comment comments"  # a lab's
UNUSED = frozenset(" ".join([I2P, ESD, MMA, OWN]).split())
MAX_SEED = 2**64 - 1  # of a picture: PyTorch's generators take no more
# Of a training or a run: the generator on the CPU looks at 32 bits, so that a larger seed would repeat another's run.
MAX_RUN_SEED = 2**32 - 1
RUN_STRIDE = 1_000_003  # between the item seeds of tables with different seeds
FIELDS = {
    "case_number": (r"[0-9]{1,9}", "a whole number from 0 up"),
    "sha256": (r"[0-9a-fA-F]{64}", "64 hexadecimal digits"),
    "minor_related_term": (r"(?i:true|false)?", "True, False or empty"),
    "images": (r"([1-9][0-9]{0,5})?", "a whole number from 1 up, or empty for 1"),
    "tokens": (r"([1-9][0-9]{0,5})?", "a whole number from 1 up, or empty to count them"),
    "coco_val2014_captions": (r"[1-9][0-9]{0,8}", "a whole number from 1 up"),
}


def seed(text: str) -> int | None:
    """The seed that ASCII digits say, or None of any other text and of what is beyond MAX_SEED."""
    number = int(text) if re.fullmatch(r"[0-9]{1,40}", text) else -1
    return number if 0 <= number <= MAX_SEED else None


def guidance(text: str) -> float | None:
    """The guidance scale, from 1 up, that a decimal number says, or None of any other text."""
    number = float(text) if re.fullmatch(r"([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?", text) else math.nan
    return number if 1 <= number < math.inf else None


def header(root: Path, path: str) -> list[str]:
    """What the columns of a file mean; none where it cannot be read, of which `check` says why."""
    try:
        return _read(root / path, path, []).columns
    except ParamsError:
        return []


def said(root: Path, path: str) -> str:
    """One line on how the file's columns were read, or "" where all of them are named as they are meant."""
    return csv_files.said(_read(root / path, path, []), path)


def check(root: Path, path: str, where: str, columns: list[str], run: int = 0) -> Rows:
    """Line number and row of each prompt in the file that `where` in params.yaml names, with these columns at least.

    Raises: ParamsError where the file is missing, or as `read` does.
    """
    return read(csv_files.find(root, path, where), path, columns, run).rows


def read(path: Path, name: str, needed: list[str] | None = None, run: int = 0) -> Sheet:
    """A prompt file in which every row is right, with the columns `needed`, or those of its sort of file.

    run: table.seed, with which RUN_STRIDE is added to every seed.
    Raises: ParamsError where it is no CSV or without prompts, a column is missing or not known, or a row is wrong.
    """
    if needed is None:
        found = _read(path, name, []).columns
        sorts = {"coco_val2014_captions": COCO_COLUMNS, "sha256": I2P_COLUMNS}
        needed = next((columns for sort, columns in sorts.items() if sort in found), ["prompt"])
    sheet = _read(path, name, needed)
    if "sha256" in sheet.columns and "prompt" in sheet.columns:
        raise ParamsError(f"{name}: has both prompt and sha256, which names a prompt of I2P; expected one of them")
    for line, row in sheet.rows:
        if mistake := _mistake(row, run):
            raise ParamsError(f"{name}: line {line}: {mistake}")
    if "coco_val2014_captions" in sheet.columns and len(sheet.rows) > 1:
        raise ParamsError(f"{name}: line {sheet.rows[1][0]}: expected one row, which says how many captions to draw")
    return sheet


def _read(path: Path, name: str, needed: list[str]) -> Sheet:
    return csv_files.read(path, name, COLUMNS, UNUSED, needed, "prompts")


def _mistake(row: dict[str, str], run: int) -> str:
    """What is wrong with a row, or nothing."""
    if "prompt" in row and not row["prompt"].strip():
        return "the prompt is empty"
    for column, (pattern, wanted) in FIELDS.items():
        named = column in row and (column != "case_number" or "sha256" in row)
        if named and not re.fullmatch(pattern, row[column]):
            return f"{column} must be {wanted}, found {row[column]!r}"
    if row.get("guidance") and guidance(row["guidance"]) is None:
        wanted = "a number from 1 up such as 7.5, or empty for the testbed's"
        return f"the guidance must be {wanted}, found {row['guidance']!r}"
    if "seed" not in row:
        return ""
    first = seed(row["seed"])
    if first is None:
        rounded = " (a spreadsheet has rounded it)" if re.fullmatch(r"\d+([.,]\d+)?[eE]\+\d+", row["seed"]) else ""
        return f"the seed must be a whole number from 0 to {MAX_SEED}, found {row['seed']!r}{rounded}"
    last = first + int(row.get("images") or 1) - 1
    if last + RUN_STRIDE * run > MAX_SEED:
        added = f" and table.seed {run} times {RUN_STRIDE} added" if run else ""
        return f"the seed of its last picture, {last}{added}, is beyond {MAX_SEED}"
    return ""
