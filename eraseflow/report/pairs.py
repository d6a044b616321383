"""Which methods a table tells apart: every two of them on the same prompts, and ties shown as ties, by letters.

The rule is fixed: Holm's correction is over all pairs of a table, its concepts and all that they were under, so that
showing just a part of it changes no p-value and no letter.
"""

from itertools import combinations
from pathlib import Path
from string import ascii_lowercase, ascii_uppercase

import networkx as nx
import pandas as pd
from statsmodels.stats.multitest import multipletests

from eraseflow.metrics.rates import paired_p
from eraseflow.outputs import write_csv
from eraseflow.report.outcomes import KEPT

LEVEL = 0.05
COLUMNS = ["concept", "under", "one", "other", "n", "texts", "one_only", "other_only", "p", "p_holm", "told_apart"]


def pairs(outcomes: pd.DataFrame) -> pd.DataFrame:
    """Every pair of methods of each concept, by all that the target prompts were under; COLUMNS, a row a pair.

    outcomes: outcomes.outcomes(), of one run or several. one_only: prompts, over all runs, on which `one` alone
    succeeds. p: rates.paired_p, by text. told_apart: p_holm is below LEVEL, and in every run the difference has the
    same direction.
    """
    rows = []
    for (concept, under), of in outcomes[outcomes["under"] != KEPT].groupby(["concept", "under"], sort=False):
        wide = of.pivot(index=["text", "prompt_id", "run"], columns="method", values="success").astype(bool)
        texts, runs = (wide.index.get_level_values(name) for name in ("text", "run"))
        for one, other in combinations(of["method"].unique(), 2):
            a, b = wide[one].to_numpy(), wide[other].to_numpy()
            by_run = pd.Series(a.astype(int) - b.astype(int)).groupby(runs).sum()
            counts = {"n": len(wide), "texts": texts.nunique(), "one_only": sum(a & ~b), "other_only": sum(b & ~a)}
            agree = bool((by_run > 0).all() or (by_run < 0).all())
            names = {"concept": concept, "under": under, "one": one, "other": other}
            rows.append(names | counts | {"p": paired_p(a, b, texts), "told_apart": agree})
    frame = pd.DataFrame(rows, columns=[name for name in COLUMNS if name != "p_holm"])
    frame["p_holm"] = holm(frame["p"])
    frame["told_apart"] = frame["told_apart"].astype(bool) & (frame["p_holm"] < LEVEL)
    return frame[COLUMNS]


def write(found: pd.DataFrame, path: Path) -> None:
    """As CSV, with p-values of three digits."""
    text = found.assign(p=found["p"].map("{:.3g}".format), p_holm=found["p_holm"].map("{:.3g}".format))
    write_csv(text, path)


def holm(p: pd.Series) -> pd.Series:
    """Holm's corrected p-values; NaN stays, and is no test."""
    corrected = p.astype(float).copy()
    tested = corrected.notna()
    if tested.any():
        corrected[tested] = multipletests(corrected[tested], method="holm")[1]
    return corrected


def with_one(found: pd.DataFrame, method: str) -> pd.DataFrame:
    """Of `pairs` those of one method with each other one: concept, under, method (the other one), p and p_holm."""
    sides = []
    for mine, theirs in (("one", "other"), ("other", "one")):
        sides.append(found[found[mine] == method].rename(columns={theirs: "method"}))
    return pd.concat(sides)[["concept", "under", "method", "p", "p_holm"]]


def letters(found: pd.DataFrame, outcomes: pd.DataFrame) -> pd.Series:
    """The letters of each method, by concept, under and method: two that share one are not told apart.

    found: pairs(outcomes). Letters are in the order of the rates, `a` has the lowest. A letter stands for a largest set
    of methods of which no two are told apart (the maximal cliques of the graph of ties).
    """
    target = outcomes[outcomes["under"] != KEPT]
    cells = target.groupby(["concept", "under", "method"]).size().index
    said = dict.fromkeys(cells, "")
    for (concept, under), of in target.groupby(["concept", "under"], sort=False):
        pairs_of = found[(found["concept"] == concept) & (found["under"] == under)]
        ties, value = nx.Graph(), of.groupby("method")["success"].mean()
        ties.add_nodes_from(of["method"].unique())
        ties.add_edges_from(pairs_of.loc[~pairs_of["told_apart"], ["one", "other"]].itertuples(index=False, name=None))
        cliques = sorted(nx.find_cliques(ties), key=lambda names: sorted((value[name], name) for name in names))
        for letter, clique in zip(ascii_lowercase + ascii_uppercase, cliques, strict=False):  # more than any table has
            for method in clique:
                said[str(concept), str(under), method] += letter
    return pd.Series(list(said.values()), index=cells, name="letters", dtype=object)
