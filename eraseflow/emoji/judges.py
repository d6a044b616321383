"""Training of the emoji testbed's judges: the classifier and the image-text network.

They see the trained pictures and `others`, in augmentations of their own, and the classifier further artists' drawings
of these; held-out pairs, every fifth of the others and the unseen artist are left for their cards.
"""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from pandas import DataFrame
from safetensors.torch import save_file
from torch import Tensor, nn
from tqdm import tqdm
from transformers import CLIPTokenizer

from eraseflow.emoji import checkpoint, pictures
from eraseflow.emoji.augment import augment, ink, recolour
from eraseflow.emoji.captions import random_caption
from eraseflow.emoji.vocabulary import EARLIER, HELD_OUT_OTHERS, HELD_OUT_PAIRS, STYLES
from eraseflow.judges import emoji_classifier
from eraseflow.metrics import emoji_clip
from eraseflow.outputs import replacing
from eraseflow.params import JudgeTraining
from eraseflow.shards import WORK, fingerprint, forget

LEARNING_RATE = 1e-3
STRENGTH = 1.6  # of the shifts, turns and scalings, beside the autoencoder's
HELD_OUT_SEED = 2**31  # augmentations of the held-out pictures; training draws from other seeds
OTHERS_SHARE, INKED_SHARE, BLENDS_SHARE = 0.35, 0.2, 0.1  # of a batch
NO_STYLE = -100  # which PyTorch's losses leave out


def view(images: Tensor, rng: np.random.Generator) -> Tensor:
    """Augmented pictures (n, 3, 32, 32) of stored ones (n, 3, 64, 64), a third each left sharp, blurred and noisy.

    Half are mirrored, all are moved and recoloured, as another artist might draw them; blur and noise stand for what a
    small generator does to a picture.
    """
    mirrored = torch.from_numpy(rng.random(len(images)) < 0.5).view(-1, 1, 1, 1)
    images = torch.where(mirrored, images.flip(-1), images)
    small = recolour(nn.functional.avg_pool2d(augment(images, rng, STRENGTH), 2), rng)
    blurred = nn.functional.avg_pool2d(small, 3, stride=1, padding=1, count_include_pad=False)
    noise = torch.from_numpy(rng.normal(0, 0.06, small.shape)).float()
    choice = torch.from_numpy(rng.integers(0, 3, len(small))).view(-1, 1, 1, 1)
    return torch.where(choice == 0, small, torch.where(choice == 1, blurred, small + noise)).clamp(0, 1)


def load(folder: Path) -> tuple[DataFrame, Tensor]:
    """The pictures that judges train on, (n, 3, 64, 64) in [0, 1]: the trained pairs, the others, further artists'."""
    parts = [pictures.load(folder / f"{name}.parquet", pictures.SIZE) for name in ("pictures", "others", "further")]
    table = pd.concat([part for part, _ in parts], ignore_index=True)
    pairs = zip(table["name"], table["style"], strict=True)
    trained = [row for row, (name, style) in enumerate(pairs) if not held_out(name, style)]
    return table.iloc[trained].reset_index(drop=True), torch.cat([images for _, images in parts])[trained]


def held_out(name: str, style: str) -> bool:
    """Whether a picture is left for the cards, or is an earlier version of one that is."""
    return (name, EARLIER.get(style, style)) in HELD_OUT_PAIRS or name in HELD_OUT_OTHERS


def draw(table: DataFrame, batch: int, rng: np.random.Generator) -> np.ndarray:
    """Rows of a batch, `OTHERS_SHARE` of them others; no row twice."""
    other = (table["group"] == "").to_numpy()
    count = round(batch * OTHERS_SHARE)
    chosen = [
        rng.choice(np.flatnonzero(kind), size, replace=False)
        for kind, size in ((~other, batch - count), (other, count))
    ]
    return np.concatenate(chosen)


def optimise(
    name: str, model: nn.Module, rate: float, steps: int, seed: int, saved: Path,
    loss_of: Callable[[np.random.Generator], Tensor],
) -> nn.Module:  # fmt: skip
    """Train a model with AdamW and one cycle up to a learning rate; goes on from `saved`.

    loss_of draws all that is random from its generator, which is of (seed, step), so that a resumed training equals an
    uninterrupted one.
    """
    optimiser = torch.optim.AdamW(model.parameters(), lr=LEARNING_RATE, weight_decay=0.05)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, rate, total_steps=steps)
    parts = {"model": model, "optimiser": optimiser, "schedule": schedule}
    losses = checkpoint.resume(saved, parts)
    for step in (bar := tqdm(range(len(losses), steps), initial=len(losses), total=steps, desc=name, unit="step")):
        torch.manual_seed(seed + step)  # dropout's
        loss = loss_of(np.random.default_rng((seed, step)))
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        schedule.step()
        losses.append(loss.item())
        bar.set_postfix(loss=f"{losses[-1]:.3f}", refresh=False)
        if (step + 1) % checkpoint.EVERY == 0:
            checkpoint.save(saved, parts, losses)
    return model.eval()


def train_classifier(table: DataFrame, images: Tensor, steps: int, batch: int, seed: int, saved: Path) -> nn.Module:
    """Train on augmented views, some of them inked; a blend of two pictures is nothing.

    Blends, inked views and further artists' drawings are of no style.
    """
    torch.manual_seed(seed)
    number = {name: place for place, name in enumerate(emoji_classifier.KINDS)}
    kinds = torch.tensor([number[name] for name in table["name"]])
    place_of = {style: place for place, style in enumerate(STYLES)}
    styles = torch.tensor([place_of.get(style, NO_STYLE) for style in table["style"]])
    model = emoji_classifier.Classifier().to(memory_format=torch.channels_last)
    blends, inked = round(batch * BLENDS_SHARE), round(batch * INKED_SHARE)

    def loss_of(rng: np.random.Generator) -> Tensor:
        rows = draw(table, batch, rng)
        seen, of_style = view(images[rows], rng), styles[rows]
        chosen = torch.from_numpy(rng.permutation(batch)[:inked])
        seen[chosen], of_style[chosen] = ink(seen[chosen], rng), NO_STYLE
        blended = (seen[:blends] + seen[blends : 2 * blends]) / 2
        of_kinds, of_styles = model.of_kinds(torch.cat([seen, blended]).to(memory_format=torch.channels_last))
        loss = nn.functional.nll_loss(of_kinds, torch.cat([kinds[rows], torch.full((blends,), number[""])]))
        return loss + nn.functional.nll_loss(of_styles[:batch], of_style, ignore_index=NO_STYLE)

    return optimise("classifier", model, 2 * LEARNING_RATE, steps, seed, saved, loss_of)


def train_image_text(
    table: DataFrame, images: Tensor, tokenizer: CLIPTokenizer, steps: int, batch: int, seed: int, saved: Path
) -> nn.Module:
    """Train the open_clip network on augmented views and captions; every true caption of a batch is a positive."""
    torch.manual_seed(seed)
    model = emoji_clip.build(len(tokenizer))

    def loss_of(rng: np.random.Generator) -> Tensor:
        rows = draw(table, batch, rng)
        pairs = [(table["name"][r], table["style"][r]) for r in rows]
        captions = [random_caption(*pair, rng) for pair in pairs]
        true = torch.tensor([[caption.fits(*pair) for caption in captions] for pair in pairs]).float()
        texts = [caption.text for caption in captions]
        ids = tokenizer(texts, padding="max_length", truncation=True, return_tensors="pt").input_ids
        seen = model.encode_image(view(images[rows], rng) * 2 - 1, normalize=True)
        words = model.encode_text(ids, normalize=True)
        logits = model.logit_scale.exp().clamp(max=100) * seen @ words.T
        loss = nn.functional.cross_entropy(logits, true / true.sum(1, keepdim=True))
        return loss + nn.functional.cross_entropy(logits.T, true.T / true.T.sum(1, keepdim=True))

    return optimise("image-text", model, LEARNING_RATE, steps, seed, saved, loss_of)


def train(folder: Path, tokenizer: Path, settings: JudgeTraining, models: Path) -> None:
    """Train both networks on the pictures of `folder` and write them to `models`, where their loaders look for them.

    The image-text network reads with the base model's tokenizer and has learnt everything else by itself. A training
    that was killed goes on.
    """
    name = "judges-" + fingerprint(folder, tokenizer, settings)
    work = WORK / name
    work.mkdir(parents=True, exist_ok=True)
    table, images = load(folder)
    words = CLIPTokenizer.from_pretrained(tokenizer)
    classifier = train_classifier(
        table, images, settings.classifier_steps, settings.batch, settings.seed, work / "classifier.pt"
    )
    ours = table["style"].isin(list(STYLES)).to_numpy()  # captions say in which style
    own, own_images = table[ours].reset_index(drop=True), images[torch.from_numpy(ours)]
    image_text = train_image_text(
        own, own_images, words, settings.image_text_steps, settings.batch, settings.seed + 1, work / "image_text.pt"
    )
    with replacing(models) as unfinished:
        network = emoji_clip.FOLDER.name
        shutil.copytree(tokenizer, unfinished / network)
        files = {emoji_classifier.WEIGHTS.name: classifier, f"{network}/{emoji_clip.WEIGHTS.name}": image_text}
        for file, model in files.items():
            save_file({name: tensor.contiguous() for name, tensor in model.state_dict().items()}, unfinished / file)
        config = json.dumps({"model_cfg": emoji_clip.CONFIG}, indent=2)
        (unfinished / network / "open_clip_config.json").write_text(config + "\n", encoding="utf-8")
    forget(name)
