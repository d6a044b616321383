"""AdvUnlearn: Defensive Unlearning with Adversarial Training for Robust Concept Erasure (Zhang et al., NeurIPS 2024).

The text encoder tau is trained, the U-Net eps stays. Each step first looks for the prefix of the target prompt, free
token embeddings, that brings the concept back (their lower level),

    c' = argmin |eps(x_t, tau(c')) - eps(x_t, tau_0(c))|^2,

by steps of the gradient's sign; then it erases under that prompt and retains other ones (their upper level),

    |eps(x_t, tau(c')) - goal|^2 + gamma |eps(x~_t, tau(c~)) - eps(x~_t, tau_0(c~))|^2,

with ESD's goal (its eq. 7) eps(x_t) - eta (eps(x_t, tau_0(c)) - eps(x_t)), tau_0 being the unedited encoder. As in the
authors' program the encoder's embeddings are not trained, the first steps have no prefix and, as in their commands,
every step's prefix starts at random words.

Unlike it: the encoder's last norm is not trained either; a step of the search is along the sign alone (theirs is
Adam's, on gradients that add up over the search; in the fast variant on signs); the search looks at the latents of its
training step, not at new ones in each of its steps; and the retained prompts are the concept's, not the objects of
COCO.
"""

import torch
from pydantic import Field, model_validator
from torch import Tensor

from eraseflow.edits import Edit
from eraseflow.erasing_goal import partly_denoised
from eraseflow.fine_tuning import FineTuning
from eraseflow.params import Concept, Count, ErasingSettings, LearningRate, LossScale, PrefixTokens
from eraseflow.sampling import embed
from eraseflow.soft_prompts import encoder_input, token_embeddings
from eraseflow.vocabulary import written_tokens

NEEDS = ["preserve"]  # of a concept, which may leave it empty


class Settings(ErasingSettings):
    warmup: int = Field(ge=0, le=1_000_000)
    prefix_tokens: PrefixTokens
    attack_steps: Count
    attack_learning_rate: LearningRate
    retain_batch: Count
    retain_scale: LossScale

    @model_validator(mode="after")
    def _attacked_at_all(self) -> "Settings":
        if self.warmup >= self.iterations:
            raise ValueError(f"warmup {self.warmup} leaves none of {self.iterations} iterations with a prefix")
        return self


def trained_names(text_encoder) -> list[str]:
    """The parameters of the encoder's layers."""
    return [name for name, _ in text_encoder.named_parameters() if ".layers." in name]


def read(pipeline, prompts: list[str], prefix: Tensor) -> Tensor:
    """Hidden states (n, tokens, width) of prompts after prefixes of embeddings (n, k, width); gradients pass."""
    ids, embeddings = encoder_input(pipeline.tokenizer, pipeline.text_encoder, prompts, prefix)
    with token_embeddings(pipeline.text_encoder, embeddings):
        return pipeline.text_encoder(ids)[0]


def attacked(pipeline, prompts: list[str], prefix: Tensor, latents: Tensor, t: Tensor, concept: Tensor, settings):
    """The prefix (n, k, width), float32, after its steps towards what the unedited encoder made of the prompts.

    latents (n, c, h, w); concept (n, c, h, w): eps(x_t, tau_0(c)). settings: attack_steps, attack_learning_rate.
    """
    for _ in range(settings.attack_steps):
        prefix.requires_grad_(True)
        hidden = read(pipeline, prompts, prefix)
        predicted = pipeline.unet(latents.to(hidden.dtype), t, hidden).sample.float()
        [slope] = torch.autograd.grad((predicted - concept).square().sum(), prefix)
        prefix = prefix.detach() - settings.attack_learning_rate * slope.sign()
    return prefix


def erase(pipeline, concept: Concept, settings: Settings, seed: int) -> Edit:
    """Fine-tune the text encoder; the edit holds its layers' new values. history: loss, its two terms, norm, seconds.

    Raises: SystemExit with one line where the concept has no prompts to retain.
    """
    if not concept.preserve:
        raise SystemExit(f"concepts.{concept.name}.preserve: is empty; advunlearn needs prompts to retain")
    unet, encoder, size = pipeline.unet, pipeline.text_encoder, settings.batch_size
    rng = torch.Generator().manual_seed(seed)
    sentences = [concept.target, *concept.also]  # bare words, as ESD trains on
    targets, retained, empty = (embed(pipeline, side) for side in (sentences, concept.preserve, [""]))
    table = encoder.get_input_embeddings().weight.detach().float()
    written = torch.tensor(written_tokens(pipeline.tokenizer))
    unet.requires_grad_(False)
    names = trained_names(encoder)
    tuning = FineTuning.of(encoder, names, torch.optim.Adam, settings.learning_rate)
    for step in tuning.steps(settings.iterations, "advunlearn"):
        rows = torch.randint(len(sentences), (size,), generator=rng).tolist()
        others = torch.randint(len(concept.preserve), (settings.retain_batch,), generator=rng).tolist()
        before = torch.cat([targets[rows], retained[others]])
        latents, t = partly_denoised(pipeline, before, empty, settings, rng)
        t = t.to(latents.device)
        with torch.no_grad():
            inputs = torch.cat([latents[:size], latents]).to(before.dtype)
            found = unet(inputs, t, torch.cat([empty.expand(size, -1, -1), before])).sample.float()
        nothing, present, kept = found.split([size, size, settings.retain_batch])
        wanted = nothing - settings.negative_guidance * (present - nothing)

        prompts, count = [sentences[row] for row in rows], settings.prefix_tokens * (step >= settings.warmup)
        drawn = written[torch.randint(len(written), (size, settings.prefix_tokens), generator=rng)][:, :count]
        prefix = table[drawn.to(table.device)]
        if count:
            prefix = attacked(pipeline, prompts, prefix, latents[:size], t, present, settings)
        plain = prefix.new_empty(settings.retain_batch, 0, prefix.shape[-1])
        hidden = torch.cat(
            [read(pipeline, prompts, prefix), read(pipeline, [concept.preserve[other] for other in others], plain)]
        )
        predicted = unet(latents.to(hidden.dtype), t, hidden).sample.float()
        erasing = (predicted[:size] - wanted).square().mean()
        retaining = (predicted[size:] - kept).square().mean()
        loss = erasing + settings.retain_scale * retaining
        tuning.backward(loss, wanted.numel())
        tuning.step(loss=loss, erasing=erasing, retaining=retaining)
    return tuning.edit("text_encoder", names)
