"""Training of the emoji model's AutoencoderKL: 32-pixel pictures to 8 x 8 latents."""

import numpy as np
import torch
from diffusers import AutoencoderKL
from torch import Tensor, nn
from tqdm import trange

from eraseflow.emoji.augment import augment

KL_WEIGHT = 1e-4  # on the mean over latent elements; keeps the latents' scale bounded


def build(latent_channels: int) -> AutoencoderKL:
    """A narrow f = 4 autoencoder: its full-resolution convolutions are the dearest part of a sample."""
    return AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 3,
        up_block_types=("UpDecoderBlock2D",) * 3,
        block_out_channels=(16, 32, 48),
        layers_per_block=1,
        latent_channels=latent_channels,
        norm_num_groups=8,
        sample_size=32,
        mid_block_add_attention=False,
    )


def train(images: Tensor, latent_channels: int, steps: int, batch_size: int, seed: int):
    """Train on (n, 3, 32, 32) images in [0, 1]; half of each batch is augmented.

    Loss: L1 plus the L1 of horizontal and vertical differences (sharp edges) plus a small KL term.
    Sets `scaling_factor` to one over the latents' standard deviation. Returns the model and its losses.
    """
    torch.manual_seed(seed)
    rng = np.random.default_rng(seed)
    model = build(latent_channels).to(memory_format=torch.channels_last)
    optimiser = torch.optim.AdamW(model.parameters(), lr=2e-3, weight_decay=0.0)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, 2e-3, total_steps=steps)
    losses = []
    for _ in (bar := trange(steps, desc="autoencoder", unit="step")):
        plain = images[rng.choice(len(images), batch_size, replace=False)]
        half = batch_size // 2
        target = torch.cat([plain[:half], augment(plain[half:], rng)]) * 2 - 1
        posterior = model.encode(target.to(memory_format=torch.channels_last)).latent_dist
        error = model.decode(posterior.sample()).sample - target
        edges = error.diff(dim=-1).abs().mean() + error.diff(dim=-2).abs().mean()
        kl = posterior.kl().mean() / posterior.mean[0].numel()
        loss = error.abs().mean() + 0.5 * edges + KL_WEIGHT * kl
        optimiser.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        schedule.step()
        losses.append(loss.item())
        bar.set_postfix(loss=f"{loss.item():.4f}", refresh=False)
    model.eval()
    with torch.no_grad():
        std = model.encode(images * 2 - 1).latent_dist.mean.std().item()
    model.register_to_config(scaling_factor=1 / std)
    return model, losses
