"""Published or local weights as a row of the table, without training.

`sources` names for each concept one of these: a whole pipeline, whose solver is left aside because the testbed draws
every row alike; weights of U-Net, text encoder or autoencoder, all or some, in diffusers' or CompVis' names; a LoRA of
diffusers, PEFT or kohya's scripts; or an edit of this project. In safetensors, or as a state dict of torch (.bin, .pt,
.pth, .ckpt) that needs no code to be read; in shards, or in several precisions of which the highest is read.

It is a local path, a repository on the Hub at a commit, "owner/name@commit", or a folder or a file in one,
"owner/name@commit/folder/file.pt". Where a folder holds several of these things, one has to be named; model_index.json
names a pipeline.

The edit holds only what differs from the base. Weights are compared in the coarser of the two precisions, so that a
base saved in half precision is no difference. Every key is used, or printed with the reason why it is left out, or the
source is refused; eraseflow/checkpoints/ says how each is read.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from eraseflow.checkpoints import places, plans
from eraseflow.edits import Edit
from eraseflow.mistakes import nearest
from eraseflow.params import Block, Concept, Name, Text


class Settings(Block):
    sources: dict[Name, Text]


def ready(settings: Settings, concept: str, model: str) -> None:
    """Fetch the concept's weights before any stage, and see by their headers whether they fit the base `model`.

    Raises: SystemExit with one line where they cannot be had or do not fit.
    """
    with _of(concept):
        plans.plans(places.find(source(settings, concept)), plans.base_of(model))


def of_concept(settings: Settings, concept: str) -> Settings:
    """The settings with this concept's source alone."""
    named = {name: place for name, place in settings.sources.items() if name == concept}
    return settings.model_copy(update={"sources": named})


def outside(settings: Settings, concept: str) -> list[Path]:
    """The local files that decide the concept's weights; none where these come from the Hub, or none are named."""
    if concept not in settings.sources:
        return []
    try:
        return places.files(settings.sources[concept])
    except SystemExit:  # `ready` says why, if the table has this concept
        return [Path(settings.sources[concept])]


def source(settings: Settings, concept: str) -> str:
    """Where the concept's weights are. Raises: SystemExit where no place is named."""
    if concept not in settings.sources:
        raise SystemExit(f"names no weights for it{nearest(concept, settings.sources)}")
    return settings.sources[concept]


def erase(pipeline, concept: Concept, settings: Settings, seed: int) -> Edit:
    """Read the weights and compare them; nothing is trained, so the history is empty.

    A sampler that this project has exported beside a pipeline comes with it.
    Raises: SystemExit with one line, see eraseflow/checkpoints/edits.py.
    """
    from eraseflow.checkpoints.edits import edit_of

    with _of(concept.name):
        return edit_of(pipeline, places.find(source(settings, concept.name)))


@contextmanager
def _of(concept: str) -> Iterator[None]:
    """Say in front of a refusal whose source it is."""
    try:
        yield
    except SystemExit as error:
        raise SystemExit(f"methods.pretrained: sources.{concept}: {error}") from None
