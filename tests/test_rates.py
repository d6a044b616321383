"""Rates, their effective number of prompts, and the paired test, against scipy and statsmodels."""

import numpy as np
import pytest
from scipy.stats import binomtest, bootstrap, permutation_test
from statsmodels.stats.contingency_tables import mcnemar

from eraseflow.metrics.rates import Rate, effective, paired_p

TEXTS = np.arange(100)


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


def test_where_no_text_is_there_twice_the_test_is_mcnemars():
    rng = np.random.default_rng(0)
    for n in (1, 7, 24, 60):
        for share in (0.2, 0.5, 0.9):
            a, b = rng.random(n) < share, rng.random(n) < 0.5
            counts = [[np.sum(a & b), np.sum(a & ~b)], [np.sum(~a & b), np.sum(~a & ~b)]]
            assert paired_p(a, b, TEXTS[:n]) == pytest.approx(mcnemar(counts, exact=True).pvalue)
            assert paired_p(a, b, TEXTS[:n]) == paired_p(b, a, TEXTS[:n])


def test_the_paired_test_by_hand():
    ours, theirs = np.zeros(24, bool), np.zeros(24, bool)
    theirs[:6] = True
    assert paired_p(ours, theirs, TEXTS[:24]) == pytest.approx(2 / 2**6)
    assert paired_p(ours, theirs, TEXTS[:24] // 3) == pytest.approx(2 / 2**2), "six prompts of two texts"
    theirs[3] = False  # sums of 3 and 2: of +-3 +-2 just two are as far out as 5
    assert paired_p(ours, theirs, TEXTS[:24] // 3) == pytest.approx(2 / 4)
    ours[6:12], theirs[:6] = True, True  # and two texts the other way round: 3 + 3 - 3 - 3
    assert paired_p(ours, theirs, TEXTS[:24] // 3) == 1


def test_the_paired_test_is_scipys_of_all_signs():
    rng = np.random.default_rng(1)
    text = rng.integers(0, 9, 40)
    a, b = rng.random(40) < 0.7, rng.random(40) < 0.4
    sums = [np.bincount(text, one, 9) for one in (a, b)]
    exact = permutation_test(
        sums, lambda x, y, axis: (x - y).sum(axis), permutation_type="samples", n_resamples=np.inf, vectorized=True
    )
    assert paired_p(a, b, text) == pytest.approx(exact.pvalue)


@pytest.mark.parametrize("wrong", [np.zeros(3, bool), np.zeros(4, int), np.zeros((4, 1), bool)])
def test_the_paired_test_refuses_unpaired_or_non_boolean(wrong):
    with pytest.raises(ValueError, match="two boolean vectors"):
        paired_p(np.zeros(4, bool), wrong, TEXTS[:4])


def test_repeats_of_a_text_that_always_agree_count_once():
    seen = np.arange(36) % 3 == 0
    once, thrice = Rate.of(seen, TEXTS[:36]), Rate.of(np.repeat(seen, 3), np.repeat(TEXTS[:36], 3))
    assert once == Rate(12, 36, 36) and (once.low, once.high) == (Rate(12, 36).low, Rate(12, 36).high)
    assert thrice.successes == 36 and thrice.n == 108
    assert thrice.effective == pytest.approx(36, rel=0.1) and thrice.high - thrice.low >= once.high - once.low


def test_repeats_that_are_independent_tell_as_much_as_other_texts():
    rng = np.random.default_rng(2)
    found = [effective(rng.random(300) < 0.4, np.repeat(TEXTS, 3)) for _ in range(40)]
    assert max(found) <= 300 and np.median(found) > 250


def test_the_interval_of_repeated_texts_is_near_the_cluster_bootstraps():
    rng = np.random.default_rng(3)
    chances = rng.beta(1, 2, 100)
    seen = rng.random((100, 4)) < chances[:, None]
    rate = Rate.of(seen.ravel(), np.repeat(TEXTS, 4))
    of_texts = bootstrap((seen.mean(1),), np.mean, rng=0, method="percentile").confidence_interval
    assert (rate.low, rate.high) == pytest.approx((of_texts.low, of_texts.high), abs=0.02)
    assert rate.effective < 250


def test_where_nothing_differs_the_texts_are_counted():
    assert Rate.of(np.ones(300, bool), np.repeat(TEXTS, 3)).low == Rate(100, 100).low
    assert Rate.of(np.zeros(6, bool), ["a"] * 6).high == Rate(0, 1).high
    with pytest.raises(ValueError, match="found 0/0"):
        Rate.of([], [])


def test_the_interval_over_runs_holds_the_rate_of_all_runs():
    """Of trainings whose rates scatter by 0.1 around 0.3, each judged by the same hundred texts."""
    rng, hits, plain = np.random.default_rng(4), 0, 0
    for _ in range(200):
        chances = np.clip(0.3 + rng.normal(0, 0.1, 3), 0, 1)
        seen = rng.random((100, 3)) < chances
        rate = Rate.of(seen.ravel(), np.repeat(TEXTS, 3), np.tile([0, 1, 2], 100))
        alone = Rate(rate.successes, rate.n)
        hits, plain = hits + (rate.low <= 0.3 <= rate.high), plain + (alone.low <= 0.3 <= alone.high)
        assert rate.low <= alone.low and rate.high >= alone.high
    assert hits > 165 and plain < 140


def test_runs_that_agree_leave_an_interval_by_texts():
    seen = np.repeat(np.arange(100) % 4 == 0, 3)
    rate = Rate.of(seen, np.repeat(TEXTS, 3), np.tile([0, 1, 2], 100))
    assert rate.effective == pytest.approx(100, rel=0.05)


def test_the_interval_holds_the_value_in_spite_of_rounding():
    for n in range(1, 200):
        for successes in (0, 1, n - 1, n):
            rate = Rate(successes, n)
            assert rate.low <= rate.value <= rate.high
