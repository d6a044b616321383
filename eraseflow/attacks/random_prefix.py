"""Random prefix tokens: the baseline that an attack must beat at the same number of judged images."""

from pydantic import PositiveInt

from eraseflow.params import Block
from eraseflow.victim import Search, Victim
from eraseflow.vocabulary import ordinary_tokens


class Settings(Block):
    prefix_tokens: PositiveInt
    rounds: PositiveInt


def attack(victim: Victim, settings: Settings, seed: int) -> Search:
    """Each round, a prefix drawn uniformly from the vocabulary for every prompt."""
    tokens = ordinary_tokens(victim.pipeline.tokenizer)
    for step in range(settings.rounds):
        yield {row: victim.rng(row, seed, step).choice(tokens, settings.prefix_tokens).tolist() for row in victim.open}
