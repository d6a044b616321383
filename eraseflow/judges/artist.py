"""Which of WikiArt's artists a picture looks like: a ViT-B classifier, as UnlearnDiffAtk (ECCV 2024) judges styles.

Card: a vision transformer (Dosovitskiy et al., ICLR 2021) fine-tuned on WikiArt with 129 labels, one of them "Unknown
Artist". UnlearnDiffAtk's own is published as an archive outside the Hub (checkpoint-2800, linked in its README), so
that the concept names the `source`: the unpacked folder, or a pinned Hub repository with a classifier of the same
labels. Raw scores are probabilities that add to one. The first choice decides, UnlearnDiffAtk's top-1; its top-3 can be
had from the scores. Not every painter is a label: Caravaggio is none.
"""

import pickle
from collections.abc import Callable
from importlib.resources import files
from pathlib import Path

import pandas as pd
import torch
from safetensors import SafetensorError
from torch import Tensor
from transformers import AutoImageProcessor, AutoModelForImageClassification

from eraseflow import hub
from eraseflow.mistakes import nearest
from eraseflow.outside.content import files as files_of
from eraseflow.outside.content import local
from eraseflow.params import Concept

NAME = "ViT WikiArt"
BATCH = 64
NEEDS = ["source"]
FILES = ["*.json", "*.safetensors", "*.bin"]
ARTISTS = files("eraseflow.judges").joinpath("artist.txt")  # in the order of the data set huggan/wikiart
LABELS = [f"artist/{name}" for name in ARTISTS.read_text(encoding="utf-8").splitlines()]


def ready(concept: Concept) -> Path:
    """The classifier's folder, fetched if it is on the Hub.

    Raises: SystemExit as hub.snapshot does, or where the folder holds no model.
    """
    source = concept.judge.source
    assert source, "`checks` sees to it"
    folder = hub.snapshot(source, FILES)
    if not (folder / "config.json").is_file():
        raise SystemExit(f"{source}: has no config.json; expected an image classifier of transformers, unpacked")
    return folder


def outside(concept: Concept) -> list[Path]:
    """The classifier's files, where it lies in a local folder."""
    return [file for place in local(concept.judge.source or "") for file in files_of(place, FILES)]


def load(device: str, concept: Concept) -> Callable[[Tensor], pd.DataFrame]:
    """The judge: pictures (n, 3, H, W) uint8 to 129 probabilities.

    Raises: SystemExit where the concept's source cannot be had, or classifies something else.
    """
    folder, source = ready(concept), concept.judge.source or ""
    try:
        processor = AutoImageProcessor.from_pretrained(folder)
        model = AutoModelForImageClassification.from_pretrained(folder, weights_only=True).to(device).eval()
    except (OSError, ValueError, RuntimeError, pickle.UnpicklingError, SafetensorError) as error:
        raise SystemExit(f"{source}: is no image classifier of transformers ({str(error).splitlines()[0]})") from None
    columns = labels([model.config.id2label[place] for place in range(model.config.num_labels)], source)

    @torch.no_grad()
    def judge(pictures: Tensor) -> pd.DataFrame:
        parts = []
        for part in pictures.split(BATCH):
            inputs = processor(images=list(part), return_tensors="pt").to(device)
            parts.append(model(**inputs).logits.softmax(-1).cpu())
        return pd.DataFrame(torch.cat(parts).numpy(), columns=columns)[LABELS]

    return judge


def labels(names: list[str], source: str) -> list[str]:
    """Our labels for a classifier's outputs: by their names, or by their places where it has no names for them.

    Raises: SystemExit where they are not the 129 artists.
    """
    ours = {_ascii(label.removeprefix("artist/")): label for label in LABELS}
    if names == [f"LABEL_{place}" for place in range(len(LABELS))]:
        return LABELS
    for name in names:
        if _ascii(name) not in ours:
            meant = nearest(name, [label.removeprefix("artist/") for label in LABELS])
            raise SystemExit(f"{source}: its label {name!r} is none of WikiArt's 129 artists{meant}")
    if len(set(names)) != len(LABELS):
        raise SystemExit(f"{source}: has {len(set(names))} labels, expected WikiArt's 129 artists")
    return [ours[_ascii(name)] for name in names]


def _ascii(name: str) -> str:
    """Copies of the data set differ in how they break the accent of joaquín-sorolla."""
    return "".join(letter for letter in name if letter.isascii())
