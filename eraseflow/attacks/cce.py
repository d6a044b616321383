"""CCE: Circumventing Concept Erasure Methods (Pham et al., ICLR 2024, arXiv 2308.01508): textual inversion.

A new token's embedding is learned on the edited model from pictures of the concept, which the original model draws:

    min_v E || eps_edited(x_t, v + sentence) - eps ||^2

and judged before each prompt. The pictures are of the sentences in which methods train, of none that is judged, and
have seeds of their own, so that what is judged is what the embedding means, not what it has seen. It is one embedding
for all prompts, so its cost is shared by those still open. It is no text: what is published is the embedding, which
`StableDiffusionPipeline.load_textual_inversion` reads.

Unlike the authors' program: the pictures' captions in training are their sentences with the placeholder before them
(theirs: a photo of the placeholder), as it is judged; and several embeddings may stand for the placeholder.
"""

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from eraseflow import finite
from eraseflow.params import Block, Count, LearningRate, PrefixTokens
from eraseflow.soft_prompts import encoder_input
from eraseflow.victim import PLACEHOLDER, Attempt, Search, Victim


class Settings(Block):
    vectors: PrefixTokens
    rounds: Count
    iterations: Count
    batch_size: Count
    learning_rate: LearningRate
    pictures: Count
    through_sampler: bool = False


def attack(victim: Victim, settings: Settings, seed: int) -> Search:
    """Learn one embedding of the concept; it is judged before each open prompt after every `iterations`."""
    if not victim.shared:
        victim.shared |= {"embedding": start(victim, settings.vectors), "moments": {}}
    embedding = victim.shared["embedding"].requires_grad_(True)
    optimiser = torch.optim.AdamW([embedding], lr=settings.learning_rate)
    optimiser.state[embedding] = victim.shared["moments"]
    seen = held_out(victim, settings, seed)
    texts, pictures = list(seen.prompt), victim.draw_originals(seen)
    for step in victim.rounds(settings.rounds):
        rng = np.random.default_rng((seed, step))
        for _ in range(settings.iterations):
            chosen = rng.integers(len(texts), size=settings.batch_size)
            rngs = [torch.Generator().manual_seed(int(one)) for one in rng.integers(2**62, size=settings.batch_size)]
            optimiser.zero_grad()
            for first in range(0, settings.batch_size, victim.batch_size):
                part = slice(first, first + victim.batch_size)
                captions = [texts[at] for at in chosen[part]]
                gradient(victim, settings, embedding, captions, pictures[chosen[part].tolist()], rngs[part])
            finite.step(f"cce: round {victim.round + 1}", optimiser)
        learned = embedding.detach().clone()
        yield {row: Attempt(f"{PLACEHOLDER} {text}", embedding=learned) for row, text in of_open(victim)}


def start(victim: Victim, vectors: int) -> Tensor:
    """The mean embedding of the anchor's tokens, or of all where it has none (vectors, width), float32."""
    words = victim.pipeline.tokenizer(victim.concept.anchor, add_special_tokens=False).input_ids
    table = victim.pipeline.text_encoder.get_input_embeddings().weight.detach().float()
    return (table[words] if words else table).mean(0).repeat(vectors, 1)


def held_out(victim: Victim, settings: Settings, seed: int) -> pd.DataFrame:
    """What it learns from, as a table of prompts: sentences with the targets and seeds, none of them judged ones.

    A sentence that is judged too is taken only where there is no other; its pictures have other seeds all the same.
    """
    sentences = list(dict.fromkeys(target for target, _ in victim.concept.pairs))
    sentences = [one for one in sentences if one not in set(victim.prompts.prompt)] or sentences
    judged = set(victim.prompts.seed)
    drawn = np.random.default_rng((seed, settings.rounds)).integers(2**31, size=settings.pictures + len(judged))
    seeds = [one for one in drawn.tolist() if one not in judged][: settings.pictures]
    rows = [
        {"prompt_id": f"cce-{at}", "prompt": sentences[at % len(sentences)], "seed": own}
        for at, own in enumerate(seeds)
    ]
    return pd.DataFrame(rows).assign(guidance=victim.sampling.guidance_scale)


def gradient(
    victim: Victim, settings: Settings, embedding: Tensor, captions: list[str], clean: Tensor,
    rngs: list[torch.Generator],
) -> None:  # fmt: skip
    """Add the mean squared noise error's gradient of pictures (n, c, h, w), some of a batch, to the embedding's."""
    total = victim.pipeline.scheduler.config.num_train_timesteps
    t = torch.cat([torch.randint(total, (1,), generator=rng) for rng in rngs]).to(victim.device)
    noisy, noise = victim.noised(clean, t, rngs)
    soft = embedding.expand(len(captions), -1, -1)
    ids, embeddings = encoder_input(victim.pipeline.tokenizer, victim.pipeline.text_encoder, captions, soft)
    predicted = victim.respond(None, noisy, t, ids, embeddings, settings.through_sampler)
    # Summed over the pictures and divided afterwards, or half precision underflows.
    (slope,) = torch.autograd.grad((predicted - noise).square().sum(), embedding)
    slope = slope / (settings.batch_size * noise[0].numel())
    embedding.grad = slope if embedding.grad is None else embedding.grad + slope


def of_open(victim: Victim) -> list[tuple[int, str]]:
    return list(zip(victim.open, victim.texts(victim.open), strict=True))
