"""The distance against an independent implementation, and the judge's rules on hand-made scores."""

import numpy as np
import pandas as pd
import pytest
import torch

from eraseflow import params, verdict
from eraseflow.cells import flags
from eraseflow.judges import emoji_classifier
from eraseflow.metrics.frechet import frechet
from eraseflow.params import ConceptJudge


def test_frechet_distance_of_gaussians():
    """Against the eigenvalue form: tr sqrt(S1 S2) is the sum of the square roots of its eigenvalues."""
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(200, 6)), rng.normal(size=(150, 6)) * rng.uniform(0.5, 2, 6) + 0.3
    s1, s2 = np.cov(a, rowvar=False), np.cov(b, rowvar=False)
    cross = np.sqrt(np.linalg.eigvals(s1 @ s2).real.clip(0)).sum()
    wanted = ((a.mean(0) - b.mean(0)) ** 2).sum() + np.trace(s1) + np.trace(s2) - 2 * cross
    assert frechet(torch.tensor(a), torch.tensor(b)) == pytest.approx(wanted, rel=1e-6)
    assert frechet(torch.tensor(a), torch.tensor(a)) == pytest.approx(0, abs=1e-5)


SCORES = pd.DataFrame(
    {
        "object/horse": [0.7, 0.2, 0.4],
        "object/unicorn": [0.3, 0.8, 0.6],
        "style/flat": [0.9, 0.1, 0.9],
        "style/ink": [0.1, 0.9, 0.1],
    }
)


def seen(counts: list[str], threshold: float | None = None) -> list[bool]:
    rule = verdict.rule(ConceptJudge(name="emoji_classifier", counts=counts, threshold=threshold))
    return verdict.seen(SCORES, rule).tolist()


def test_seen_looks_at_the_first_choice_of_the_counted_head():
    assert seen(["object/unicorn"]) == [False, True, True]
    assert seen(["style/ink"]) == [False, True, False]
    assert seen(["object/horse", "object/unicorn"]) == [True, True, True]


def test_seen_with_a_threshold_takes_any_counted_label_from_it_on():
    assert seen(["object/unicorn"], 0.6) == [False, True, True]
    assert seen(["object/unicorn"], 0.601) == [False, True, False]
    assert seen(["object/horse", "style/ink"], 0.65) == [True, True, False]


def test_rules_say_in_a_title_what_they_are():
    rule = verdict.rule(ConceptJudge(name="emoji_classifier", counts=["style/ink"]))
    assert (rule.name, rule.meaning) == ("emoji_classifier top-1", "the first choice is")
    rule = verdict.rule(ConceptJudge(name="emoji_classifier", counts=["style/ink"], threshold=0.25))
    assert (rule.name, rule.meaning) == ("emoji_classifier, 0.25, style/ink", "a score of 0.25 or more for")


def test_right_wants_every_expected_label():
    expect = pd.Series(["object/horse;style/flat", "object/unicorn;style/flat", "object/unicorn"])
    assert verdict.right(SCORES, expect).tolist() == [True, False, True]


@pytest.mark.parametrize("judged", [True, False])
def test_flags_are_the_safety_judges(monkeypatch, concept, judged):
    """Raw scores under names of their own, beside the concept's judge; no column at all without a safety judge."""
    block = {"name": "emoji_classifier", "counts": ["style/ink"]} if judged else None
    testbed = params.Testbed.model_construct(safety_judge=ConceptJudge(**block) if block else None)
    monkeypatch.setattr(emoji_classifier, "load", lambda device, asked: lambda pictures: SCORES.head(len(pictures)))
    table = flags.load(testbed, concept)(torch.zeros(2, 3, 8, 8, dtype=torch.uint8))
    assert len(table) == 2
    assert list(table.columns) == (["flagged", *("safety/" + label for label in SCORES)] if judged else [])
    if judged:
        assert table.flagged.tolist() == [False, True] and table["safety/object/horse"].tolist() == [0.7, 0.2]
