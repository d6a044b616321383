"""SPM: One-dimensional Adapter to Rule Them All (Lyu et al., CVPR 2024), the concept semi-permeable membrane.

Each linear and convolutional layer of the U-Net's transformers gets an adapter of rank 1. With the unedited eps_0, the
concept's prompt c, its anchor's c_sur (the surrogate) and latents x_t on the way to c, drawn with the adapters,

    erasing           |eps(x_t, c) - (eps_0(x_t, c_sur) - eta (eps_0(x_t, c) - eps_0(x_t, c_sur)))|^2
    latent anchoring  lambda |eps(x_t, s) - eps_0(x_t, s)|^2,

where s is sampled in the space of the text encoder's hidden states: a random direction, taken with a probability that
falls with its cosine to c, as long as c give or take a fifth. Two passes make a step: eps_0 under c, c_sur and s in one
batch without gradient, eps under c and s in another.

Facilitated transport is left out: there, a factor for each prompt, by its likeness to the concept, scales the adapters
when a picture is drawn. Here it is always 1, so that an edit is a LoRA for everybody's `load_lora_weights`, and costs
nothing; what unrelated prompts lose by that, latent anchoring alone must keep. Also unlike the authors' program: one
size of pictures, and a constant learning rate.
"""

import torch
from torch import Tensor, nn
from torch.nn.functional import cosine_similarity, mse_loss

from eraseflow.edits import Edit, add_lora, lora_of
from eraseflow.erasing_goal import partly_denoised
from eraseflow.fine_tuning import FineTuning
from eraseflow.params import Concept, Count, ErasingSettings, LossScale
from eraseflow.sampling import embed


class Settings(ErasingSettings):
    anchored: Count
    anchoring_scale: LossScale


def layers(unet) -> list[str]:
    """The names of the layers that get an adapter: all that are linear or convolutional in the transformers."""
    kinds = (nn.Linear, nn.Conv2d)
    return [name for name, layer in unet.named_modules() if ".attentions." in name and isinstance(layer, kinds)]


def sampled(concept: Tensor, rng: torch.Generator) -> Tensor:
    """As many other states as there are of concepts (n, tokens, width): random directions, in about the same length.

    A direction is taken with the probability 1 - cosine to the concept (above 1: always), or drawn anew.
    """
    flat = concept.float().flatten(1)
    found, waiting = torch.empty_like(flat), torch.arange(len(flat))
    while len(waiting):
        drawn = torch.randn(len(waiting), flat.shape[1], generator=rng).to(flat)
        chance = torch.rand(len(waiting), generator=rng).to(flat)
        found[waiting] = drawn
        waiting = waiting[(chance >= 1 - cosine_similarity(drawn, flat[waiting])).cpu()]
    length = flat.norm(dim=1) * (0.8 + 0.4 * torch.rand(len(flat), generator=rng).to(flat))
    found *= (length / found.norm(dim=1)).unsqueeze(1)
    return found.view_as(concept).to(concept.dtype)


def losses(unet, latents: Tensor, t: Tensor, target: Tensor, surrogate: Tensor, others: Tensor, eta: float):
    """The erasing and the latent anchoring term. The U-Net has the adapters, and eps_0 is the U-Net without them.

    latents (n, c, h, w); t a number; target and surrogate (n, tokens, width); others (m, tokens, width), anchored at
    the same latents in turn.
    """
    size, there = len(target), torch.arange(len(others)) % len(target)
    latents = latents.to(target.dtype)
    with torch.no_grad():
        unet.disable_adapters()
        inputs = torch.cat([latents, latents[there], latents]), t, torch.cat([target, others, surrogate])
        given, fixed, without = unet(*inputs).sample.float().split([size, len(others), size])
        unet.enable_adapters()
    inputs = torch.cat([latents, latents[there]]), t, torch.cat([target, others])
    erased, anchored = unet(*inputs).sample.float().split([size, len(others)])
    return mse_loss(erased, without - eta * (given - without)), mse_loss(anchored, fixed)


def erase(pipeline, concept: Concept, settings: Settings, seed: int) -> Edit:
    """Train the adapters, a LoRA of rank 1. history: loss, its two terms, gradient norm, seconds."""
    unet, size = pipeline.unet, settings.batch_size
    rng = torch.Generator().manual_seed(seed)
    torch.manual_seed(seed)  # the adapters' start
    targets, anchors = (embed(pipeline, sentences) for sentences in zip(*concept.pairs, strict=True))
    empty = embed(pipeline, [""])
    weights = add_lora(unet, 1, layers(unet), start=True)
    tuning = FineTuning(weights, torch.optim.AdamW, settings.learning_rate)
    for _ in tuning.steps(settings.iterations, "spm"):
        pairs = torch.randint(len(targets), (size,), generator=rng)
        latents, t = partly_denoised(pipeline, targets[pairs], empty, settings, rng)
        others = sampled(targets[pairs[torch.arange(settings.anchored) % size]], rng)
        inputs = latents, t.to(latents.device), targets[pairs], anchors[pairs], others
        erased, anchored = losses(unet, *inputs, settings.negative_guidance)
        loss = erased + settings.anchoring_scale * anchored
        tuning.backward(loss)
        tuning.step(loss=loss, erasing=erased, anchoring=anchored)
    return lora_of(unet, tuning.history)
