"""The emoji testbed: a small Stable Diffusion that this project trains itself, of emoji in five styles."""

from pathlib import Path

import pandas as pd
import torch
from diffusers import DDIMScheduler, StableDiffusionPipeline
from torch import Tensor

from eraseflow import cells, finite
from eraseflow.cpu import convolve_linears
from eraseflow.emoji import pictures
from eraseflow.emoji.vocabulary import NAMES, STYLES
from eraseflow.params import Testbed
from eraseflow.testbeds import base_model

BATCH = 48  # pictures drawn at once
# A second thread hardly helps networks this small, and would round otherwise; `make repro` gives each core its cells.
THREADS = 1
# What an edited model is shared under: its name on the Hub, and what to say.
LICENCE = (
    "cc-by-sa-4.0",
    "CC BY-SA 4.0. The base model is trained on emoji by Twemoji (CC BY 4.0, copyright Twitter, Inc. and other "
    "contributors), OpenMoji (CC BY-SA 4.0, the open-source emoji and icon project), Fluent Emoji (MIT, copyright "
    "Microsoft Corporation) and Noto Emoji (Apache-2.0, copyright Google Inc.); whether a model derives from its "
    "pictures is not settled, so it is treated as if it did.",
)
PICTURES = Path("data/emoji/pictures.parquet")
PICTURED = [f"object/{name};style/{style}" for name in NAMES for style in STYLES]  # what kept prompts may expect
OWN = ["emoji_classifier", "emoji_clip"]  # networks for pictures of this size alone


def load_pipeline(model: str, device: str) -> StableDiffusionPipeline:
    """The base pipeline in evaluation mode, in ERASEFLOW_PRECISION, its U-Net laid out for speed.

    Raises: SystemExit with one line where the folder is missing, or holds a model of an unsupported kind or with NaN.
    """
    if not (Path(model) / "model_index.json").is_file():
        raise SystemExit(f"{model}: no base model here; `git checkout {model}` or `dvc repro -f base` makes it")
    base_model.check(Path(model), model)
    pipeline = StableDiffusionPipeline.from_pretrained(
        model, dtype=cells.DTYPES[cells.PRECISION], safety_checker=None, local_files_only=True
    )
    # Latents know no bounds: where the model's own config says nothing, DDIM would cut them to -1..1.
    pipeline.scheduler = DDIMScheduler.from_config(pipeline.scheduler.config, clip_sample=False)
    pipeline.unet.to(memory_format=torch.channels_last)
    if device == "cpu":
        convolve_linears(pipeline.unet)
    pipeline.set_progress_bar_config(disable=True)
    pipeline = pipeline.to(device)
    finite.pipeline(pipeline, model)
    return pipeline


def ready(testbed: Testbed, device: str) -> None:
    """Nothing to fetch: model, judges and pictures are in git, and any device will do.

    Raises: SystemExit with one line where the model is of an unsupported kind.
    """
    if (Path(testbed.model) / "model_index.json").is_file():
        base_model.check(Path(testbed.model), testbed.model)


def real_names(testbed: Testbed) -> list[str]:
    """What the artists' own pictures show, such as "object/horse;style/flat"."""
    table = pd.read_parquet(PICTURES, columns=["name", "style"])
    return list("object/" + table["name"] + ";style/" + table["style"])


def real_pictures(testbed: Testbed, names: list[str]) -> Tensor:
    """The artists' own pictures (n, 3, 32, 32) uint8."""
    rows = {name: row for row, name in enumerate(real_names(testbed))}
    _, images = pictures.load(PICTURES)
    return (images[[rows[name] for name in names]] * 255).round().to(torch.uint8)


def compared(names: list[str], expect: pd.Series) -> list[int]:
    """The picture that each prompt stands for."""
    rows = {name: row for row, name in enumerate(names)}
    return [rows[label] for label in expect]
