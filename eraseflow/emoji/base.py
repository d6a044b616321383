"""The emoji base model: trains tokenizer, text encoder, autoencoder and U-Net and assembles the pipeline."""

import shutil
from pathlib import Path

import pandas as pd
import torch
from diffusers import AutoencoderKL, StableDiffusionPipeline
from transformers import CLIPTextModel

from eraseflow.emoji import autoencoder, denoiser, pictures, text_encoder, tokenizer
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

    if not (resume and (work / "text_encoder").exists()):
        model, curve = text_encoder.train(
            words, table, images, settings.text_encoder_steps, settings.text_encoder_batch, settings.seed
        )
        pd.Series(curve).to_csv(work / "text_encoder.csv", index=False)
        model.save_pretrained(work / "text_encoder")
    if not (resume and (work / "vae").exists()):
        model, curve = autoencoder.train(
            images, settings.latent_channels, settings.autoencoder_steps, settings.autoencoder_batch, settings.seed + 1
        )
        pd.Series(curve).to_csv(work / "vae.csv", index=False)
        model.save_pretrained(work / "vae")
    for part in ("text_encoder", "vae"):
        losses[part] = pd.read_csv(work / f"{part}.csv").iloc[:, 0]
    text = CLIPTextModel.from_pretrained(work / "text_encoder")
    vae = AutoencoderKL.from_pretrained(work / "vae")

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
    whole = work / "pipeline"
    pipeline.save_pretrained(whole)
    pd.DataFrame(losses).rename_axis("step").to_csv(whole / "losses.csv", float_format="%.5f")
    shutil.rmtree(folder, ignore_errors=True)
    shutil.move(whole, folder)
    forget(name)
