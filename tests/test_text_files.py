"""Every text file is read and written as UTF-8, whatever the machine's locale."""

import ast
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parent.parent
STAGES = yaml.safe_load((ROOT / "dvc.yaml").read_text(encoding="utf-8"))["stages"]
# An edit of these trains the base model or the judges anew; nothing else runs what they read and write.
FROZEN = {name for stage in ("pictures", "base", "judges") for name in STAGES[stage]["deps"] if name.endswith(".py")}
SOURCES = sorted(
    path
    for folder in ("eraseflow", "stages")
    for path in (ROOT / folder).rglob("*.py")
    if str(path.relative_to(ROOT)) not in FROZEN
)


def without_encoding(source: str) -> list[ast.Call]:
    """The calls that read or write text in the locale's encoding."""
    calls = [node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Call)]
    return [call for call in calls if _is_text(call) and "encoding" not in {word.arg for word in call.keywords}]


def _is_text(call: ast.Call) -> bool:
    words = {word.arg: word.value for word in call.keywords}
    if isinstance(text := words.get("text"), ast.Constant):  # of a process
        return text.value is True
    owner = getattr(call.func, "value", None)
    name = call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", "")
    if name in ("read_text", "write_text"):
        return owner is not None
    if name not in ("open", "fdopen", "makefile") or getattr(owner, "id", "") in ("Image", "tarfile"):
        return False
    modes = [value.value for value in (*call.args, words.get("mode")) if isinstance(value, ast.Constant)]
    return not any(isinstance(mode, str) and "b" in mode and set(mode) <= set("rwxab+") for mode in modes)


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_the_encoding_is_named(path):
    found = without_encoding(path.read_text(encoding="utf-8"))
    assert [call.lineno for call in found] == []


@pytest.mark.parametrize(
    "source", ["p.read_text()", "p.write_text(x)", "open(p)", "p.open()", "p.open('w')", "run(c, text=True)"]
)
def test_one_that_names_none_is_found(source):
    assert len(without_encoding(source)) == 1
    assert not without_encoding(source[:-1] + ", " * (source[-2] != "(") + "encoding='utf-8')")


def test_bytes_need_none():
    assert not without_encoding("p.open('rb'); open(p, mode='wb'); Image.open(p); p.read_bytes(); f(text=words)")
