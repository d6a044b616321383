"""Bootstrap of prompts and trainings: what rates, and whatever follows from several of them, would be with others.

Texts and runs are drawn with replacement, independently of each other and for all methods alike (the pigeonhole
bootstrap of crossed random effects, Owen, 2007), so that methods stay compared on the same prompts.
"""

from collections.abc import Sequence

import numpy as np
import pandas as pd

DRAWS = 2000


def rates(outcomes: pd.DataFrame, draws: int = DRAWS) -> pd.DataFrame:
    """A column a method, a row a bootstrap sample: the rates of one concept, under one thing, with one run or several.

    Runs are drawn alike for every concept, texts independently: rates of two concepts may be averaged row by row.
    """
    concept, counts = outcomes["concept"].iloc[0], ["method", "text", "run"]
    by = outcomes.assign(success=outcomes["success"].astype(int)).groupby(counts, sort=False)["success"]
    seen, of = (grouped.unstack("run").fillna(0) for grouped in (by.sum(), by.size()))
    methods, texts = outcomes["method"].unique(), outcomes["text"].unique()
    index = pd.MultiIndex.from_product([methods, texts], names=["method", "text"])
    shape = len(methods), len(texts), len(of.columns)
    cubes = [grouped.reindex(index, fill_value=0).to_numpy().reshape(shape) for grouped in (seen, of)]
    runs = _drawn(np.random.default_rng(0), draws, shape[2])
    words = _drawn(np.random.default_rng(list(concept.encode())), draws, shape[1])
    found = [np.einsum("dt,dr,mtr->dm", words, runs, cube, optimize=True) for cube in cubes]
    return pd.DataFrame(found[0] / found[1], columns=methods)


def mean(of: Sequence[pd.DataFrame]) -> pd.DataFrame:
    """Of the rates of several concepts, row by row."""
    return pd.concat(of).groupby(level=0).mean()


def _drawn(rng: np.random.Generator, draws: int, count: int) -> np.ndarray:
    """How often each of `count` is drawn (draws, count)."""
    return rng.multinomial(count, np.full(count, 1 / count), size=draws).astype(float)


def interval(values: np.ndarray | pd.Series) -> tuple[float, float]:
    """The 2.5th and 97.5th percentile of bootstrap samples (draws,)."""
    low, high = np.nanpercentile(values, [2.5, 97.5])
    return float(low), float(high)
