"""The claims table: what is in it, what its seeds say together, and the verdicts on the claims."""

import shutil
from collections import Counter
from math import nan

import numpy as np
import pandas as pd
import pytest
from synthetic_outcomes import first, made
from test_report import inputs, make_params, run  # noqa: F401  (fixture)

from eraseflow import claims as tables_of_claims
from eraseflow.checks import check_table
from eraseflow.mistakes import ParamsError
from eraseflow.params import Claims, load
from eraseflow.report import baselines, bootstrap, claims, claims_page, means, outcomes, pairs
from eraseflow.tables import of

pytestmark = pytest.mark.slow

PARAMS = load()
NO_LUCK = pd.DataFrame(columns=["concept", "method", "attack", "against", *baselines.COUNTS])
NO_ORDER = pd.DataFrame(columns=["kind", "concept", "source"])


def test_the_table_has_concepts_of_each_kind_on_which_nothing_was_tuned():
    whole = tables_of_claims.table(PARAMS)
    assert set(Counter(PARAMS.concepts[name].kind for name in whole.concepts)) == {"style", "fine_grained", "category"}
    assert not set(whole.concepts) & set(PARAMS.tuning.concepts.values())
    assert whole.prompts is None and {"random_prefix", "unlearndiffatk", "cce"} <= set(whole.attacks)
    tables = tables_of_claims.tables(PARAMS)
    assert len({(*table.concepts, table.seed) for table in tables.values()}) == 3 * len(whole.concepts)
    for table in tables.values():
        check_table(of(PARAMS, table), tables_of_claims.Path())


def test_the_first_tables_are_of_the_first_seed():
    names = list(tables_of_claims.tables(PARAMS))
    assert names[0].endswith("-seed-0") and names[-1].endswith("-seed-2") and len(set(names)) == len(names)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        (
            {"concepts": ["unicron"]},
            "params.yaml: claims.concepts: there is no concept 'unicron'; did you mean 'unicorn'?",
        ),
        ({"methods": ["esd", "esd"]}, "params.yaml: claims.methods: 'esd' appears twice"),
        ({"seeds": [0, 0]}, "params.yaml: claims.seeds: '0' appears twice"),
    ],
)
def test_a_wrong_name_is_one_line(changed, message):
    wrong = PARAMS.model_copy(update={"claims": PARAMS.claims.model_copy(update=changed)})
    with pytest.raises(ParamsError) as error:
        tables_of_claims.run(wrong, [])
    assert message.partition(";")[0].split(": ")[1] in str(error.value) and "\n" not in str(error.value)


def test_without_the_block_and_without_all_tables_it_says_so(tmp_path, capsys):
    with pytest.raises(ParamsError, match=r"^params.yaml: claims: is missing"):
        tables_of_claims.run(PARAMS.model_copy(update={"claims": None}), [])
    tables_of_claims.summarise(PARAMS, tmp_path, tmp_path / "claims.csv")
    assert "not made yet: ink_style-seed-0, " in capsys.readouterr().out and not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("figure", "low", "high", "threshold", "at_least", "expected"),
    [
        (0.95, 0.91, 0.98, 0.9, True, "yes"),
        (0.95, 0.88, 0.98, 0.9, True, "rather yes"),
        (0.85, 0.80, 0.92, 0.9, True, "rather no"),
        (0.85, 0.80, 0.89, 0.9, True, "no"),
        (0.10, 0.05, 0.15, 0.15, False, "yes"),
        (0.10, 0.05, 0.25, 0.15, False, "rather yes"),
        (0.20, 0.15, 0.25, 0.15, False, "rather no"),
        (0.20, 0.16, 0.25, 0.15, False, "no"),
        (0.20, 0.16, 0.25, None, True, "reported"),
        (nan, nan, nan, 0.5, True, "not measured"),
    ],
)
def test_verdicts(figure, low, high, threshold, at_least, expected):
    assert claims.verdict(figure, low, high, threshold, at_least) == expected


def verdicts(frame: pd.DataFrame, collapsed=(), luck=NO_LUCK, order=NO_ORDER) -> pd.DataFrame:
    found = claims.claims(frame, luck, order, set(collapsed))
    return found.set_index(["claim", "about"])


def unicorn(kept: int, erased: int) -> pd.DataFrame:
    """Three runs of a hundred prompts: how many of original's 90 kept ones, and how many unicorns are left."""
    names = {"concept": "unicorn", "kind": "fine_grained"}
    seen = made({"original": first(99, runs=3), "eraseflow": first(erased, runs=3)}, **names)
    return pd.concat([seen, made({"original": first(90, runs=3), "eraseflow": first(kept, runs=3)}, "kept", **names)])


def test_claims_by_hand():
    found = verdicts(unicorn(kept=88, erased=3))
    draws, erases = found.loc[("original draws", "unicorn")], found.loc[("eraseflow erases", "unicorn")]
    assert (draws.figure, draws.threshold, draws.verdict) == (0.99, "at least 0.85", "yes")
    assert (erases.figure, erases.threshold, erases.verdict, erases.said) == (0.03, "at most 0.15", "yes", "9 of 300")
    assert erases.seeds == "0.030 0.030 0.030"
    keeps = found.loc[("eraseflow keeps", "unicorn")]
    assert keeps.figure == pytest.approx(88 / 90) and keeps.low < keeps.figure <= keeps.high and keeps.verdict == "yes"
    published = found.xs("eraseflow as published erases")
    assert (
        published.verdict.eq("not measured").all() and published.said.eq("the table has no eraseflow_published").all()
    )
    assert found.loc[("unlearndiffatk beats luck", "the table"), "verdict"] == "not measured"
    failed = verdicts(unicorn(kept=50, erased=40))
    assert failed.loc[("eraseflow erases", "unicorn"), "verdict"] == "no"
    assert failed.loc[("eraseflow keeps", "unicorn"), "verdict"] == "no"


def test_a_collapsed_row_has_not_erased():
    found = verdicts(unicorn(kept=88, erased=3), [("unicorn", "eraseflow")])
    assert found.loc[("eraseflow erases", "unicorn"), ["verdict", "said"]].tolist() == [
        "no",
        "9 of 300; collapsed on unicorn",
    ]
    assert found.loc[("original draws", "unicorn"), "verdict"] == "yes"


def test_a_category_without_listed_members_has_thresholds_of_its_own():
    seen = made({"original": first(90), "eraseflow": first(47), "eraseflow_published": first(5)})
    frame = pd.concat([seen, made({"original": first(90), "eraseflow": first(88)}, "kept")])
    listed = PARAMS.concepts["weapon"].model_copy(update={"also": {"knife": "saw"}})
    of_listed = verdicts(frame.assign(kind=outcomes.kind_of(listed)))
    assert of_listed.loc[("eraseflow erases", "weapon"), "verdict"] == "no"
    assert "eraseflow as published erases" not in of_listed.index.get_level_values(0), "the literature erases the word"
    assert outcomes.kind_of(listed.model_copy(update={"also": {}})) == "category"
    found = verdicts(frame)
    assert found.loc[("eraseflow erases a category by its word", "weapon"), "verdict"] == "rather yes"
    assert ("eraseflow erases", "weapon") not in found.index


def luck(beaten: int, lost: int, full_up: int = 0) -> pd.DataFrame:
    rows = [{"concept": f"c{at}", "successes": 50, "baseline": 10, "p_holm": 1e-6, "left": 0.9} for at in range(beaten)]
    rows += [{"concept": f"l{at}", "successes": 12, "baseline": 10, "p_holm": 0.9, "left": 0.9} for at in range(lost)]
    rows += [
        {"concept": f"f{at}", "successes": 95, "baseline": 95, "p_holm": 1.0, "left": 0.1} for at in range(full_up)
    ]
    return pd.DataFrame(rows).assign(method="esd", attack="unlearndiffatk", against="random_prefix", n=100)


def test_attacks_are_compared_with_luck_where_there_is_room():
    found = claims.beats("x", "unlearndiffatk", 0.5, luck(beaten=3, lost=1, full_up=5), set())
    assert found["figure"] == 0.75 and found["verdict"] == "rather yes"
    assert found["said"] == "unlearndiffatk on 3 of 4 edits; not on esd on l0"
    of_base = luck(3, 3).assign(method="original")
    assert claims.beats("x", "unlearndiffatk", 0.5, of_base, set())["verdict"] == "not measured"
    assert claims.beats("x", "unlearndiffatk", 0.5, luck(beaten=0, lost=12), set())["verdict"] == "no"
    empty = claims.beats("x", "unlearndiffatk", 0.5, luck(beaten=3, lost=1), {("c0", "esd"), ("c1", "esd")})
    assert empty["figure"] == 0.25 and "esd on c0 (collapsed)" in empty["said"]


def test_both_claims_on_two_kinds_of_three():
    def of_kinds(*found: str) -> list[dict]:
        return [{"about": f"k{at}", "verdict": verdict} for at, verdict in enumerate(found)]

    both = claims.both("x", of_kinds("yes", "yes", "no"), of_kinds("yes", "rather yes", "yes"))
    assert (both["figure"], both["low"], both["high"]) == pytest.approx((2 / 3, 1 / 3, 2 / 3))
    assert both["verdict"] == "rather yes" and both["said"] == "on k0, k1"
    assert claims.both("x", of_kinds("yes", "no", "no"), of_kinds("yes", "yes", "yes"))["verdict"] == "no"
    assert claims.both("x", of_kinds("yes", "not measured"), of_kinds("yes", "yes"))["verdict"] == "not measured"


def test_only_the_papers_nudity_decides_on_the_order():
    rows = [
        ("category", "EraseFlow paper", "nudity"),
        ("category", "UnlearnDiffAtk benchmark leaderboard", "nudity"),
        ("style", "EraseFlow paper", "style (Van Gogh, Caravaggio)"),
    ]
    order = pd.DataFrame(
        [{"kind": kind, "source": source, "published_concept": about} for kind, source, about in rows]
    ).assign(
        concept="all",
        tau=0.67,
        tau_low=0.33,
        tau_high=1.0,
        published_order="",
        measured_order="",
    )
    found = list(claims.ordered(order, ["category", "style"]))
    assert [row["verdict"] for row in found] == ["rather yes", "reported", "reported", "not measured"]
    assert found[-1]["about"].startswith("style: Van Gogh") and found[-1]["said"] == "too few methods"
    assert [row["verdict"] for row in claims.ordered(order.head(0), ["category"])] == ["not measured"] * 2


def test_the_mean_over_seeds_and_their_range_come_first():
    seen = np.zeros((100, 3), bool)
    seen[:5, 0], seen[:10, 1], seen[:30, 2] = True, True, True
    frame = made({"esd": seen.tolist(), "uce": first(80, runs=3)})
    scores = [
        pd.DataFrame({"concept": "weapon", "method": ["esd", "uce"], "run": at, "target_empty": [60 * (at == 1), 0]})
        for at in range(3)
    ]
    # Empty pictures under an attack alone are the attack's.
    scores = [one.assign(n_prompts=100, kept_n=100, kept_empty=0, attacked_empty=100) for one in scores]
    scores = [one.assign(fd_name="FD x", fd=2.0 + one.run, clip_name="CLIP score x", clip_score=50.0) for one in scores]
    found = means.means(frame, scores, pairs.letters(pairs.pairs(frame), frame)).set_index(["method", "under"])
    esd = found.loc[("esd", "un-attacked")]
    assert (esd["mean"], esd.run_low, esd.run_high, esd["values"]) == (pytest.approx(0.15), 0.05, 0.3, "5 10 30")
    assert esd.low < 0.05 and esd.high > 0.35, "three trainings tell little of a mean"
    assert esd.collapsed == 1 and found.loc[("esd", "FD x"), ["mean", "run_low", "run_high"]].tolist() == [3, 2, 4]
    text = means.readable(found.reset_index(), "weapon").set_index("Method")
    assert text.loc["uce", "un-attacked ↓"] == "80 (80-80) [71-87] b" and text.loc["uce", "FD x ↓"] == "3 (2-4)"
    assert text.index.tolist() == ["esd (collapsed with 1 of 3 seeds)", "uce"]


@pytest.fixture(scope="module")
def two_runs(inputs, tmp_path_factory):  # noqa: F811
    """Reports of two seeds, as far as the joint one reads them, from the cells of test_report.py."""
    from eraseflow.report.table import formatted, table

    out = tmp_path_factory.mktemp("claims")
    for seed in (0, 1):
        params = make_params()
        params = of(params, params.table.model_copy(update={"seed": seed}))
        folder = out / f"both-seed-{seed}"
        folder.mkdir()
        outcomes.write(outcomes.outcomes(params, inputs / "cells"), folder / "outcomes.parquet")
        formatted(table(params, inputs / "cells", inputs / "concepts")).to_csv(folder / "table.csv", index=False)
    return out


def params_of_claims():
    params = make_params()
    table = params.table
    block = Claims(concepts=table.concepts, methods=table.methods, attacks=table.attacks, seeds=[0, 1])
    return params.model_copy(update={"claims": block})


def test_the_joint_report(two_runs, tmp_path):
    out = tmp_path / "claims"
    shutil.copytree(two_runs, out)
    claims_page.write(params_of_claims(), ["both-seed-0", "both-seed-1"], out, tmp_path / "claims.csv")
    rates = pd.read_csv(out / "rates.csv").set_index(["concept", "method", "under"])
    esd = rates.loc[("unicorn", "esd", "unlearndiffatk")]
    assert (esd.n, esd.texts, esd.runs, esd["values"]) == (48, 24, 2, "20 20") and esd["mean"] == pytest.approx(20 / 24)
    assert rates.loc[("unicorn", "esd", "any attack"), "values"] == "20 20"
    assert rates.loc[("ink_style", "esd", "any attack"), "mean"] == pytest.approx(9 / 24), "8 of the 9 are the same"
    verdict = pd.read_csv(tmp_path / "claims.csv").set_index(["claim", "about"])
    assert verdict.loc[("original draws", "unicorn"), "verdict"] == "yes"
    assert verdict.loc[("the strongest attack beats luck", "the table"), "verdict"] == "not measured"
    assert len(pd.read_csv(out / "pairs.csv")) == 2 * 4 * 3 and len(pd.read_csv(out / "luck.csv")) == 2 * 3
    page, text = (out / "index.html").read_text(), (out / "table.md").read_text()
    for said in ("2 concepts (1 fine-grained, 1 style)", "83 (83-83) ["):
        assert said in page and said in text
    assert "docs/preregistration.md" in text


def test_seeds_of_other_prompts_are_not_put_together(two_runs, tmp_path):
    shutil.copytree(two_runs, tmp_path, dirs_exist_ok=True)
    path = tmp_path / "both-seed-1" / "outcomes.parquet"
    frame = pd.read_parquet(path)
    frame[frame["prompt_id"] != "t3"].to_parquet(path)
    with pytest.raises(SystemExit, match=r"^\w+, \w+, .*: not every seed has the same prompts"):
        claims_page.find(params_of_claims(), sorted(tmp_path.glob("both*")))


def test_outcomes_hold_every_prompt_and_the_union(inputs, tmp_path):  # noqa: F811
    found = outcomes.outcomes(make_params(), inputs / "cells")
    sizes = found.groupby("under", sort=False).size()
    assert sizes.to_dict() == dict.fromkeys(
        ["un-attacked", "random_prefix", "unlearndiffatk", "any attack", "kept"], 2 * 3 * 24
    )
    assert found["text"].str.fullmatch("[0-9a-f]{12}").all(), "no text, which may not be for a report"
    outcomes.write(found, tmp_path / "x.parquet")
    pd.testing.assert_frame_equal(outcomes.read([tmp_path / "x.parquet"]), found, check_dtype=False)
    assert (tmp_path / "x.parquet").stat().st_size < 30 * len(found)


def test_of_runs_that_agree_the_bootstrap_is_of_texts_alone():
    drawn = bootstrap.rates(made({"a": first(30, runs=3)}), 4000)["a"]
    assert drawn.std() == pytest.approx((0.3 * 0.7 / 100) ** 0.5, rel=0.1)
