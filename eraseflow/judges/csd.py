"""How near a picture's style is to reference pictures: CSD ViT-L (Somepalli et al. 2024, arXiv 2404.01292).

Card: CLIP's ViT-L/14 image encoder, trained further on pictures grouped by style, with a linear projection to 768
style features (CC BY 4.0). A raw score is the mean cosine to the pictures in the concept's folder of references, -1..1;
both kinds of features are scored, because EraseFlow's program compares the 1,024 features before the projection, and
CSD's own the style features. The authors of CSD say of the published weights that they do not quite give their paper's
figures. EraseFlow's reference features are not published: its cosines and these compare only if the references do.
"""

import argparse
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from open_clip.transformer import QuickGELU, VisionTransformer
from torch import Tensor, nn
from torch.nn.functional import normalize
from torchvision.transforms import InterpolationMode
from torchvision.transforms.functional import center_crop, resize
from torchvision.transforms.functional import normalize as standardise

from eraseflow import hub, picture_files
from eraseflow.params import Concept

NAME = "CSD ViT-L"
SOURCE = "tomg-group-umd/CSD-ViT-L@5bc26a6fb0487f3f00a2a7313135103a005b1b67"
FILE = "pytorch_model.bin"
SHAPE = {
    "image_size": 224,
    "patch_size": 14,
    "width": 1024,
    "layers": 24,
    "heads": 16,
    "mlp_ratio": 4,
    "output_dim": 768,
}
MEAN, STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)  # CLIP's
BATCH = 32
FIRST_CHOICE = False
NEEDS = ["references"]
LABELS = ["csd/style", "csd/backbone"]
# The file is a training's checkpoint. What it holds beside tensors is its arguments and numpy's numbers; weights_only
# reads these as data and refuses everything else.
SCALAR = np.float64(0).__reduce__()[0]
ALLOWED: list[Any] = [argparse.Namespace, np.dtype, SCALAR, (SCALAR, "numpy.core.multiarray.scalar")]
ALLOWED += [np.dtypes.Float64DType, np.dtypes.Int64DType]


class StyleNetwork(nn.Module):
    """Prepared pictures (n, 3, side, side) to unit vectors: style (n, output_dim), backbone (n, width)."""

    def __init__(self) -> None:
        super().__init__()
        self.backbone = VisionTransformer(**SHAPE, act_layer=QuickGELU)
        self.backbone.proj = None
        self.last_layer_style = nn.Parameter(torch.empty(SHAPE["width"], SHAPE["output_dim"]))

    def forward(self, pictures: Tensor) -> tuple[Tensor, Tensor]:
        features = self.backbone(pictures)
        return normalize(features @ self.last_layer_style, dim=-1), normalize(features, dim=-1)


def ready(concept: Concept) -> None:
    """Fetch the weights and read every reference picture once. Raises: SystemExit where one of them cannot be had."""
    hub.file(SOURCE, FILE)
    for file in picture_files.listed(Path(concept.judge.references or "")):
        picture_files.read(file)


def outside(concept: Concept) -> list[Path]:
    """The reference pictures."""
    folder = Path(concept.judge.references or "")
    return picture_files.listed(folder) if folder.is_dir() else [folder]


def load(device: str, concept: Concept) -> Callable[[Tensor], pd.DataFrame]:
    """The judge: pictures (n, 3, H, W) uint8 to the mean cosines (-1..1) to the concept's reference pictures.

    Raises: SystemExit where the weights cannot be had or read, or a reference picture cannot be read.
    """
    assert concept.judge.references, "`checks` sees to it"
    network = read(hub.file(SOURCE, FILE)).to(device).eval()

    @torch.no_grad()
    def features(prepared: Tensor) -> list[Tensor]:
        parts = [network(part.to(device)) for part in prepared.split(BATCH)]
        return [torch.cat(kind).cpu() for kind in zip(*parts, strict=True)]

    # The mean of the cosines to unit vectors is the product with their mean.
    centres = [kind.mean(0) for kind in features(references(Path(concept.judge.references)))]

    def judge(pictures: Tensor) -> pd.DataFrame:
        parts = [prepare(part) for part in pictures.split(BATCH)]
        cosines = [kind @ centre for kind, centre in zip(features(torch.cat(parts)), centres, strict=True)]
        return pd.DataFrame(torch.stack(cosines, dim=1).numpy(), columns=LABELS)

    return judge


def summary(scores: pd.DataFrame, concept: Concept) -> dict[str, float]:
    """The mean over the pictures, times 100; lower is better."""
    return {
        f"{NAME} cosine x100": 100 * float(scores["csd/style"].mean()),
        f"{NAME} backbone cosine x100": 100 * float(scores["csd/backbone"].mean()),
    }


def prepare(pictures: Tensor) -> Tensor:
    """The middle square (n, 3, side, side) of pictures uint8, their shorter side scaled to it, normalised as CLIP's."""
    return standardise(_square(pictures).float() / 255, MEAN, STD)


def _square(pictures: Tensor) -> Tensor:
    side = SHAPE["image_size"]
    return center_crop(resize(pictures, [side], InterpolationMode.BICUBIC, antialias=True), [side, side])


def references(folder: Path) -> Tensor:
    """The folder's pictures, of any sizes, prepared (m, 3, side, side)."""
    found = []
    for file in picture_files.listed(folder):
        channels = torch.from_numpy(picture_files.read(file)).permute(2, 0, 1).split(1)
        found.append(torch.cat([_square(channel) for channel in channels]))  # scaled alone they take a third of memory
    return prepare(torch.stack(found))


def read(file: Path) -> StyleNetwork:
    """The network of a checkpoint of CSD. Raises: SystemExit where it is not one."""
    network = StyleNetwork()
    try:
        with torch.serialization.safe_globals(ALLOWED):
            state = torch.load(file, map_location="cpu", weights_only=True)["model_state_dict"]
        state = {name.removeprefix("module."): value for name, value in state.items()}
        state.pop("last_layer_content", None)  # trained beside the style features, to make them free of content
        network.load_state_dict(state)
    except (pickle.UnpicklingError, RuntimeError, KeyError, TypeError) as error:
        what = " ".join(str(error).split())[:200]
        raise SystemExit(f"{file}: is no checkpoint of CSD ViT-L ({type(error).__name__}: {what})") from None
    return network
