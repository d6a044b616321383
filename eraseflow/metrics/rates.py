"""Rates with their Wilson interval, and McNemar's exact test of two methods on the same prompts."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from statsmodels.stats.contingency_tables import mcnemar
from statsmodels.stats.proportion import proportion_confint


@dataclass(frozen=True)
class Rate:
    """`successes` of `n` trials; `value`, `low` and `high` (95 % Wilson interval) are fractions 0..1.

    Raises: ValueError unless 0 <= successes <= n and n >= 1: nothing is known of 0/0, so no table may show it.
    """

    successes: int
    n: int

    def __post_init__(self) -> None:
        if self.n < 1 or not 0 <= self.successes <= self.n:
            raise ValueError(f"a rate needs n >= 1 and 0 <= successes <= n, found {self.successes}/{self.n}")

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
        low, high = proportion_confint(self.successes, self.n, alpha=0.05, method="wilson")
        return min(float(low), self.value), max(float(high), self.value)  # 36/36 has 1 as its bound, but for rounding

    def __str__(self) -> str:
        """Such as `12/24 = 50 % (31-69)`, the interval in percent."""
        return f"{self.successes}/{self.n} = {100 * self.value:.0f} % ({100 * self.low:.0f}-{100 * self.high:.0f})"


def mcnemar_exact(ours: ArrayLike, theirs: ArrayLike) -> float:
    """The two-sided exact p-value (0..1) that two methods succeed equally often on the same prompts.

    ours, theirs: boolean, shape (prompts,), the same prompt at the same place; only the prompts on which they
    disagree count, so the value is 1 where they never do.
    Raises: ValueError if the shapes differ or the values are not boolean.
    """
    a, b = np.asarray(ours), np.asarray(theirs)
    if a.dtype != bool or b.dtype != bool or a.ndim != 1 or a.shape != b.shape:
        raise ValueError(
            f"McNemar's test needs two boolean vectors of one length, found {a.dtype} {a.shape} and {b.dtype} {b.shape}"
        )
    counts = [[np.sum(a & b), np.sum(a & ~b)], [np.sum(~a & b), np.sum(~a & ~b)]]
    return float(mcnemar(counts, exact=True).pvalue)
