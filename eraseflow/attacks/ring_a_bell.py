"""Ring-A-Bell: How Reliable are Concept Removal Methods? (Tsai et al., ICLR 2024, arXiv 2310.10012), batched.

The text encoder alone is attacked. The concept's vector is the mean difference, over paired prompts with and without
the concept, of the encoder's last hidden states f; a genetic search then looks for K tokens P' with

    min_P' || f(P') - (f(prompt) + eta c) ||^2,     c = mean_i f(P_i with) - f(P_i without)

The pairs are the concept's own: those that methods train on, and its prompts with each target replaced by its anchor.
The wish is of the unedited encoder, the search reads with the edited one; where an edit leaves
the text encoder alone, as most do, that is the published attack.

Unlike the authors' program: parents stay as they are and each generation has as many children as parents, one of each
random pair or a copy of one (theirs: two of each pair, for half of the parents, and parents mutate too, so that the
best may be lost); the best prompt is judged several times on the way; and tokens are such that survive being written.
A candidate that was read before keeps its fitness, and all prompts' candidates are read in common batches.
"""

from collections.abc import Sequence

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from eraseflow.params import Block, Concept, Count, FreeTokens
from eraseflow.victim import TEXTS, Search, Victim
from eraseflow.vocabulary import prefixed_ids, written_tokens


class Settings(Block):
    tokens: FreeTokens
    rounds: Count
    generations: Count
    population: int = Field(ge=4, le=1_000_000, multiple_of=2)
    mutation: float = Field(ge=0, le=1)
    crossover: float = Field(ge=0, le=1)
    eta: float = Field(gt=0, le=100)


def pairs(concept: Concept, prompts: Sequence[str]) -> list[tuple[str, str]]:
    """Prompts with the concept and the same without it, each pair once."""
    anchors = {concept.target: concept.anchor} | concept.also
    swapped = [
        (prompt, " ".join(prompt.replace(target, anchor).split()))
        for prompt in prompts
        for target, anchor in anchors.items()
        if target in prompt
    ]
    return list(dict.fromkeys([*concept.pairs, *swapped]))


def concept_vector(victim: Victim) -> Tensor:
    """The mean difference (length, width) of the unedited encoder's hidden states over the pairs."""
    sides = zip(*pairs(victim.concept, list(victim.prompts.prompt)), strict=True)
    having, lacking = (victim.read(None, written(victim, list(side)), original=True).float() for side in sides)
    return (having - lacking).mean(0)


def written(victim: Victim, texts: list[str]) -> Tensor:
    """Token ids (n, length)."""
    tokenizer = victim.pipeline.tokenizer
    return tokenizer(texts, padding="max_length", truncation=True, return_tensors="pt").input_ids.to(victim.device)


def bred(parents: np.ndarray, settings: Settings, vocabulary: int, rng: np.random.Generator) -> np.ndarray:
    """As many children (n, k) as parents: one-point crossover of two of them or a copy of one, then a mutated token."""
    count, length = parents.shape
    first, second = rng.integers(count, size=(2, count))
    cut = np.where(rng.random(count) < settings.crossover, rng.integers(length + 1, size=count), length)
    children = np.where(np.arange(length) < cut[:, None], parents[first], parents[second])
    mutated = np.flatnonzero(rng.random(count) < settings.mutation)
    children[mutated, rng.integers(length, size=len(mutated))] = rng.integers(vocabulary, size=len(mutated))
    return children


class Fitness:
    """How far the candidates of each row are from its wish, every one read once."""

    def __init__(self, victim: Victim, tokens: Tensor) -> None:
        self.victim, self.tokens = victim, tokens
        self.known: dict[int, dict[bytes, float]] = {row: {} for row in victim.open}

    def keep(self, population: dict[int, tuple[np.ndarray, np.ndarray]]) -> None:
        """Forget all but these: the memory must not grow, nor depend on whether the search was killed."""
        self.known = {
            row: dict(zip(map(bytes, candidates), values.tolist(), strict=True))
            for row, (candidates, values) in population.items()
        }

    def of(self, candidates: dict[int, np.ndarray]) -> dict[int, np.ndarray]:
        """|| f(P') - wish ||^2 (n,) of each row's candidates (n, k), indices of `tokens`."""
        new = {
            row: [key for key in dict.fromkeys(map(bytes, some)) if key not in self.known[row]]
            for row, some in candidates.items()
        }
        owners = [row for row, keys in new.items() for _ in keys]
        unread = np.frombuffer(b"".join(key for keys in new.values() for key in keys), np.int64)
        values = iter(self._distances(owners, torch.tensor(unread, device=self.victim.device)))
        for row, keys in new.items():
            self.known[row] |= {key: next(values) for key in keys}
        return {row: np.array([self.known[row][bytes(one)] for one in some]) for row, some in candidates.items()}

    def _distances(self, owners: list[int], candidates: Tensor) -> list[float]:
        """In parts, so that only a few hidden states are held at once."""
        found: list[float] = []
        for start in range(0, len(owners), TEXTS):
            part = owners[start : start + TEXTS]
            choice = self.tokens[candidates.view(len(owners), -1)[start : start + TEXTS]]
            ids = prefixed_ids(self.victim.pipeline.tokenizer, [""] * len(part), choice)
            wishes = torch.stack([self.victim.memory[row]["wish"] for row in part])
            found += (self.victim.read(part, ids).float() - wishes).square().sum((1, 2)).tolist()
        return found


def attack(victim: Victim, settings: Settings, seed: int) -> Search:
    """Breed a population of prompts for every prompt still open; a judged round after each `generations`."""
    tokens = torch.tensor(written_tokens(victim.pipeline.tokenizer), device=victim.device)
    fitness = Fitness(victim, tokens)
    if not victim.memory:
        begin(victim, settings, seed, fitness)
    for step in victim.rounds(settings.rounds):
        population = {
            row: (victim.memory[row]["candidates"].numpy(force=True), victim.memory[row]["values"].numpy(force=True))
            for row in victim.open
        }
        rngs = {row: victim.rng(row, seed, step) for row in victim.open}
        fitness.keep(population)
        for _ in range(settings.generations):
            population = survivors(population, settings.population // 2)
            children = {row: bred(some, settings, len(tokens), rngs[row]) for row, (some, _) in population.items()}
            values = fitness.of(children)
            population = {
                row: (np.concatenate([parents, children[row]]), np.concatenate([known, values[row]]))
                for row, (parents, known) in population.items()
            }
        for row, (some, known) in population.items():
            victim.memory[row] |= {"candidates": torch.from_numpy(some), "values": torch.from_numpy(known)}
        best = {row: torch.from_numpy(some[0]) for row, (some, _) in survivors(population, 1).items()}
        yield {row: victim.as_text(tokens[one].tolist()) for row, one in best.items()}


def begin(victim: Victim, settings: Settings, seed: int, fitness: Fitness) -> None:
    """Give every open row its wish and a first population, drawn uniformly."""
    rows = list(victim.open)
    wishes = victim.read(rows, written(victim, victim.texts(rows)), original=True).float()
    wishes = wishes + settings.eta * concept_vector(victim)
    victim.memory = {row: {"wish": wish} for row, wish in zip(rows, wishes, strict=True)}
    room = victim.pipeline.tokenizer.model_max_length - 2
    size = settings.population, min(settings.tokens, room)
    first = {row: victim.rng(row, seed).integers(len(fitness.tokens), size=size) for row in rows}
    for row, values in fitness.of(first).items():
        victim.memory[row] |= {"candidates": torch.from_numpy(first[row]), "values": torch.from_numpy(values)}


def survivors(population: dict[int, tuple[np.ndarray, np.ndarray]], count: int) -> dict:
    """The best of each row's candidates, with their fitness."""
    best = {row: values.argsort(kind="stable")[:count] for row, (_, values) in population.items()}
    return {row: (some[best[row]], values[best[row]]) for row, (some, values) in population.items()}
