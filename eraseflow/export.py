"""One cell's edit as a whole diffusers pipeline with a model card, for `StableDiffusionPipeline.from_pretrained`."""

import os
from pathlib import Path

from eraseflow.mistakes import nearest
from eraseflow.outputs import must_be_new, replacing
from eraseflow.outside.notes import as_noted, of_model
from eraseflow.params import Params

CELLS, CONCEPTS = Path("data/cells"), Path("data/concepts")


def check(params: Params, concept: str, method: str, folder: Path) -> None:
    """Raises: SystemExit with one line where a name is unknown, the cell is untrained or the folder is taken."""
    for name, known, what in ((concept, params.concepts, "concept"), (method, params.methods, "method")):
        if name not in known:
            raise SystemExit(f"params.yaml has no {what} {name!r}{nearest(name, known)}")
    testbed = params.concepts[concept].testbed
    if lacking := params.lacking(method, testbed):
        raise SystemExit(f"params.yaml: methods.{lacking[0]}: has no block for testbed {testbed!r}, that of {concept}")
    must_be_new(folder)
    edit = CELLS / concept / method / "edit"
    if not (edit / "edit.json").is_file():
        where = f"`dvc repro train@{concept}-{method}`, with both names in params.yaml's table"
        raise SystemExit(f"{edit}: is not there, since this cell is not trained; {where}, trains it")
    as_noted(of_model(params, concept))


def export(params: Params, concept: str, method: str, folder: Path) -> None:
    """Write the edited pipeline and README.md into `folder`, whole or not at all.

    In full precision, with the solver that the pictures were measured with; without safety checker. What works at
    sampling time lies beside the pipeline, as the card says; see `Edit.export`.
    Raises: SystemExit, see `check`.
    """
    check(params, concept, method, folder)
    os.environ["ERASEFLOW_DEVICE"], os.environ["ERASEFLOW_PRECISION"] = "cpu", "fp32"  # read when `cells` is imported
    from eraseflow import model_card
    from eraseflow.cells import setting
    from eraseflow.edits import Edit
    from eraseflow.sampling import solver

    _, testbed, world = setting(params, concept)
    pipeline = world.load_pipeline(testbed.model, "cpu")
    pipeline.scheduler = solver(pipeline, testbed.sampling)
    edit = Edit.load(CELLS / concept / method / "edit")
    sampler = next((part.sampler["method"] for part in edit.leaves() if part.kind == "sampler"), "")
    card = model_card.card(params, concept, method, CELLS, CONCEPTS, sampler)
    with replacing(folder) as unfinished:
        edit.export(pipeline, unfinished)
        (unfinished / "README.md").write_text(card, encoding="utf-8")
