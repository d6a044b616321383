"""CA: Ablating Concepts in Text-to-Image Diffusion Models (Kumari et al., ICCV 2023), the model-based form (L_model).

On noised pictures x_t of the anchor c, the target's prompt c* learns to predict what the anchor's predicts with the
present weights (sg: no gradient), and the anchor's prompt is held to the diffusion loss (their regularisation):

    |sg(eps(x_t, c)) - eps(x_t, c*)|^2 + lambda |e - eps(x_t, c)|^2.

Keys and values of the cross-attention are trained. A batch mixes the concept's pairs; where lambda is not 0, both terms
need the anchor's prediction, and one pass gives it beside the target's. Unlike the authors' program: pictures are not
cropped or flipped, and anchor sentences are the concept's contexts, not captions by a language model.
"""

import torch
from torch import Tensor
from torch.nn.functional import mse_loss

from eraseflow import own_pictures
from eraseflow.cross_attention import projections
from eraseflow.edits import Edit
from eraseflow.fine_tuning import FineTuning
from eraseflow.params import Block, Concept, Count, Guidance, LearningRate, LossScale, Steps
from eraseflow.sampling import embed


class Settings(Block):
    iterations: Count
    batch_size: Count
    learning_rate: LearningRate
    preserve_scale: LossScale
    pictures: Count
    num_steps: Steps
    guidance_scale: Guidance


def ablation_loss(
    unet, noisy: Tensor, t: Tensor, target: Tensor, anchor: Tensor, noise: Tensor, scale: float
) -> tuple[Tensor, Tensor]:
    """The two terms of the loss, of noised pictures of the anchors; the second is 0 where its weight `scale` is.

    noisy and noise (n, c, h, w); t (n,); target and anchor (n, tokens, width), in the network's precision.
    """
    noisy = noisy.to(target.dtype)
    if not scale:
        with torch.no_grad():
            wanted = unet(noisy, t, anchor).sample.float()
        return mse_loss(unet(noisy, t, target).sample.float(), wanted), wanted.new_zeros(())
    both = unet(torch.cat([noisy, noisy]), torch.cat([t, t]), torch.cat([target, anchor])).sample.float()
    given, wanted = both.chunk(2)
    return mse_loss(given, wanted.detach()), mse_loss(wanted, noise)


def erase(pipeline, concept: Concept, settings: Settings, seed: int) -> Edit:
    """Fine-tune the U-Net; the edit holds the trained weights' new values. history: loss, its terms, gradient
    norm, seconds.
    """
    unet, scale, count = pipeline.unet, settings.preserve_scale, settings.pictures
    names = projections(unet)
    tuning = FineTuning.of(unet, names, torch.optim.AdamW, settings.learning_rate)
    rng = torch.Generator().manual_seed(seed)
    targets, anchors = (embed(pipeline, sentences) for sentences in zip(*concept.pairs, strict=True))
    pairs = torch.arange(count) % len(targets)  # the pair of each picture
    seeds = torch.randint(2**62, (count,), generator=rng).tolist()
    drawing = (settings.num_steps, settings.guidance_scale, embed(pipeline, [""]))
    pictures = own_pictures.draw(pipeline, anchors[pairs], seeds, *drawing)

    for _ in tuning.steps(settings.iterations, "ca"):
        chosen = torch.randint(count, (settings.batch_size,), generator=rng)
        noisy, t, noise = own_pictures.noised(pipeline, pictures[chosen], rng)
        target, anchor = targets[pairs[chosen]], anchors[pairs[chosen]]
        ablated, kept = ablation_loss(unet, noisy, t, target, anchor, noise, scale)
        loss = ablated + scale * kept
        tuning.backward(loss, noisy.numel())
        tuning.step(loss=loss, ablation=ablated, preserving=kept)
    return tuning.edit("unet", names)
