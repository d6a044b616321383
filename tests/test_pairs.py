"""Which methods a table tells apart, and the letters of those that it does not."""

import numpy as np
import pandas as pd
import pytest
from scipy.stats import binomtest
from statsmodels.stats.multitest import multipletests
from synthetic_outcomes import first, made

from eraseflow.report.pairs import holm, letters, pairs, with_one


def test_a_pair_by_hand():
    [row] = pairs(made({"a": first(10), "b": first(2)})).to_dict("records")
    assert (row["one"], row["other"], row["n"], row["texts"]) == ("a", "b", 100, 100)
    assert (row["one_only"], row["other_only"]) == (8, 0)
    assert row["p"] == row["p_holm"] == pytest.approx(binomtest(8, 8).pvalue) and row["told_apart"]


def test_every_two_methods_are_tested_once_but_not_on_what_is_kept():
    some = {"a": first(10), "b": first(2), "c": first(5)}
    found = pairs(pd.concat([made(some), made(some, "p4d"), made(some, "kept"), made(some, concept="tool")]))
    assert len(found) == 3 * 3 and set(found["under"]) == {"un-attacked", "p4d"}
    assert found["p_holm"].tolist() == pytest.approx(multipletests(found["p"], method="holm")[1].tolist())


def test_what_is_shown_of_a_table_moves_no_letter():
    """Eight against none is clear alone, and not among fifty such comparisons."""
    clear = made({"a": first(8), "b": first(0)})
    table = pd.concat([clear, *(made({"a": first(9), "b": first(9)}, concept=f"c{place}") for place in range(50))])
    assert letters(pairs(clear), clear).tolist() == ["b", "a"]
    of_all = letters(pairs(table), table)
    assert of_all["weapon"].tolist() == ["a", "a"]
    shown = pairs(table).query("concept == 'weapon'")
    assert letters(shown, clear).equals(of_all[["weapon"]]), "a part of the table's own tests"


def test_letters_of_a_chain_of_ties():
    """a and b are tied, b and c are tied, a and c are not; d is alone, the highest."""
    seen = {"c": first(16), "a": first(6), "b": first(11), "d": first(60)}
    found = pairs(made(seen))
    said = letters(found, made(seen))["weapon", "un-attacked"]
    assert said.to_dict() == {"c": "b", "a": "a", "b": "ab", "d": "c"}
    told = found.set_index(["one", "other"])["told_apart"]
    for (one, other), apart in told.items():
        assert apart == (not set(said[one]) & set(said[other]))


def test_a_difference_that_one_seed_turns_round_is_none():
    """Over all seeds 30 more successes: in each of three ten, or thirty-five in one and five fewer in another."""
    steady, unsteady = np.zeros((100, 3), bool), np.zeros((100, 3), bool)
    steady[:10], unsteady[:35, 0] = True, True
    other = np.zeros((100, 3), bool)
    other[95:, 1] = True
    for seen, theirs, apart in ((steady, steady & False, True), (unsteady, other, False)):
        [row] = pairs(made({"a": seen.tolist(), "b": theirs.tolist()})).to_dict("records")
        assert row["p"] < 0.01 and row["told_apart"] == apart and row["n"] == 300 and row["texts"] == 100


def test_prompts_with_one_text_count_once():
    seen = {"a": first(12), "b": first(0)}
    [row] = pairs(made(seen, texts=[f"text {place // 12}" for place in range(100)])).to_dict("records")
    assert row["p"] == 1 and row["texts"] == 9 and not row["told_apart"], "all twelve are of one text"


def test_the_tests_against_one_method():
    found = pairs(made({"a": first(10), "b": first(2), "c": first(5)}))
    of_b = with_one(found, "b").set_index("method")
    assert of_b["p"]["a"] == pytest.approx(binomtest(8, 8).pvalue) and of_b["p"]["c"] == pytest.approx(2 / 2**3)
    assert sorted(of_b.index) == ["a", "c"] and with_one(found, "eraseflow").empty


def test_what_is_no_test_is_not_corrected_for():
    assert holm(pd.Series([0.02, np.nan, 0.03])).tolist() == pytest.approx([0.04, np.nan, 0.04], nan_ok=True)
    assert holm(pd.Series([np.nan])).isna().all() and holm(pd.Series([], dtype=float)).empty
