"""What earlier tables have left among the cells is put aside, and comes back with its table.

The report depends on data/cells and data/concepts as a whole, since dvc.yaml cannot list a table's cells. With others
among them dvc.lock would have a hash that a fresh clone, which makes the table alone, does not come to.
"""

import re
from collections.abc import Iterator, Mapping
from contextlib import suppress
from itertools import product
from pathlib import Path
from typing import Any

import yaml

from eraseflow.outputs import move
from eraseflow.project.locks import WORK

FOLDERS, ASIDE = (Path("data/cells"), Path("data/concepts")), WORK / "left_over"
IGNORED = ("timing-", ".")  # by .dvcignore


def put_aside(table: Mapping[str, Any]) -> None:
    """Move what no stage of the table writes from FOLDERS to ASIDE, and what one writes again back, with timings."""
    wanted = outputs(yaml.safe_load(Path("dvc.yaml").read_text(encoding="utf-8"))["stages"], table)
    for folder in FOLDERS:
        for path in list(_others(folder, wanted)):
            if _moved(path, ASIDE / path):
                print(f"{path}: is not of this table; it waits in {ASIDE} until it is", flush=True)
    for path in wanted:
        if (ASIDE / path).exists() and not path.exists() and _moved(ASIDE / path, path):
            for record in (ASIDE / path).parent.glob("timing-*"):
                _moved(record, path.with_name(record.name))


def outputs(stages: Mapping[str, Any], table: Mapping[str, Any]) -> set[Path]:
    """The paths that dvc.yaml's stages write for a table (`table` of params.yaml)."""
    found = set()
    for stage in stages.values():
        lists = [_filled(values, table) for values in stage.get("matrix", {}).values()]
        for item in product(*lists):
            items = dict(zip(stage.get("matrix", {}), item, strict=True))
            for out in [*stage.get("outs", []), *stage.get("metrics", [])]:
                found.add(Path(_filled(out if isinstance(out, str) else next(iter(out)), table, items)))
    return found


def _filled(text: Any, table: Mapping[str, Any], items: Mapping[str, str] | None = None) -> Any:
    """`${table.<key>}` and `${item.<key>}` replaced; what is one of these alone may be a list."""
    if isinstance(text, list):
        return [_filled(one, table, items) for one in text]
    known = {"table": table, "item": items or {}}
    if whole := re.fullmatch(r"\$\{(\w+)\.(\w+)\}", text):
        return known[whole[1]][whole[2]]
    return re.sub(r"\$\{(\w+)\.(\w+)\}", lambda place: str(known[place[1]][place[2]]), text)


def _others(folder: Path, wanted: set[Path]) -> Iterator[Path]:
    """Below a folder, the outermost that neither is wanted nor leads to what is."""
    for path in sorted(folder.iterdir()) if folder.is_dir() else ():
        if path in wanted or path.name.startswith(IGNORED):
            continue
        if path.is_dir() and any(one.is_relative_to(path) for one in wanted):
            yield from _others(path, wanted)
        else:
            yield path


def _moved(path: Path, place: Path) -> bool:
    """False where it has to stay, as where the two are on different disks."""
    with suppress(OSError):
        place.parent.mkdir(parents=True, exist_ok=True)
        move(path, place)
        return True
    return False
