"""The unedited base model: the reference row of every table."""

from eraseflow.edits import Edit
from eraseflow.params import Block, Concept


class Settings(Block):
    pass


def erase(pipeline, concept: Concept, settings: Settings, seed: int) -> Edit:
    """Change nothing."""
    return Edit("weights", {})
