"""The emoji base model: trains tokenizer, text encoder, autoencoder and U-Net and assembles the pipeline."""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from diffusers import AutoencoderKL, StableDiffusionPipeline
from safetensors import SafetensorError
from transformers import CLIPTextModel

from eraseflow import memory
from eraseflow.emoji import autoencoder, denoiser, pictures, text_encoder, tokenizer
from eraseflow.outputs import replacing, write_csv
from eraseflow.params import BaseTraining
from eraseflow.shards import WORK, fingerprint, forget


def train(parquet: Path, folder: Path, settings: BaseTraining, resume: bool) -> None:
    """Train the parts and save the whole pipeline in `folder`, with `losses.csv`.

    Text encoder and autoencoder are kept in a work folder when done, the U-Net every 500 steps; with
    `resume` they are picked up from there if pictures and settings are the same.
    """
    name = "base-" + fingerprint(parquet, settings)
    work = WORK / name
    work.mkdir(parents=True, exist_ok=True)
    table, images = pictures.load(parquet)
    words = tokenizer.build(work / "tokenizer")
    losses = {}

    text, losses["text_encoder"] = _part(
        work / "text_encoder",
        CLIPTextModel,
        resume,
        lambda: text_encoder.train(
            words, table, images, settings.text_encoder_steps, settings.text_encoder_batch, settings.seed
        ),
    )
    vae, losses["vae"] = _part(
        work / "vae",
        AutoencoderKL,
        resume,
        lambda: autoencoder.train(
            images, settings.latent_channels, settings.autoencoder_steps, settings.autoencoder_batch, settings.seed + 1
        ),
    )

    with torch.no_grad():
        latents = vae.encode(images * 2 - 1).latent_dist.mean * vae.config.scaling_factor
    unet, curve = denoiser.train(
        table,
        latents,
        denoiser.embed_captions(text, words),
        settings.unet_steps,
        settings.unet_batch,
        settings.seed + 2,
        work / "unet.pt",
        resume,
    )
    losses["unet"] = pd.Series(curve)
    pipeline = StableDiffusionPipeline(
        vae=vae,
        text_encoder=text,
        tokenizer=words,
        unet=unet,
        scheduler=denoiser.scheduler(),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    with replacing(folder) as unfinished:
        pipeline.save_pretrained(unfinished)
        pd.DataFrame(losses).rename_axis("step").to_csv(unfinished / "losses.csv", float_format="%.5f")
    forget(name)


def _part(folder: Path, kind: Any, resume: bool, train: Callable[[], Any]) -> tuple[Any, pd.Series]:
    """A part of the pipeline and its losses: as kept in the work folder with `resume`, else trained and kept there."""
    if not (resume and folder.exists() and (kept := _kept(folder, kind))):
        model, curve = train()
        write_csv(pd.Series(curve).to_frame(), folder.with_suffix(".csv"))
        with replacing(folder) as unfinished:  # last: it is the mark that both are whole
            model.save_pretrained(unfinished)
        if not (kept := _kept(folder, kind)):
            raise SystemExit(f"{folder}: cannot be read though it has just been written")
    return kept


def _kept(folder: Path, kind: Any) -> tuple[Any, pd.Series] | None:
    """None, with a line that says so, where the part is damaged, as after a power cut."""
    try:
        return kind.from_pretrained(folder), pd.read_csv(folder.with_suffix(".csv")).iloc[:, 0]
    except (OSError, ValueError, LookupError, RuntimeError, SafetensorError) as error:
        if memory.is_full(error):
            raise
        print(f"{folder}: is damaged; it is trained anew", file=sys.stderr)
        return None
