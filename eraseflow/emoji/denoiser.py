"""Training of the emoji model's U-Net on the pictures' latents, with checkpoints that resume exactly."""

import pickle
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import DDIMScheduler, UNet2DConditionModel
from pandas import DataFrame
from torch import Tensor, nn
from tqdm import trange

from eraseflow import memory
from eraseflow.emoji.text_encoder import WIDTH
from eraseflow.emoji.vocabulary import all_captions, random_caption
from eraseflow.outputs import replacing

LEARNING_RATE = 1e-3
EMA = 0.999
CHECKPOINT_EVERY = 500


def build(latent_channels: int) -> UNet2DConditionModel:
    """A two-level U-Net with cross-attention in both: 116 MFLOP a pass (two a multiply-add)."""
    return UNet2DConditionModel(
        sample_size=8,
        in_channels=latent_channels,
        out_channels=latent_channels,
        block_out_channels=(48, 96),
        layers_per_block=1,
        down_block_types=("CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D"),
        cross_attention_dim=WIDTH,
        attention_head_dim=4,
        norm_num_groups=16,
    )


def scheduler() -> DDIMScheduler:
    """Stable Diffusion 1.4's noise schedule."""
    return DDIMScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        clip_sample=False,
        set_alpha_to_one=False,
        steps_offset=1,
    )


def embed_captions(text_encoder: nn.Module, tokenizer) -> tuple[dict[str, int], Tensor]:
    """The row of each caption text, and the hidden states (captions, tokens, 128)."""
    texts = list(dict.fromkeys(caption.text for caption in all_captions()))
    ids = tokenizer(texts, padding="max_length", return_tensors="pt").input_ids
    with torch.no_grad():
        hidden = text_encoder(ids).last_hidden_state
    return {text: row for row, text in enumerate(texts)}, hidden


def train(
    table: DataFrame, latents: Tensor, captions: tuple[dict[str, int], Tensor], steps: int, batch_size: int, seed: int,
    checkpoint: Path, resume: bool,
):  # fmt: skip
    """Train on scaled latents (n, channels, 8, 8); returns the averaged U-Net and the loss of each step.

    Each step draws from a generator seeded by (seed, step), so a resumed run equals an uninterrupted one.
    """
    torch.manual_seed(seed)
    rows_of, hidden = captions
    alphas = scheduler().alphas_cumprod
    model = build(latents.shape[1]).to(memory_format=torch.channels_last)
    average = torch.optim.swa_utils.AveragedModel(model, multi_avg_fn=torch.optim.swa_utils.get_ema_multi_avg_fn(EMA))
    optimiser = torch.optim.AdamW(model.parameters(), lr=LEARNING_RATE, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, LEARNING_RATE, total_steps=steps, pct_start=0.1)
    parts = {"model": model, "average": average, "optimiser": optimiser, "schedule": schedule}
    losses: list[float] = []
    if resume and (saved := _saved(checkpoint, [*parts, "losses"])):
        for key, part in parts.items():
            part.load_state_dict(saved[key])
        losses = saved["losses"]
    for step in (bar := trange(len(losses), steps, initial=len(losses), total=steps, desc="U-Net", unit="step")):
        rng = np.random.default_rng((seed, step))
        noise_rng = torch.Generator().manual_seed(int(rng.integers(2**62)))
        rows = rng.choice(len(table), batch_size, replace=False)
        texts = [random_caption(table.name[r], table["style"][r], rng).text for r in rows]
        condition = hidden[[rows_of[text] for text in texts]]
        t = torch.from_numpy(rng.integers(0, len(alphas), batch_size))
        noise = torch.randn(latents[rows].shape, generator=noise_rng)
        alpha = alphas[t].view(-1, 1, 1, 1)
        noisy = alpha.sqrt() * latents[rows] + (1 - alpha).sqrt() * noise
        predicted = model(noisy.to(memory_format=torch.channels_last), t, condition).sample
        loss = nn.functional.mse_loss(predicted, noise)
        optimiser.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        schedule.step()
        average.update_parameters(model)
        losses.append(loss.item())
        bar.set_postfix(loss=f"{np.mean(losses[-100:]):.4f}", refresh=False)
        if (step + 1) % CHECKPOINT_EVERY == 0:
            with replacing(checkpoint) as unfinished:
                torch.save({key: part.state_dict() for key, part in parts.items()} | {"losses": losses}, unfinished)
    return average.module.eval(), losses


def _saved(checkpoint: Path, keys: list[str]) -> dict[str, Any] | None:
    """What a checkpoint holds; None, with a line that says so, where it is damaged, as after a power cut."""
    if not checkpoint.exists():
        return None
    try:
        saved = torch.load(checkpoint, weights_only=True)
        return {key: saved[key] for key in keys}
    except (EOFError, OSError, RuntimeError, LookupError, TypeError, ValueError, pickle.UnpicklingError) as error:
        if memory.is_full(error):
            raise
        print(f"{checkpoint}: is damaged; the training of the U-Net begins anew", file=sys.stderr)
        return None
