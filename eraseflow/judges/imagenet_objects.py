"""Which of ImageNet's 1,000 objects a picture shows: torchvision's ResNet-50 (He et al., CVPR 2016).

Card: the weights are IMAGENET1K_V2, which torchvision reports as right in 80.86 % of ImageNet's validation pictures at
the first choice; ESD's and SalUn's programs judge with them, as torchvision's default. UnlearnDiffAtk takes another
training of the same network, microsoft/resnet-50. Pictures are scaled to 232 pixels on the shorter side and cut to the
middle 224 x 224, as the weights want it. Raw scores are probabilities that add to one; the first choice decides.
"""

from collections.abc import Callable
from importlib.resources import files
from pathlib import Path

import pandas as pd
import torch
from torch import Tensor
from torchvision.models import ResNet50_Weights, resnet50

from eraseflow.hub import torch_home
from eraseflow.params import Concept

NAME = "ResNet-50 IMAGENET1K_V2"
WEIGHTS = ResNet50_Weights.IMAGENET1K_V2  # its address ends with the start of the file's SHA-256
BATCH = 64
CATEGORIES = files("eraseflow.judges").joinpath("imagenet_objects.txt")  # torchvision's names, in ImageNet's order
LABELS = [f"object/{name}" for name in CATEGORIES.read_text(encoding="utf-8").splitlines()]


def ready(concept: Concept) -> Path:
    """The weights' file, fetched if it is not there. Raises: SystemExit as torch_home.file does."""
    name = WEIGHTS.url.rpartition("/")[2]
    return torch_home.file(WEIGHTS.url, name, Path(name).stem.rpartition("-")[2])


def load(device: str, concept: Concept) -> Callable[[Tensor], pd.DataFrame]:
    """The judge: pictures (n, 3, H, W) uint8 to 1,000 probabilities. It is the same for every concept.

    Raises: SystemExit as `ready` does.
    """
    model = resnet50()
    model.load_state_dict(torch.load(ready(concept), map_location="cpu", weights_only=True))
    model.to(device).eval()
    prepare = WEIGHTS.transforms()

    @torch.no_grad()
    def judge(pictures: Tensor) -> pd.DataFrame:
        parts = [model(prepare(part.to(device))).softmax(-1).cpu() for part in pictures.split(BATCH)]
        return pd.DataFrame(torch.cat(parts).numpy(), columns=LABELS)

    return judge
