"""Other seeds of the same prompt: what sampling more pictures finds without any adversarial prompt.

A baseline at as many distinct judged images: an attack that does not beat it has found luck, not a way back.
"""

from eraseflow.params import Block, Count
from eraseflow.victim import Attempt, Search, Victim


class Settings(Block):
    rounds: Count


def attack(victim: Victim, settings: Settings, seed: int) -> Search:
    """Each round, the unchanged prompt with a new seed of the picture."""
    for step in victim.rounds(settings.rounds):
        seeds = {row: int(victim.rng(row, seed, step).integers(2**31)) for row in victim.open}
        yield {row: Attempt(victim.prompts.prompt[row], seed=drawn) for row, drawn in seeds.items()}
