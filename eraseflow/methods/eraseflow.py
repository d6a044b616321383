"""EraseFlow: erasure by trajectory balance with a constant reward (arXiv 2511.00804, NeurIPS 2025, eq. 8).

Trajectories are drawn under the anchor prompt c* with the present weights; the weights are then moved so
that the target prompt c makes them as likely:

    L = (log Z + sum_j log p(x_{j+1} | x_j, c) - sum_j log q(x_j | x_{j+1}) - log beta)^2

Like the authors' program: log-densities are means over latent elements, guidance enters the loss too, and
the loss takes the last fifth of the steps and as many drawn from the others. Unlike it: the gradient is
streamed. It is 2 r sum_j grad l_j for a trajectory with residual r, so each chunk of steps is
back-propagated at once and its graph freed, and the sum is scaled when r is known.

For a consistent diffusion prod p / prod q = p(x_0) / p(x_T) is not constant, so zero loss on every
trajectory cannot be reached: in practice this is a weighted regression of the target's denoising means
onto the anchor's trajectories.
"""

import time
from collections.abc import Callable, Iterable
from typing import Literal

import torch
from pydantic import Field, PositiveInt
from torch import Tensor
from tqdm import trange

from eraseflow.ddim import Schedule, log_density, trajectory
from eraseflow.edits import Edit, add_lora, lora_of
from eraseflow.params import Block, Concept
from eraseflow.sampling import embed, guided

START_LOG_Z = -0.1953
MAX_GRAD_NORM = 1.0
CALIBRATION_TRAJECTORIES = 16


class Settings(Block):
    epochs: PositiveInt
    switch_epoch: int = Field(ge=0)
    batch_size: PositiveInt
    num_steps: int = Field(ge=5)
    guidance_scale: float = Field(ge=1)
    eta: float = Field(gt=0, le=1)
    learning_rate: float = Field(gt=0)
    flow_learning_rate: float = Field(gt=0)
    log_beta: float | Literal["auto"]
    lora_rank: PositiveInt
    chunk: PositiveInt = 20


def loss_steps(num_steps: int, generator: torch.Generator) -> Tensor:
    """Sorted indices of the steps in the loss: the last fifth (the cleanest), and as many of the others."""
    fifth = num_steps // 5
    others = torch.randperm(num_steps - fifth, generator=generator)[:fifth]
    return torch.cat([others.sort().values, torch.arange(num_steps - fifth, num_steps)])


def log_ratios(schedule: Schedule, predict: Callable, states: Tensor, j: Tensor, eta: float) -> Tensor:
    """log p(x_{j+1} | x_j) - log q(x_j | x_{j+1}) of some steps of one trajectory.

    states: (N + 1, c, h, w); j: (k,) step indices; predict(latents, t (k,)) is the guided noise
    prediction under the target. Returns (k,), with gradient through `predict`.
    """
    dirtier, cleaner = states[j], states[j + 1]
    mean, std = schedule.step(j, dirtier, predict(dirtier, schedule.timesteps[j]), eta)
    back_mean, back_std = schedule.noising(j, cleaner)
    return log_density(cleaner, mean, std) - log_density(dirtier, back_mean, back_std)


def streamed_gradient(
    schedule: Schedule, predict: Callable, trajectories: Tensor, j: Tensor, eta: float,
    offset: Tensor, weights: list[Tensor], chunk: int,
) -> Tensor:  # fmt: skip
    """Put the gradient of the mean squared residual into the weights' and the offset's `.grad`; exact.

    trajectories: (N + 1, n, c, h, w); offset: the scalar log Z - log beta with gradient to log Z;
    chunk: steps in memory at once. Returns the residuals (n,), detached.
    """
    total = [torch.zeros_like(weight) for weight in weights]
    elements = trajectories[0, 0].numel()  # the densities are means over these: undone, or half precision underflows
    residuals = []
    for states in trajectories.unbind(1):
        gradient = [torch.zeros_like(weight) for weight in weights]
        ratio = torch.zeros((), device=states.device, dtype=states.dtype)
        for part in j.split(chunk):
            ratios = log_ratios(schedule, predict, states, part, eta).sum()
            for sum_, term in zip(gradient, torch.autograd.grad(ratios * elements, weights), strict=True):
                sum_ += term / elements
            ratio += ratios.detach()
        residuals.append(ratio + offset.detach())
        for sum_, term in zip(total, gradient, strict=True):
            sum_ += 2 * residuals[-1] * term / trajectories.shape[1]
    for weight, gradient_ in zip(weights, total, strict=True):
        weight.grad = gradient_
    result = torch.stack(residuals)
    offset.backward(2 * result.mean())
    return result


def matched_value(schedule: Schedule, predict: Callable, trajectories: Tensor, eta: float, subsets: Iterable) -> float:
    """The mean over trajectories and step subsets of the summed log ratios when target = anchor.

    log beta at this value plus log Z gives a policy that already matches the anchor no loss.
    """
    with torch.no_grad():
        sums = [
            log_ratios(schedule, predict, states, j, eta).sum()
            for states, j in zip(trajectories.unbind(1), subsets, strict=True)
        ]
    return torch.stack(sums).mean().item()


def erase(pipeline, concept: Concept, settings: Settings, seed: int) -> Edit:
    """Train a LoRA on the U-Net's attentions; history: loss, residual and its sign, log Z, gradient norms, seconds."""
    started = time.perf_counter()
    unet, device = pipeline.unet, pipeline.device
    rng = torch.Generator().manual_seed(seed)
    torch.manual_seed(seed)  # the LoRA's start
    target, anchor, empty = embed(pipeline, [concept.target, concept.anchor, ""]).split(1)
    weights = add_lora(unet, settings.lora_rank)
    schedule = Schedule.of(pipeline.scheduler, settings.num_steps, device)

    def predict(prompt: Tensor) -> Callable:
        return lambda x, t: guided(unet, x, t, prompt.expand(len(x), -1, -1), empty, settings.guidance_scale)

    def draw(count: int) -> Tensor:
        shape = (count, unet.config.in_channels, unet.config.sample_size, unet.config.sample_size)
        start = torch.randn(shape, generator=rng).to(device)
        return trajectory(schedule, predict(anchor), start, settings.eta, rng)

    log_beta = settings.log_beta
    if log_beta == "auto":
        subsets = [loss_steps(settings.num_steps, rng) for _ in range(CALIBRATION_TRAJECTORIES)]
        matched = draw(CALIBRATION_TRAJECTORIES)
        log_beta = matched_value(schedule, predict(anchor), matched, settings.eta, subsets) + START_LOG_Z

    log_z = torch.nn.Parameter(torch.tensor(START_LOG_Z, device=device))
    groups: list[dict] = [{"params": weights}, {"params": [log_z], "lr": settings.flow_learning_rate}]
    optimiser = torch.optim.AdamW(groups, lr=settings.learning_rate, betas=(0.9, 0.999), weight_decay=0.01, eps=1e-8)
    history: list[dict] = []
    for epoch in (bar := trange(settings.epochs, desc="eraseflow", unit="epoch")):
        if epoch <= settings.switch_epoch:
            trajectories = draw(settings.batch_size)
        j = loss_steps(settings.num_steps, rng).to(device)
        optimiser.zero_grad()
        residuals = streamed_gradient(
            schedule, predict(target), trajectories, j, settings.eta, log_z - log_beta, weights, settings.chunk
        )
        norms = [torch.nn.utils.clip_grad_norm_(group["params"], MAX_GRAD_NORM) for group in optimiser.param_groups]
        optimiser.step()
        residual = residuals.mean().item()
        row = {
            "step": epoch,
            "loss": residuals.square().mean().item(),
            "residual": residual,
            "sign": 1 if residual > 0 else -1,
            "log_z": log_z.item(),
            "log_beta": log_beta,
            "grad_norm_lora": norms[0].item(),
            "grad_norm_log_z": norms[1].item(),
            "seconds": time.perf_counter() - started,
        }
        history.append(row)
        bar.set_postfix({key: f"{row[key]:.3g}" for key in ("loss", "residual", "log_z")}, refresh=False)
    return lora_of(unet, history)
