"""The emoji base model: trains tokenizer, text encoder, autoencoder and U-Net and assembles the pipeline."""

import shutil
import sys
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from diffusers import AutoencoderKL, StableDiffusionPipeline
from safetensors import SafetensorError
from transformers import CLIPTextModel, CLIPTokenizer

from eraseflow import memory
from eraseflow.emoji import autoencoder, denoiser, english, pictures, text_encoder, tokenizer
from eraseflow.emoji.captions import pool
from eraseflow.emoji.vocabulary import HELD_OUT_PAIRS
from eraseflow.outputs import replacing, write_csv
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
    losses: dict[str, pd.Series] = {}

    if not (resume and (part := _kept(work / "text_encoder", CLIPTextModel))):
        part = _text_encoder(work, settings, resume)
    text, losses["text_encoder"] = part
    words = CLIPTokenizer.from_pretrained(work / "tokenizer")
    if not (resume and (part := _kept(work / "vae", AutoencoderKL))):
        model, curve = autoencoder.train(
            images, settings.latent_channels, settings.autoencoder_steps, settings.autoencoder_batch, settings.seed + 1
        )
        part = _keep(work / "vae", model, curve)
    vae, losses["vae"] = part

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
        for kept in ("text_encoder", "tokenizer", "vae"):  # as they were: in use, settings change and have paths
            shutil.rmtree(unfinished / kept)
            shutil.copytree(work / kept, unfinished / kept)
        pd.DataFrame(losses).rename_axis("step").to_csv(unfinished / "losses.csv", float_format="%.5f")
    forget(name)


def _text_encoder(work: Path, settings: BaseTraining, resume: bool) -> tuple[Any, pd.Series]:
    """Make tokenizer and text encoder and keep them; the encoder and its losses."""
    texts = english.read()
    words = tokenizer.build(texts, work / "tokenizer")
    model, curve = text_encoder.train(
        words, texts, settings.text_encoder_steps, settings.text_encoder_batch, settings.seed, work, resume
    )
    # In half precision, 15 MB instead of 30; whoever loads it gets float32, as the config says, of these very values.
    weights = {name: weight.half() for name, weight in model.state_dict().items()}
    return _keep(work / "text_encoder", model, curve, state_dict=weights)


def _keep(folder: Path, model: Any, curve: list[float], **options: Any) -> tuple[Any, pd.Series]:
    """Keep a trained part and its losses in the work folder; as they are read again."""
    write_csv(pd.Series(curve).to_frame(), folder.with_suffix(".csv"))
    with replacing(folder) as unfinished:  # last: it is the mark that both are whole
        model.save_pretrained(unfinished, **options)
    if not (kept := _kept(folder, type(model))):
        raise SystemExit(f"{folder}: cannot be read though it has just been written")
    return kept


def _kept(folder: Path, kind: Any) -> tuple[Any, pd.Series] | None:
    """A part of the work folder and its losses; None, where it is damaged with a line that says so."""
    if not folder.exists():
        return None
    try:
        return kind.from_pretrained(folder), pd.read_csv(folder.with_suffix(".csv")).iloc[:, 0]
    except (OSError, ValueError, LookupError, RuntimeError, SafetensorError) as error:
        if memory.is_full(error):
            raise
        print(f"{folder}: is damaged; it is trained anew", file=sys.stderr)
        return None
