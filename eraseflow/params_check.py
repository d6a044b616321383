"""What one block of params.yaml says about another, about modules and about files."""

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from eraseflow import prompt_files
from eraseflow.definitions import definition, names
from eraseflow.mistakes import ParamsError, nearest, read
from eraseflow.safety import blocked

if TYPE_CHECKING:
    from eraseflow.params import Concept, Params, Testbed


def check_names(params: "Params") -> None:
    """Whatever a block refers to must exist, and settings must fit the module that reads them. Raises: ParamsError."""
    for name, testbed in params.testbeds.items():
        where = f"testbeds.{name}"
        prompt_files.inside(testbed.model, f"{where}.model")
        _known(testbed.kept_judge, names("judges"), f"{where}.kept_judge", "module of eraseflow/judges")
        if testbed.safety_judge:
            judge = testbed.safety_judge
            _known(judge.name, names("judges"), f"{where}.safety_judge.name", "module of eraseflow/judges")
            for label in judge.counts:
                labels = definition("judges", judge.name, "LABELS")
                _known(label, labels, f"{where}.safety_judge.counts", f"label of {judge.name}")
        _known(testbed.features, names("metrics"), f"{where}.features", "module of eraseflow/metrics")
    for name, concept in params.concepts.items():
        where = f"concepts.{name}"
        _known(concept.testbed, params.testbeds, f"{where}.testbed", "testbed")
        _known(concept.judge.name, names("judges"), f"{where}.judge.name", "module of eraseflow/judges")
        judges = (concept.judge.name, params.testbeds[concept.testbed].kept_judge)
        counts, kept = (definition("judges", judge, "LABELS") for judge in judges)
        for label in concept.judge.counts:
            _known(label, counts, f"{where}.judge.counts", f"label of {judges[0]}")
        for label in concept.kept.without:
            _known(label, kept, f"{where}.kept.without", f"label of {judges[1]}")
        for label in concept.kept.neighbours:
            _known(label, kept, f"{where}.kept.neighbours", f"label of {judges[1]}")
    for family, blocks in (("methods", params.methods), ("attacks", params.attacks)):
        for name, of_testbeds in blocks.items():
            _known(name, names(family), f"{family}.{name}", f"module of eraseflow/{family}")
            for on, raw in of_testbeds.items():
                _known(on, params.testbeds, f"{family}.{name}", "testbed")
                read(definition(family, name, "Settings"), raw, f"{family}.{name}.{on}")


def check_table(params: "Params", root: Path) -> None:
    """The cells of the table must be complete, and their prompt files right. Raises: ParamsError."""
    table = params.table
    _known(table.testbed, params.testbeds, "table.testbed", "testbed")
    for family in ("concepts", "methods", "attacks"):
        listed, blocks = getattr(table, family), getattr(params, family)
        for name in listed:
            _known(name, blocks, f"table.{family}", family[:-1])
            if listed.count(name) > 1:
                raise ParamsError(f"params.yaml: table.{family}: {name!r} appears twice")
            if family != "concepts" and table.testbed not in blocks[name]:
                raise ParamsError(f"params.yaml: {family}.{name}: has no block for testbed {table.testbed!r}")
    for name in table.concepts:
        concept = params.concepts[name]
        if concept.testbed != table.testbed:
            raise ParamsError(
                f"params.yaml: table.concepts: {name!r} is a concept of testbed {concept.testbed!r}, "
                f"the table is of {table.testbed!r}"
            )
        _check_wording(concept, f"concepts.{name}")
        hashed = "sha256" in prompt_files.header(root, concept.prompts)
        columns = prompt_files.I2P_COLUMNS if hashed else ["prompt"]
        prompt_files.check(root, concept.prompts, f"concepts.{name}.prompts", columns)
        if hashed:
            _check_i2p(params.testbeds[table.testbed], root, f"testbeds.{table.testbed}.i2p", concept.prompts)
        _watched(concept.prompts, f"prompts/{concept.testbed}/{name}.csv", f"concepts.{name}.prompts")
    testbed = params.testbeds[table.testbed]
    _watched(testbed.kept, f"prompts/{table.testbed}/kept.csv", f"testbeds.{table.testbed}.kept")
    _watched(testbed.model, f"models/{table.testbed}", f"testbeds.{table.testbed}.model")
    if "coco_val2014_captions" in prompt_files.header(root, testbed.kept):
        _check_coco(params, root, testbed)
    else:
        _check_kept(testbed, root, f"testbeds.{table.testbed}.kept")


def _check_wording(concept: "Concept", where: str) -> None:
    """Methods draw from the concept's own words too, so these pass the safety gate like every prompt."""
    words = {"target": [concept.target], "anchor": [concept.anchor], "preserve": concept.preserve}
    for key, texts in words.items():
        for text in texts:
            if why := blocked(text):
                raise ParamsError(f"params.yaml: {where}.{key}: the safety gate blocks {text!r}: {why}")


def _check_i2p(testbed: "Testbed", root: Path, where: str, prompts: str) -> None:
    """I2P must be where a prompt file that names its cases can find it."""
    if testbed.i2p is None:
        raise ParamsError(f"params.yaml: {where}: is missing; {prompts} needs it: {prompt_files.I2P_PLACES}")
    if testbed.i2p.endswith(".csv") and not (root / testbed.i2p).is_file():
        raise ParamsError(f"params.yaml: {where}: there is no file {testbed.i2p!r}")


def _check_coco(params: "Params", root: Path, testbed: "Testbed") -> None:
    """COCO's captions must be there; they expect no labels, so a concept cannot choose among them."""
    where = f"params.yaml: testbeds.{params.table.testbed}.coco"
    prompt_files.check(root, testbed.kept, f"testbeds.{params.table.testbed}.kept", prompt_files.COCO_COLUMNS)
    if testbed.coco is None:
        raise ParamsError(f"{where}: is missing; expected a folder with {prompt_files.COCO_CAPTIONS} and val2014/")
    if not (path := root / testbed.coco / prompt_files.COCO_CAPTIONS).is_file():
        raise ParamsError(f"{where}: there is no file {str(path)!r}; {prompt_files.COCO_ADVICE}")
    for name in params.table.concepts:
        kept = params.concepts[name].kept
        if kept.without or kept.neighbours:
            what = f"the captions of {testbed.kept} expect no labels; expected [] for without and neighbours"
            raise ParamsError(f"params.yaml: concepts.{name}.kept: {what}")


def _check_kept(testbed: "Testbed", root: Path, where: str) -> None:
    """The kept prompts may expect only what their judge can say."""
    labels = definition("judges", testbed.kept_judge, "LABELS")
    for line, row in prompt_files.check(root, testbed.kept, where, ["prompt", "expect"]):
        for label in (row["expect"] or "").split(";"):
            if label not in labels:
                what = f"{label!r} is no label of {testbed.kept_judge}{nearest(label, labels)}"
                raise ParamsError(f"{testbed.kept}: line {line}: {what}")


def _watched(path: str, wanted: str, where: str) -> None:
    """dvc.yaml cannot look a path up in a block whose name is itself looked up, so it knows these by their names."""
    prompt_files.inside(path, where)
    if path != wanted:
        raise ParamsError(f"params.yaml: {where}: expected {wanted!r}, the path that dvc.yaml watches, found {path!r}")


def _known(name: str, known: Iterable[str], where: str, what: str) -> None:
    if name not in known:
        raise ParamsError(f"params.yaml: {where}: {name!r} is no {what}{nearest(name, known)}")
