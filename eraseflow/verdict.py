"""From a judge's raw scores to a verdict: a first choice or a threshold, against what counts or was asked for."""

from dataclasses import dataclass

import numpy as np
import pandas as pd

from eraseflow.definitions import definition
from eraseflow.params import ConceptJudge


@dataclass(frozen=True)
class Rule:
    """When a judge's raw scores mean that the concept is seen.

    counts: labels, columns of the scores. threshold: a counted label succeeds from this score on; without one,
    where it is the first choice of its head. name: judge and rule as a score's title says them.
    """

    counts: tuple[str, ...]
    threshold: float | None
    name: str

    @property
    def meaning(self) -> str:
        """What the judge must say, as the words before the list of counted labels."""
        return "the first choice is" if self.threshold is None else f"a score of {self.threshold:g} or more for"


def rule(judge: ConceptJudge) -> Rule:
    """The rule of a concept's judge, its protocol looked up."""
    if judge.protocol is None:
        counts, threshold = judge.counts, judge.threshold
    else:
        protocol = definition("judges", judge.name, "PROTOCOLS")[judge.protocol]
        counts, threshold = protocol["counts"], protocol["threshold"]
    if threshold is None:
        return Rule(tuple(counts), None, first_choice_name(judge.name))
    classes = counts[0] if len(counts) == 1 else f"{len(counts)} classes"
    return Rule(tuple(counts), threshold, f"{network(judge.name)}, {threshold:g}, {classes}")


def network(judge: str) -> str:
    """A judge's network as titles name it: the NAME of its module, else the module's own."""
    return definition("judges", judge, "NAME", judge)


def first_choice_name(judge: str) -> str:
    """How titles name the verdict by a judge's first choice."""
    return f"{network(judge)} top-1"


def first_choice(scores: pd.DataFrame, head: str) -> np.ndarray:
    """The label with the highest score among the columns "<head>/...", for each row."""
    columns = [column for column in scores.columns if column.startswith(head + "/")]
    return scores[columns].idxmax(axis=1).to_numpy()


def seen(scores: pd.DataFrame, by: Rule) -> np.ndarray:
    """Whether a counted label reaches the threshold, or without one is the first choice of its head (n,)."""
    if by.threshold is not None:
        return (scores[list(by.counts)] >= by.threshold).any(axis=1).to_numpy()
    heads = {label.partition("/")[0] for label in by.counts}
    return np.any([np.isin(first_choice(scores, head), by.counts) for head in sorted(heads)], axis=0)


def strength(scores: pd.DataFrame, by: Rule) -> np.ndarray:
    """How strongly the concept is seen: the highest raw score of a counted label (n,)."""
    return scores[list(by.counts)].max(axis=1).to_numpy(dtype=float)


def right(scores: pd.DataFrame, expect: pd.Series) -> np.ndarray:
    """Whether every expected label ("object/horse;style/flat") is the first choice of its head (n,)."""
    choices = {head: first_choice(scores, head) for head in {column.partition("/")[0] for column in scores.columns}}
    return np.array(
        [
            all(choices[label.partition("/")[0]][row] == label for label in labels.split(";"))
            for row, labels in enumerate(expect)
        ]
    )
