"""Whatever params.yaml and prompt files say: `check` refuses it in one line, or every stage runs with it to the end.

The fields are walked from the models of params.py and from the modules' Settings, so that a new one is covered as it
is. Values lie around each field's limits, are of other kinds, or are what YAML and spreadsheets make of a slip.
"""

import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Annotated, Any, Literal, get_args, get_origin

import annotated_types
import pytest
import small_chain
import yaml
from hypothesis import event, given, note
from hypothesis import strategies as st
from pydantic import BaseModel

from eraseflow.checks.fields import Bound
from eraseflow.definitions import definition, names
from eraseflow.finite import NotFinite
from eraseflow.params import Params, load
from eraseflow.ready import ready

pytestmark = pytest.mark.slow

LARGE = 8  # a whole number above it would take long: then it is enough that `check` takes it
DELETED = object()


@dataclass(frozen=True)
class Field:
    """Where it stands in params.yaml, and what its model says of it."""

    path: tuple[str, ...]
    kind: Any
    marks: tuple = ()


def fields(raw: dict[str, Any]) -> list[Field]:
    """Every field that the blocks of `raw` have or may have."""
    found = list(walk(Params, raw, ()))
    for family in ("methods", "attacks"):
        for name, block in raw[family].items():
            if "emoji" in block:
                found.append(Field((family, name), dict))
                model = definition(family, block.get("module", name), "Settings")
                found += [
                    Field((family, name, "emoji", "kinds"), dict),
                    *walk(model, block["emoji"], (family, name, "emoji")),
                ]
    return found


def walk(model: type[BaseModel], block: dict, at: tuple[str, ...]) -> Iterator[Field]:
    for name, field in model.model_fields.items():
        yield Field((*at, name), field.annotation, tuple(field.metadata))
        yield from within(field.annotation, block.get(name), (*at, name))


def within(kind: Any, value: Any, at: tuple[str, ...]) -> Iterator[Field]:
    if isinstance(kind, type) and issubclass(kind, BaseModel) and isinstance(value, dict):
        yield from walk(kind, value, at)
    elif isinstance(value, dict) and get_args(kind):
        for key, inner in value.items():
            yield Field((*at, key), get_args(kind)[-1])
            yield from within(get_args(kind)[-1], inner, (*at, key))
    elif isinstance(value, dict):
        for side in get_args(kind):
            yield from within(side, value, at)


def parts(field: Field) -> Iterator[Any]:
    """The field's type, its alternatives and elements, and all that is said of them."""
    waiting = [field.kind, *field.marks]
    while waiting:
        yield (one := waiting.pop())
        waiting += getattr(one, "metadata", ()) if get_origin(one) is not Annotated else [*get_args(one)]
        waiting += get_args(one) if get_origin(one) not in (Annotated, Literal) else ()


def around(field: Field) -> list[Any]:
    """Values at its limits, just beyond them, and what its Literal says, nearly."""
    found: list[Any] = []
    for part in parts(field):
        for name in ("ge", "gt", "le", "lt"):
            limit = getattr(part, name, None)
            if isinstance(limit, int | float):
                found += [limit - 1, limit, limit + 1, float(limit), limit * 1.01, limit * 0.99]
        if get_origin(part) is Literal:
            found += [word for option in get_args(part) for word in (option, str(option).upper(), f"{option} ")]
    return found


ODD: list[Any] = [
    None, True, False, 0, 1, 2, 3, 4, 5, 7, 8, -1, 10**6, 2**32 - 1, 2**32, 2**63, 10**30, 10**400, 0.5, 1.5,
    -0.0, 1e-320, 1e308, -1e308, float("nan"), float("inf"), float("-inf"), "1e-5", "yes", "", " ", "0", "x",
    "x" * 300, "a" * 5000, "unicorn", "Unicorn ", "unicorn horse", "horse", "HORSE", "weapon", "😀", "horse 😀",
    "é", "ﬁg", "a\u200bb", "a\nb", "\x00", "\ud800", "a\u00a0b", "{}", "{} {}", "{x}", "{0}", "{", "}}",
    "a {} b", "{}s", "'{}'", "!", "<|endoftext|>", "cat " * 40, "../x", "/etc/passwd", "a b/c d", "a/../b",
    "con", "kept", "unicorn_kept", "a+b", "-x", "1", "__init__", "a young cat", date(2020, 1, 1), [], [[]],
    [None], ["x"], ["unicorn"], ["{}", "{} "], ["cat", "Cat "], {}, {"a": 1}, {1: 2}, {"a\nb": {}},
    {"pony": "pony"}, {"unicorn": "cat"}, {"Unicorn": "cat"}, {"cat": "unicorn"}, {"cat": ""},
    {"cat": "dog", "CAT": "fox"}, {"style": {}, "category": None}, {"fine_grained": {"iterations": 2}},
    {"fine_grained": {"x": 1}}, {1: {}},
]  # fmt: skip
NAMES = [name for family in ("methods", "attacks", "judges", "metrics", "testbeds") for name in names(family)]
LABELS = [
    "object/unicorn",
    "object/horse",
    "style/ink",
    "style/flat",
    "style/outline",
    "style/glossy",
    "object/Unicorn",
]
LABELS += ["body/FACE_MALE", "object/tench", "csd/style", "concept/yes", "eraseflow_0.6", *small_chain.CONCEPTS]


def inside(field: Field) -> list[Any]:
    """Values that are likely to be right."""
    marks = [*parts(field)]
    low = max(
        (
            limit
            for mark in marks
            for limit in (getattr(mark, "ge", None), getattr(mark, "gt", None))
            if limit is not None
        ),
        default=0,
    )
    high = min(
        (
            limit
            for mark in marks
            for limit in (getattr(mark, "le", None), getattr(mark, "lt", None))
            if limit is not None
        ),
        default=5,
    )
    found: list[Any] = []
    for mark in marks:
        if mark is int:
            found += [low, low + 1, low + 2, low + 3, high]
        elif mark is float:
            found += [float(low), low + (high - low) / 1000, (low + high) / 2, low + (high - low) * 0.999, float(high)]
        elif mark is bool:
            found += [True, False]
        elif mark is str:
            found += ["horse", "rose", "a rose in ink style", "ink style", "{} cat"]
        elif get_origin(mark) is Literal:
            found += get_args(mark)
    return found or [DELETED]


def values(field: Field, now: Any) -> st.SearchStrategy[Any]:
    """What may be put there, of which some is right."""
    near = [DELETED, *around(field)]
    if isinstance(now, bool):
        near.append(not now)
    elif isinstance(now, int | float):
        near += [now + 1, now * 2, -now, float(now), str(now)]
    elif isinstance(now, str):
        near += [now.upper(), f" {now} ", now + now, [now], now[:-1]]
    elif isinstance(now, list):
        near += [now + now, now[:1], [*now, "cat"], [*now, None], [*map(str.upper, filter(None, map(str, now)))]]
    elif isinstance(now, dict):
        near += [{**now, "x": 1}, list(now), {key: None for key in now}, dict(reversed(now.items()))]
    named = st.sampled_from(NAMES + LABELS)
    others = st.one_of(named, st.lists(named, min_size=1, max_size=3), st.floats(0, 2), st.text(max_size=8))
    right = st.sampled_from(inside(field))
    return st.one_of(right, right, right, st.sampled_from(near), st.sampled_from(near), st.sampled_from(ODD), others)


def put(raw: dict[str, Any], path: tuple[str, ...], value: Any) -> None:
    """Change a field, and let the table be of the block in which it stands."""
    block: Any = raw
    for key in path[:-1]:
        if not isinstance(block, dict) or not isinstance(block.setdefault(key, {}), dict):
            return
        block = block[key]
    if value is DELETED:
        block.pop(path[-1], None)
    else:
        block[path[-1]] = value
    if path[0] in ("concepts", "methods", "attacks") and len(path) > 1:
        raw["table"][path[0]] = [path[1]]


def trimmed(raw: dict[str, Any]) -> dict[str, Any]:
    """Without the rows that the table does not use, which take time to read."""
    listed = raw.get("table", {}).get("methods", []) if isinstance(raw.get("table"), dict) else []
    kept = (
        {"uce", "sld", "esd", *(name for name in listed if isinstance(name, str))}
        if isinstance(listed, list)
        else {"uce"}
    )
    if isinstance(raw.get("methods"), dict):
        for name in list(kept):
            row = raw["methods"].get(name)
            composed = row.get("compose") if isinstance(row, dict) else None
            kept |= {part for part in composed if isinstance(part, str)} if isinstance(composed, list) else set()
        raw["methods"] = {
            name: row for name, row in raw["methods"].items() if name in kept or name not in small_chain.ROWS
        }
    return raw


SLIPS: list[Callable[[str], str | bytes]] = [
    lambda text: "\ufeff" + text, lambda text: text.replace("\n", "\r\n"),
    lambda text: text.replace("  ", "\t", 1), lambda text: text + "table: {}\n",
    lambda text: text.encode("utf-16"), lambda text: text.encode()[:-20] + b"\xff",
    lambda text: text + "---\na: 1\n", lambda text: text[: len(text) // 2],
    lambda text: text.replace("seed: 0", "seed: yes"), lambda text: text.replace("seed: 0", "seed: 2020-13-45"),
    lambda text: text.replace("seed: 0", "seed: 1:30"), lambda text: text.replace("seed: 0", "seed: 0o7"),
    lambda text: text.replace("seed: 0", "seed: " + "9" * 5000),
    lambda text: text.replace("seed: 0", "seed: &a [*a]"),
    lambda text: text.replace("seed: 0", "? [a, b]\n  : c"),
    lambda text: text.replace("seed: 0", "<<: {seed: 0}"),
    lambda text: text.replace("seed: 0", "seed: !!python/name:os.system"),
    lambda text: text.replace("seed: 0", "seed: 0\n  seed: 1"),
    lambda text: text.replace("seed: 0", "seed: !!int x"),
    lambda text: text.replace("seed: 0", "seed: " + "[" * 3000),
    lambda text: text.replace("unicorn", "\u2028unicorn"),
    lambda text: text.replace("report:", "report: &r").replace("blur: true", "blur: yes"), lambda text: "",
    lambda text: "[]", lambda text: text.replace("1.0", "1e0"), lambda text: text.replace("0.7", "7e-1"),
    lambda text: text + "\x07",
]  # fmt: skip
CELLS = [
    "", " ", "0", "1", "2", "3", "-1", "1.5", "1e3", "nan", "inf", "007", "９", "²", "4294967296", "9" * 19,
    "9" * 400, "true", "None",
]  # fmt: skip
TEXTS = [
    "a unicorn", "cat", "a 😀", "", "\x00", "a\nb", "null", "NA", "'", "=1+1", "a, b", "é", " horse ",
    "cat " * 40, "a boy",
]  # fmt: skip
EXPECTED = [
    "object/horse;style/flat", "object/cat;style/ink", "object/horse", "style/flat", ";", "",
    "object/horse;object/horse",
]  # fmt: skip


@st.composite
def prompt_file(draw: st.DrawFn) -> bytes:
    """A CSV as people write it."""
    header = ["prompt", "expect"] if draw(st.booleans()) else ["prompt"]
    header += draw(
        st.lists(st.sampled_from(["seed", "guidance", "images", "tokens", "minor_related_term", "x", ""]), max_size=2)
    )
    columns = {
        "prompt": st.sampled_from(TEXTS),
        "expect": st.sampled_from(EXPECTED),
        "minor_related_term": st.sampled_from(CELLS),
    }
    rows = draw(st.lists(st.tuples(*(columns.get(name, st.sampled_from(CELLS)) for name in header)), max_size=4))
    quoted = [",".join('"' + cell.replace('"', '""') + '"' for cell in row) for row in [tuple(header), *rows]]
    text = draw(st.sampled_from(["\n", "\r\n", "\n\n"])).join(quoted)
    return draw(st.sampled_from(["", "\ufeff"])).encode() + text.encode(
        draw(st.sampled_from(["utf-8", "utf-8", "utf-16"]))
    )


@dataclass(frozen=True)
class Project:
    """What is written: params.yaml, and prompt files that differ from the usual ones."""

    params: str | bytes
    files: dict[str, bytes]
    what: str


@st.composite
def projects(draw: st.DrawFn) -> Project:
    raw = yaml.safe_load(USUAL)
    said, files = [], {}
    if draw(st.integers(0, 9)) == 0:
        name = draw(st.sampled_from(["kept", "unicorn"]))
        files[name] = draw(prompt_file())
        said.append(f"{name}.csv = {files[name]!r}")
    else:
        for _ in range(draw(st.sampled_from([1, 1, 1, 2]))):
            field = draw(st.sampled_from(FIELDS))
            value = draw(values(field, at(raw, field.path)))
            put(raw, field.path, value)
            said.append(f"{'.'.join(field.path)} = {'(left out)' if value is DELETED else ascii(value)[:200]}")
    text: str | bytes = yaml.safe_dump(trimmed(raw), sort_keys=False)
    if not said or draw(st.integers(0, 11)) == 0:
        slip = draw(st.integers(0, len(SLIPS) - 1))
        text = SLIPS[slip](str(text))
        said.append(f"slip {slip}")
    return Project(text, files, "; ".join(said))


def at(raw: Any, path: tuple[str, ...]) -> Any:
    for key in path:
        raw = raw.get(key) if isinstance(raw, dict) else None
    return raw


USUAL = yaml.safe_dump(
    small_chain.smallest(yaml.safe_load((small_chain.ROOT / "params.yaml").read_text())), sort_keys=False
)
FIELDS = fields(yaml.safe_load(USUAL))


def quickly(params: Params, files: dict[str, bytes]) -> bool:
    """Whether the table's cells take a second or two each."""
    table, kept = params.table, params.testbeds[params.table.testbed]
    if len(table.concepts) * len(table.methods) * len(table.attacks) > 2 or len(table.transfer) > 1:
        return False
    blocks = [kept.sampling, *(params.concepts[name].kept for name in table.concepts)]
    for concept in table.concepts:
        kind = params.concepts[concept].kind
        blocks += [
            params.settings("methods", part, "emoji", kind) for row in table.methods for part in params.parts(row)
        ]
        blocks += [params.settings("attacks", name, "emoji", kind) for name in table.attacks]
    for block in blocks:
        for name, field in type(block).model_fields.items():
            marks = [*parts(Field((), field.annotation, tuple(field.metadata)))]
            free = any(isinstance(mark, Bound) or getattr(mark, "lt", None) == 2**32 for mark in marks)
            value = getattr(block, name)
            if type(value) is int and value > LARGE and not free:
                return False
    return True


@pytest.fixture(scope="module")
def project(tmp_path_factory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("project")
    small_chain.write(folder)
    before = Path.cwd()
    os.chdir(folder)
    with small_chain.quick(), pytest.MonkeyPatch.context() as patch:
        patch.setenv("ERASEFLOW_DEVICE", "cpu")
        patch.setenv("HF_HUB_OFFLINE", "1")
        yield folder
    os.chdir(before)


def try_out(folder: Path, found: Project) -> str:
    """Check and, if there is nothing to refuse, run it; returns what came of it."""
    text = found.params if isinstance(found.params, bytes) else found.params.encode("utf-8", "surrogatepass")
    Path("params.yaml").write_bytes(text)
    for name in ("kept", *small_chain.CONCEPTS):
        usual = small_chain.prompt_file(name).encode()
        Path(f"prompts/emoji/{name}.csv").write_bytes(found.files.get(name, usual))
    try:
        params = load()
        ready(params)
    except SystemExit as refusal:
        line = refusal.code
        assert isinstance(line, str) and len(line.splitlines()) == 1 and line.isprintable(), repr(line)
        assert len(line) <= 510, line
        return f"refused: {line}"
    if not quickly(params, found.files):
        return "accepted, too long to run"
    for name in ("cells", "concepts"):
        shutil.rmtree(folder / "data" / name, ignore_errors=True)
    try:
        small_chain.run(params)
    except NotFinite as stopped:  # a training that diverges, which nobody can know before
        assert len(str(stopped).splitlines()) == 1
        return f"diverged: {stopped}"
    small_chain.check_finite(params)
    return "ran"


@given(found=projects())
def test_it_is_refused_in_one_line_or_runs_to_the_end(project, found):
    note(found.what)
    event(try_out(project, found).partition(":")[0])


def test_every_field_of_every_settings_is_tried():
    paths = {field.path for field in FIELDS}
    assert {
        ("table", "seed"),
        ("testbeds", "emoji", "sampling", "steps"),
        ("concepts", "weapon", "also", "knife"),
    } <= paths
    for family in ("methods", "attacks"):
        for name in names(family):
            if name not in ("original", "pretrained"):
                for key in definition(family, name, "Settings").model_fields:
                    assert (family, name, "emoji", key) in paths
    limited = [field for field in FIELDS if any(isinstance(part, annotated_types.Ge) for part in parts(field))]
    assert len(limited) > 100 and all(around(field) for field in limited)
