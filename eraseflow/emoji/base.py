"""The emoji base model: trains tokenizer, text encoder, autoencoder and U-Net and assembles the pipeline."""

import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from diffusers import AutoencoderKL, StableDiffusionPipeline
from safetensors import SafetensorError
from transformers import CLIPTextModel, CLIPTokenizer

from eraseflow import memory
from eraseflow.emoji import autoencoder, denoiser, english, pictures, text_encoder, tokenizer
from eraseflow.emoji.augment import augment
from eraseflow.emoji.captions import MORE_CAPTIONS, narrower_words, pool
from eraseflow.emoji.vocabulary import HELD_OUT_PAIRS
from eraseflow.outputs import replacing, write_csv
from eraseflow.params import BaseTraining
from eraseflow.shards import WORK, fingerprint, forget

VIEWS, STRENGTH = 8, 0.5  # of each picture, the first as it is; and how far the others are moved, see augment


def train(parquet: Path, words_csv: Path, folder: Path, settings: BaseTraining, resume: bool) -> None:
    """Train the parts and save the whole pipeline in `folder`, with `losses.csv`.

    The U-Net sees pictures moved a little and mirrored, so that there are more than it can know by heart, and reads
    more captions than the text encoder, with the narrower words of `words_csv`, which the encoder knows as any noun.

    Parts that are done are kept in a work folder, unfinished ones every 250 steps; with `resume` they are picked up
    from there if pictures and settings are the same. The network is needed until the text encoder's training begins.
    """
    name = "base-" + fingerprint(parquet, words_csv, settings)
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
        seen = views(images, settings.seed + 2)
        parts = [vae.encode(view * 2 - 1).latent_dist.mean * vae.config.scaling_factor for view in seen]
    latents = torch.stack(parts)
    shown = pool(narrower_words(words_csv), MORE_CAPTIONS)
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
    with replacing(folder) as whole:
        pipeline.save_pretrained(whole)
        for name in ("text_encoder", "tokenizer"):  # as they were kept: in use, a tokenizer's settings change
            shutil.rmtree(whole / name)
            shutil.copytree(work / name, whole / name)
        pd.DataFrame(losses).rename_axis("step").to_csv(whole / "losses.csv", float_format="%.5f")
    forget(name)


def views(images: torch.Tensor, seed: int) -> list[torch.Tensor]:
    """The pictures (n, 3, h, w) as they are, and VIEWS - 1 times moved, every other time mirrored."""
    rng = np.random.default_rng(seed)
    moved = [augment(images.flip(-1) if view % 2 else images, rng, STRENGTH) for view in range(1, VIEWS)]
    return [images, *moved]


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
