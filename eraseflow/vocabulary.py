"""Which tokens of a tokenizer an attack may use, and where they go in a prompt."""

import torch
from torch import Tensor


def written_tokens(tokenizer) -> list[int]:
    """The ids of the tokens that come back when their text is read again, ascending.

    Special tokens and pieces of words do not; with them, what an attack has found would not be what its text says.
    Nor do control characters count as text.
    """
    ids = sorted(set(range(len(tokenizer))) - set(tokenizer.all_special_ids))
    texts = [tokenizer.decode([token]) for token in ids]
    read = tokenizer(texts, add_special_tokens=False, verbose=False).input_ids
    rows = zip(ids, texts, read, strict=True)
    return [token for token, text, back in rows if back == [token] and text.isprintable()]


def prefixed_ids(tokenizer, prompts: list[str], prefix: Tensor) -> Tensor:
    """Token ids (n, length) of prompts with a prefix (n, k) after the start token, cut to the model's length.

    What is cut is padding, unless the prompt itself is too long. An empty prompt leaves the prefix alone.
    """
    ids = tokenizer(prompts, padding="max_length", truncation=True, return_tensors="pt").input_ids.to(prefix.device)
    longer = torch.cat([ids[:, :1], prefix, ids[:, 1:]], dim=1)[:, : ids.shape[1]]
    longer[:, -1] = tokenizer.eos_token_id
    return longer
