"""Rates and McNemar's test against scipy."""

import numpy as np
import pytest
from scipy.stats import binomtest

from eraseflow.metrics.rates import Rate, mcnemar_exact


@pytest.mark.parametrize(("successes", "n"), [(0, 1), (1, 1), (0, 24), (24, 24), (12, 24), (1, 142), (40, 118)])
def test_wilson_interval_is_scipys(successes, n):
    rate = Rate(successes, n)
    expected = binomtest(successes, n).proportion_ci(method="wilson")
    assert rate.value == successes / n
    assert (rate.low, rate.high) == pytest.approx((expected.low, expected.high), abs=1e-12)
    assert 0 <= rate.low <= rate.value <= rate.high <= 1


@pytest.mark.parametrize(
    ("rate", "text"),
    [
        (Rate(12, 24), "12/24 = 50 % (31-69)"),
        (Rate(0, 24), "0/24 = 0 % (0-14)"),
        (Rate(24, 24), "24/24 = 100 % (86-100)"),
        (Rate(40, 118), "40/118 = 34 % (26-43)"),  # the paper's 33.89 %
    ],
)
def test_text_names_numerator_denominator_and_interval(rate, text):
    assert str(rate) == text


@pytest.mark.parametrize(("successes", "n"), [(0, 0), (2, 1), (-1, 3)])
def test_impossible_rates_are_refused(successes, n):
    with pytest.raises(ValueError, match=f"found {successes}/{n}"):
        Rate(successes, n)


def test_mcnemar_is_the_binomial_test_of_the_disagreements():
    rng = np.random.default_rng(0)
    for n in (1, 7, 24, 60):
        for share in (0.2, 0.5, 0.9):
            a, b = rng.random(n) < share, rng.random(n) < 0.5
            only_a, only_b = int(np.sum(a & ~b)), int(np.sum(~a & b))
            expected = binomtest(only_a, only_a + only_b).pvalue if only_a + only_b else 1.0
            assert mcnemar_exact(a, b) == pytest.approx(expected)
            assert mcnemar_exact(a, b) == mcnemar_exact(b, a)


def test_mcnemar_by_hand():
    ours, theirs = np.zeros(24, bool), np.zeros(24, bool)
    theirs[:6] = True
    assert mcnemar_exact(ours, theirs) == pytest.approx(2 / 2**6)


@pytest.mark.parametrize("wrong", [np.zeros(3, bool), np.zeros(4, int), np.zeros((4, 1), bool)])
def test_mcnemar_refuses_unpaired_or_non_boolean(wrong):
    with pytest.raises(ValueError, match="two boolean vectors"):
        mcnemar_exact(np.zeros(4, bool), wrong)


def test_the_interval_holds_the_value_in_spite_of_rounding():
    for n in range(1, 200):
        for successes in (0, 1, n - 1, n):
            rate = Rate(successes, n)
            assert rate.low <= rate.value <= rate.high
