"""Which files outside DVC's view each cell is made from, where that is noted, and whether it still is so.

A module says which local files it reads, in an optional function at its top that needs no slow imports:
methods: outside(settings, concept); judges: outside(concept); testbeds: outside(testbed), the real pictures. A judge
without it reads all files that its NEEDS name. A SOURCE of a judge or a metric may be a local folder as well.
"""

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from eraseflow.definitions import definition
from eraseflow.mistakes import read
from eraseflow.outside.content import Digests, digests, files, local
from eraseflow.params import Concept, Params, Testbed, of_kind
from eraseflow.prompt_files import COCO_CAPTIONS, header

CONCEPTS, METHODS, REFERENCE = Path("data/concepts"), Path("data/methods"), Path("data/reference")
SHARDS = ["*.safetensors.index.json", "*-of-*.safetensors"]  # diffusers prefers these where a folder has both


@dataclass(frozen=True)
class Note:
    """A file that a cheap stage writes, in which every block's `outside` has digests, and what they would be now."""

    stage: str
    file: Path
    now: Callable[[], Digests]

    def changed(self) -> str | None:
        """A file whose content is not the noted one, or nothing; a note that is not there counts as an empty one."""
        try:
            content = json.loads(self.file.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            content = []
        noted: Digests = {}
        for block in content if isinstance(content, list) else [content]:
            noted |= block.get("outside", {})
        now = self.now()
        return next((name for name in sorted({*noted, *now}) if noted.get(name, "") != now.get(name, "")), None)


def of_model(params: Params, concept: str) -> Note:
    """The base model: read by all stages of a cell but its score."""
    name = params.concepts[concept].testbed
    return Note(f"concept@{concept}", CONCEPTS / concept / "model.json", lambda: model(name, params.testbeds[name]))


def of_judges(params: Params, concept: str) -> Note:
    """What the judges read of the concept's own: pictures, questions, networks."""
    entry = params.concepts[concept]
    now = lambda: digests(file for name in judges(entry, params.testbeds[entry.testbed]) for file in judge(name, entry))  # noqa: E731
    return Note(f"concept@{concept}", CONCEPTS / concept / "judges.json", now)


def of_texts(params: Params, concept: str) -> Note:
    """The data sets that the prompts come from."""
    entry = params.concepts[concept]
    now = lambda: texts(entry, params.testbeds[entry.testbed])  # noqa: E731
    return Note(f"concept@{concept}", CONCEPTS / concept / "texts.json", now)


def of_row(params: Params, concept: str, row: str) -> Note:
    """What the parts of a row read, such as weights that somebody has trained."""
    file = METHODS / params.concepts[concept].testbed / row / f"{concept}.json"
    now = lambda: digests(found for part in params.parts(row) for found in method(params, concept, part))  # noqa: E731
    return Note("methods", file, now)


def of_networks(params: Params, testbed: str) -> Note:
    """The networks of the scores."""
    now = lambda: networks(params.testbeds[testbed])  # noqa: E731
    return Note(f"reference@{testbed}", REFERENCE / testbed / "networks.json", now)


def of_pictures(params: Params, testbed: str) -> Note:
    """The real pictures."""
    now = lambda: pictures(testbed, params.testbeds[testbed])  # noqa: E731
    return Note(f"reference@{testbed}", REFERENCE / testbed / "pictures.json", now)


def of_table(params: Params) -> Iterator[Note]:
    """All notes that the cells of the table depend on."""
    table = params.table
    for concept in table.concepts:
        yield from (of_model(params, concept), of_judges(params, concept), of_texts(params, concept))
        yield from (of_row(params, concept, row) for row in table.methods)
    yield from (of_networks(params, table.testbed), of_pictures(params, table.testbed))


def stale(params: Params) -> dict[str, str]:
    """The stages whose notes no longer say what is there, each with the first such file."""
    found: dict[str, str] = {}
    for note in of_table(params):
        if note.stage not in found and (file := note.changed()):
            found[note.stage] = file
    return found


def as_noted(*notes: Note) -> None:
    """Stop before work on files that are others than those the cell's dependencies know.

    Raises: SystemExit with one line that names the first such file.
    """
    for note in notes:
        if file := note.changed():
            what = f"is not what {note.file} has noted; `python -m eraseflow repro` runs again what was made of it"
            raise SystemExit(f"{file}: {what}")


def model(name: str, testbed: Testbed) -> Digests:
    """The files of a local base model, but for those in models/<testbed>, which DVC watches itself."""
    watched = Path("models", name).resolve()
    return digests(file for file in model_files(name, testbed) if not file.resolve().is_relative_to(watched))


def model_files(name: str, testbed: Testbed) -> list[Path]:
    """The files of a local base model; none of one on the Hub at a commit."""
    patterns = definition("testbeds", name, "FILES", None)
    wanted = [*patterns, *SHARDS] if patterns else ["*"]
    return [file for place in local(testbed.model) for file in files(place, wanted)]


def judges(concept: Concept, testbed: Testbed) -> list[str]:
    """The judges of a concept's pictures by name: its own, the safety judge, others, the kept prompts'."""
    safety = [testbed.safety_judge.name] if testbed.safety_judge else []
    kept = [testbed.kept_judge] if testbed.kept_judge else []
    return [concept.judge.name, *safety, *concept.scored_by, *kept]


def judge(name: str, concept: Concept) -> list[Path]:
    """The local files that a judge reads for a concept."""
    if outside := definition("judges", name, "outside", None):
        found = outside(concept)
    else:
        needed = [getattr(concept.judge, key) for key in definition("judges", name, "NEEDS", ())]
        found = [file for source in filter(None, needed) for place in local(source) for file in files(place)]
    return [*found, *_source("judges", name)]


def texts(concept: Concept, testbed: Testbed) -> Digests:
    """I2P's table and COCO's captions, where the prompt files name prompts of theirs and they are local."""
    columns = {column for path in (concept.prompts, testbed.kept) for column in header(Path(), path)}
    found = local(testbed.i2p) if "sha256" in columns and testbed.i2p else []
    if "coco_val2014_captions" in columns and testbed.coco:
        found = [*found, Path(testbed.coco) / COCO_CAPTIONS]
    return digests(file for place in found for file in files(place))


def method(params: Params, concept: str, part: str) -> list[Path]:
    """The local files that one part of a row reads for a concept."""
    outside = definition("methods", params.module(part), "outside", None)
    return outside(settings(params, concept, part), concept) if outside else []


def settings(params: Params, concept: str, part: str):
    """The settings of one part of a row, as far as they concern a concept; see `of_concept` in methods/__init__.py."""
    entry, module = params.concepts[concept], params.module(part)
    raw = of_kind(params.raw_settings(part, entry.testbed), entry.kind)
    found = read(definition("methods", module, "Settings"), raw, f"methods.{part}.{entry.testbed}")
    of_concept = definition("methods", module, "of_concept", None)
    return of_concept(found, concept) if of_concept else found


def networks(testbed: Testbed) -> Digests:
    """Networks of the scores that lie in local folders."""
    names: Sequence[str] = dict.fromkeys([testbed.features, *testbed.clip])  # type: ignore[assignment]
    return digests(file for name in names for file in _source("metrics", name))


def pictures(name: str, testbed: Testbed) -> Digests:
    """The real pictures that are compared with, where DVC does not watch them."""
    outside = definition("testbeds", name, "outside", None)
    return digests(outside(testbed)) if outside else {}


def _source(family: str, name: str) -> list[Path]:
    source = definition(family, name, "SOURCE", None)
    return [file for place in local(source) for file in files(place)] if isinstance(source, str) else []
