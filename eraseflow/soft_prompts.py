"""Prompts that begin with embeddings instead of words: what attacks search with and adversarial training trains on."""

from contextlib import contextmanager

import torch
from torch import Tensor

from eraseflow.vocabulary import prefixed_ids


def encoder_input(tokenizer, encoder, prompts: list[str], soft: Tensor, choice: Tensor | None = None):
    """Token ids (n, length) and embeddings (n, length, width) of prompts after a prefix of embeddings.

    soft (n, k, width); choice (n, k): the tokens that they stand for, where there are such.
    """
    if choice is None:
        choice = torch.zeros(soft.shape[:2], dtype=torch.long, device=soft.device)
    ids = prefixed_ids(tokenizer, prompts, choice)
    embeddings = encoder.get_input_embeddings()(ids)
    return ids, torch.cat([embeddings[:, :1], soft.to(embeddings), embeddings[:, 1 + soft.shape[1] :]], dim=1)


@contextmanager
def token_embeddings(text_encoder, embeddings: Tensor):
    """Let the text encoder see these (n, tokens, width) instead of its own token embeddings; gradients pass."""
    hook = text_encoder.get_input_embeddings().register_forward_hook(lambda *_: embeddings)
    try:
        yield
    finally:
        hook.remove()
