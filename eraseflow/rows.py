"""What a row of the table trains on a concept: module, settings and code of each of its parts, and what they read.

And the same of an attack. dvc.yaml cannot look up which module a row has, so that trainings and attacks depend on what
is written here.
"""

import ast
import hashlib
from collections.abc import Iterator
from pathlib import Path

from eraseflow.outputs import replacing, write_json
from eraseflow.outside import notes
from eraseflow.outside.content import digests
from eraseflow.params import Params

ROOT = Path(__file__).parent.parent
# These, with the modules below them, check, fetch and write, and decide no number.
READERS = {f"eraseflow.{name}" for name in ("params", "checks", "mistakes", "hub", "outputs", "outside")}


def write(params: Params, out: Path) -> None:
    """`out`/<testbed>/<row>/<concept>.json for every concept and all rows with settings for its testbed.

    One file a row and concept, so that what concerns one concept alone, such as its weights, leaves the others' cells.
    """
    modules = {params.module(part) for row in params.methods for part in params.parts(row)}
    sources = {module: code(module) for module in modules}
    with replacing(out) as unfinished:
        for concept, entry in params.concepts.items():
            for row in params.methods:
                if not params.lacking(row, entry.testbed):
                    parts = [_part(params, concept, part) for part in params.parts(row)]
                    found = [part | {"sha256": sources[part["module"]]} for part in parts]
                    write_json(found, unfinished / entry.testbed / row / f"{concept}.json")


def write_attacks(params: Params, out: Path) -> None:
    """`out`/<testbed>/<attack>/<concept>.json for every concept and all attacks with settings for its testbed."""
    sources = {name: code(params.attack_module(name), "attacks") for name in params.attacks}
    with replacing(out) as unfinished:
        for concept, entry in params.concepts.items():
            for name, attack in params.attacks.items():
                if entry.testbed in attack.on:
                    settings = params.settings("attacks", name, entry.testbed, entry.kind).model_dump(mode="json")
                    found = {"module": params.attack_module(name), "settings": settings, "sha256": sources[name]}
                    write_json(found, unfinished / entry.testbed / name / f"{concept}.json")


def _part(params: Params, concept: str, part: str) -> dict:
    """Its module, its settings for the concept's kind, and the content of the files that it reads; see outside/."""
    return {
        "module": params.module(part),
        "settings": notes.settings(params, concept, part).model_dump(mode="json"),
        "outside": digests(notes.method(params, concept, part)),
    }


def code(name: str, family: str = "methods") -> dict[str, str]:
    """SHA-256 of the source of a module and of all that it imports of this package, but for READERS."""
    found: dict[str, str] = {}
    waiting = [f"eraseflow.{family}.{name}"]
    while waiting:
        module = waiting.pop()
        if module not in found and not _reads(module) and (source := _source(module)):
            found[module] = hashlib.sha256(source).hexdigest()
            waiting += _imported(source)
    return dict(sorted(found.items()))


def _reads(module: str) -> bool:
    return module == "eraseflow" or any(f"{module}.".startswith(f"{reader}.") for reader in READERS)


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
