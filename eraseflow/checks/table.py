"""Whether the cells of the table can be made: its names, its concepts' words and files, and the base model's limits."""

from pathlib import Path
from typing import TYPE_CHECKING

from eraseflow import prompt_files, questions
from eraseflow.checks import files
from eraseflow.checks.limits import check_limits
from eraseflow.checks.words import Reader, check_prompts, check_safety, check_tokens
from eraseflow.definitions import definition
from eraseflow.mistakes import ParamsError, check_known, check_once

if TYPE_CHECKING:
    from eraseflow.params import Params


def check_table(params: "Params", root: Path) -> None:
    """The cells of the table must be complete, and their prompt files right. Raises: ParamsError."""
    table = params.table
    check_known(table.testbed, params.testbeds, "table.testbed", "testbed")
    _check_lists(params)
    testbed = params.testbeds[table.testbed]
    for name in table.concepts:
        concept, where = params.concepts[name], f"concepts.{name}"
        if concept.testbed != table.testbed:
            raise ParamsError(
                f"params.yaml: table.concepts: {name!r} is a concept of testbed {concept.testbed!r}, "
                f"the table is of {table.testbed!r}"
            )
        check_safety(concept, where)
        files.check_concept_prompts(concept, testbed, root, name, table.seed)
        if concept.judge.questions:
            questions.read(root, concept.judge.questions, f"{where}.judge.questions")
        if concept.judge.references:
            files.check_pictures(root, concept.judge.references, f"{where}.judge.references")
        if concept.judge.source:
            files.check_source(root, concept.judge.source, f"{where}.judge.source")
        _check_needs(params, name)
    kept = files.check_kept_prompts(testbed, root, table.testbed, table.seed)
    for name in table.concepts:
        files.check_room(params.concepts[name].kept, kept, testbed.kept, f"concepts.{name}.kept")
    if "@" not in testbed.model:
        if not Path(testbed.model).is_absolute():
            wanted, where = f"models/{table.testbed}", f"testbeds.{table.testbed}.model"
            others = ", an absolute path, or owner/name@<40 hexadecimal digits> on the Hub"
            files.watched(testbed.model, wanted, where, others)
        if (root / testbed.model / "tokenizer").is_dir():
            check_with_model(params, root, root / testbed.model)


def check_with_model(params: "Params", root: Path, folder: Path) -> None:
    """What the base model in `folder` must be asked for: how it reads texts, and its sizes. Raises: ParamsError."""
    table = params.table
    testbed = params.testbeds[table.testbed]
    reader = Reader(folder, testbed.model)
    check_prompts(prompt_files.read(root / testbed.kept, testbed.kept).rows, testbed.kept, reader)
    for name in table.concepts:
        concept = params.concepts[name]
        check_tokens(concept, reader, f"concepts.{name}")
        rows = prompt_files.read(root / concept.prompts, concept.prompts).rows
        check_prompts(rows, concept.prompts, reader)
        check_limits(params, name, rows, reader, folder)


def _check_lists(params: "Params") -> None:
    table = params.table
    for family in ("concepts", "methods", "attacks"):
        listed, blocks = getattr(table, family), getattr(params, family)
        check_once(listed, f"table.{family}")
        for name in listed:
            check_known(name, blocks, f"table.{family}", family[:-1])
            lacking = params.lacking(name, table.testbed) if family == "methods" else []
            if family == "attacks" and table.testbed not in blocks[name].on:
                lacking = [name]
            if lacking:
                raise ParamsError(f"params.yaml: {family}.{lacking[0]}: has no block for testbed {table.testbed!r}")
            if family == "methods":
                _check_seed(params, name)
    for name in table.transfer:
        check_known(name, table.attacks, "table.transfer", "attack of table.attacks")
        if params.through_sampler(name):
            what = f"{name!r} looks through samplers, so that most methods have no prompts found by it"
            raise ParamsError(f"params.yaml: table.transfer: {what}")
    check_once(table.transfer, "table.transfer")
    for name in table.methods:
        if not params.attacks_on(name):
            what = f"attacks that look through a sampler alone, and {name} has none; add another attack"
            raise ParamsError(f"params.yaml: table.attacks: has {what}")
    figures = [f"{concept}_{attack}" for concept in table.concepts for attack in table.transfer]
    check_once(figures, "table.transfer: the report's figures <concept>_<attack>")


def _check_seed(params: "Params", method: str) -> None:
    """The seed of a row's settings is added to the table's, and both together must still be a seed of its own."""
    for part in params.parts(method):
        raw = params.raw_settings(part, params.table.testbed)
        seeds = [block.get("seed", 0) for block in (raw, *raw.get("kinds", {}).values())]
        if params.table.seed + max(seeds) > prompt_files.MAX_RUN_SEED:
            what = f"and the {max(seeds)} of methods.{part} are more than {prompt_files.MAX_RUN_SEED} together"
            raise ParamsError(f"params.yaml: table.seed: {params.table.seed} {what}, the last that is another run")


def _check_needs(params: "Params", concept: str) -> None:
    """What the table's methods ask of a concept that others may leave empty."""
    for row in params.table.methods:
        for part in params.parts(row):
            for need in definition("methods", params.module(part), "NEEDS", ()):
                if not getattr(params.concepts[concept], need):
                    raise ParamsError(f"params.yaml: concepts.{concept}.{need}: is empty; the method {part} needs it")
