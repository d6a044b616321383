"""Rates with their interval, where prompts share a text and trainings differ, too; and a paired test of two methods.

Outcomes of prompts with the same text, and of one training, are correlated: they tell less than as many independent
ones. Both the interval and the test know that.
"""

from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike
from scipy.stats import t
from statsmodels.regression.linear_model import OLS
from statsmodels.stats.proportion import proportion_confint
from statsmodels.stats.sandwich_covariance import cov_cluster, cov_cluster_2groups


@dataclass(frozen=True)
class Rate:
    """`successes` of `n` trials; `value`, `low` and `high` (95 % Wilson interval) are fractions 0..1.

    effective: how many independent trials tell as much as these (see `effective`); all, where it is left out.
    Raises: ValueError unless 0 <= successes <= n and n >= 1: nothing is known of 0/0, so no table may show it; or where
    `effective` is not a positive number.
    """

    successes: int
    n: int
    effective: float | None = None

    def __post_init__(self) -> None:
        if self.n < 1 or not 0 <= self.successes <= self.n:
            raise ValueError(f"a rate needs n >= 1 and 0 <= successes <= n, found {self.successes}/{self.n}")
        if self.effective is not None and not self.effective > 0:
            raise ValueError(f"a rate needs a positive effective number of trials, found {self.effective}")

    @classmethod
    def of(cls, outcomes: ArrayLike, texts: ArrayLike, runs: ArrayLike | None = None) -> "Rate":
        """The rate of boolean outcomes (n,), each of a text and, where there are several, of a run.

        Raises: ValueError where there is no outcome.
        """
        seen = np.asarray(outcomes, dtype=bool)
        return cls(int(seen.sum()), len(seen), effective(seen, texts, runs) if len(seen) else None)

    @property
    def value(self) -> float:
        return self.successes / self.n

    @property
    def low(self) -> float:
        return self._interval[0]

    @property
    def high(self) -> float:
        return self._interval[1]

    @property
    def _interval(self) -> tuple[float, float]:
        n = self.n if self.effective is None else self.effective
        count = self.successes if n == self.n else self.value * n
        low, high = proportion_confint(count, n, alpha=0.05, method="wilson")
        return min(float(low), self.value), max(float(high), self.value)  # 36/36 has 1 as its bound, but for rounding

    def __str__(self) -> str:
        """Such as `12/24 = 50 % (31-69)`, the interval in percent."""
        return f"{self.successes}/{self.n} = {100 * self.value:.0f} % ({100 * self.low:.0f}-{100 * self.high:.0f})"


def effective(outcomes: np.ndarray, texts: ArrayLike, runs: ArrayLike | None = None) -> float:
    """The effective number of boolean outcomes (n,) that are clustered by text, and by run where there are several.

    p(1 - p) over the variance of p, which is statsmodels' cluster-robust one, two-way where there are runs (crossed
    random effects of text and run), and at least that by text. By the ratio of t quantiles it is made smaller where few
    clusters tell of the variance (Satterthwaite's degrees of freedom, G - 1 of G clusters), as surveys do for Wilson's
    interval (Korn and Graubard; Parker et al., NCHS standards for proportions, 2017), and it is n at most. Exactly n
    where each outcome has a text of its own and there is one run. Where no outcome differs, nothing tells of a
    variance: as many as texts.
    """
    n, text = len(outcomes), pd.factorize(np.asarray(texts))[0]
    run = np.zeros(n, dtype=int) if runs is None else pd.factorize(np.asarray(runs))[0]
    many, p = int(text.max()) + 1, float(outcomes.mean())
    several = run.max() > 0
    if many == n and not several:
        return n
    if p in (0.0, 1.0) or many == 1:
        return many
    fitted = OLS(outcomes.astype(float), np.ones(n)).fit()
    by_text = cov_cluster(fitted, text).item()
    both = max(cov_cluster_2groups(fitted, text, run)[0].item(), by_text) if several else by_text
    if both <= 0:
        return n
    freedom = both**2 / (by_text**2 / (many - 1) + (both - by_text) ** 2 / max(run.max(), 1))
    return float(min(n, p * (1 - p) / both * (t.ppf(0.975, n - 1) / t.ppf(0.975, freedom)) ** 2))


def paired_p(ours: ArrayLike, theirs: ArrayLike, texts: ArrayLike) -> float:
    """The two-sided exact p-value (0..1) that two methods succeed equally often on the same prompts, by text.

    ours, theirs: boolean, shape (n,), the same prompt (and run) at the same place; texts (n,): what is independent. If
    the methods do not differ, each text's difference in successes is as likely to have the other sign: p is the share
    of all choices of signs whose sum is at least as far from 0 as the one found. Where no text is there twice, that is
    McNemar's exact test.
    Raises: ValueError if the shapes differ or the outcomes are not boolean.
    """
    a, b, text = np.asarray(ours), np.asarray(theirs), pd.factorize(np.asarray(texts))[0]
    if a.dtype != bool or b.dtype != bool or a.ndim != 1 or a.shape != b.shape or a.shape != text.shape:
        found = f"{a.dtype} {a.shape}, {b.dtype} {b.shape} and texts {text.shape}"
        raise ValueError(f"McNemar's test needs two boolean vectors of one length and their texts, found {found}")
    differences = np.bincount(text, a.astype(int) - b.astype(int)).astype(int)
    chances = np.ones(1)  # of the sums -m, ..., m, m growing
    for size in np.abs(differences[differences != 0]):
        chances = np.convolve(chances, np.concatenate([[0.5], np.zeros(2 * size - 1), [0.5]]))
    sums = np.abs(np.arange(len(chances)) - len(chances) // 2)
    return min(1.0, float(chances[sums >= abs(int(differences.sum()))].sum()))
