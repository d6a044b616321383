"""Training of the emoji testbed's judges and their cards: how often they are right, and on what."""

import json
from pathlib import Path

import numpy as np
import torch
from pandas import DataFrame
from safetensors.torch import save_file
from torch import Tensor, nn
from tqdm import trange
from transformers import CLIPTokenizer

from eraseflow.emoji import pictures, tokenizer
from eraseflow.emoji.augment import augment
from eraseflow.emoji.vocabulary import NAMES, STYLES, random_caption
from eraseflow.judges import emoji_classifier
from eraseflow.metrics import emoji_clip
from eraseflow.outputs import replacing
from eraseflow.params import JudgeTraining

LEARNING_RATE = 1e-3
HELD_OUT_SEED = 2**31  # augmentations of the held-out pictures; training draws from other seeds


def view(images: Tensor, rng: np.random.Generator) -> Tensor:
    """Augmented pictures (n, 3, 32, 32) of stored ones (n, 3, 64, 64), a third each left sharp, blurred and noisy.

    Blur and noise stand for what a small generator does to a picture.
    """
    small = nn.functional.avg_pool2d(augment(images, rng), 2)
    blurred = nn.functional.avg_pool2d(small, 3, stride=1, padding=1, count_include_pad=False)
    noise = torch.from_numpy(rng.normal(0, 0.06, small.shape)).float()
    choice = torch.from_numpy(rng.integers(0, 3, len(small))).view(-1, 1, 1, 1)
    return torch.where(choice == 0, small, torch.where(choice == 1, blurred, small + noise)).clamp(0, 1)


def train_classifier(
    table: DataFrame, images: Tensor, steps: int, batch: int, seed: int
) -> emoji_classifier.Classifier:
    """Train on augmented views of every picture; images (n, 3, 64, 64) in [0, 1]."""
    torch.manual_seed(seed)
    rng = np.random.default_rng(seed)
    objects = torch.tensor([NAMES.index(name) for name in table.name])
    styles = torch.tensor([list(STYLES).index(style) for style in table["style"]])
    model = emoji_classifier.Classifier().to(memory_format=torch.channels_last)
    optimiser = torch.optim.AdamW(model.parameters(), lr=LEARNING_RATE, weight_decay=0.05)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, 2 * LEARNING_RATE, total_steps=steps)
    for _ in (bar := trange(steps, desc="classifier", unit="step")):
        rows = rng.choice(len(table), batch, replace=False)
        logits = model(view(images[rows], rng).to(memory_format=torch.channels_last))
        loss = nn.functional.nll_loss(logits[:, : len(NAMES)], objects[rows])
        loss = loss + nn.functional.nll_loss(logits[:, len(NAMES) :], styles[rows])
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        schedule.step()
        bar.set_postfix(loss=f"{loss.item():.3f}", refresh=False)
    return model.eval()


def train_image_text(table: DataFrame, images: Tensor, tokenizer: CLIPTokenizer, steps: int, batch: int, seed: int):
    """Train the open_clip network on augmented views and captions; every true caption of a batch is a positive."""
    torch.manual_seed(seed)
    rng = np.random.default_rng(seed)
    model = emoji_clip.build(len(tokenizer))
    optimiser = torch.optim.AdamW(model.parameters(), lr=LEARNING_RATE, weight_decay=0.05)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, LEARNING_RATE, total_steps=steps)
    for _ in (bar := trange(steps, desc="image-text", unit="step")):
        rows = rng.choice(len(table), batch, replace=False)
        pairs = [(table.name[r], table["style"][r]) for r in rows]
        captions = [random_caption(*pair, rng) for pair in pairs]
        true = torch.tensor([[caption.fits(*pair) for caption in captions] for pair in pairs]).float()
        ids = tokenizer([c.text for c in captions], padding="max_length", return_tensors="pt").input_ids
        seen = model.encode_image(view(images[rows], rng) * 2 - 1, normalize=True)
        words = model.encode_text(ids, normalize=True)
        logits = model.logit_scale.exp().clamp(max=100) * seen @ words.T
        loss = nn.functional.cross_entropy(logits, true / true.sum(1, keepdim=True))
        loss = loss + nn.functional.cross_entropy(logits.T, true.T / true.T.sum(1, keepdim=True))
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        schedule.step()
        bar.set_postfix(loss=f"{loss.item():.3f}", refresh=False)
    return model.eval()


def train(parquet: Path, settings: JudgeTraining) -> None:
    """Train both networks and write them where their loaders look for them, each whole when both are trained."""
    table, images = pictures.load(parquet, pictures.SIZE)
    with replacing(emoji_clip.FOLDER) as unfinished:
        words = tokenizer.build(unfinished)
        classifier = train_classifier(table, images, settings.classifier_steps, settings.batch, settings.seed)
        image_text = train_image_text(
            table, images, words, settings.image_text_steps, settings.batch, settings.seed + 1
        )
        save_file(_weights(image_text), unfinished / emoji_clip.WEIGHTS.name)
        config = {"model_cfg": emoji_clip.CONFIG}
        (unfinished / "open_clip_config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
    with replacing(emoji_classifier.WEIGHTS) as unfinished:
        save_file(_weights(classifier), unfinished)


def _weights(model: nn.Module) -> dict[str, Tensor]:
    return {name: tensor.contiguous() for name, tensor in model.state_dict().items()}
