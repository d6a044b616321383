"""The emoji testbed's judge: a small convolutional network that names style and object of a picture.

An object may also be "something else": it learns other things as kinds of their own, which then count as one, and
blends of two pictures as nothing, so that a picture of nothing it knows need not count as the nearest concept.
"""

from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import pandas as pd
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from eraseflow.emoji.vocabulary import HELD_OUT_OTHERS, NAMES, OTHERS, STYLES
from eraseflow.inputs import reading
from eraseflow.params import Concept

WEIGHTS = Path("models/judges/emoji_classifier.safetensors")
SOMETHING_ELSE = "something else"
OBJECTS = [*NAMES, SOMETHING_ELSE]
# What the network itself tells apart: the names, other things of which it has seen pictures, and nothing at all.
KINDS = [*NAMES, *(other for other in OTHERS if other not in HELD_OUT_OTHERS), ""]
LABELS = [f"object/{name}" for name in OBJECTS] + [f"style/{style}" for style in STYLES]


class Classifier(nn.Module):
    """Two heads over one trunk: (n, 3, 32, 32) in [0, 1] to log-probabilities (n, objects + styles)."""

    def __init__(self) -> None:
        super().__init__()
        widths = [3, 32, 64, 128]
        layers: list[nn.Module] = []
        for before, after in pairwise(widths):
            layers += [nn.Conv2d(before, after, 3, padding=1), nn.BatchNorm2d(after), nn.ReLU()]
            layers += [nn.Conv2d(after, after, 3, stride=2, padding=1), nn.BatchNorm2d(after), nn.ReLU()]
        self.trunk = nn.Sequential(*layers, nn.Flatten(), nn.Dropout(0.3))
        self.kinds = nn.Linear(128 * 16, len(KINDS))
        self.styles = nn.Linear(128 * 16, len(STYLES))

    def of_kinds(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Log-probabilities of KINDS (n, kinds) and of STYLES (n, styles)."""
        features = self.trunk(images * 2 - 1)
        return self.kinds(features).log_softmax(-1), self.styles(features).log_softmax(-1)

    def forward(self, images: Tensor) -> Tensor:
        kinds, styles = self.of_kinds(images)
        something_else = kinds[:, len(NAMES) :].logsumexp(1, keepdim=True)
        return torch.cat([kinds[:, : len(NAMES)], something_else, styles], dim=1)


def load(device: str = "cpu", concept: Concept | None = None) -> Callable[[Tensor], pd.DataFrame]:
    """The judge: pictures (n, 3, 32, 32) uint8 to probabilities, one column a label, each head adding to one.

    It is the same for every concept.
    """
    model = Classifier().to(device).eval()
    with reading(WEIGHTS):
        model.load_state_dict(load_file(WEIGHTS))

    @torch.no_grad()
    def judge(pictures: Tensor) -> pd.DataFrame:
        parts = [model(part.to(device).float() / 255).exp().cpu() for part in pictures.split(256)]
        return pd.DataFrame(torch.cat(parts).numpy(), columns=LABELS)

    return judge
