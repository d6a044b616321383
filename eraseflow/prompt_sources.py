"""Where the texts of a prompt file come from: the file itself, or a public data set that it names by id.

A file has one of three headers (and, if wanted, expect, seed, guidance, images, minor_related_term; prompt_files.py has
the other spellings of these):

- `prompt`: the text itself, with the case_number that it has elsewhere, if wanted.
- `case_number,sha256`: prompts of I2P (Schramowski et al., CVPR 2023, arXiv 2211.05105), whose texts are not for this
  repository. The case number is the row of I2P's table, counted from 0; the hash is of the exact text in UTF-8.
- `coco_val2014_captions,seed`: so many captions of COCO val2014, of different pictures, drawn by the seed.
"""

import hashlib
import json
import re
from collections.abc import Set
from pathlib import Path

import pandas as pd

from eraseflow import csv_files, hub, prompt_files
from eraseflow.csv_files import Sheet
from eraseflow.params import Testbed
from eraseflow.prompt_files import COCO_ADVICE, COCO_CAPTIONS
from eraseflow.safety import blocked

I2P_FILE = "i2p_benchmark.csv"


def read(path: Path) -> pd.DataFrame:
    """A prompt file as text, a column for each meaning: a prompt such as "null" is a prompt, an empty field is ""."""
    return _frame(prompt_files.read(path, str(path)))


def texts(path: str, testbed: Testbed, run: int = 0) -> pd.DataFrame:
    """The file's rows with three more columns: prompt, source (the id in a data set, or "") and blocked.

    source: "i2p/<case>" and "coco/<caption>" of what was looked up, "case/<number>" where the file has texts and
    numbers.
    blocked: why the safety gate lets nothing be generated from the row, or "". A flagged row's text is not looked up.
    run: table.seed, which the file's seeds must leave room for.
    Raises: SystemExit with one line where the file is wrong, or a data set is missing or is not the one that it was
    made from.
    """
    sheet = prompt_files.read(Path(path), path, run=run)
    rows = _frame(sheet)
    if "coco_val2014_captions" in rows:
        return captions(Path(testbed.coco or ""), int(rows.coco_val2014_captions[0]), int(rows.seed[0]))
    flagged = rows.get("minor_related_term", pd.Series("", rows.index)).str.lower() == "true"
    numbered = rows.get("case_number", pd.Series("", rows.index))
    kind = "i2p/" if "sha256" in rows else "case/"
    rows["source"] = [number and kind + number for number in numbered]
    if "sha256" in rows:
        table = i2p(testbed.i2p or "")
        ids = zip(rows.case_number, rows.sha256, flagged, sheet.rows, strict=True)
        rows["prompt"] = [
            "" if out else _checked(table, int(case), sha256, f"{path}: line {line}")
            for case, sha256, out, (line, _) in ids
        ]
    rows["blocked"] = [
        "its row is flagged" if out else blocked(prompt) or "" for prompt, out in zip(rows.prompt, flagged, strict=True)
    ]
    return rows


def _frame(sheet: Sheet) -> pd.DataFrame:
    return pd.DataFrame([row for _, row in sheet.rows], columns=sheet.columns)


def i2p(source: str) -> dict[int, str]:
    """I2P's prompts by case number, from a local CSV or the pinned data set on the Hub.

    Raises: SystemExit with one line where it cannot be had, or is not such a table.
    """
    path = Path(source) if source.endswith(".csv") else hub.file(source, I2P_FILE)
    if not path.is_file():
        raise SystemExit(f"{source}: there is no such file; it should be I2P's {I2P_FILE}")
    columns: dict[str, Set[str]] = {"prompt": set(), "case_number": set()}
    sheet = csv_files.read(path, source, columns, None, ["prompt"], "prompts", padded=False)  # hashed to the last space
    table: dict[int, str] = {}
    for place, (line, row) in enumerate(sheet.rows):
        case = row.get("case_number", str(place))
        if not re.fullmatch("[0-9]{1,9}", case):
            raise SystemExit(f"{source}: line {line}: case_number must be a whole number from 0 up, found {case!r}")
        if table.setdefault(int(case), row["prompt"]) != row["prompt"]:
            raise SystemExit(f"{source}: line {line}: has another prompt of case {case} than a line before it")
    return table


def _checked(table: dict[int, str], case: int, sha256: str, where: str) -> str:
    """The text of a case whose hash is right."""
    if case not in table:
        raise SystemExit(f"{where}: I2P has no case {case} in the {len(table)} rows found; are these all of it (4703)?")
    text = table[case]
    found = hashlib.sha256(text.encode()).hexdigest()
    if found != sha256.lower():
        raise SystemExit(f"{where}: I2P's case {case} has the SHA-256 {found[:16]}..., expected {sha256[:16]}...")
    return text


def captions(folder: Path, count: int, seed: int) -> pd.DataFrame:
    """COCO captions in an order drawn by the seed, each of another picture, until `count` have passed the safety gate.

    folder holds captions_val2014.json. Columns: prompt, source ("coco/<caption id>"), expect (the picture's file name
    in val2014/) and blocked. The order is that of the SHA-256 of "<seed> <caption id>", the same on every machine.
    Raises: SystemExit with one line where the file is missing, is no such file, or has too few captions.
    """
    path = folder / COCO_CAPTIONS
    try:
        content = json.loads(path.read_bytes())
        files = {picture["id"]: picture["file_name"] for picture in content["images"]}
        found = [(str(one["id"]), files[one["image_id"]], one["caption"]) for one in content["annotations"]]
    except OSError as error:
        raise SystemExit(f"{path}: {error.strerror}; {COCO_ADVICE}") from None
    except (ValueError, KeyError, TypeError) as error:
        raise SystemExit(f"{path}: is not COCO's file of captions ({error!r}); {COCO_ADVICE}") from None
    found.sort(key=lambda one: hashlib.sha256(f"{seed} {one[0]}".encode()).digest())
    rows, pictures, passed = [], set(), 0
    for number, picture, caption in found:
        if picture not in pictures and passed < count:
            prompt = " ".join(caption.split())
            why = blocked(prompt) or ""
            rows.append({"prompt": prompt, "source": f"coco/{number}", "expect": picture, "blocked": why})
            pictures.add(picture)
            passed += not why
    if passed < count:
        raise SystemExit(f"{path}: {passed} of its pictures have a caption that may be used, {count} are wanted")
    return pd.DataFrame(rows)
