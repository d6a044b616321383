"""Training of the emoji model's U-Net on the pictures' latents, with checkpoints that resume exactly."""

from pathlib import Path

import numpy as np
import torch
from diffusers import DDIMScheduler, UNet2DConditionModel
from torch import Tensor, nn
from tqdm import trange
from transformers import CLIPTextModel, CLIPTokenizer

from eraseflow.emoji import checkpoint
from eraseflow.emoji.captions import Caption
from eraseflow.emoji.text_encoder import WIDTH

LEARNING_RATE = 1e-3
EMA = 0.999
MIN_SNR = 5.0  # Hang et al. 2023 (arXiv:2303.09556), section 3.4: the same gamma


def build(latent_channels: int) -> UNet2DConditionModel:
    """A two-level U-Net with cross-attention in both: 196 MFLOP a pass (two a multiply-add)."""
    return UNet2DConditionModel(
        sample_size=8,
        in_channels=latent_channels,
        out_channels=latent_channels,
        block_out_channels=(64, 120),
        layers_per_block=1,
        down_block_types=("CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D"),
        cross_attention_dim=WIDTH,
        attention_head_dim=4,
        norm_num_groups=8,
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


def embed(text_encoder: CLIPTextModel, tokenizer: CLIPTokenizer, texts: list[str]) -> Tensor:
    """The hidden states (texts, tokens, 256), in half precision to save memory."""
    with torch.no_grad():
        ids = tokenizer(texts, padding="max_length", truncation=True, return_tensors="pt").input_ids
        return torch.cat([text_encoder(part).last_hidden_state.half() for part in ids.split(256)])


def timesteps(alphas: Tensor, count: int, rng: np.random.Generator) -> Tensor:
    """Timesteps (count,) drawn in proportion to the min-SNR weight of the noise's error, evenly spread over it.

    The weight min(SNR, gamma) / SNR in the draw instead of in the loss: the same mean, and no pass is spent on the
    nearly clean latents that weigh nothing.
    """
    ratio = alphas / (1 - alphas)
    weight = (ratio.clamp(max=MIN_SNR) / ratio).double().cumsum(0)
    place = (rng.random() + np.arange(count)) / count
    return torch.searchsorted(weight / weight[-1], torch.from_numpy(rng.permutation(place))).clamp(max=len(alphas) - 1)


def train(
    latents: Tensor, captions: list[list[Caption]], states: tuple[dict[str, int], Tensor], steps: int, batch_size: int,
    seed: int, saved: Path, resume: bool,
) -> tuple[UNet2DConditionModel, list[float]]:  # fmt: skip
    """Train on scaled latents (n, channels, 8, 8), each with its captions; returns the averaged U-Net and the losses.

    `states` are each text's row and the rows' hidden states. Each step draws from a generator seeded by (seed, step),
    so a resumed run equals an uninterrupted one.
    """
    torch.manual_seed(seed)
    row_of, hidden = states
    alphas = scheduler().alphas_cumprod
    model = build(latents.shape[1]).to(memory_format=torch.channels_last)
    average = torch.optim.swa_utils.AveragedModel(model, multi_avg_fn=torch.optim.swa_utils.get_ema_multi_avg_fn(EMA))
    optimiser = torch.optim.AdamW(model.parameters(), lr=LEARNING_RATE, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, LEARNING_RATE, total_steps=steps, pct_start=0.1)
    parts = {"model": model, "average": average, "optimiser": optimiser, "schedule": schedule}
    losses = checkpoint.resume(saved, parts) if resume else []
    for step in (bar := trange(len(losses), steps, initial=len(losses), total=steps, desc="U-Net", unit="step")):
        rng = np.random.default_rng((seed, step))
        noise_rng = torch.Generator().manual_seed(int(rng.integers(2**62)))
        rows = rng.choice(len(latents), batch_size, replace=False)
        texts = [captions[row][rng.integers(len(captions[row]))].text for row in rows]
        condition = hidden[[row_of[text] for text in texts]].float()
        t = timesteps(alphas, batch_size, rng)
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
        if (step + 1) % checkpoint.EVERY == 0:
            checkpoint.save(saved, parts, losses)
    return average.module.eval(), losses
