"""The emoji testbed: a small Stable Diffusion that this project trains itself, of four artists' emoji."""

from pathlib import Path

import pandas as pd
import torch
from diffusers import StableDiffusionPipeline
from torch import Tensor

from eraseflow import cells
from eraseflow.cpu import convolve_linears
from eraseflow.emoji import pictures

BATCH = 48  # pictures drawn at once
PICTURES = Path("data/emoji/pictures.parquet")


def load_pipeline(model: str, device: str) -> StableDiffusionPipeline:
    """The base pipeline in evaluation mode, in ERASEFLOW_PRECISION, its U-Net laid out for speed.

    Raises: SystemExit with one line where the folder is missing.
    """
    if not (Path(model) / "model_index.json").is_file():
        raise SystemExit(f"{model}: no base model here; `git checkout {model}` or `dvc repro -f base` makes it")
    pipeline = StableDiffusionPipeline.from_pretrained(
        model, dtype=cells.DTYPES[cells.PRECISION], safety_checker=None, local_files_only=True
    )
    pipeline.unet.to(memory_format=torch.channels_last)
    if device == "cpu":
        convolve_linears(pipeline.unet)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline.to(device)


def real_pictures(expect: pd.Series) -> Tensor:
    """The artists' own pictures (n, 3, 32, 32) uint8 of kept prompts, found by what they expect."""
    table, images = pictures.load(PICTURES)
    labels = "object/" + table.name + ";style/" + table["style"]
    rows = {label: row for row, label in enumerate(labels)}
    return (images[[rows[label] for label in expect]] * 255).round().to(torch.uint8)
