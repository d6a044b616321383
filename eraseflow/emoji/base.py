"""The emoji base model: trains tokenizer, text encoder, autoencoder and U-Net and assembles the pipeline."""

import shutil
from pathlib import Path

import pandas as pd
import torch
from diffusers import AutoencoderKL, StableDiffusionPipeline
from transformers import CLIPTextModel, CLIPTokenizer

from eraseflow.emoji import autoencoder, denoiser, english, pictures, text_encoder, tokenizer
from eraseflow.emoji.captions import pool
from eraseflow.emoji.vocabulary import HELD_OUT_PAIRS
from eraseflow.outputs import replacing
from eraseflow.params import BaseTraining
from eraseflow.shards import WORK, fingerprint, forget


def train(parquet: Path, folder: Path, settings: BaseTraining, resume: bool) -> None:
    """Train the parts and save the whole pipeline in `folder`, with `losses.csv`.

    Parts that are done are kept in a work folder, unfinished ones every 250 steps; with `resume` they are picked up
    from there if pictures and settings are the same. The network is needed until the text encoder's training begins.
    """
    name = "base-" + fingerprint(parquet, settings)
    work = WORK / name
    work.mkdir(parents=True, exist_ok=True)
    table, images = pictures.load(parquet)
    pairs = list(zip(table["name"], table["style"], strict=True))
    trained = [row for row, pair in enumerate(pairs) if pair not in HELD_OUT_PAIRS]
    images = images[trained]

    _text_encoder(work, settings, resume)
    words, text = (
        CLIPTokenizer.from_pretrained(work / "tokenizer"),
        CLIPTextModel.from_pretrained(work / "text_encoder"),
    )
    if not (resume and (work / "vae").exists()):
        model, curve = autoencoder.train(
            images, settings.latent_channels, settings.autoencoder_steps, settings.autoencoder_batch, settings.seed + 1
        )
        _keep(work, "vae", model, curve)
    vae = AutoencoderKL.from_pretrained(work / "vae")

    with torch.no_grad():
        latents = vae.encode(images * 2 - 1).latent_dist.mean * vae.config.scaling_factor
    shown = pool()
    captions = [shown[pairs[row]] for row in trained]
    texts = list(dict.fromkeys(caption.text for own in captions for caption in own))
    unet, curve = denoiser.train(
        latents,
        captions,
        ({text: row for row, text in enumerate(texts)}, denoiser.embed(text, words, texts)),
        settings.unet_steps,
        settings.unet_batch,
        settings.seed + 2,
        work / "unet.pt",
        resume,
    )
    losses = {part: pd.read_csv(work / f"{part}.csv").iloc[:, 0] for part in ("text_encoder", "vae")}
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
    with replacing(folder) as whole:
        pipeline.save_pretrained(whole)
        shutil.rmtree(whole / "text_encoder")
        shutil.copytree(work / "text_encoder", whole / "text_encoder")
        pd.DataFrame(losses).rename_axis("step").to_csv(whole / "losses.csv", float_format="%.5f")
    forget(name)


def _text_encoder(work: Path, settings: BaseTraining, resume: bool) -> None:
    """Train tokenizer and text encoder, unless they are in the work folder."""
    if resume and (work / "text_encoder").exists():
        return
    texts = english.read()
    words = tokenizer.build(texts, work / "tokenizer")
    model, curve = text_encoder.train(
        words, texts, settings.text_encoder_steps, settings.text_encoder_batch, settings.seed, work, resume
    )
    # In half precision, 15 MB instead of 30; whoever loads it gets float32, as the config says, of these very values.
    _keep(work, "text_encoder", model, curve, {name: weight.half() for name, weight in model.state_dict().items()})


def _keep(work: Path, part: str, model, curve: list[float], weights: dict[str, torch.Tensor] | None = None) -> None:
    """Keep a trained part, or these weights of it, and its losses; the folder is there only when it is whole."""
    pd.Series(curve).to_csv(work / f"{part}.csv", index=False)
    with replacing(work / part) as unfinished:
        model.save_pretrained(unfinished, **({"state_dict": weights} if weights else {}))
