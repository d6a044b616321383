"""The trajectory-balance objective of EraseFlow (arXiv 2511.00804, eq. 8) and its gradient, a chunk of steps in memory.

A trajectory x_T..x_0 drawn under the anchor prompt c* is to be as likely under the target prompt c:

    L = (log Z + sum_j log p(x_{j+1} | x_j, c) - sum_j log q(x_j | x_{j+1}) - log beta)^2

Like the authors' program: log-densities are means over latent elements, and the sums run over the last fifth
of the steps and as many drawn from the others. Unlike it: the gradient is streamed. It is
2 r sum_j grad l_j for a trajectory with residual r, so each chunk of steps is back-propagated at once and
its graph freed, and the sum is scaled when r is known.
"""

from collections.abc import Callable, Iterable

import torch
from torch import Tensor

from eraseflow.ddim import Schedule, log_density


def loss_steps(num_steps: int, skip_last: int, generator: torch.Generator) -> Tensor:
    """Sorted indices of the steps in the loss: a fifth of them at the end (the cleanest), and as many of the others.

    skip_last: how many of the cleanest are left out before that; 0 as published.
    """
    fifth, stop = num_steps // 5, num_steps - skip_last
    others = torch.randperm(stop - fifth, generator=generator)[:fifth]
    return torch.cat([others.sort().values, torch.arange(stop - fifth, stop)])


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
    schedule: Schedule, predicts: list[Callable], trajectories: Tensor, j: Tensor, eta: float,
    offset: Tensor, weights: list[Tensor], chunk: int,
) -> Tensor:  # fmt: skip
    """Put the gradient of the mean squared residual into the weights' and the offset's `.grad`; exact.

    trajectories: (N + 1, n, c, h, w); offset: the scalar log Z - log beta with gradient to log Z;
    chunk: steps in memory at once. Returns the residuals (n,), detached.
    """
    total = [torch.zeros_like(weight) for weight in weights]
    elements = trajectories[0, 0].numel()  # the densities are means over these: undone, or half precision underflows
    residuals = []
    for states, predict in zip(trajectories.unbind(1), predicts, strict=True):
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


def matched_value(
    schedule: Schedule, predicts: list[Callable], trajectories: Tensor, eta: float, subsets: Iterable
) -> float:
    """The mean over trajectories and step subsets of the summed log ratios when target = anchor.

    log beta at this value plus log Z gives a policy that already matches the anchor no loss.
    """
    with torch.no_grad():
        sums = [
            log_ratios(schedule, predict, states, j, eta).sum()
            for states, predict, j in zip(trajectories.unbind(1), predicts, subsets, strict=True)
        ]
    return torch.stack(sums).mean().item()
