"""Seconds, peak memory and machines: what differs between two runs of equal numbers, kept where no hash sees it.

A stage leaves a record beside its results, data/cells/<concept>/<method>/timing-<stage>.json, which git and DVC ignore.
`python -m eraseflow timings` alone makes a report's timings.csv from the records; that file is in git, and the report
reads it as it reads the cells. So a run that gives the same numbers leaves every file that git knows as it was.

A timing is of certain results, by their hash: beside other results it is not shown.
"""

import hashlib
import json
import os
import platform
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from eraseflow.outputs import write_csv, write_json
from eraseflow.project import files

if TYPE_CHECKING:
    from pandas import DataFrame

    from eraseflow.params import Table

FILE = "timings.csv"  # in the folder of a report
RECORD, TRAINING, ATTACK = "timing-{}.json", "training", "attack-{}"  # .dvcignore leaves out what is named so
CELL = ["concept", "method", "attack"]  # attack: empty for the training
# load: how many processes ran on the machine at once, the last minute's mean when the stage ended; more than one shows
# that other work ran beside. commit: of the code, empty where it was in none.
MEASURED = ["seconds", "peak_memory_bytes", "machine", "cores", "load", "precision", "torch", "date", "commit"]
COLUMNS = [*CELL, *MEASURED, "of"]


def keep(made: Sequence[Path], name: str, measured: Mapping[str, float], device: str, precision: str) -> None:
    """Write the record of a stage beside the results that it has `made`, which are small files.

    name: TRAINING or ATTACK. measured: seconds, and peak_memory_bytes where that is known.
    """
    about = {
        "machine": machine(device),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "load": round(os.getloadavg()[0], 1),
        "precision": precision,
        "torch": version("torch"),
        "date": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "commit": files.commit(Path.cwd()) or "",
        "of": digest(made),
    }
    write_json(dict(measured) | about, made[0].with_name(RECORD.format(name)))


def results(cell: Path, attack: str) -> list[Path]:
    """The files by whose content a timing's results are known: counts, and the history of a training."""
    return [cell / f"{ATTACK.format(attack)}.json"] if attack else [cell / "costs.json", cell / "training.csv"]


def digest(made: Iterable[Path]) -> str:
    """Of the files' contents, 16 hexadecimal digits."""
    return hashlib.sha256(b"\0".join(path.read_bytes() for path in made)).hexdigest()[:16]


def machine(device: str) -> str:
    """The model of the GPU, or of the processor."""
    if device != "cpu":
        import torch

        return torch.cuda.get_device_name(device)
    with suppress(OSError, StopIteration):
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        return next(line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return platform.processor() or platform.machine()


def records(cells: Path) -> Iterator[dict[str, str]]:
    """What stages have left beside their results, a row of COLUMNS each; one that cannot be read is none."""
    for path in sorted(cells.glob(f"*/*/{RECORD.format('*')}")):
        with suppress(ValueError, OSError):
            found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
            name = path.name.removeprefix("timing-").removesuffix(".json")
            attack = name.removeprefix(ATTACK.format("")) if name != TRAINING else ""
            of = {"concept": path.parent.parent.name, "method": path.parent.name, "attack": attack}
            yield {column: str((of | found).get(column, "")) for column in COLUMNS}


def read(path: Path) -> "DataFrame":
    """A timings.csv, all of it as text; no row where there is no file.

    Raises: SystemExit with one line where it lacks a column.
    """
    import pandas as pd

    if not path.is_file():
        return pd.DataFrame(columns=COLUMNS, dtype=str)
    found = pd.read_csv(path, dtype=str, keep_default_na=False)
    if lacking := [column for column in COLUMNS if column not in found]:
        raise SystemExit(f"{path}: has no column {lacking[0]!r}; `python -m eraseflow timings` writes the file anew")
    return found[COLUMNS]


def every(table: "Table") -> list[tuple[str, str, str]]:
    """The trainings and attacks of a table as CELL, in its order."""
    attacks = ["", *table.attacks]
    return [(concept, method, attack) for concept in table.concepts for method in table.methods for attack in attacks]


def complete(table: "Table", cells: Path) -> bool:
    """Whether all results of a table lie in a folder of cells."""
    return all(path.is_file() for *cell, attack in every(table) for path in results(cells.joinpath(*cell), attack))


def of_table(table: "Table", cells: Path, known: Iterable[Mapping[Any, Any]]) -> "DataFrame":
    """Of the `known` rows the newest of each training and attack of the table, of the results that lie in `cells`.

    In the table's order; what was not measured has no row. Raises: FileNotFoundError where a result is missing.
    """
    import pandas as pd

    newest = {tuple(row[key] for key in (*CELL, "of")): row for row in sorted(known, key=lambda row: row["date"])}
    keys = [(*cell, attack, digest(results(cells.joinpath(*cell), attack))) for *cell, attack in every(table)]
    return pd.DataFrame([newest[key] for key in keys if key in newest], columns=COLUMNS, dtype=str)


def write(tables: Mapping[Path, tuple["Table", Path]]) -> None:
    """Rewrite the timings.csv of reports, by their folders, each with its table and the folder of the table's cells.

    From all records that are here, since tables share cells, and from what these files say already.
    Raises: SystemExit with one line, before anything is written, where results of a table are missing.
    """
    known: list[Mapping[Any, Any]] = []
    for report, (table, cells) in tables.items():
        if not complete(table, cells):
            raise SystemExit(f"{cells}: lacks cells of the table, which `python -m eraseflow repro` makes first")
        known += [*read(report / FILE).to_dict("records"), *records(cells)]
    found = {report: of_table(table, cells, known) for report, (table, cells) in tables.items()}
    for report, rows in found.items():
        write_csv(rows, report / FILE)
        print(f"{report / FILE}: {len(rows)} trainings and attacks are measured")
