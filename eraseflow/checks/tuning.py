"""Whether params.yaml's `tuning` names what there is, and whether its ranges suit the settings that they are of."""

from typing import TYPE_CHECKING

from eraseflow.definitions import definition
from eraseflow.mistakes import ParamsError, check_known, check_once, read

if TYPE_CHECKING:
    from eraseflow.params import Params, Range


def check_tuning(params: "Params") -> None:
    """Raises: ParamsError."""
    if (tuning := params.tuning) is None:
        return
    for kind, name in tuning.concepts.items():
        where = f"tuning.concepts.{kind}"
        check_known(name, params.concepts, where, "concept")
        concept = params.concepts[name]
        if concept.kind != kind:
            raise ParamsError(f"params.yaml: {where}: {name!r} is of the kind {concept.kind}")
        if params.testbeds[concept.testbed].kept_judge is None:
            what = f"the testbed {concept.testbed} has no kept_judge, by which a method's trial is valued"
            raise ParamsError(f"params.yaml: {where}: {what}")
    testbed, *others = dict.fromkeys(params.concepts[name].testbed for name in tuning.concepts.values())
    if others:
        raise ParamsError(f"params.yaml: tuning.concepts: are of two testbeds, {testbed} and {others[0]}")
    for name in tuning.edits:
        check_known(name, params.methods, "tuning.edits", "method")
        _check_row(params, "methods", name, testbed, {}, "tuning.edits")
    check_once(tuning.edits, "tuning.edits")
    for family, rows in (("methods", tuning.methods), ("attacks", tuning.attacks)):
        for name, space in rows.items():
            check_known(name, getattr(params, family), f"tuning.{family}", family[:-1])
            _check_row(params, family, name, testbed, space, f"tuning.{family}.{name}")


def _check_row(params: "Params", family: str, name: str, testbed: str, space: dict[str, "Range"], where: str) -> None:
    """Both ends of every range must be right for the row's module."""
    methods = family == "methods"
    if methods and params.methods[name].compose:
        raise ParamsError(f"params.yaml: {where}: {name!r} is a composition; name its parts")
    row = (params.methods if methods else params.attacks)[name]
    if testbed not in row.on:
        raise ParamsError(f"params.yaml: {where}: {family}.{name} has no block for testbed {testbed!r}")
    model = definition(family, row.module or name, "Settings")
    plain = {key: value for key, value in row.on[testbed].items() if key != "kinds"}
    for setting, one in space.items():
        check_known(setting, model.model_fields, where, f"setting of {family}.{name}")
        for end in (one.at(0.0), one.at(1.0)):
            read(model, plain | {setting: end}, where)
