"""What judges can say, what they need, and that no two of them speak under the same name."""

from typing import TYPE_CHECKING

from eraseflow.checks.modules import check_module
from eraseflow.definitions import defines, definition
from eraseflow.mistakes import ParamsError, check_known, check_once

if TYPE_CHECKING:
    from eraseflow.params import Concept, ConceptJudge, Testbed

OWN_HEADS = ("safety", "question")  # of columns beside the judges' labels
QUESTIONS = 1000  # more than a file has


def check_testbed_judges(testbed: "Testbed", where: str) -> None:
    """The judges of kept prompts and of what is to be blurred. Raises: ParamsError."""
    if testbed.kept_judge:
        check_module("judges", testbed.kept_judge, f"{where}.kept_judge")
        if not definition("judges", testbed.kept_judge, "FIRST_CHOICE", True):
            what = f"the scores of {testbed.kept_judge} do not compete, so it cannot say what a picture shows"
            raise ParamsError(f"params.yaml: {where}.kept_judge: {what}; expected a classifier")
        _without_needs(testbed.kept_judge, f"{where}.kept_judge")
    if testbed.safety_judge:
        _check_rule(testbed.safety_judge, f"{where}.safety_judge")
        _without_needs(testbed.safety_judge.name, f"{where}.safety_judge.name")
        for key in ("questions", "references", "source"):
            if getattr(testbed.safety_judge, key) is not None:
                raise ParamsError(f"params.yaml: {where}.safety_judge.{key}: {_unread(testbed.safety_judge.name)}")


def _without_needs(judge: str, where: str) -> None:
    if definition("judges", judge, "NEEDS", ()):
        raise ParamsError(f"params.yaml: {where}: {judge} is asked about one concept; expected a judge of any picture")


def _unread(judge: str) -> str:
    return f"{judge} does not read it; leave it out"


def check_judges(concept: "Concept", testbed: "Testbed", where: str) -> None:
    """The judge's rule must be one that its module knows, and every judge of the concept must get what it needs.

    Raises: ParamsError.
    """
    judge = concept.judge
    _check_rule(judge, f"{where}.judge")
    for name in concept.scored_by:
        check_module("judges", name, f"{where}.scored_by")
        if (judge.name, *concept.scored_by).count(name) > 1:
            raise ParamsError(f"params.yaml: {where}.scored_by: {name!r} scores the pictures already; leave it out")
    judges = (judge.name, *concept.scored_by)
    needs = {need: name for name in judges for need in definition("judges", name, "NEEDS", ())}
    for key in ("questions", "references", "source"):
        if key in needs and getattr(judge, key) is None:
            raise ParamsError(f"params.yaml: {where}.judge.{key}: is missing; the judge {needs[key]} needs it")
        if key not in needs and getattr(judge, key) is not None:
            raise ParamsError(f"params.yaml: {where}.judge.{key}: no judge of this concept reads it; leave it out")
    everyone = [*judges, *([testbed.kept_judge] if testbed.kept_judge else [])]
    _check_heads(everyone, where)
    check_networks("judges", everyone, where)
    _check_summaries(concept, judges, where)
    _check_kept(concept, testbed.kept_judge, f"{where}.kept")


def check_networks(family: str, modules: list[str], where: str) -> None:
    """Titles name a network by its module's NAME, so no two modules may have the same. Raises: ParamsError."""
    owners: dict[str, str] = {}
    for module in dict.fromkeys(modules):
        title = definition(family, module, "NAME", module)
        if (other := owners.setdefault(title, module)) != module:
            what = f"{other} and {module} both have the NAME {title!r}, by which their scores would be one"
            raise ParamsError(f"params.yaml: {where}: {what}; expected networks of different names")


def _check_summaries(concept: "Concept", judges: tuple[str, ...], where: str) -> None:
    """What judges sum up stands under its title alone, so no two may have the same. Raises: ParamsError."""
    summing = [judge for judge in judges if defines("judges", judge, "summary")]
    owners: dict[str, str] = {}
    for judge in summing if len(summing) > 1 else ():
        for title in _titles(judge, concept):
            if (other := owners.setdefault(title, judge)) != judge:
                what = f"{other} and {judge} both sum up {title!r}; expected judges without a title in common"
                raise ParamsError(f"params.yaml: {where}: {what}")


def _titles(judge: str, concept: "Concept") -> list[str]:
    """The titles of a judge's summary, of one picture that scores 0; none where its files are not there to be read."""
    import pandas as pd  # takes half a second, and few concepts have two such judges

    labels = definition("judges", judge, "LABELS")
    scores = pd.DataFrame(0.0, index=[0], columns=[*labels, *(f"question/{place}" for place in range(1, QUESTIONS))])
    try:
        return list(definition("judges", judge, "summary")(scores, concept))
    except (Exception, SystemExit):  # of whatever kind; the stage that needs the file says what is wrong with it
        return []


def _check_heads(judges: list[str], where: str) -> None:
    """All judges' scores stand in one table, and the first choice is one of all columns of a head."""
    owners: dict[str, str] = {}
    for judge in dict.fromkeys(judges):
        _check_labels(judge)
        for head in {label.partition("/")[0] for label in definition("judges", judge, "LABELS")}:
            if (other := owners.setdefault(head, judge)) != judge:
                what = f"{other} and {judge} both have labels {head}/...; expected judges without a head in common"
                raise ParamsError(f"params.yaml: {where}: {what}")


def _check_kept(concept: "Concept", judge: str | None, where: str) -> None:
    labels = definition("judges", judge, "LABELS") if judge else []
    for key in ("without", "neighbours"):
        listed = getattr(concept.kept, key)
        for label in listed:
            check_known(label, labels, f"{where}.{key}", f"label of {judge or 'a kept_judge'}")
        check_once(listed, f"{where}.{key}")
    for label in concept.kept.neighbours:
        if label in concept.kept.without:
            raise ParamsError(f"params.yaml: {where}.neighbours: {label!r} is left out by `without`")


def _check_labels(judge: str) -> list[str]:
    """A judge's labels, which become columns of a table. Raises: ParamsError."""
    labels: list[str] = definition("judges", judge, "LABELS")
    where = f"eraseflow/judges/{judge}.py: LABELS"
    if wrong := next((label for label in labels if "/" not in label or label.partition("/")[0] in OWN_HEADS), None):
        raise ParamsError(f"{where}: {wrong!r} is no <head>/<label>")
    if len(set(labels)) < len(labels):
        twice = next(label for place, label in enumerate(labels) if label in labels[:place])
        raise ParamsError(f"{where}: {twice!r} appears twice")
    return labels


def _check_rule(judge: "ConceptJudge", where: str) -> None:
    """What the judge must say must be something that it can say, and not always says."""
    check_module("judges", judge.name, f"{where}.name")
    labels = _check_labels(judge.name)
    for label in judge.counts:
        check_known(label, labels, f"{where}.counts", f"label of {judge.name}")
    check_once(judge.counts, f"{where}.counts")
    if judge.protocol is not None:
        protocols = definition("judges", judge.name, "PROTOCOLS", None)
        if not protocols:
            raise ParamsError(f"params.yaml: {where}.protocol: {judge.name} has no protocols; expected counts")
        check_known(judge.protocol, protocols, f"{where}.protocol", f"protocol of {judge.name}")
    elif judge.threshold is None:
        if not definition("judges", judge.name, "FIRST_CHOICE", True):
            what = f"the scores of {judge.name} do not compete, so it has no first choice"
            raise ParamsError(f"params.yaml: {where}: {what}; expected a threshold beside counts")
        for head in sorted({label.partition("/")[0] for label in judge.counts}):
            if {label for label in labels if label.startswith(f"{head}/")} <= set(judge.counts):
                what = f"has every label {head}/..., one of which is always the first choice"
                raise ParamsError(f"params.yaml: {where}.counts: {what}")
