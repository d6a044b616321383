"""Whether the blocks of params.yaml refer to what there is, and settings fit the module that reads them."""

from typing import TYPE_CHECKING, get_args

from eraseflow.checks.files import check_model
from eraseflow.checks.judges import check_judges, check_networks, check_testbed_judges
from eraseflow.checks.modules import check_module
from eraseflow.definitions import defines, definition, names
from eraseflow.mistakes import ParamsError, check_known, check_once, read

if TYPE_CHECKING:
    from eraseflow.params import Attack, Params

RESERVED = {"kept": "prompts/<testbed>/kept.csv are the prompts to keep"}  # as names of concepts


def check_names(params: "Params") -> None:
    """Whatever a block refers to must exist. Raises: ParamsError."""
    for family in ("testbeds", "concepts", "methods", "attacks"):
        check_once(list(getattr(params, family)), family)  # they become folders, and some disks know no capitals
    for name, testbed in params.testbeds.items():
        where = f"testbeds.{name}"
        check_module("testbeds", name, where)
        check_model(testbed.model, f"{where}.model")
        check_testbed_judges(testbed, where)
        check_module("metrics", testbed.features, f"{where}.features")
        for network in testbed.clip:
            check_module("metrics", network, f"{where}.clip", "similarity")
        check_once(testbed.clip, f"{where}.clip")
        check_networks("metrics", testbed.clip, f"{where}.clip")
        judges = [testbed.kept_judge or "", testbed.safety_judge.name if testbed.safety_judge else ""]
        _check_owners([testbed.features, *testbed.clip, *judges], name, where)
    for name, concept in params.concepts.items():
        where = f"concepts.{name}"
        if name.casefold() in RESERVED:
            raise ParamsError(f"params.yaml: {where}: is a reserved name, for {RESERVED[name.casefold()]}")
        if name.casefold().endswith("_kept"):
            raise ParamsError(f"params.yaml: {where}: may not end in _kept, as the report's grids of kept prompts do")
        check_known(concept.testbed, params.testbeds, f"{where}.testbed", "testbed")
        check_judges(concept, params.testbeds[concept.testbed], where)
        _check_owners([concept.judge.name, *concept.scored_by], concept.testbed, where)
    for name, row in params.methods.items():
        where = f"methods.{name}"
        if row.compose:
            _check_composition(params, name)
            continue
        if row.module not in (None, name) and "+" in name:
            raise ParamsError(f"params.yaml: {where}.module: is {row.module!r}, but the row's name is a composition's")
        _check_row(params, "methods", name, row)
    for name, attack in params.attacks.items():
        _check_row(params, "attacks", name, attack)


def _check_row(params: "Params", family: str, name: str, row: "Attack") -> None:
    """The module of a method's row or an attack must be there, and its settings those of the module."""
    where, module = f"{family}.{name}", row.module or name
    check_module(family, module, f"{where}.module" if row.module else where)
    if row.module not in (None, name) and name in names(family):
        raise ParamsError(
            f"params.yaml: {where}.module: is {row.module!r}, but the row's name is that of another module"
        )
    _check_settings_on(params, family, module, row.on, where)


def _check_owners(networks: list[str], testbed: str, where: str) -> None:
    """A network that reads the pictures of one testbed alone must not be asked about another's."""
    for owner in names("testbeds"):
        for network in networks:
            if owner != testbed and network in definition("testbeds", owner, "OWN", ()):
                what = f"{network} reads the pictures of the testbed {owner} alone, not those of {testbed}"
                raise ParamsError(f"params.yaml: {where}: {what}")


def _check_settings_on(params: "Params", family: str, module: str, blocks: dict[str, dict], where: str) -> None:
    """The settings of each testbed must be those of the module."""
    for on, raw in blocks.items():
        check_known(on, params.testbeds, where, "testbed")
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
        check_known(part, params.methods, f"methods.{name}.compose", "method")
        if params.methods[part].compose:
            raise ParamsError(f"{where}.compose: {part!r} is a composition itself; name its parts")
        check_module("methods", params.module(part), f"methods.{part}")
    check_once(row.compose, f"methods.{name}.compose")
    samplers = [part for part in row.compose if defines("methods", params.module(part), "Sampler")]
    if len(samplers) > 1:
        raise ParamsError(f"{where}.compose: {' and '.join(samplers)} both change the sampler; expected one of them")
    if name in names("methods"):
        raise ParamsError(f"{where}: is a composition, but has a module's name")
    if "+" in name and name != "+".join(row.compose):
        raise ParamsError(f"{where}: is named as a composition of others; expected {'+'.join(row.compose)!r}, or no +")


def _check_settings(model: type, raw: dict, where: str) -> None:
    """The block itself and what it becomes for each kind of concept must be right."""
    from eraseflow.params import Kind  # that module imports this one

    plain = {key: value for key, value in raw.items() if key != "kinds"}
    read(model, plain, where)
    kinds = raw.get("kinds", {})
    if not isinstance(kinds, dict):
        raise ParamsError(f"params.yaml: {where}.kinds: should be a block of kinds, found {kinds!r}")
    for kind, changes in kinds.items():
        check_known(str(kind), get_args(Kind), f"{where}.kinds", "kind of concept")
        if not isinstance(changes, dict):
            raise ParamsError(f"params.yaml: {where}.kinds.{kind}: should be a block of keys, found {changes!r}")
        read(model, plain | changes, f"{where}.kinds.{kind}")
