"""What one block of params.yaml says about another, about modules and about files."""

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, get_args

from eraseflow import picture_files, prompt_files, questions
from eraseflow.csv_files import inside
from eraseflow.definitions import defines, definition, names
from eraseflow.mistakes import ParamsError, nearest, read
from eraseflow.safety import blocked

if TYPE_CHECKING:
    from eraseflow.params import Concept, ConceptJudge, Params, Testbed


def check_names(params: "Params") -> None:
    """Whatever a block refers to must exist, and settings must fit the module that reads them. Raises: ParamsError."""
    for name, testbed in params.testbeds.items():
        where = f"testbeds.{name}"
        _check_model(testbed.model, f"{where}.model")
        if testbed.kept_judge:
            _known(testbed.kept_judge, names("judges"), f"{where}.kept_judge", "module of eraseflow/judges")
            if not definition("judges", testbed.kept_judge, "FIRST_CHOICE", True):
                what = f"the scores of {testbed.kept_judge} do not compete, so it cannot say what a picture shows"
                raise ParamsError(f"params.yaml: {where}.kept_judge: {what}; expected a classifier")
        if testbed.safety_judge:
            _check_rule(testbed.safety_judge, f"{where}.safety_judge")
            if definition("judges", testbed.safety_judge.name, "NEEDS", ()):
                what = f"{testbed.safety_judge.name} is asked about one concept; expected a judge of any picture"
                raise ParamsError(f"params.yaml: {where}.safety_judge.name: {what}")
        for key, networks in (("features", [testbed.features]), ("clip", testbed.clip)):
            for network in networks:
                _known(network, names("metrics"), f"{where}.{key}", "module of eraseflow/metrics")
    for name, concept in params.concepts.items():
        where = f"concepts.{name}"
        _known(concept.testbed, params.testbeds, f"{where}.testbed", "testbed")
        _check_judges(concept, where)
        kept_judge = params.testbeds[concept.testbed].kept_judge
        kept = definition("judges", kept_judge, "LABELS") if kept_judge else []
        for label in concept.kept.without:
            _known(label, kept, f"{where}.kept.without", f"label of {kept_judge or 'a kept_judge'}")
        for label in concept.kept.neighbours:
            _known(label, kept, f"{where}.kept.neighbours", f"label of {kept_judge or 'a kept_judge'}")
    for name, row in params.methods.items():
        where = f"methods.{name}"
        if row.compose:
            _check_composition(params, name)
            continue
        place = f"{where}.module" if row.module else where
        _known(params.module(name), names("methods"), place, "module of eraseflow/methods")
        _check_blocks(params, "methods", params.module(name), row.on, where)
    for name, blocks in params.attacks.items():
        _known(name, names("attacks"), f"attacks.{name}", "module of eraseflow/attacks")
        _check_blocks(params, "attacks", name, blocks, f"attacks.{name}")


def _check_blocks(params: "Params", family: str, module: str, blocks: dict[str, dict], where: str) -> None:
    """The settings of each testbed must be those of the module."""
    for on, raw in blocks.items():
        _known(on, params.testbeds, where, "testbed")
        _check_settings(definition(family, module, "Settings"), raw, f"{where}.{on}")


def _check_composition(params: "Params", name: str) -> None:
    """A composition must be of other rows, each with a module, and have nothing else."""
    row, where = params.methods[name], f"params.yaml: methods.{name}"
    if row.module:
        raise ParamsError(f"{where}: has both module and compose; expected one of them")
    if row.on:
        what = f"has settings for {next(iter(row.on))!r}; a composition takes those of its parts"
        raise ParamsError(f"{where}: {what}")
    for part in row.compose:
        _known(part, params.methods, f"methods.{name}.compose", "method")
        if params.methods[part].compose:
            raise ParamsError(f"{where}.compose: {part!r} is a composition itself; name its parts")
        if row.compose.count(part) > 1:
            raise ParamsError(f"{where}.compose: {part!r} appears twice")
    samplers = [part for part in row.compose if defines("methods", params.module(part), "Sampler")]
    if len(samplers) > 1:
        raise ParamsError(f"{where}.compose: {' and '.join(samplers)} both change the sampler; expected one of them")


def _check_settings(model: type, raw: dict, where: str) -> None:
    """The block itself and what it becomes for each kind of concept must be right."""
    from eraseflow.params import Kind  # that module imports this one

    plain = {key: value for key, value in raw.items() if key != "kinds"}
    read(model, plain, where)
    kinds = raw.get("kinds", {})
    if not isinstance(kinds, dict):
        raise ParamsError(f"params.yaml: {where}.kinds: should be a block of kinds, found {kinds!r}")
    for kind, changes in kinds.items():
        _known(kind, get_args(Kind), f"{where}.kinds", "kind of concept")
        if not isinstance(changes, dict):
            raise ParamsError(f"params.yaml: {where}.kinds.{kind}: should be a block of keys, found {changes!r}")
        read(model, plain | changes, f"{where}.kinds.{kind}")


def _check_judges(concept: "Concept", where: str) -> None:
    """The judge's rule must be one that its module knows, and every judge of the concept must get what it needs."""
    judge = concept.judge
    _check_rule(judge, f"{where}.judge")
    for name in concept.scored_by:
        _known(name, names("judges"), f"{where}.scored_by", "module of eraseflow/judges")
        if (judge.name, *concept.scored_by).count(name) > 1:
            raise ParamsError(f"params.yaml: {where}.scored_by: {name!r} scores the pictures already; leave it out")
    judges = (judge.name, *concept.scored_by)
    needs = {need: name for name in judges for need in definition("judges", name, "NEEDS", ())}
    for key in ("questions", "references", "source"):
        if key in needs and getattr(judge, key) is None:
            raise ParamsError(f"params.yaml: {where}.judge.{key}: is missing; the judge {needs[key]} needs it")
        if key not in needs and getattr(judge, key) is not None:
            raise ParamsError(f"params.yaml: {where}.judge.{key}: no judge of this concept reads it; leave it out")


def _check_rule(judge: "ConceptJudge", where: str) -> None:
    """What the judge must say must be something that it can say."""
    _known(judge.name, names("judges"), f"{where}.name", "module of eraseflow/judges")
    labels = definition("judges", judge.name, "LABELS")
    for label in judge.counts:
        _known(label, labels, f"{where}.counts", f"label of {judge.name}")
    if judge.protocol is not None:
        protocols = definition("judges", judge.name, "PROTOCOLS", None)
        if not protocols:
            raise ParamsError(f"params.yaml: {where}.protocol: {judge.name} has no protocols; expected counts")
        _known(judge.protocol, protocols, f"{where}.protocol", f"protocol of {judge.name}")
    elif judge.threshold is None and not definition("judges", judge.name, "FIRST_CHOICE", True):
        what = f"the scores of {judge.name} do not compete, so it has no first choice"
        raise ParamsError(f"params.yaml: {where}: {what}; expected a threshold beside counts")


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
            lacking = params.lacking(name, table.testbed) if family == "methods" else []
            if family == "attacks" and table.testbed not in blocks[name]:
                lacking = [name]
            if not lacking and family == "methods":
                _check_seed(params, name)
            if lacking:
                raise ParamsError(f"params.yaml: {family}.{lacking[0]}: has no block for testbed {table.testbed!r}")
    for name in table.transfer:
        _known(name, table.attacks, "table.transfer", "attack of table.attacks")
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
        prompt_files.check(root, concept.prompts, f"concepts.{name}.prompts", columns, table.seed)
        if hashed and params.testbeds[table.testbed].i2p is None:
            what = f"is missing; {concept.prompts} needs it: {prompt_files.I2P_PLACES}"
            raise ParamsError(f"params.yaml: testbeds.{table.testbed}.i2p: {what}")
        _watched(concept.prompts, f"prompts/{concept.testbed}/{name}.csv", f"concepts.{name}.prompts")
        if concept.judge.questions:
            questions.read(root, concept.judge.questions, f"concepts.{name}.judge.questions")
        if concept.judge.references:
            _check_pictures(root, concept.judge.references, f"concepts.{name}.judge.references")
        if concept.judge.source:
            _check_source(root, concept.judge.source, f"concepts.{name}.judge.source")
    testbed = params.testbeds[table.testbed]
    _watched(testbed.kept, f"prompts/{table.testbed}/kept.csv", f"testbeds.{table.testbed}.kept")
    if "@" not in testbed.model and not Path(testbed.model).is_absolute():
        wanted, where = f"models/{table.testbed}", f"testbeds.{table.testbed}.model"
        _watched(testbed.model, wanted, where, ", an absolute path, or owner/name@<40 hexadecimal digits> on the Hub")
    if "coco_val2014_captions" in prompt_files.header(root, testbed.kept):
        _check_coco(testbed, root, f"testbeds.{table.testbed}")
    else:
        _check_kept(testbed, root, f"testbeds.{table.testbed}.kept", table.seed)


def _check_seed(params: "Params", method: str) -> None:
    """The seed of a row's settings is added to the table's, and both together must still be a seed of its own."""
    for part in params.parts(method):
        raw = params.raw_settings(part, params.table.testbed)
        seeds = [block.get("seed", 0) for block in (raw, *raw.get("kinds", {}).values())]
        if params.table.seed + max(seeds) > prompt_files.MAX_RUN_SEED:
            what = f"and the {max(seeds)} of methods.{part} are more than {prompt_files.MAX_RUN_SEED} together"
            raise ParamsError(f"params.yaml: table.seed: {params.table.seed} {what}, the last that is another run")


def _check_wording(concept: "Concept", where: str) -> None:
    """Methods draw from the concept's own words too, so these pass the safety gate like every prompt."""
    words = {
        "target": [concept.target],
        "anchor": [concept.anchor],
        "also": [*concept.also, *concept.also.values()],
        "contexts": concept.contexts,
        "preserve": concept.preserve,
    }
    for key, texts in words.items():
        for text in texts:
            if why := blocked(text):
                raise ParamsError(f"params.yaml: {where}.{key}: the safety gate blocks {text!r}: {why}")


def _check_coco(testbed: "Testbed", root: Path, where: str) -> None:
    """Captions expect a picture and no label, so no judge can say whether they are drawn right."""
    prompt_files.check(root, testbed.kept, f"{where}.kept", prompt_files.COCO_COLUMNS)
    if testbed.kept_judge:
        what = f"the captions of {testbed.kept} expect no labels; expected null"
        raise ParamsError(f"params.yaml: {where}.kept_judge: {what}")
    if testbed.coco is None:
        what = f"is missing; {testbed.kept} needs a folder with val2014/ and {prompt_files.COCO_CAPTIONS}"
        raise ParamsError(f"params.yaml: {where}.coco: {what}")


def _check_kept(testbed: "Testbed", root: Path, where: str, run: int) -> None:
    """The kept prompts may expect only what their judge can say, if they have one."""
    if testbed.kept_judge is None:
        prompt_files.check(root, testbed.kept, where, ["prompt", "expect"], run)
        return
    labels = definition("judges", testbed.kept_judge, "LABELS")
    for line, row in prompt_files.check(root, testbed.kept, where, ["prompt", "expect"], run):
        for label in (row["expect"] or "").split(";"):
            if label not in labels:
                what = f"{label!r} is no label of {testbed.kept_judge}{nearest(label, labels)}"
                raise ParamsError(f"{testbed.kept}: line {line}: {what}")


def _check_pictures(root: Path, path: str, where: str) -> None:
    inside(path, where)
    if not (root / path).is_dir():
        raise ParamsError(f"params.yaml: {where}: there is no folder {path!r}; put the reference pictures there")
    if not picture_files.listed(root / path):
        wanted = ", ".join(picture_files.SUFFIXES)
        raise ParamsError(f"params.yaml: {where}: {path!r} holds no pictures; expected files {wanted}")


def _check_source(root: Path, source: str, where: str) -> None:
    from eraseflow.hub import is_hub_id  # takes half a second to import, and few concepts need it

    if not (root / source).is_dir() and not is_hub_id(source):
        what = "expected one, or a Hub repository at a commit, owner/name@<40 hexadecimal digits>"
        raise ParamsError(f"params.yaml: {where}: {source!r} is no folder; {what}")


def _check_model(model: str, where: str) -> None:
    """A base model is in the folder of its testbed, on the Hub at a commit, or in a folder elsewhere (not watched)."""
    if "@" not in model:
        if not Path(model).is_absolute():
            inside(model, where)
        return
    from eraseflow.hub import is_hub_id  # takes half a second to import, and the emoji testbed does not need it

    if not is_hub_id(model):
        what = f"{model!r} is no Hub repository at a commit; expected owner/name@<40 hexadecimal digits>"
        raise ParamsError(f"params.yaml: {where}: {what}")


def _watched(path: str, wanted: str, where: str, others: str = "") -> None:
    """dvc.yaml cannot look a path up in a block whose name is itself looked up, so it knows these by their names."""
    inside(path, where)
    if path != wanted:
        what = f"expected {wanted!r}, the path that dvc.yaml watches{others}"
        raise ParamsError(f"params.yaml: {where}: {what}, found {path!r}")


def _known(name: str, known: Iterable[str], where: str, what: str) -> None:
    if name not in known:
        raise ParamsError(f"params.yaml: {where}: {name!r} is no {what}{nearest(name, known)}")
