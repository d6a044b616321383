"""Contrastive training of the emoji model's CLIP text encoder, with an image tower that is thrown away afterwards."""

from itertools import pairwise

import numpy as np
import torch
from pandas import DataFrame
from torch import Tensor, nn
from tqdm import trange
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from eraseflow.emoji.augment import augment
from eraseflow.emoji.vocabulary import random_caption

WIDTH = 128


def build(tokenizer: CLIPTokenizer) -> CLIPTextModel:
    """A CLIP text model of 3 layers and 128 channels for this tokenizer."""
    return CLIPTextModel(
        CLIPTextConfig(
            vocab_size=len(tokenizer),
            hidden_size=WIDTH,
            intermediate_size=4 * WIDTH,
            projection_dim=WIDTH,
            num_hidden_layers=3,
            num_attention_heads=4,
            max_position_embeddings=tokenizer.model_max_length,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
    )


def image_tower() -> nn.Sequential:
    """A small convolutional network from (n, 3, 32, 32) to (n, 128)."""
    widths = [3, 32, 64, 128]
    layers: list[nn.Module] = []
    for before, after in pairwise(widths):
        layers += [nn.Conv2d(before, after, 4, 2, 1), nn.GroupNorm(8, after), nn.SiLU()]
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(128 * 16, WIDTH))


def train(tokenizer: CLIPTokenizer, table: DataFrame, images: Tensor, steps: int, batch_size: int, seed: int):
    """Train on pairs of pictures (n, 3, 32, 32) in [0, 1] and captions drawn anew at each step.

    InfoNCE with several positives: the target of a picture is spread over every caption of the batch
    that is true of it ("a dagger" and "weapon" both are), which is what makes neighbours in meaning
    neighbours in the encoder. Returns the text model and the loss of each step.
    """
    torch.manual_seed(seed)
    rng = np.random.default_rng(seed)
    text, tower = build(tokenizer), image_tower()
    scale = nn.Parameter(torch.tensor(np.log(10.0), dtype=torch.float32))
    weights = [*text.parameters(), *tower.parameters(), scale]
    optimiser = torch.optim.AdamW(weights, lr=1e-3, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, 1e-3, total_steps=steps)
    losses = []
    for _ in (bar := trange(steps, desc="text encoder", unit="step")):
        rows = rng.choice(len(table), batch_size, replace=False)
        pairs = [(table.name[r], table["style"][r]) for r in rows]
        captions = [random_caption(*pair, rng) for pair in pairs]
        true = torch.tensor([[caption.fits(*pair) for caption in captions] for pair in pairs]).float()
        ids = tokenizer([c.text for c in captions], padding="max_length", return_tensors="pt").input_ids
        words = nn.functional.normalize(text(ids).pooler_output, dim=-1)
        seen = nn.functional.normalize(tower(augment(images[rows], rng)), dim=-1)
        logits = scale.exp().clamp(max=100) * seen @ words.T
        loss = (
            nn.functional.cross_entropy(logits, true / true.sum(1, keepdim=True))
            + nn.functional.cross_entropy(logits.T, true.T / true.T.sum(1, keepdim=True))
        ) / 2
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        schedule.step()
        losses.append(loss.item())
        bar.set_postfix(loss=f"{loss.item():.3f}", refresh=False)
    return text.eval(), losses
