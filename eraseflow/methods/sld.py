"""SLD: Safe Latent Diffusion (Schramowski et al., CVPR 2023, eq. 3 to 8). No weight changes.

While a picture is drawn, the guidance is bent away from a safety text c_S, here the concept's targets:

    eps = eps(z) + s_g (eps(z, c_p) - eps(z) - gamma),    gamma = mu * (eps(z, c_S) - eps(z)) + s_m nu
    mu = min(1, |s_S (eps(z, c_p) - eps(z, c_S))|) where eps(z, c_p) - eps(z, c_S) < lambda, elsewhere 0
    nu <- beta_m nu + (1 - beta_m) gamma

with everything element by element, and gamma left out, though nu is kept, in the first `warmup_steps`. In print mu has
max(1, .); the authors' program caps it at 1, as here. The safety text is read once and is a third condition of the same
batch of the U-Net.
"""

from dataclasses import dataclass
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor

from eraseflow import sampling
from eraseflow.edits import Edit, edit_of
from eraseflow.params import Block, Bound, Concept, Scale


class Settings(Block):
    warmup_steps: Annotated[int, Field(ge=0), Bound.DRAWING]
    guidance_scale: Scale
    threshold: float = Field(ge=0, le=100)
    momentum_scale: float = Field(ge=0, le=1)
    momentum_beta: float = Field(ge=0, lt=1)


def safety_guidance(
    without: Tensor, given: Tensor, unsafe: Tensor, momentum: Tensor, settings: "Sampler"
) -> tuple[Tensor, Tensor]:
    """gamma and the next nu, of the noise predictions without prompt, given the prompt, and given the safety text."""
    apart = given - unsafe
    mu = (settings.guidance_scale * apart).abs().clamp(max=1).where(apart < settings.threshold, 0)
    gamma = mu * (unsafe - without) + settings.momentum_scale * momentum
    return gamma, settings.momentum_beta * momentum + (1 - settings.momentum_beta) * gamma


@dataclass(frozen=True)
class Sampler(sampling.Sampler):
    """text: what is guided away from. The rest as in Settings."""

    text: str
    warmup_steps: int
    guidance_scale: float
    threshold: float
    momentum_scale: float
    momentum_beta: float

    def predictor(self, pipeline, condition: sampling.Condition, scale: Tensor) -> sampling.Predict:
        """Guided noise; the momentum is that of one drawing."""
        empty, unsafe_text = sampling.embed(pipeline, ["", self.text]).split(1)
        momentum = torch.zeros(())

        def predict(step: int | Tensor, t: Tensor, latents: Tensor) -> Tensor:
            nonlocal momentum
            predictions = sampling.together(pipeline.unet, latents, t, [empty, unsafe_text, condition["hidden"]])
            without, unsafe, given = predictions
            gamma, momentum = safety_guidance(without, given, unsafe, momentum.to(latents), self)
            begun = (torch.as_tensor(step, device=gamma.device) >= self.warmup_steps).view(-1, 1, 1, 1)
            return without + scale * (given - without - gamma.where(begun, 0))

        return predict

    def passes(self, condition: sampling.Condition, steps: int) -> tuple[Tensor, Tensor]:
        """Three samples a step."""
        unet, text = super().passes(condition, steps)
        return 1.5 * unet, text

    def passes_of_step(self, condition: sampling.Condition, step: Tensor) -> tuple[Tensor, Tensor]:
        """Three samples."""
        unet, text = super().passes_of_step(condition, step)
        return 1.5 * unet, text


def erase(pipeline, concept: Concept, settings: Settings, seed: int) -> Edit:
    """Nothing is trained, so the history is empty; the safety text is the concept's targets, one after another."""
    return edit_of(Sampler(text=", ".join([concept.target, *concept.also]), **settings.model_dump()))
