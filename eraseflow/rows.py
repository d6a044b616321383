"""What a row of the table trains: the module and settings of each of its parts, and the code that they run.

dvc.yaml cannot look up which module a row has, so that trainings depend on what is written here.
"""

import ast
import hashlib
from collections.abc import Iterator
from pathlib import Path

from eraseflow.outputs import replacing, write_json
from eraseflow.params import Params

ROOT = Path(__file__).parent.parent
# These decide no number.
READERS = {"eraseflow", "eraseflow.params", "eraseflow.mistakes", "eraseflow.hub", "eraseflow.outputs"}


def write(params: Params, out: Path) -> None:
    """`out`/<testbed>/<row>.json for every testbed that a row has settings for: its parts in order."""
    with replacing(out) as unfinished:
        for row in params.methods:
            for testbed in params.testbeds:
                if not params.lacking(row, testbed):
                    write_json(parts(params, row, testbed), unfinished / testbed / f"{row}.json")


def parts(params: Params, row: str, testbed: str) -> list[dict]:
    """Of each part: module, settings as params.yaml has them (`kinds` too), and `sha256`, see `code`."""
    found = []
    for part in params.parts(row):
        module = params.module(part)
        found.append({"module": module, "settings": params.raw_settings(part, testbed), "sha256": code(module)})
    return found


def code(method: str) -> dict[str, str]:
    """SHA-256 of the source of a method's module and of all that it imports of this package, but for READERS."""
    found: dict[str, str] = {}
    waiting = [f"eraseflow.methods.{method}"]
    while waiting:
        module = waiting.pop()
        if module not in found and module not in READERS and (source := _source(module)):
            found[module] = hashlib.sha256(source).hexdigest()
            waiting += _imported(source)
    return dict(sorted(found.items()))


def _source(module: str) -> bytes | None:
    """The text of a module; None of what is none, such as a class that is imported from one."""
    path = ROOT.joinpath(*module.split("."))
    return next((file.read_bytes() for file in (path.with_suffix(".py"), path / "__init__.py") if file.is_file()), None)


def _imported(source: bytes) -> Iterator[str]:
    """What a module imports of this package, wherever in it: modules, and names that may be modules."""
    for node in ast.walk(ast.parse(source)):
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import | ast.ImportFrom) else []
        if isinstance(node, ast.ImportFrom):
            names = [node.module or "", *(f"{node.module}.{name}" for name in names)]
        yield from (name for name in names if name.split(".")[0] == "eraseflow")
