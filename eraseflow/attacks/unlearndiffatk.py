"""UnlearnDiffAtk: To Generate or Not? (Zhang et al., ECCV 2024, arXiv 2310.11868), batched over prompts.

A few prefix tokens, each a distribution over the vocabulary, learned so that the edited model predicts the
noise of the picture that the original model made of the prompt:

    min_prefix E || eps_theta(x_t, prefix + prompt) - eps ||^2

Timesteps are taken in order; after each, the likeliest prefix is judged. Like the authors' program: uniform
start, a sampled token forward and the distribution backward (straight-through), Adam, projection of the rows
to the simplex, no guidance in the loss. Unlike it: all prompts in one batch, and no one-hot product over the
vocabulary for the forward value (a gather), and the prompt is judged as text, as a person would paste it.
"""

import torch
from pydantic import Field, PositiveInt
from torch import Tensor

from eraseflow.params import Block
from eraseflow.victim import Search, Victim, token_embeddings
from eraseflow.vocabulary import ordinary_tokens, prefixed_ids


class Settings(Block):
    prefix_tokens: PositiveInt
    rounds: PositiveInt
    iterations: PositiveInt
    learning_rate: float = Field(gt=0)
    weight_decay: float = Field(ge=0)


def to_simplex(rows: Tensor) -> Tensor:
    """Euclidean projection of (..., v) onto the probability simplex (Duchi et al. 2008, fig. 1)."""
    descending = rows.sort(dim=-1, descending=True).values
    excess = descending.cumsum(-1) - 1
    rank = torch.arange(1, rows.shape[-1] + 1, device=rows.device, dtype=rows.dtype)
    support = (descending * rank > excess).sum(-1, keepdim=True)
    return (rows - excess.gather(-1, support - 1) / support).clamp(min=0)


def denoising_loss(pipeline, prompts: list[str], choice: Tensor, soft: Tensor, noisy: Tensor, t: int, noise: Tensor):
    """Mean squared noise error (n,) of the edited model under prefixed prompts.

    choice (n, k): token ids; soft (n, k, width): their embeddings, carrying the gradient; noisy, noise (n, c, h, w).
    """
    encoder = pipeline.text_encoder
    ids = prefixed_ids(pipeline.tokenizer, prompts, choice)
    embeddings = encoder.get_input_embeddings()(ids)
    embeddings = torch.cat([embeddings[:, :1], soft.to(embeddings), embeddings[:, 1 + soft.shape[1] :]], dim=1)
    with token_embeddings(encoder, embeddings):
        hidden = encoder(ids)[0]
    timesteps = torch.full((len(noisy),), t, device=noisy.device)
    predicted = pipeline.unet(noisy.to(hidden.dtype), timesteps, hidden).sample
    return (predicted.to(noise.dtype) - noise).square().flatten(1).mean(1)


def attack(victim: Victim, settings: Settings, seed: int) -> Search:
    """Learn a prefix for every prompt still open, all in one batch; a judged round after each timestep."""
    pipeline, device = victim.pipeline, victim.originals.device
    tokens = torch.tensor(ordinary_tokens(pipeline.tokenizer), device=device)
    table = pipeline.text_encoder.get_input_embeddings().weight.detach()[tokens].float()
    alphas = pipeline.scheduler.alphas_cumprod.to(device)
    for part in (pipeline.unet, pipeline.text_encoder):
        part.requires_grad_(False)

    shape = (len(victim.prompts), settings.prefix_tokens, len(tokens))
    chances = torch.full(shape, 1 / len(tokens), device=device, requires_grad=True)
    optimiser = torch.optim.Adam([chances], lr=settings.learning_rate, weight_decay=settings.weight_decay)
    rngs = [torch.Generator().manual_seed(int(victim.rng(row, seed).integers(2**62))) for row in range(shape[0])]
    for step in range(settings.rounds):
        t = int((step + 0.5) * len(alphas) / settings.rounds)
        rows = list(victim.open)
        prompts, clean = list(victim.prompts.prompt[rows]), victim.originals[rows]
        for _ in range(settings.iterations):
            noise = torch.stack([torch.randn(clean.shape[1:], generator=rngs[row]) for row in rows]).to(clean)
            drawn = torch.stack(
                [torch.multinomial(chances[row].detach().cpu(), 1, generator=rngs[row])[:, 0] for row in rows]
            ).to(device)
            slope = chances[rows] @ table
            soft = table[drawn] + slope - slope.detach()  # the token's embedding forward, the distribution backward
            noisy = alphas[t].sqrt() * clean + (1 - alphas[t]).sqrt() * noise
            loss = denoising_loss(pipeline, prompts, tokens[drawn], soft, noisy, t, noise)
            elements = noise[0].numel()  # the loss is a mean over these: undone, or half precision underflows
            (gradient,) = torch.autograd.grad(loss.sum() * elements, chances)
            chances.grad = gradient / elements
            optimiser.step()
            with torch.no_grad():
                chances[rows] = to_simplex(chances[rows])
        likeliest = tokens[chances.detach()[rows].argmax(-1)]
        yield dict(zip(rows, likeliest.tolist(), strict=True))
