"""The Gaussians of a DDIM step and of the noising process, as EraseFlow and its trajectories need them."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from diffusers import DDIMScheduler
from torch import Tensor


@dataclass(frozen=True)
class Schedule:
    """The N solver steps of a DDIM trajectory, from noise to picture.

    timesteps: (N,) int64, descending. alphas, previous_alphas: (N,), the cumulative alphas at a step's
    timestep and at the next, cleaner one (clamped to timestep 0, so that no variance is zero).
    """

    timesteps: Tensor
    alphas: Tensor
    previous_alphas: Tensor

    @classmethod
    def of(cls, scheduler: DDIMScheduler, steps: int, device="cpu") -> "Schedule":
        """The steps that diffusers' DDIM scheduler takes for this number of steps."""
        scheduler = DDIMScheduler.from_config(scheduler.config)
        scheduler.set_timesteps(steps)
        timesteps = scheduler.timesteps
        stride = scheduler.config.num_train_timesteps // steps
        previous = (timesteps - stride).clamp(min=0)
        cumulative = scheduler.alphas_cumprod
        return cls(timesteps.to(device), cumulative[timesteps].to(device), cumulative[previous].to(device))

    def step(self, j: Tensor, latents: Tensor, noise: Tensor, eta: float) -> tuple[Tensor, Tensor]:
        """Mean (n, c, h, w) and standard deviation (n, 1, 1, 1) of p(x_{j+1} | x_j), DDIM eq. 12 and 16.

        j: (n,) indices of steps; noise: the predicted noise at `latents`.
        """
        alpha, previous = self.alphas[j].view(-1, 1, 1, 1), self.previous_alphas[j].view(-1, 1, 1, 1)
        std = eta * ((1 - previous) / (1 - alpha) * (1 - alpha / previous)).sqrt()
        clean = (latents - (1 - alpha).sqrt() * noise) / alpha.sqrt()
        return previous.sqrt() * clean + (1 - previous - std**2).clamp(min=0).sqrt() * noise, std

    def noising(self, j: Tensor, cleaner: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation of q(x_j | x_{j+1}), the forward process from the cleaner latents."""
        ratio = (self.alphas[j] / self.previous_alphas[j]).view(-1, 1, 1, 1)
        return ratio.sqrt() * cleaner, (1 - ratio).sqrt()


def log_density(x: Tensor, mean: Tensor, std: Tensor) -> Tensor:
    """Gaussian log density, the MEAN over a latent's elements (not the sum): (n, c, h, w) to (n,)."""
    log_two_pi = torch.log(torch.tensor(2 * torch.pi, dtype=x.dtype, device=x.device))
    return (-0.5 * ((x - mean) / std) ** 2 - std.log() - 0.5 * log_two_pi).flatten(1).mean(1)


@torch.no_grad()
def trajectory(
    schedule: Schedule,
    predict: Callable[[Tensor, Tensor], Tensor],
    start: Tensor,
    eta: float,
    generator: torch.Generator,
    steps: int,
) -> Tensor:
    """The latents (steps + 1, n, c, h, w) of n trajectories from `start` (n, c, h, w) through the first `steps`.

    predict(latents, t (n,)) is the guided noise prediction.
    """
    states = [start]
    for index in range(steps):
        j = torch.full((len(start),), index, device=start.device)
        mean, std = schedule.step(j, states[-1], predict(states[-1], schedule.timesteps[j]), eta)
        fresh = torch.randn(start.shape, generator=generator, dtype=torch.float32).to(start)
        states.append(mean + std * fresh)
    return torch.stack(states)
