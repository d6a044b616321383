"""Whether the order of methods is the published one: Kendall's rank correlation, with its interval."""

from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np
import pandas as pd
from scipy.stats import kendalltau, rankdata

from eraseflow.metrics.rates import Rate
from eraseflow.report import bootstrap
from eraseflow.report.counterparts import ATTACK, METHODS
from eraseflow.report.outcomes import UNATTACKED
from eraseflow.report.published import ATTACKED, LEADERBOARD, PAPER

BASE = "original"  # the unedited model is the worst of any order, so it has no place in one
COLUMNS = ["kind", "concept", "source", "published_concept", "metric", "n", "tau", "tau_low", "tau_high", "p"]
COLUMNS += ["published_order", "measured_order", "reversed"]
EVERY = "all"  # in the column `concept`: the mean over the kind's concepts
NOTE = (
    "The methods' order beside the published one for Stable Diffusion 1.4 on concepts of the same kind, the best "
    "first: by UnlearnDiffAtk's success, and un-attacked beside the paper's fine-grained score, in percent. The "
    "model, concepts, judges and budgets are others, so only the order is compared. tau is Kendall's rank "
    "correlation of n methods, 1 for the same order and -1 for the reverse, with its 95 % interval by bootstrap of "
    "prompts' texts and of seeds; published figures are taken as printed, though they have an error of their own. p "
    "is that of no correlation. A pair is called clear where its intervals here do not overlap."
)


@dataclass(frozen=True)
class Published:
    """A published figure of several methods, and what of a table answers it, the lower the better."""

    source: str
    concept: str
    metric: str = ATTACKED
    under: str = ATTACK
    sign: int = 1  # -1: published the higher the better


PUBLISHED = {  # by the kind of concept; the first is the one that the kind is known for
    "category": [Published(PAPER, "nudity"), Published(LEADERBOARD, "nudity")],
    "style": [
        Published(PAPER, "style (Van Gogh, Caravaggio)", "CSD x100 under UnlearnDiffAtk"),
        Published(LEADERBOARD, "Van Gogh (artist classifier)"),
    ],
    "fine_grained": [
        Published(PAPER, "fine-grained (Nike, Coca-Cola, Pegasus)", "concept score", UNATTACKED, -1),
        *(Published(LEADERBOARD, name) for name in ("church", "tench", "parachute", "garbage truck")),
    ],
}


def orders(figures: pd.DataFrame, outcomes: pd.DataFrame, collapsed: set[tuple[str, str]]) -> pd.DataFrame:
    """For each kind and published figure of it: how the order of the methods agrees, COLUMNS.

    A row for the mean over the kind's concepts (EVERY), then, where there are several, one a concept.
    figures: published.read(). outcomes: outcomes.outcomes(), of one run or several. collapsed: concept and method of
    rows of mostly empty pictures, which have no place in the order. n methods have both figures; of rows with one name
    in the literature the first of METHODS stands for it, or nobody where that one has collapsed. tau, p: Kendall's
    tau-b and its p; NaN below three methods. tau_low, tau_high: 95 % interval, by bootstrap of texts and runs. Where
    all methods are equal, here or in a sample, there is no order, and tau is 0. reversed: pairs in the published order,
    the other way round here, with `clear` where their intervals here do not overlap.
    """
    rows = []
    for kind, of_kind in outcomes.groupby("kind", sort=False):
        concepts = list(of_kind["concept"].unique())
        for published in PUBLISHED.get(str(kind), []):
            for names in [concepts, *([name] for name in concepts if len(concepts) > 1)]:
                of = of_kind[of_kind["concept"].isin(names) & (of_kind["under"] == published.under)]
                theirs, ours = _both(figures, published, of, names, collapsed)
                if len(theirs) > 1:
                    who = {"kind": kind, "concept": EVERY if names == concepts else names[0]}
                    who |= {"source": published.source, "published_concept": published.concept}
                    rows.append(who | {"metric": published.metric} | _agree(theirs, ours, of, published.sign))
    return pd.DataFrame(rows, columns=COLUMNS)


def _both(
    figures: pd.DataFrame, published: Published, of: pd.DataFrame, concepts: list[str], collapsed: set[tuple[str, str]]
) -> tuple[pd.Series, pd.Series]:
    """The published values by name, and the methods (as in METHODS) that answer to these names."""
    there = [name for name in METHODS if name != BASE and name in set(of["method"])]
    ours = pd.Series({METHODS[name]: name for name in reversed(there)}, dtype=object)
    ours = ours[[not any((concept, name) in collapsed for concept in concepts) for name in ours]]
    chosen = figures["source"].str.startswith(published.source) & (figures["concept"] == published.concept)
    chosen &= (figures["metric"] == published.metric) & figures["method"].isin(list(ours.index))
    theirs = figures[chosen].set_index("method")["value"]
    return theirs, ours.reindex(theirs.index)


def _agree(theirs: pd.Series, methods: pd.Series, of: pd.DataFrame, sign: int) -> dict:
    of = of[of["method"].isin(list(methods))]
    by_concept = [rows for _, rows in of.groupby("concept", sort=False)]
    means = pd.concat([rows.groupby("method")["success"].mean() for rows in by_concept], axis=1).mean(axis=1)
    ours, ranked = means[methods].set_axis(methods.index), sign * theirs
    found: dict[str, Any] = {"n": len(theirs), "tau": np.nan, "tau_low": np.nan, "tau_high": np.nan, "p": np.nan}
    if len(theirs) > 2:
        tau, p = kendalltau(ranked, ours)
        found["tau"], found["p"] = (0.0, 1.0) if np.isnan(tau) else (tau, p)
        drawn = bootstrap.mean([bootstrap.rates(rows) for rows in by_concept])[list(methods)].to_numpy()
        samples, which = np.unique(rankdata(drawn, axis=1), axis=0, return_inverse=True)  # there are few orders
        taus = np.array([kendalltau(ranked, ranks).statistic for ranks in samples])[which]
        found["tau_low"], found["tau_high"] = bootstrap.interval(np.nan_to_num(taus))
    found["published_order"], found["measured_order"] = _order(theirs, sign), _order(100 * ours, 1)
    return found | {"reversed": "; ".join(_reversed(ranked, ours, methods, of))}


def _reversed(ranked: pd.Series, ours: pd.Series, methods: pd.Series, of: pd.DataFrame) -> list[str]:
    found = []
    for one, other in combinations(ranked.sort_values(kind="stable").index, 2):
        if ranked[one] < ranked[other] and ours[one] > ours[other]:
            rates = [
                Rate.of(rows["success"], rows["concept"] + rows["text"], rows["run"])
                for rows in (of[of["method"] == methods[name]] for name in (one, other))
            ]
            found.append(f"{one} before {other}" + " (clear)" * (rates[0].low > rates[1].high))
    return found


def _order(values: pd.Series, sign: int) -> str:
    """Such as `EraseFlow 34 < ESD 79`, in percent, the best first."""
    ordered = (sign * values).sort_values(kind="stable").index
    text = ""
    for place, name in enumerate(ordered):
        between = " = " if place and values[name] == values[ordered[place - 1]] else " < " if sign > 0 else " > "
        text += between * bool(place) + f"{name} {values[name]:.0f}"
    return text


def first(found: pd.DataFrame) -> pd.DataFrame:
    """Of each kind the first figure that has a rank correlation, over all its concepts: what a first screen shows."""
    rows = found[(found["concept"] == EVERY) & found["tau"].notna()]
    return rows.drop_duplicates("kind")


def sentence(row: dict) -> str:
    """Such as `category 0.67 (-0.33 to 1.00; 4 methods, published for nudity)`."""
    tau = f"{row['tau']:.2f} ({row['tau_low']:.2f} to {row['tau_high']:.2f}"
    return f"{row['kind'].replace('_', '-')} {tau}; {row['n']} methods, published for {row['published_concept']})"
