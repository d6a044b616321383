"""Random prefix tokens: the baseline that an attack must beat at as many distinct judged images."""

from eraseflow.params import Block, Count, PrefixTokens
from eraseflow.victim import Search, Victim
from eraseflow.vocabulary import written_tokens


class Settings(Block):
    prefix_tokens: PrefixTokens
    rounds: Count


def attack(victim: Victim, settings: Settings, seed: int) -> Search:
    """Each round, a prefix drawn uniformly from the vocabulary for every prompt."""
    tokens = written_tokens(victim.pipeline.tokenizer)
    for step in victim.rounds(settings.rounds):
        drawn = {row: victim.rng(row, seed, step).choice(tokens, settings.prefix_tokens) for row in victim.open}
        yield {row: victim.with_prefix(row, prefix.tolist()) for row, prefix in drawn.items()}
