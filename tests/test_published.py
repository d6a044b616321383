"""The literature's figures, how they are drawn, and how measured ones stand beside them; the threshold sweep."""

from itertools import combinations
from math import floor
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.text import Annotation, Text
from test_report import METHODS, References, make_cell, make_concept, make_params, make_png, plainly, rest  # noqa: F401

from eraseflow.judges import csd
from eraseflow.metrics.rates import Rate
from eraseflow.params import Params
from eraseflow.report import build, published, published_figure, sweep
from eraseflow.report.counterparts import CSD, NINE
from eraseflow.report.plausible import CellError
from eraseflow.report.published import FOOTNOTES, LEADERBOARD, LETTERS, PAPER
from eraseflow.report.reproduction import formatted, readable, reproduction
from eraseflow.report.table import ATTACKED_SUMMARY

pytestmark = pytest.mark.slow

ATTACKED = "UnlearnDiffAtk ASR %"
FIGURES = published.read()


def on_sd14(labels=tuple(f"body/{name}" for name in NINE), threshold=0.6, judge="nudenet") -> Params:
    """Params whose table is of concept nudity on testbed sd14, judged as given."""
    params = make_params(concepts=["unicorn"])
    of = params.concepts["unicorn"]
    rule = of.judge.model_copy(update={"name": judge, "counts": list(labels), "threshold": threshold})
    nudity = of.model_copy(update={"testbed": "sd14", "judge": rule})
    return params.model_copy(
        update={
            "table": params.table.model_copy(update={"testbed": "sd14", "concepts": ["nudity"]}),
            "concepts": {"nudity": nudity},
            "testbeds": {"sd14": params.testbeds["emoji"].model_copy(update={"model": "a/model@revision"})},
        }
    )


def row(method: str, successes: int = 40, **other) -> dict:
    """A row of the comparison table as the paper would have measured it."""
    rate, before = Rate(successes, 118), Rate(4, 118)
    ends = {"": rate.value, "_low": rate.low, "_high": rate.high}
    values = {"testbed": "sd14", "concept": "nudity", "method": method, "attack": "unlearndiffatk", "n_prompts": 118}
    values |= {"asr" + end: value for end, value in ends.items()} | {"judge": "nudenet 320n, 0.6, 9 classes"}
    values |= {"asr_attackable" + end: value for end, value in ends.items()} | {"n_attackable": 118}
    values |= {"pre_asr": before.value, "pre_asr_low": before.low, "pre_asr_high": before.high}
    values |= {"fd": 18.0, "fd_name": "FID clean-fid", "fd_n": 10_000}
    return values | {"clip_score": 25.5, "clip_name": "CLIP score ViT-L/14 openai", "clip_n": 10_000} | other


MEASURED = pd.DataFrame([row("original", 118, fd=18.9), row("eraseflow"), row("pretrained", 43), row("esd", 60)])
EMOJI = MEASURED.assign(testbed="emoji")


def prints_as(successes: int, n: int, printed: str) -> bool:
    """Whether a table that rounds, or one that cuts, would print this fraction so."""
    digits = len(printed.partition(".")[2])
    percent = 100 * successes / n
    cut = floor(percent * 10**digits + 1e-9) / 10**digits
    return f"{percent:.{digits}f}" == f"{float(printed):.{digits}f}" or f"{cut:.{digits}f}" == printed


def fits(printed: str, n: int) -> bool:
    return any(prints_as(successes, n, printed) for successes in range(n + 1))


def test_every_figure_is_there_once_with_its_source():
    assert len(FIGURES) == 220
    assert not FIGURES.duplicated(["method", "concept", "metric", "source"]).any()
    assert FIGURES["source"].str.startswith((PAPER, LEADERBOARD)).all()
    assert FIGURES["value"].tolist() == [float(text) for text in FIGURES["printed"]]


def test_a_figure_with_a_denominator_is_a_fraction_of_it():
    known = FIGURES.dropna(subset="prompts")
    assert known["metric"].str.contains("ASR").all()
    assert len(known) == FIGURES["metric"].str.contains("ASR").sum() - 3  # two of the paper's, one of Van Gogh
    for printed, rate in zip(known["printed"], known["rate"], strict=True):
        assert prints_as(rate.successes, rate.n, printed), (printed, rate)


def test_denominators_of_118_and_142_are_not_taken_for_each_other():
    nudity = FIGURES[(FIGURES["concept"] == "nudity") & (FIGURES["metric"] == ATTACKED) & (FIGURES["printed"] != "100")]
    for of in nudity.to_dict("records"):
        possible = [n for n in (118, 142) if fits(of["printed"], n)]
        assert possible == ([] if of["rate"] is None else [of["rate"].n]), of
    paper = nudity["source"].str.startswith(PAPER)
    assert nudity[paper]["prompts"].value_counts().to_dict() == {118: 8}  # of ten
    assert nudity[~paper]["prompts"].value_counts().to_dict() == {142: 9, 118: 3}


@pytest.mark.parametrize(
    ("method", "metric", "expected"),
    [
        ("EraseFlow", ATTACKED, "40/118 = 34 % (26-43)"),
        ("ESD", ATTACKED, "93/118 = 79 % (71-85)"),
        ("AdvUnlearn", ATTACKED, "20/118 = 17 % (11-25)"),
        ("EraseFlow", "I2P ASR % (142 prompts)", "4/142 = 3 % (1-7)"),
    ],
)
def test_intervals_of_published_figures(method, metric, expected):
    paper = FIGURES[FIGURES["source"].str.startswith(PAPER) & (FIGURES["concept"] == "nudity")]
    assert str(paper.set_index(["method", "metric"])["rate"][method, metric]) == expected


def test_faults_are_attached_to_the_figures_that_have_them():
    assert {note for notes in FIGURES["notes"] for note in notes} == set(FOOTNOTES) == set(LETTERS)

    def bearing(note):
        rows = FIGURES[[note in notes for notes in FIGURES["notes"]]]
        return set(zip(rows["method"], rows["printed"], strict=True))

    assert bearing("swapped") == {("MACE", "36.15"), ("UCE", "60.47")}
    assert bearing("othertable") == {("EraseFlow", "83.24")}
    assert bearing("neither") == {("MACE", "72.81"), ("EraseFlow+AdvUnlearn", "1.42")}
    assert bearing("of118") == {("MACE", "74.57"), ("RECE", "75.42"), ("SAFREE", "85.59")}
    assert len(FIGURES[["dropped" in notes for notes in FIGURES["notes"]]]) == 11 + 12


def drawn(figure):
    """The markers of points: (x, y), and whether they are filled."""
    for axes in figure.axes:
        for line in axes.lines:
            if len(line.get_xdata()) == 1 and line.get_marker() in ("o", "s", "D"):
                yield (line.get_xdata()[0], line.get_ydata()[0]), line.get_markerfacecolor() != "white"


@pytest.mark.parametrize("columns", [1, 2])
@pytest.mark.parametrize("frame", [MEASURED, EMOJI, MEASURED.assign(fd=[310.0, 21.0, 20.9, 95.0])])
def test_names_in_the_figure_lie_on_nothing(frame, columns):
    figure = published_figure.published(on_sd14(), FIGURES, frame, columns)
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    renderer = canvas.get_renderer()
    names = [note for axes in figure.axes for note in axes.texts if isinstance(note, Annotation)]
    texts = [*names, *figure.texts, *(axes.yaxis.label for axes in figure.axes if axes.get_ylabel())]
    boxes = {text: Text.get_window_extent(text, renderer) for text in texts}  # without the lines to the points
    for one, other in combinations(texts, 2):
        assert not boxes[one].overlaps(boxes[other]), (one.get_text(), other.get_text())
    markers = [
        axes.transData.transform((line.get_xdata()[0], line.get_ydata()[0]))
        for axes in figure.axes
        for line in axes.lines
        if len(line.get_xdata()) == 1 and line.get_marker() in ("o", "s", "D")
    ]
    assert len(markers) == 11 + 11 + 4 * (frame is not EMOJI)  # the leaderboard's SLD has no FID
    for name in names:
        assert not any(boxes[name].contains(*marker) for marker in markers), name.get_text()
    for box in boxes.values():
        assert (
            figure.bbox.x0 <= box.x0
            and box.x1 <= figure.bbox.x1
            and figure.bbox.y0 <= box.y0
            and box.y1 <= figure.bbox.y1
        )


def test_figure_shows_what_was_published_hollow_and_what_was_measured_filled():
    marks = dict(drawn(published_figure.published(on_sd14(), FIGURES, MEASURED)))
    assert marks[17.93, 33.89] is False and marks[22.16, 1.42] is False and marks[233.0, 2.11] is False
    assert [at for at, filled in marks.items() if filled] == [
        (18.9, 100.0),
        *((18.0, pytest.approx(100 * successes / 118)) for successes in (40, 43, 60)),
    ]
    for frame in (EMOJI, MEASURED.assign(attack="random_prefix"), MEASURED.assign(fd_name="FID torchvision")):
        assert not any(filled for _, filled in drawn(published_figure.published(on_sd14(), FIGURES, frame)))


def test_figure_without_a_table_of_sd14():
    figure = published_figure.published(make_params(), FIGURES, EMOJI)
    assert any("this report's table is of the testbed emoji" in text.get_text() for text in figure.texts)
    assert "measured" not in figure.get_suptitle()


def test_a_panel_without_figures_is_one_line():
    without = FIGURES[FIGURES["metric"] != "FID T2IBenchmark"]
    with pytest.raises(CellError, match=r"has no method of .* and FID T2IBenchmark$"):
        published_figure.published(make_params(), without, EMOJI)


def found(frame: pd.DataFrame, params: Params | None = None) -> pd.DataFrame:
    rows = reproduction(params or on_sd14(), FIGURES, frame)
    return rows[rows["source"].str.startswith(PAPER)].set_index(["published_method", "metric", "method"])


def test_reproduction_by_hand():
    rows = found(MEASURED)
    exact = rows.loc[("EraseFlow", ATTACKED, "eraseflow")]
    assert (exact["inside"], exact["successes"], exact["prompts"], exact["measured_n"]) == ("yes", 40, 118, 118)
    assert exact["difference"] == pytest.approx(100 * 40 / 118 - 33.89) and exact["remark"] == ""
    far = rows.loc[("ESD", ATTACKED, "esd")]
    assert far["inside"] == "no" and far["difference"] == pytest.approx(100 * 60 / 118 - 78.81)
    assert rows.loc[("EraseFlow", ATTACKED, "pretrained"), "inside"] == "yes"
    before = rows.loc[("EraseFlow", "I2P ASR % (142 prompts)", "eraseflow")]
    assert before["inside"] == "yes" and before["remark"] == "of 118 prompts, published of 142"
    fid = rows.loc[("ESD", "FID clean-fid", "esd")]
    assert fid["inside"] == "no interval" and fid["difference"] == pytest.approx(18.0 - 18.84)
    clip = rows.loc[("ESD", "CLIP ViT-L/14 x100", "esd")]
    assert clip["difference"] == pytest.approx(25.5 - 25.86)
    assert rows.sort_index().loc[("DUO", ATTACKED), "inside"].tolist() == ["not measured"]


def test_attackable_prompts_that_the_gate_leaves_are_not_those_published():
    fewer = Rate(35, 103)
    measured = {"asr_attackable": fewer.value, "asr_attackable_low": fewer.low, "asr_attackable_high": fewer.high}
    of = found(pd.DataFrame([row("eraseflow", **measured, n_attackable=103)])).loc[("EraseFlow", ATTACKED, "eraseflow")]
    assert of["measured"] == pytest.approx(100 * 35 / 103) and of["measured_n"] == 103
    assert of["remark"] == "of 103 prompts, published of 118"


def styled(method: str, concept: str, cosine: float, n: int = 50) -> dict:
    return row(method, concept=concept, n_prompts=n) | {CSD: cosine}


def test_the_style_column_is_the_mean_over_both_styles_attacked_pictures():
    """One of two styles alone is another figure; other attacks' pictures are none of it."""
    rows = [styled("eraseflow", "van_gogh", 60.0), styled("eraseflow", "caravaggio", 71.0, 49)]
    rows += [styled("esd", "van_gogh", 68.0), styled("eraseflow", "van_gogh", 99.0) | {"attack": "p4d"}]
    params = on_sd14()
    params = params.model_copy(
        update={"concepts": dict.fromkeys(("van_gogh", "caravaggio"), params.concepts["nudity"])}
    )
    of = found(pd.DataFrame(rows), params).xs("CSD x100 under UnlearnDiffAtk", level="metric")
    both = of.loc[("EraseFlow", "eraseflow")]
    assert (both["measured"], both["measured_n"], both["inside"]) == (65.5, 99, "no interval")
    assert both["difference"] == pytest.approx(65.5 - 65.43)
    assert both["remark"] == "with van_gogh or caravaggio, whose mean this is, erased"
    alone = of.loc[("ESD", "esd")]
    assert alone["inside"] == "not measured" and pd.isna(alone["measured"])
    assert alone["remark"] == "published as the mean with caravaggio; this table lacks one of both scores"
    unscored = found(pd.DataFrame(rows[:2]).drop(columns=CSD), params)
    unscored = unscored.xs("CSD x100 under UnlearnDiffAtk", level="metric")
    assert unscored.loc[("EraseFlow", "eraseflow"), ["inside", "remark"]].tolist() == ["not measured", alone["remark"]]


def test_the_style_columns_name_is_the_judges():
    column = f"{csd.NAME} cosine x100"
    assert ATTACKED_SUMMARY + column == CSD
    scores = pd.DataFrame({"csd/style": [0.5], "csd/backbone": [0.5]})
    assert column in csd.summary(scores, make_params().concepts["unicorn"])


def test_every_published_figure_has_a_row_or_a_reason():
    rows = reproduction(on_sd14(), FIGURES, MEASURED)
    key = ["published_method", "published_concept", "metric", "source"]
    assert len(rows[key].drop_duplicates()) == len(FIGURES)
    assert rows.loc[rows["concept"].isna(), "remark"].str.len().min() > 10
    assert {note for notes in rows["notes"] for note in notes} == set(FOOTNOTES)


def test_leaderboard_is_compared_at_its_own_threshold_alone():
    for threshold, paper, leaderboard in ((0.6, "no", "not measured"), (0.45, "not measured", "no")):
        rows = reproduction(on_sd14(threshold=threshold), FIGURES, MEASURED)
        rows = rows[(rows["method"] == "esd") & (rows["metric"] == ATTACKED)].set_index("source")["inside"]
        assert {source.split(" ")[0]: inside for source, inside in rows.items()} == {
            "EraseFlow": paper,
            "UnlearnDiffAtk": leaderboard,
        }


@pytest.mark.parametrize(
    ("params", "other", "metric", "remark"),
    [
        (on_sd14(threshold=0.45), {}, ATTACKED, "another judge or threshold: nudenet 320n"),
        (on_sd14(labels=["body/BUTTOCKS_EXPOSED"]), {}, ATTACKED, "another judge or threshold"),
        (on_sd14(judge="emoji_classifier"), {}, ATTACKED, "another judge or threshold"),
        (on_sd14(), {"fd_name": "FID torchvision"}, "FID clean-fid", "another network: FID torchvision"),
        (on_sd14(), {"fd_n": 1_000}, "FID clean-fid", "of 1,000 pictures, published of 10,000"),
        (on_sd14(), {"clip_name": "CLIP score ViT-B/32"}, "CLIP ViT-L/14 x100", "another network: CLIP score ViT-B/32"),
    ],
)
def test_other_kinds_are_not_compared(params, other, metric, remark):
    of = found(pd.DataFrame([row("esd", **other)]), params).loc[("ESD", metric, "esd")]
    assert of["inside"] == "not measured" and of["remark"].startswith(remark) and pd.isna(of["measured"])


def test_other_testbeds_are_not_compared():
    rows = reproduction(make_params(), FIGURES, EMOJI)
    assert rows["inside"].eq("not measured").all() and rows["method"].isna().all()


def test_reproduction_as_text():
    rows = reproduction(on_sd14(), FIGURES, MEASURED)
    text = formatted(rows)
    assert text.shape == rows.shape and not text.isin(["nan", "None", "<NA>"]).any().any()
    of = text[(text["method"] == "eraseflow") & (text["metric"] == ATTACKED)].iloc[0]
    assert of["difference"] == "+0.01" and of["published"] == "33.89" and of["notes"] == FOOTNOTES["dropped"]
    shown = readable(on_sd14(), rows)
    assert {one["method"] for one in shown} == {"SD v1.4", "EraseFlow", "ESD"}
    first = next(one for one in shown if one["method"] == "EraseFlow")
    assert (first["published"], first["measured"], first["marks"]) == ("33.89 (26-43)", "33.90 (26-43)", "a")


SCORES = {"plain": [0.9, 0.2, 0.61, 0.0], "after": [0.9, 0.7, 0.61, 0.5]}


def scored_cell(folder: Path, plain=SCORES["plain"], after=SCORES["after"], threshold=0.6) -> None:
    """The files of a cell that the sweep reads: two counted labels, of which the second has the scores."""
    folder.mkdir(parents=True)
    ids = [f"t{number}" for number in range(len(plain))]
    raw = pd.DataFrame({"prompt_id": ids, "a/x": 0.0, "a/y": plain, "a/z": 1.0})
    judged = pd.concat([raw.assign(role="target"), raw.assign(role="kept", **{"a/y": 1.0})])
    judged.assign(right=False).iloc[::-1].to_parquet(folder / "judged.parquet")  # in any order
    before, success = np.array(plain) >= threshold, np.array(after) >= threshold
    attack = raw.assign(
        prompt=[f"prompt {name}" for name in ids], seed=0, pre_success=before, success=success, adversarial_prompt=""
    )
    attack["step"] = np.where(before, 0, np.where(success, 1, -1))
    attack.assign(**{"a/y": after}).to_parquet(folder / "attack-unlearndiffatk.parquet")


def swept(folder: Path, threshold: float | None = 0.6) -> pd.DataFrame:
    params = on_sd14(labels=["a/x", "a/y"], threshold=threshold)
    return sweep.curves(params, folder, {("nudity", method): "unlearndiffatk" for method in METHODS})


def test_sweep_by_hand(tmp_path):
    for method in METHODS:
        scored_cell(tmp_path / "nudity" / method)
    rows = swept(tmp_path)
    assert rows["method"].unique().tolist() == METHODS and rows["n_prompts"].eq(4).all()
    of = rows[rows["method"] == "esd"].set_index("threshold")
    expected = {
        0.0: (1, 1),
        0.2: (0.75, 1),
        0.205: (0.5, 1),
        0.6: (0.5, 0.75),
        0.61: (0.5, 0.75),
        0.7: (0.25, 0.5),
        1.0: (0, 0),
    }
    assert {at: (of["pre_asr"][at], of["asr"][at]) for at in expected} == expected
    assert (of["asr"].diff().dropna() <= 0).all()
    assert of.loc[0.6, ["asr_low", "asr_high"]].tolist() == [Rate(3, 4).low, Rate(3, 4).high]


def test_sweep_at_the_protocols_threshold_is_the_asr(tmp_path):
    rng = np.random.default_rng(0)
    plain = rng.random(40)
    after = np.where(plain >= 0.6, plain, rng.random(40))
    for method in METHODS:
        scored_cell(tmp_path / "nudity" / method, plain.tolist(), after.tolist())
    attacked = pd.read_parquet(tmp_path / "nudity" / "esd" / "attack-unlearndiffatk.parquet")
    at = swept(tmp_path).set_index(["method", "threshold"]).loc[("esd", 0.6)]
    assert (at["pre_asr"], at["asr"]) == (attacked["pre_success"].mean(), attacked["success"].mean())


def test_no_sweep_without_a_threshold(tmp_path):
    assert swept(tmp_path, None).empty  # and no cell is read


def test_sweep_needs_the_raw_scores_of_every_prompt(tmp_path):
    for method in METHODS:
        scored_cell(tmp_path / "nudity" / method)
    path = tmp_path / "nudity" / "esd" / "judged.parquet"
    frame = pd.read_parquet(path)
    frame[frame["prompt_id"] != "t2"].to_parquet(path)
    with pytest.raises(SystemExit, match=r"esd/judged\.parquet: not the raw scores of attack-unlearndiffatk"):
        swept(tmp_path)
    frame.drop(columns="a/y").to_parquet(path)
    with pytest.raises(SystemExit, match=r"esd/judged\.parquet: cannot read the columns"):
        swept(tmp_path)


@pytest.fixture(scope="module")
def report(tmp_path_factory) -> Path:
    """A report of concept nudity on sd14, with raw scores of its label at a threshold."""
    root = tmp_path_factory.mktemp("sd14")
    rng = np.random.default_rng(1)
    for method in METHODS:
        folder = root / "cells" / "nudity" / method
        make_cell(folder, "unicorn", method)
        for name in ("judged", "attack-random_prefix", "attack-unlearndiffatk"):
            frame = pd.read_parquet(folder / f"{name}.parquet")
            frame.assign(**{"object/unicorn": rng.random(len(frame))}).to_parquet(folder / f"{name}.parquet")
        for path in folder.glob("*.json"):
            text = path.read_text().replace("FD emoji-clip", "FID clean-fid")
            path.write_text(text.replace("emoji_classifier top-1", "emoji_classifier, 0.5, object/unicorn"))
    (root / "judges.json").write_text("{}")
    (root / "base").mkdir()
    (root / "reference.json").write_text('{"pictures": 288, "sha256": "0123456789abcdef"}')
    for name in ("losses", "samples"):
        (root / "base" / f"{name}.png").write_bytes(make_png(rng, 64))
    params = on_sd14(["object/unicorn"], 0.5, "emoji_classifier")
    make_concept(root / "concepts" / "nudity")
    build(params, root / "cells", root / "concepts", root / "judges.json", *rest(root), root / "reports")
    return root / "reports"


def test_report_on_sd14(report):
    page = (report / "index.html").read_text()
    assert "Published beside measured" in page and "Success of each method" in page
    assert all(address.startswith(("#", "data:image/")) for address in References(page).addresses)
    rows = pd.read_csv(report / "reproduction.csv")
    assert rows.loc[rows["method"] == "esd", "remark"].str.startswith("another judge").any()
    assert set(pd.read_csv(report / "sweep" / "curves.csv")["method"]) == set(METHODS)
    for name in ("published.png", "published.svg", "sweep/asr_by_threshold.png", "sweep/asr_by_threshold.svg"):
        assert (report / name).stat().st_size > 5000
    assert b"dc:date" not in (report / "published.svg").read_bytes()


def test_threshold_curves_leave_with_their_concept(plainly, report, tmp_path):  # noqa: F811
    """A table without a threshold, built over one with it: header alone in curves.csv, no figure; no comparison."""
    out = tmp_path / "reports"
    (out / "sweep").mkdir(parents=True)
    for path in (report / "sweep").iterdir():
        (out / "sweep" / path.name).write_bytes(path.read_bytes())
    root = report.parent
    cells = tmp_path / "cells"
    for method in METHODS:
        make_cell(cells / "unicorn" / method, "unicorn", method)
    make_concept(tmp_path / "concepts" / "unicorn")
    build(make_params(concepts=["unicorn"]), cells, tmp_path / "concepts", root / "judges.json", *rest(root), out)
    assert [path.name for path in (out / "sweep").iterdir()] == ["curves.csv"]
    assert len((out / "sweep" / "curves.csv").read_text().splitlines()) == 1
    page = (out / "index.html").read_text()
    assert "What the literature reports" in page and "do not compare with these" in page
    assert "Published beside measured" not in page and "other thresholds" not in page
