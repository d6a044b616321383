"""SalUn: Empowering Machine Unlearning via Gradient-based Weight Saliency (Fan et al., ICLR 2024).

The weights that are salient for forgetting are those with the largest gradient of the diffusion loss l on pictures D_f
of the concept (eq. 3), m = 1(|grad l(D_f)| >= gamma), gamma being the median, so half of the U-Net. Only these are then
trained (eq. 4), to relabel the concept's pictures and to retain what is to be kept, D_r (eq. 6):

    |eps(x_t, c') - eps(x_t, c)|^2 + beta l(D_r),   x_t of D_f, c its prompt, c' another: its anchor's.

D_f are pictures that the unedited model draws of the targets, D_r of the anchors and preserved prompts. As in the
authors' program eps(x_t, c') has no gradient. Unlike it, the saliency is of the plain loss and not of a guided
prediction's, and the larger half of the gradients is trained, as in the paper (their script for Stable Diffusion sorts
them in ascending order). The concept's prompt and the retained ones share a pass.
"""

import torch
from pydantic import Field
from torch import Tensor
from torch.nn.functional import mse_loss

from eraseflow import finite, own_pictures
from eraseflow.edits import Edit
from eraseflow.fine_tuning import FineTuning
from eraseflow.params import Block, Concept, Count, Guidance, LearningRate, LossScale, Steps
from eraseflow.sampling import embed


class Settings(Block):
    iterations: Count
    batch_size: Count
    learning_rate: LearningRate
    preserve_scale: LossScale
    salient: float = Field(default=0.5, gt=0, le=1)
    saliency_batches: Count
    pictures: Count
    num_steps: Steps
    guidance_scale: Guidance


def mask(gradients: list[Tensor], share: float) -> list[Tensor]:
    """Which elements are among that share, over all tensors, with the largest absolute values; of equal ones, all."""
    sizes = torch.cat([gradient.abs().flatten() for gradient in gradients])
    rank = len(sizes) - max(round(share * len(sizes)), 1) + 1
    threshold = sizes.kthvalue(rank).values
    return [gradient.abs() >= threshold for gradient in gradients]


def saliency(pipeline, tuning: FineTuning, pictures: Tensor, prompts: Tensor, settings: Settings, rng) -> list[Tensor]:
    """The gradient of the diffusion loss on pictures (n, c, h, w) of prompts (n, tokens, width), for each weight."""
    total = [torch.zeros_like(copy) for copy in tuning.copies]
    for _ in range(settings.saliency_batches):
        chosen = torch.randint(len(pictures), (settings.batch_size,), generator=rng)
        noisy, t, noise = own_pictures.noised(pipeline, pictures[chosen], rng)
        predicted = pipeline.unet(noisy.to(prompts.dtype), t, prompts[chosen]).sample.float()
        tuning.backward(mse_loss(predicted, noise), noise.numel())
        for gradient, copy in zip(total, tuning.copies, strict=True):
            gradient += 0 if copy.grad is None else copy.grad
    finite.check("salun: the saliency", zip(tuning.names, total, strict=True))
    return total


def losses(unet, noisy: Tensor, t: Tensor, noise: Tensor, target: Tensor, anchor: Tensor, retained: Tensor):
    """The relabelling and the retaining term: of n pictures of the targets, and of n others after them.

    noisy and noise (2 n, c, h, w); t (2 n,); target, anchor and retained (n, tokens, width).
    """
    size, noisy = len(target), noisy.to(target.dtype)
    with torch.no_grad():
        wanted = unet(noisy[:size], t[:size], anchor).sample.float()
    given = unet(noisy, t, torch.cat([target, retained])).sample.float()
    return mse_loss(given[:size], wanted), mse_loss(given[size:], noise[size:])


def erase(pipeline, concept: Concept, settings: Settings, seed: int) -> Edit:
    """Fine-tune the U-Net's salient weights; the edit has every tensor of it. history: loss, its terms,
    gradient norm, seconds.
    """
    unet, count, size = pipeline.unet, settings.pictures, settings.batch_size
    names = [name for name, _ in unet.named_parameters()]
    tuning = FineTuning.of(unet, names, torch.optim.Adam, settings.learning_rate)
    rng = torch.Generator().manual_seed(seed)
    targets, anchors = (embed(pipeline, sentences) for sentences in zip(*concept.pairs, strict=True))
    retained = embed(pipeline, list(dict.fromkeys([*(anchor for _, anchor in concept.pairs), *concept.preserve])))
    pairs, others = torch.arange(count) % len(targets), torch.arange(count) % len(retained)
    seeds = torch.randint(2**62, (2 * count,), generator=rng).tolist()
    prompts = torch.cat([targets[pairs], retained[others]])
    drawing = (settings.num_steps, settings.guidance_scale, embed(pipeline, [""]))
    forget, retain = own_pictures.draw(pipeline, prompts, seeds, *drawing).chunk(2)

    salient = mask(saliency(pipeline, tuning, forget, targets[pairs], settings, rng), settings.salient)
    for _ in tuning.steps(settings.iterations, "salun"):
        chosen, kept = torch.randint(count, (2, size), generator=rng)
        noisy, t, noise = own_pictures.noised(pipeline, torch.cat([forget[chosen], retain[kept]]), rng)
        sides = targets[pairs[chosen]], anchors[pairs[chosen]], retained[others[kept]]
        relabelled, retaining = losses(unet, noisy, t, noise, *sides)
        loss = relabelled + settings.preserve_scale * retaining
        tuning.backward(loss, noise[:size].numel())
        for copy, chosen_weights in zip(tuning.copies, salient, strict=True):
            if copy.grad is not None:
                copy.grad *= chosen_weights  # where the gradient has always been 0, Adam does not move
        tuning.step(loss=loss, relabelling=relabelled, retaining=retaining)
    return tuning.edit("unet", names)
