"""RACE: R.A.C.E., Robust Adversarial Concept Erasure for Secure Text-to-Image Diffusion Model (Kim et al., ECCV 2024).

ESD's loss, but under the worst prompt near the target's: at a single timestep, projected gradient descent looks for
the change delta of the prompt's hidden states c, |delta|_inf <= epsilon, with which the present model best predicts
the noise of latents on the way to the target,

    delta = argmin |e - eps(x_t, c + delta)|^2,   loss |eps(x_t, c + delta) - goal|^2,

goal being ESD's (its eq. 7): eps_0(x_t) - eta (eps_0(x_t, c) - eps_0(x_t)). It starts from an ESD model, which is
trained here first, with the same optimiser. As in the authors' program e is the noise that x_t's way began with, the
search starts at random, and its step is epsilon / 4. Unlike it, c + delta is not cut to the range of c.
"""

import copy
from typing import Literal

import torch
from pydantic import Field
from torch import Tensor
from torch.nn.functional import mse_loss

from eraseflow.edits import Edit
from eraseflow.erasing_goal import goal, partly_denoised, trained_names
from eraseflow.fine_tuning import FineTuning
from eraseflow.params import Concept, Count, ErasingSettings
from eraseflow.sampling import embed, fresh_noise

STEP = 0.25  # of an attack step, in epsilons


class Settings(ErasingSettings):
    esd_iterations: int = Field(ge=0, le=1_000_000)
    variant: Literal["x", "u"]
    epsilon: float = Field(gt=0, le=10)
    attack_steps: Count


def attacked(unet, latents: Tensor, t: Tensor, hidden: Tensor, noise: Tensor, settings, rng: torch.Generator) -> Tensor:
    """The hidden states (n, tokens, width), moved by at most epsilon each, that best predict the noise at `latents`.

    settings: epsilon, attack_steps. The sign of a gradient is what matters, so the squares are summed.
    """
    epsilon = settings.epsilon
    start = torch.rand(hidden.shape, generator=rng).to(hidden.device)
    delta = epsilon * (2 * start - 1)
    for _ in range(settings.attack_steps):
        delta.requires_grad_(True)
        predicted = unet(latents.to(hidden.dtype), t, (hidden + delta).to(hidden.dtype)).sample
        [slope] = torch.autograd.grad((predicted.float() - noise).square().sum(), delta)
        delta = (delta.detach() - STEP * epsilon * slope.sign()).clamp(-epsilon, epsilon)
    return (hidden + delta).to(hidden.dtype)


def erase(pipeline, concept: Concept, settings: Settings, seed: int) -> Edit:
    """Fine-tune the U-Net; the edit holds the trained weights' new values. history: loss, gradient norm, seconds."""
    rng = torch.Generator().manual_seed(seed)
    unet, frozen = pipeline.unet, copy.deepcopy(pipeline.unet).requires_grad_(False)
    targets, empty = embed(pipeline, [concept.target, *concept.also]), embed(pipeline, [""])  # bare words, as ESD
    names = trained_names(unet, settings.variant)
    tuning = FineTuning.of(unet, names, torch.optim.Adam, settings.learning_rate)
    for step in tuning.steps(settings.esd_iterations + settings.iterations, "race"):
        target = targets[torch.randint(len(targets), (settings.batch_size,), generator=rng)]
        noise = fresh_noise(pipeline, len(target), rng)
        latents, t = partly_denoised(pipeline, target, empty, settings, rng, noise)
        t = t.to(latents.device)
        wanted = goal(frozen, latents, t, target, empty, settings.negative_guidance)
        adversarial = step >= settings.esd_iterations
        prompt = attacked(unet, latents, t, target, noise, settings, rng) if adversarial else target
        loss = mse_loss(unet(latents.to(target.dtype), t, prompt).sample.float(), wanted)
        tuning.backward(loss, wanted.numel())
        tuning.step(loss=loss)
    return tuning.edit("unet", names)
