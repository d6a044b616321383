"""The files and folders that params.yaml names: whether they are where dvc.yaml watches, and hold what they should."""

from pathlib import Path
from typing import TYPE_CHECKING

from eraseflow import picture_files, prompt_files
from eraseflow.csv_files import inside
from eraseflow.definitions import definition
from eraseflow.mistakes import ParamsError, nearest
from eraseflow.safety import blocked

if TYPE_CHECKING:
    from eraseflow.params import Concept, Kept, Testbed

Rows = list[tuple[int, dict[str, str]]]  # line number and row


def check_concept_prompts(concept: "Concept", testbed: "Testbed", root: Path, name: str, run: int) -> Rows:
    """The prompts on which a concept is measured; run: table.seed. Raises: ParamsError."""
    where = f"concepts.{name}.prompts"
    hashed = "sha256" in prompt_files.header(root, concept.prompts)
    columns = prompt_files.I2P_COLUMNS if hashed else ["prompt"]
    rows = prompt_files.check(root, concept.prompts, where, columns, run)
    if hashed and testbed.i2p is None:
        what = f"is missing; {concept.prompts} needs it: {prompt_files.I2P_PLACES}"
        raise ParamsError(f"params.yaml: testbeds.{concept.testbed}.i2p: {what}")
    watched(concept.prompts, f"prompts/{concept.testbed}/{name}.csv", where)
    return rows


def check_kept_prompts(testbed: "Testbed", root: Path, name: str, run: int) -> Rows:
    """The prompts to keep: captions of COCO, or those of a file; run: table.seed. Raises: ParamsError."""
    where = f"testbeds.{name}"
    watched(testbed.kept, f"prompts/{name}/kept.csv", f"{where}.kept")
    if "coco_val2014_captions" in prompt_files.header(root, testbed.kept):
        return _check_coco(testbed, root, where, name)
    return _check_kept(testbed, root, f"{where}.kept", name, run)


def _check_coco(testbed: "Testbed", root: Path, where: str, name: str) -> Rows:
    """Captions expect a picture and no label, so no judge can say whether they are drawn right."""
    rows = prompt_files.check(root, testbed.kept, f"{where}.kept", prompt_files.COCO_COLUMNS)
    if testbed.kept_judge:
        what = f"the captions of {testbed.kept} expect no labels; expected null"
        raise ParamsError(f"params.yaml: {where}.kept_judge: {what}")
    if testbed.coco is None:
        what = f"is missing; {testbed.kept} needs a folder with val2014/ and {prompt_files.COCO_CAPTIONS}"
        raise ParamsError(f"params.yaml: {where}.coco: {what}")
    return rows


def _check_kept(testbed: "Testbed", root: Path, where: str, name: str, run: int) -> Rows:
    """The kept prompts may expect only what their judge can say, if they have one, and what there is a picture of."""
    labels = definition("judges", testbed.kept_judge, "LABELS") if testbed.kept_judge else None
    pictured = definition("testbeds", name, "PICTURED", None)
    rows = prompt_files.check(root, testbed.kept, where, ["prompt", "expect"], run)
    for line, row in rows:
        expected = row["expect"] or ""
        for label in expected.split(";"):
            if labels is not None and label not in labels:
                what = f"{label!r} is no label of {testbed.kept_judge}{nearest(label, labels)}"
                raise ParamsError(f"{testbed.kept}: line {line}: {what}")
        if pictured is not None and expected not in pictured:
            what = f"there is no picture of {expected!r} to compare with{nearest(expected, pictured)}"
            raise ParamsError(f"{testbed.kept}: line {line}: {what}")
    return rows


def check_room(kept: "Kept", rows: Rows, path: str, where: str) -> None:
    """Whether so many prompts are left to keep, and the neighbours are not more. Raises: ParamsError."""
    if rows and "coco_val2014_captions" in rows[0][1]:
        left, near = int(rows[0][1]["coco_val2014_captions"]), 0
    else:
        expected = [set((row["expect"] or "").split(";")) for _, row in rows if not blocked(row["prompt"])]
        expected = [labels for labels in expected if not labels & set(kept.without)]
        left, near = len(expected), sum(bool(labels & set(kept.neighbours)) for labels in expected)
    if kept.count > left:
        raise ParamsError(f"params.yaml: {where}.count: {path} has {left} prompts that may be kept, found {kept.count}")
    if near > kept.count:
        what = f"{near} prompts expect a neighbour, and all of these are to be among the {kept.count}"
        raise ParamsError(f"params.yaml: {where}.count: {what}")


def check_pictures(root: Path, path: str, where: str) -> None:
    """A folder of reference pictures. Raises: ParamsError."""
    inside(path, where)
    if not (root / path).is_dir():
        raise ParamsError(f"params.yaml: {where}: there is no folder {path!r}; put the reference pictures there")
    if not picture_files.listed(root / path):
        wanted = ", ".join(picture_files.SUFFIXES)
        raise ParamsError(f"params.yaml: {where}: {path!r} holds no pictures; expected files {wanted}")


def check_source(root: Path, source: str, where: str) -> None:
    """Where a judge's model is. Raises: ParamsError."""
    from eraseflow.hub import is_hub_id  # takes half a second to import, and few concepts need it

    if not (root / source).is_dir() and not is_hub_id(source):
        what = "expected one, or a Hub repository at a commit, owner/name@<40 hexadecimal digits>"
        raise ParamsError(f"params.yaml: {where}: {source!r} is no folder; {what}")


def check_model(model: str, where: str) -> None:
    """A base model is in the folder of its testbed, on the Hub at a commit, or in a folder elsewhere (not watched)."""
    if "@" not in model:
        if not Path(model).is_absolute():
            inside(model, where)
        return
    from eraseflow.hub import is_hub_id  # takes half a second to import, and the emoji testbed does not need it

    if not is_hub_id(model):
        what = f"{model!r} is no Hub repository at a commit; expected owner/name@<40 hexadecimal digits>"
        raise ParamsError(f"params.yaml: {where}: {what}")


def watched(path: str, wanted: str, where: str, others: str = "") -> None:
    """dvc.yaml cannot look a path up in a block whose name is itself looked up, so it knows these by their names."""
    inside(path, where)
    if path != wanted:
        what = f"expected {wanted!r}, the path that dvc.yaml watches{others}"
        raise ParamsError(f"params.yaml: {where}: {what}, found {path!r}")
