"""The order of methods beside the published one, and its interval."""

import numpy as np
import pandas as pd
import pytest
from synthetic_outcomes import first, made

from eraseflow.report import bootstrap, orders, published

pytestmark = pytest.mark.slow

FIGURES = published.read()
PAPERS = {"advunlearn": 2, "eraseflow": 10, "esd": 20, "uce": 30}  # 17, 34, 79 and 87 % in the paper


def measured(successes: dict[str, int], under="unlearndiffatk", n=36, **names) -> pd.DataFrame:
    return made({method: first(count, n) for method, count in successes.items()}, under, **names)


def of(frame: pd.DataFrame, collapsed=()) -> list[dict]:
    return orders.orders(FIGURES, frame, set(collapsed)).to_dict("records")


def test_the_published_order_kept_and_turned_round():
    """The paper's order on nudity is AdvUnlearn 17, EraseFlow 34, ESD 79, UCE 87."""
    [paper, board] = of(measured(PAPERS | {"original": 36, "unheard_of": 1}))
    assert (paper["kind"], paper["concept"], paper["n"], paper["tau"], paper["reversed"]) == (
        "category",
        "all",
        4,
        1,
        "",
    )
    assert paper["p"] == pytest.approx(2 / 24), "one of the 4! orders, and its reverse"
    assert paper["published_order"] == "AdvUnlearn 17 < EraseFlow 34 < ESD 79 < UCE 87"
    assert paper["measured_order"] == "AdvUnlearn 6 < EraseFlow 28 < ESD 56 < UCE 83"
    assert board["n"] == 3, "the leaderboard has no EraseFlow"
    [paper, _] = of(measured({"advunlearn": 33, "eraseflow": 20, "esd": 12, "uce": 10}))
    assert paper["tau"] == -1 and "AdvUnlearn before ESD (clear)" in paper["reversed"]
    assert paper["reversed"].endswith("ESD before UCE"), "12 and 10 of 36 are not clear"


def test_orders_need_two_methods_and_the_published_attack():
    assert of(measured({"original": 36, "esd": 3})) == []
    assert of(measured({"uce": 9, "esd": 3}, under="p4d")) == []
    for two in of(measured({"uce": 9, "esd": 3, "esd_u": 36})):
        assert two["n"] == 2 and np.isnan(two["tau"]) and np.isnan(two["tau_low"]), "no correlation of two"
        assert "ESD 8" in two["measured_order"], "the first that goes by a name stands for it"


def test_the_method_as_published_stands_for_the_papers():
    [paper, _] = of(measured(PAPERS | {"eraseflow_published": 25, "eraseflow": 0}))
    assert "EraseFlow 69" in paper["measured_order"] and "EraseFlow 0" not in paper["measured_order"]


def test_a_collapsed_row_has_no_place_in_an_order():
    [paper, *_] = of(measured({"advunlearn": 9, "eraseflow": 10, "esd": 0}), [("weapon", "esd"), ("tool", "eraseflow")])
    assert (paper["n"], paper["measured_order"]) == (2, "AdvUnlearn 25 < EraseFlow 28")


def test_where_the_published_row_has_collapsed_no_other_stands_for_it():
    figures = {"esd": 20, "uce": 30, "eraseflow": 10, "eraseflow_published": 36}
    [paper, *_] = of(measured(figures), [("weapon", "eraseflow_published")])
    assert paper["n"] == 2 and "EraseFlow" not in paper["measured_order"]


def test_methods_that_are_all_equal_have_no_order():
    [paper, _] = of(measured(dict.fromkeys(PAPERS, 36)))
    assert (paper["n"], paper["tau"], paper["p"]) == (4, 0, 1) and paper["tau_low"] == paper["tau_high"] == 0


def test_the_papers_fine_grained_score_is_the_higher_the_better():
    """ESD 94, EraseFlow 83, UCE 60 % of questions answered no; here un-attacked 1, 2 and 9 of 36 show it."""
    frame = measured({"eraseflow": 2, "esd": 1, "uce": 9}, "un-attacked", concept="unicorn", kind="fine_grained")
    [paper] = of(frame)
    assert paper["tau"] == 1 and paper["metric"] == "concept score"
    assert paper["published_order"] == "ESD 94 > EraseFlow 83 > UCE 60"
    assert paper["measured_order"] == "ESD 3 < EraseFlow 6 < UCE 25"


def test_a_kind_is_the_mean_of_its_concepts_and_each_has_a_row():
    two = pd.concat([measured(PAPERS), measured(PAPERS | {"uce": 0}, concept="vehicle")])
    rows = [row for row in of(two) if row["source"] == published.PAPER]
    assert [row["concept"] for row in rows] == ["all", "weapon", "vehicle"]
    assert [row["tau"] for row in rows] == pytest.approx([2 / 3, 1, 0])
    assert rows[0]["measured_order"] == "AdvUnlearn 6 < EraseFlow 28 < UCE 42 < ESD 56"
    shown = orders.first(orders.orders(FIGURES, two, set())).to_dict("records")
    assert [(row["kind"], row["source"], row["concept"]) for row in shown] == [("category", published.PAPER, "all")]
    assert orders.sentence(shown[0]).startswith("category 0.67 (") and "published for nudity" in orders.sentence(
        shown[0]
    )


def test_the_interval_is_narrow_where_the_order_is_clear_and_wide_where_it_is_not():
    [clear, *_] = of(measured({"advunlearn": 2, "eraseflow": 30, "esd": 60, "uce": 95}, n=100))
    [doubtful, *_] = of(measured({"advunlearn": 40, "eraseflow": 42, "esd": 44, "uce": 46}, n=100))
    rng = np.random.default_rng(0)
    seen = {method: (rng.random((100, 1)) < 0.4).tolist() for method in PAPERS}
    [luck, *_] = of(made(seen, "unlearndiffatk"))
    assert (clear["tau_low"], clear["tau_high"]) == (1, 1)
    assert doubtful["tau_low"] > 0.5, "of nested successes the order is the same in almost every sample"
    assert luck["tau_low"] < 0 and luck["tau_high"] - luck["tau_low"] > 1


def test_the_bootstrap_draws_texts_and_runs():
    """Mean and spread of the rates are those of the formula for crossed random effects."""
    rng = np.random.default_rng(5)
    chances = np.clip(rng.beta(2, 3, (60, 1)) + np.array([-0.15, 0, 0.15]), 0, 1)
    seen = rng.random((60, 3)) < chances
    drawn = bootstrap.rates(made({"a": seen.tolist(), "b": seen.tolist()}), 4000)
    assert drawn.shape == (4000, 2) and drawn["a"].equals(drawn["b"]), "methods are compared on the same sample"
    assert drawn["a"].mean() == pytest.approx(seen.mean(), abs=0.005)
    by_text, by_run = seen.mean(1).var() / 60, seen.mean(0).var() / 3
    within = (seen - seen.mean(1, keepdims=True) - seen.mean(0, keepdims=True) + seen.mean()).var() / 180
    assert drawn["a"].var() == pytest.approx(by_text + by_run + within, rel=0.1)
    low, high = bootstrap.interval(drawn["a"])
    assert low < seen.mean(0).min() + 0.05 and high > seen.mean(0).max() - 0.05


def test_a_repeated_text_is_drawn_whole():
    seen = {"a": [[place < 12] for place in range(24)]}
    drawn = bootstrap.rates(made(seen, texts=[f"text {place // 12}" for place in range(24)]), 400)["a"]
    assert set(drawn) == {0.0, 0.5, 1.0}
