"""Attack success against budget, and attacks against the baselines, from the synthetic cells of test_report.py."""

import shutil

import pandas as pd
import pytest
from scipy.stats import binomtest
from test_report import ATTACKS, METHODS, PROMPTS, SUCCESSES, inputs, make_params, plain_report  # noqa: F401  (fixtures)

from eraseflow.metrics.rates import Rate
from eraseflow.report import baselines, budget
from eraseflow.report.outcomes import outcomes
from eraseflow.report.readable import readable
from eraseflow.report.table import table

pytestmark = pytest.mark.slow


def test_points_by_hand(plain_report):  # noqa: F811
    """Of esd's 24 prompts 4 succeed un-attacked and 16 in round 3; the rest is tried for ten rounds."""
    rows = pd.read_csv(plain_report / "budget" / "curves.csv")
    assert list(rows.columns) == budget.COLUMNS
    rows = rows[(rows.concept == "unicorn") & (rows.method == "esd") & (rows.attack == "unlearndiffatk")]
    picture, step = 24, 10 * (1 + 1)  # passes of a judged picture, of a round's search
    costs = [picture, 4 * picture + 3 * step, 11 * picture + 10 * step]
    assert rows.passes.tolist() == costs and rows.successes.tolist() == [4, 20, 20]
    assert rows.images.tolist() == [1, 4, 11] and rows.n.eq(PROMPTS).all()
    assert rows.text_passes.tolist() == [1, 4 + 60, 11 + 200]
    assert rows.low.tolist() == pytest.approx([Rate(4, 24).low, Rate(20, 24).low, Rate(20, 24).low], rel=1e-3)


def test_curves_begin_un_attacked_rise_and_end_at_the_table(inputs):  # noqa: F811
    rows = budget.curves(make_params(), inputs / "cells")
    for key, of in rows.groupby(["concept", "method", "attack"]):
        assert of.passes.is_monotonic_increasing and of.successes.is_monotonic_increasing and of.passes.is_unique
        assert of.passes.iloc[0] == 24 and (of.successes.iloc[0], of.successes.iloc[-1]) == SUCCESSES[key]
        assert ((of.low <= of.asr) & (of.asr <= of.high)).all()
    never = rows[(rows.concept == "ink_style") & (rows.method == "eraseflow")]
    assert never.successes.eq(0).all() and never.groupby("attack").size().tolist() == [2, 2]


def rows_of(frame: pd.DataFrame, concept: str) -> pd.DataFrame:
    return frame[frame["concept"] == concept]


def test_an_attack_against_the_baseline_on_the_same_prompts(inputs):  # noqa: F811
    frame = table(make_params(), inputs / "cells", inputs / "concepts")
    assert baselines.compared(frame) == ["random_prefix"]
    luck = frame["attack"] == "random_prefix"
    assert frame.loc[luck, "vs_random_prefix_p"].isna().all() and frame["vs_other_seeds_p"].isna().all()
    row = frame[(frame.concept == "unicorn") & (frame.method == "esd") & ~luck].iloc[0]
    assert (row.vs_random_prefix_successes, row.vs_random_prefix_baseline) == (20, 5)
    assert row.vs_random_prefix_p == pytest.approx(binomtest(15, 15).pvalue)
    assert row.vs_random_prefix_p_holm == pytest.approx(6 * row.vs_random_prefix_p), "the least of the table's six"
    assert baselines.sentences(rows_of(frame, "unicorn")) == [
        "unlearndiffatk against random_prefix: beats it on eraseflow (12 : 4 of 24, p 0.039; 12 : 4 at equal passes), "
        "esd (20 : 5 of 24, p < 0.001; 20 : 5 at equal passes); cannot beat it on original, where the baseline "
        "succeeds on every prompt."
    ]
    assert baselines.sentences(rows_of(frame, "ink_style")) == [
        "unlearndiffatk against random_prefix: does not beat it on eraseflow (0 : 0 of 24, p 1.000; "
        "0 : 0 at equal passes), "
        "esd (8 : 9 of 24, p 1.000; 8 : 9 at equal passes); cannot beat it on original, where the baseline "
        "succeeds on every prompt."
    ]


def test_the_report_says_which_attacks_do_not_beat_luck(plain_report):  # noqa: F811
    said = "unlearndiffatk against random_prefix: does not beat it on eraseflow (0 : 0 of 24, p 1.000; 0 : 0 at equal"
    assert said in (plain_report / "table.md").read_text() and said in (plain_report / "index.html").read_text()
    assert "| yes: 20 against 5 (p < 0.001) |" in (plain_report / "table.md").read_text()


ESD = make_params(["unicorn"], ["esd"])


def beside_luck(inputs, tmp_path, attack: str, change) -> pd.Series:  # noqa: F811
    """unlearndiffatk against random_prefix on unicorn's esd, after a change of one attack's rows."""
    if not tmp_path.exists() or not any(tmp_path.iterdir()):
        shutil.copytree(inputs / "cells" / "unicorn" / "esd", tmp_path / "unicorn" / "esd")
    path = tmp_path / "unicorn" / "esd" / f"attack-{attack}.parquet"
    change(pd.read_parquet(path)).to_parquet(path)
    [row] = baselines.against(outcomes(ESD, tmp_path)).to_dict("records")
    return pd.Series(row)


def test_a_curve_begins_at_what_drawing_takes_with_the_method(inputs, tmp_path):  # noqa: F811
    """As sampler-time methods take more, and not for each prompt as much."""
    shutil.copytree(inputs / "cells" / "unicorn", tmp_path / "unicorn")
    path = tmp_path / "unicorn" / "esd" / "attack-random_prefix.parquet"
    frame = pd.read_parquet(path)
    tries = [[{"round": 0, "unet": 36.0 - (row < 2), "text_passes": 5.0}] for row in frame.index]
    first = frame.unet_forward.mask(frame.step == 0, 36.0)
    frame.assign(tries=tries, unet_forward=first).to_parquet(path)
    params = make_params(["unicorn"])
    rows = budget.curves(params, tmp_path)
    rows = rows[(rows.method == "esd") & (rows.attack == "random_prefix")]
    assert rows.passes.iloc[0] == 36 and rows.successes.iloc[0] == 4 and rows.passes.min() == 36


def test_a_success_needs_no_more_distinct_pictures_than_the_other_had_that_failed(inputs, tmp_path):  # noqa: F811
    """Successes in the fourth picture count for nothing where the baseline repeated two pictures, and the other way."""

    def repeated(rows: pd.DataFrame) -> pd.DataFrame:  # 4 succeed un-attacked, one in round 3, and 19 never
        return rows.assign(distinct=rows.distinct.mask(~rows.success & (rows.index < 12), 3))

    row = beside_luck(inputs, tmp_path, "random_prefix", repeated)
    assert (row.successes, row.baseline) == (20 - 7, 5) and row.left == 19 / 24

    def feeble(rows: pd.DataFrame) -> pd.DataFrame:
        return rows.assign(success=rows.index == 23, pre_success=False, step=(rows.index == 23) * 4 - 1, distinct=3)

    row = beside_luck(inputs, tmp_path, "unlearndiffatk", feeble)
    assert (row.successes, row.baseline) == (1, 4)


def test_successes_that_name_the_concept_stand_apart(inputs, plain_report):  # noqa: F811
    frame = table(make_params(), inputs / "cells", inputs / "concepts")
    row = frame[(frame.concept == "unicorn") & (frame.method == "esd") & (frame.attack == "unlearndiffatk")].iloc[0]
    assert row.named_successes == 4  # of 16 in round 3: the 8th, 12th, 16th and 20th prompt
    assert "| 16, 4 naming it |" in (plain_report / "table.md").read_text()


def test_at_equal_passes_gradients_count(inputs, tmp_path):  # noqa: F811
    """The baseline has 264 passes a prompt; successes of the attack that took more are left out, it loses none."""

    def dearer(rows: pd.DataFrame) -> pd.DataFrame:
        forward = rows.unet_forward.mask(rows.success & (rows.index < 7), 264).where(rows.index < 9, 265)
        return rows.assign(unet_forward=forward, unet_backward=(rows.index == 0) * 1.0)

    row = beside_luck(inputs, tmp_path, "unlearndiffatk", dearer)
    assert (row.successes, row.at_equal_passes, row.baseline_at_equal_passes) == (20, 8, 5), "one took a pass too many"


def test_without_a_baseline_nothing_is_said(inputs):  # noqa: F811
    params = make_params(["unicorn"], METHODS)
    names = params.table.model_copy(update={"attacks": ATTACKS[1:]})
    params = params.model_copy(update={"table": names})
    frame = table(params, inputs / "cells", inputs / "concepts")
    assert baselines.compared(frame) == [] and baselines.sentences(frame) == []
    assert not any(column.startswith("Beats") for column in readable(params, frame, "unicorn"))
