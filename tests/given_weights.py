"""What `pretrained` makes of somebody's weights for the miniature: an edit, or one line that refuses them."""

import pytest
import torch
from conftest import CONCEPT, miniature

from eraseflow.edits import Edit
from eraseflow.methods import pretrained


def settings(place) -> pretrained.Settings:
    return pretrained.Settings(sources={"unicorn": str(place)})


def edit_of(place) -> Edit:
    return pretrained.erase(miniature(), CONCEPT, settings(place), 0)


def fails(place) -> str:
    with pytest.raises(SystemExit) as failure:
        edit_of(place)
    assert len(str(failure.value).splitlines()) == 1, failure.value
    return str(failure.value)


def drawn(pipeline) -> torch.Tensor:
    """A picture of it (1, height, width, 3), 0..1."""
    generator = torch.Generator().manual_seed(0)
    return torch.from_numpy(pipeline("a unicorn", num_inference_steps=2, generator=generator, output_type="np").images)
