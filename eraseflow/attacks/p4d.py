"""P4D: Prompting4Debugging (Chin et al., ICML 2024, arXiv 2309.06135), variants N and K, batched over prompts.

Free tokens are learned so that the edited model predicts under them what the unedited one predicts under the prompt:

    min_P || eps_edited(x_t, P) - eps_original(x_t, prompt) ||^2

at random timesteps of the picture that the original model made of the prompt. What is learned is a continuous
embedding of each free token; in every pass it is projected to the vocabulary's nearest by cosine, and the gradient of
the projected one moves the continuous one (as Hard Prompts Made Easy, Wen et al. 2023). Variant N replaces the prompt
by free tokens; K keeps it and puts a free token after every few of its own.

Unlike the authors' program: no prediction is guided (theirs can guide the edited model's by SLD or a negative prompt,
but not the wish); learned prompts are padded as drawn ones, not with token 0; K's free tokens stand after the prompt's,
not before; originals are encoded from [-1, 1], not [0, 1]; each round's projection is judged, not that whose picture is
nearest to the original by CLIP; and free tokens are such that survive being written. Prompts go in batches, which those
that succeed leave.
"""

from typing import Literal

import torch
from pydantic import Field
from torch import Tensor
from torch.nn.functional import normalize

from eraseflow import finite
from eraseflow.params import Block, Count, FreeTokens, LearningRate
from eraseflow.victim import Attempt, Search, Victim
from eraseflow.vocabulary import written_tokens

FREE = -1  # the place of a free token among a prompt's ids


class Settings(Block):
    variant: Literal["N", "K"]
    tokens: FreeTokens
    rounds: Count
    iterations: Count
    learning_rate: LearningRate
    weight_decay: float = Field(ge=0, le=1)
    through_sampler: bool = False


def places(words: list[int], settings: Settings, room: int) -> list[int]:
    """A prompt's ids with FREE where a token is learned, at most `room` of them; a short prompt has one at its end."""
    if settings.variant == "N":
        return [FREE] * min(settings.tokens, room)
    parts = [words[start : start + settings.tokens] for start in range(0, len(words), settings.tokens)]
    mixed = [token for part in parts for token in part + [FREE] * (len(part) == settings.tokens)]
    mixed = mixed[:room]
    return mixed if FREE in mixed else [*mixed[: room - 1], FREE]


def nearest(soft: Tensor, table: Tensor) -> Tensor:
    """For each embedding (n, width) the row of the table (v, width) with the highest cosine."""
    return (normalize(soft, dim=-1) @ normalize(table, dim=-1).T).argmax(-1)


def attack(victim: Victim, settings: Settings, seed: int) -> Search:
    """Learn the free tokens of every prompt still open; a judged round after each `iterations` steps."""
    pipeline, device = victim.pipeline, victim.device
    tokenizer, encoder = pipeline.tokenizer, pipeline.text_encoder
    tokens = torch.tensor(written_tokens(tokenizer), device=device)
    table = encoder.get_input_embeddings().weight.detach()[tokens].float()
    room = tokenizer.model_max_length - 2
    mixed = [places(tokenizer(text).input_ids[1:-1], settings, room) for text in victim.prompts.prompt]
    for row in victim.open:
        start = torch.from_numpy(victim.rng(row, seed).integers(len(tokens), size=mixed[row].count(FREE))).to(device)
        victim.memory.setdefault(row, {"soft": table[start], "moments": {}})

    for step in victim.rounds(settings.rounds):
        for rows in victim.parts():
            learn(victim, settings, rows, [mixed[row] for row in rows], tokens, table, (seed, step))
        found = {}
        for row in victim.open:
            chosen = tokens[nearest(victim.memory[row]["soft"], table)].tolist()
            left = iter(chosen)
            text = tokenizer.decode([next(left) if token == FREE else token for token in mixed[row]])
            found[row] = Attempt(text, chosen)
        yield found


def learn(victim, settings, rows: list[int], mixed: list[list[int]], tokens: Tensor, table: Tensor, key) -> None:
    """One round's steps for a batch of rows, whose memory they change."""
    tokenizer, encoder, device = victim.pipeline.tokenizer, victim.pipeline.text_encoder, victim.device
    length, end = tokenizer.model_max_length, tokenizer.eos_token_id
    padding = tokenizer.pad_token_id
    lines = [[tokenizer.bos_token_id, *ids, end, *[padding] * (length - len(ids) - 2)] for ids in mixed]
    ids = torch.tensor(lines, device=device)
    free = ids == FREE
    soft = [victim.memory[row]["soft"] for row in rows]
    optimiser = torch.optim.AdamW(soft, lr=settings.learning_rate, weight_decay=settings.weight_decay)
    for row, weight in zip(rows, soft, strict=True):
        optimiser.state[weight] = victim.memory[row]["moments"]
    rngs = [victim.generator(row, *key) for row in rows]
    plain = tokenizer(victim.texts(rows), padding="max_length", truncation=True, return_tensors="pt").input_ids
    wish = victim.read(rows, plain.to(device), original=True)
    total = victim.pipeline.scheduler.config.num_train_timesteps
    for _ in range(settings.iterations):
        t = torch.cat([torch.randint(total, (1,), generator=rng) for rng in rngs]).to(device)
        noisy, _ = victim.noised(victim.originals(rows), t, rngs)
        with torch.no_grad():
            wanted = victim.predict(rows, noisy, t, wish, original=True)
        choice = nearest(torch.cat(soft), table)
        projected = table[choice].requires_grad_(True)
        ids[free] = tokens[choice]
        embeddings = encoder.get_input_embeddings()(ids)
        embeddings = embeddings.masked_scatter(free[..., None], projected.to(embeddings))
        predicted = victim.respond(rows, noisy, t, ids, embeddings, settings.through_sampler)
        # Summed over the picture and divided afterwards, or half precision underflows.
        (slope,) = torch.autograd.grad((predicted - wanted).square().sum(), projected)
        slopes = (slope / noisy[0].numel()).split([len(weight) for weight in soft])
        for weight, own in zip(soft, slopes, strict=True):
            weight.grad = own
        finite.step(f"p4d: round {victim.round + 1}", optimiser)
