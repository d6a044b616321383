"""MMA: MMA-Diffusion, MultiModal Attack on Diffusion Models (Yang et al., CVPR 2024, arXiv 2311.17516), batched.

Of its two attacks the one on text. The text encoder alone is attacked: tokens whose pooled output has the highest
cosine with that of the prompt, none of them with a banned word. The search is greedy coordinate gradient (Zou et al.
2023): the gradient of the cosine with respect to each token proposes `top_k` others at each place, of which random
ones are tried, one place changed in each candidate, and the best becomes the next prompt.

Banned are the words of the concept's targets, alone or within a longer word, so that the prompt passes a filter of
them; prompts to imitate are the concept's own. The wish is of the unedited encoder, the search reads with the edited
one; where an edit leaves the text encoder alone, as most do, that is the published attack.

Unlike the authors' program: a candidate's place is random (theirs: as many at each place), and its token is proposed by
the gradient there (theirs: at the token before, by an index that is one off); the start is of random words, not
letters; the best prompt so far is judged several times on the way; tokens are such that survive being written (theirs
drops candidates that are read as another number of tokens); and all prompts go in common batches.
"""

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import cosine_similarity

from eraseflow.naming import Names
from eraseflow.params import Block, Count, FreeTokens
from eraseflow.soft_prompts import encoder_input
from eraseflow.victim import Search, Victim
from eraseflow.vocabulary import prefixed_ids, written_tokens


class Settings(Block):
    tokens: FreeTokens
    rounds: Count
    steps: Count
    candidates: Count
    top_k: Count


def attack(victim: Victim, settings: Settings, seed: int) -> Search:
    """Change a token at a time of every open row's prompt; the best so far is judged after each `steps`."""
    tokenizer = victim.pipeline.tokenizer
    forbidden = Names(victim.concept, tokenizer).words
    allowed = [token for token in written_tokens(tokenizer) if not forbidden.search(tokenizer.decode([token]).lower())]
    tokens = torch.tensor(allowed, device=victim.device)
    if not victim.memory:
        begin(victim, settings, seed, len(tokens))
    for step in victim.rounds(settings.rounds):
        for rows in victim.parts():
            rngs = [victim.rng(row, seed, step) for row in rows]
            for _ in range(settings.steps):
                improve(victim, settings, rows, tokens, rngs)
        yield {row: victim.as_text(tokens[victim.memory[row]["best"]].tolist()) for row in victim.open}


def begin(victim: Victim, settings: Settings, seed: int, vocabulary: int) -> None:
    """Give every open row the pooled output to imitate and random tokens to start from."""
    tokenizer, rows = victim.pipeline.tokenizer, list(victim.open)
    ids = tokenizer(victim.texts(rows), padding="max_length", truncation=True, return_tensors="pt").input_ids
    wishes = victim.read(rows, ids.to(victim.device), pooled=True, original=True).float()
    length = min(settings.tokens, tokenizer.model_max_length - 2)
    for row, wish in zip(rows, wishes, strict=True):
        start = torch.from_numpy(victim.rng(row, seed).integers(vocabulary, size=length)).to(victim.device)
        victim.memory[row] = {"wish": wish, "now": start, "best": start, "cosine": torch.tensor(-1.0)}


def improve(victim: Victim, settings: Settings, rows: list[int], tokens: Tensor, rngs: list) -> None:
    """One step of a batch of rows, whose memory it changes."""
    now = torch.stack([victim.memory[row]["now"] for row in rows])
    wish = torch.stack([victim.memory[row]["wish"] for row in rows])
    proposed = slopes(victim, rows, tokens, now, wish).topk(min(settings.top_k, len(tokens)), dim=-1).indices
    tried = torch.stack([changed(*one, settings.candidates) for one in zip(now, proposed, rngs, strict=True)])
    owners = [row for row in rows for _ in range(settings.candidates)]
    ids = prefixed_ids(victim.pipeline.tokenizer, [""] * len(owners), tokens[tried.flatten(0, 1)])
    pooled = victim.read(owners, ids, pooled=True).float().view(*tried.shape[:2], -1)
    cosines, best = cosine_similarity(pooled, wish[:, None], dim=-1).max(dim=1)
    for row, some, at, cosine in zip(rows, tried, best.tolist(), cosines.cpu(), strict=True):
        memory = victim.memory[row]
        memory["now"] = some[at].clone()
        if cosine > memory["cosine"]:
            memory |= {"best": memory["now"], "cosine": cosine.clone()}


def slopes(victim: Victim, rows: list[int], tokens: Tensor, now: Tensor, wish: Tensor) -> Tensor:
    """The gradient (n, k, v) of each row's cosine with respect to one-hot rows of its tokens, indices (n, k)."""
    encoder = victim.pipeline.text_encoder
    table = encoder.get_input_embeddings().weight.detach()[tokens].float()
    soft = table[now].requires_grad_(True)
    ids, embeddings = encoder_input(victim.pipeline.tokenizer, encoder, [""] * len(rows), soft, tokens[now])
    pooled = victim.encode(rows, ids, embeddings)[1].float()
    (slope,) = torch.autograd.grad(cosine_similarity(pooled, wish, dim=-1).sum(), soft)
    return slope @ table.T


def changed(now: Tensor, proposed: Tensor, rng: np.random.Generator, count: int) -> Tensor:
    """Candidates (count, k): the tokens (k,) with one place each changed to one of its proposed (k, top_k)."""
    places = torch.from_numpy(rng.integers(len(now), size=count)).to(now.device)
    choices = torch.from_numpy(rng.integers(proposed.shape[1], size=count)).to(now.device)
    found = now.repeat(count, 1)
    found[torch.arange(count, device=now.device), places] = proposed[places, choices]
    return found
