"""Costs, Pareto fronts and the order of methods, from the synthetic cells of test_report.py and small tables."""

import json
import shutil

import pandas as pd
import pytest
from test_report import METHODS, TRAINING, inputs, make_params, plain_report  # noqa: F401  (fixtures)

from eraseflow.metrics.rates import Rate
from eraseflow.report import costs, pareto
from eraseflow.report.table import table

pytestmark = pytest.mark.slow


def measured(asrs: dict[str, int], fds=None, concept="weapon", attack="unlearndiffatk") -> pd.DataFrame:
    """Rows of the comparison table with these successes of 36 prompts."""
    rows = []
    for method, successes in asrs.items():
        rate = Rate(successes, 36)
        row = {"concept": concept, "method": method, "attack": attack, "asr": rate.value, "asr_successes": successes}
        row |= {"asr_low": rate.low, "asr_high": rate.high, "fd": (fds or {}).get(method, 1.0), "fd_name": "FD x"}
        rows.append(row)
    return pd.DataFrame(rows)


def spent(passes: dict[str, int], concept="weapon") -> pd.DataFrame:
    return pd.DataFrame([{"concept": concept, "method": name, "unet_passes": n} for name, n in passes.items()])


def test_costs_are_listed_and_drawn(plain_report, inputs, tmp_path):  # noqa: F811
    rows = pd.read_csv(plain_report / "costs.csv").set_index(["concept", "method"])
    assert list(rows.columns) == [*costs.KEYS, "unet_passes"] and len(rows) == 2 * len(METHODS)
    assert rows.loc[("unicorn", "esd"), "unet_passes"] == 2600 + 400
    page = (plain_report / "index.html").read_text()
    for text in ("12,800", "25,001 (100.0 kB)", "90 + 0", "cpu, fp32"):
        assert text in page
    shutil.copytree(inputs / "cells", tmp_path / "cells")
    path = tmp_path / "cells" / "ink_style" / "esd" / "costs.json"
    path.write_text(json.dumps({name: value for name, value in TRAINING.items() if name != "text_forward"}))
    with pytest.raises(SystemExit, match=r"ink_style/esd/costs.json: no 'unet_forward'; make the file anew"):
        costs.costs(make_params(), tmp_path / "cells")


def test_the_front_by_hand():
    """b has the lowest ASR, c the lowest distance, d costs nothing; a is worse than b, and e than d in ASR alone."""
    asrs = {"original": 36, "a": 12, "b": 10, "c": 20, "d": 30, "e": 31}
    frame = measured(asrs, {"original": 0.1, "a": 3.0, "b": 3.0, "c": 1.0, "d": 2.0, "e": 2.0})
    passes = spent({"original": 0, "a": 100, "b": 100, "c": 100, "d": 0, "e": 0})
    rows = pareto.fronts(frame, passes).set_index("method")
    assert "original" not in rows.index and rows.on_front.tolist() == [False, True, True, True, False]
    assert rows.dominated_by["a"] == ["b"] and rows.dominated_by["e"] == ["d"]
    assert rows.overlapping["a"] == ["b"], "12 and 10 of 36 are not told apart"
    said = pareto.sentences(rows.reset_index())
    assert said[0].startswith("On the front: b (ASR 28 % (16-44), FD x 3, 100 passes), c (")
    assert said[1].endswith("by b; its ASR interval overlaps that of b.") and len(said) == 3


def test_methods_that_leave_the_concept_are_named():
    before = {"original": 30, "a": 15, "b": 16, "c": 0}
    frame = measured(before).assign(pre_successes=list(before.values()), n_prompts=36)
    twice = pd.concat([frame, frame.assign(attack="p4d")])
    said = "Not erased, even un-attacked more than half of the 30 successes are left: b 16/36 = 44 % (30-60)."
    assert pareto.unerased(twice) == [said]
    assert pareto.unerased(frame[frame["method"] != "b"]) == []
    assert pareto.unerased(frame[frame["method"] != "original"]) == [], "16 is not more than half of 36"


def test_a_clear_loss_is_said_without_doubt_and_equals_share_the_front():
    frame = measured({"a": 1, "b": 30, "twin": 1})
    rows = pareto.fronts(frame, spent({"a": 5, "b": 5, "twin": 5})).set_index("method")
    assert rows.on_front["a"] and rows.on_front["twin"] and rows.dominated_by["b"] == ["a", "twin"]
    assert rows.overlapping["b"] == [] and pareto.sentences(rows.reset_index())[1].endswith("by a, twin.")


def test_the_front_is_of_the_strongest_attack(inputs):  # noqa: F811
    frame = table(make_params(), inputs / "cells", inputs / "concepts")
    rows = pareto.fronts(frame, costs.costs(make_params(), inputs / "cells")).set_index(["concept", "method"])
    assert rows.attack["ink_style", "esd"] == "random_prefix" and rows.attack["unicorn", "esd"] == "unlearndiffatk"


def test_the_page_reads_the_result_out(plain_report):  # noqa: F811
    page = (plain_report / "index.html").read_text()
    assert "On the front: eraseflow (ASR 50 % (31-69), FD emoji-clip 4.12, 13,200 passes)" in page
    assert "EraseFlow 65 &lt; ESD 68" in page, "the paper's order for styles"
    assert "Van Gogh (artist classifier)" not in page, "EraseFlow is not in the leaderboard"
    assert pd.read_csv(plain_report / "pareto.csv").set_index(["concept", "method"]).on_front["unicorn", "eraseflow"]
