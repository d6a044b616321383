"""Empty pictures are told from plain ones and counted; a row that has mostly empty ones is the best of nothing."""

import io
import json
import shutil
from pathlib import Path

import matplotlib.cbook as cbook
import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from test_published import on_sd14, scored_cell
from test_reading import measured, spent
from test_report import PROMPTS, make_cell, make_concept, make_params
from test_rounds import ATTACKS, make_victim, never

from eraseflow import images, rounds, timings
from eraseflow.cells.attack import costs as costs_of_attack
from eraseflow.emoji import pictures
from eraseflow.emoji.vocabulary import NAMES, STYLES
from eraseflow.report import (
    baselines,
    budget,
    collapsed,
    costs,
    grids,
    pareto,
    published,
    readable,
    sweep,
    transfer,
)
from eraseflow.report.reproduction import reproduction
from eraseflow.report.table import formatted, metrics, strongest, table
from eraseflow.testbeds import emoji

pytestmark = pytest.mark.slow

CONCEPT, METHODS = "unicorn", ["original", "eraseflow", "esd"]


def empty(values: np.ndarray | torch.Tensor) -> list[bool]:
    return (images.spread(torch.as_tensor(values)) < images.EMPTY).tolist()


def test_one_colour_is_empty_whichever_and_with_some_noise():
    colours = torch.tensor([[0, 0, 0], [255, 255, 255], [255, 0, 0], [3, 200, 90]], dtype=torch.uint8)
    assert empty(colours[:, :, None, None].expand(-1, -1, 32, 32)) == [True] * 4
    noise = np.random.default_rng(0).integers(-2, 3, (1, 3, 64, 64))
    assert empty((128 + noise).astype(np.uint8)) == [True]
    assert images.spread(torch.as_tensor((128 + noise).astype(np.uint8)))[0] == pytest.approx(2**0.5, abs=0.05)


def test_no_real_picture_comes_near():
    _, real = pictures.load(emoji.PICTURES)
    assert images.spread((real * 255).round().to(torch.uint8)).min() > 7 * images.EMPTY
    grid = torch.from_numpy(np.asarray(Image.open("reports/base/samples.png").convert("RGB")).copy()).permute(2, 0, 1)
    drawn = grid[:, 2:, 2:].unfold(1, 32, 34).unfold(2, 32, 34).flatten(1, 2).transpose(0, 1)
    spreads = images.spread(drawn).sort().values
    blank = len(drawn) - len(NAMES) * len(STYLES)  # the last row's places without a name
    assert blank == 10 and spreads[:blank].max() == 0 and spreads[blank:].min() > 7 * images.EMPTY
    with cbook.get_sample_data("grace_hopper.jpg") as file:
        photograph = torch.from_numpy(np.asarray(Image.open(file)).copy()).permute(2, 0, 1)
    cuts = photograph.unfold(1, 64, 32).unfold(2, 64, 32).flatten(1, 2).transpose(0, 1)
    assert images.spread(cuts).min() > 1.8 * images.EMPTY, "the plainest cut is of a wall"


def test_an_attack_counts_its_last_pictures(pipeline):
    module, settings = ATTACKS[0]
    results = rounds.run(make_victim(pipeline, never), module.attack, module.Settings(**settings), 5)
    assert not results["empty"].any() and costs_of_attack(results)["empty"] == 0
    pipeline.vae.decoder.conv_out.weight.data.zero_()
    results = rounds.run(make_victim(pipeline, never), module.attack, module.Settings(**settings), 5)
    assert results["empty"].all() and costs_of_attack(results)["empty"] == 3


@pytest.mark.parametrize("tried", [[], [{}], [{0: "a"}]])
def test_an_attack_that_tries_nothing_does_not_look_withstood(pipeline, tried):
    def attack(victim, settings, seed):
        for texts in tried:
            yield {row: victim.with_prefix(row, [300]) for row in texts}

    with pytest.raises(SystemExit, match=rf"^target-{len(tried and tried[0])}: the attack has tried nothing"):
        rounds.run(make_victim(pipeline, never), attack, None, 5)


def test_a_row_each_of_a_judge():
    parts = [torch.zeros(3, 3, 8, 8, dtype=torch.uint8)]
    with pytest.raises(SystemExit, match="has 2 rows for 3 pictures, expected one for each"):
        images.look(parts, images.spread, lambda part: images.spread(part)[:2])


@pytest.fixture(scope="module")
def cells(tmp_path_factory) -> Path:
    """One concept's cells, no picture empty."""
    folder = tmp_path_factory.mktemp("cells")
    for method in METHODS:
        make_cell(folder / "cells" / CONCEPT / method, CONCEPT, method)
    make_concept(folder / "concepts" / CONCEPT)
    return folder


def change(cells: Path, out: Path, file: str, method: str = "esd", **values) -> pd.DataFrame:
    """The table with a changed JSON file of one cell."""
    shutil.copytree(cells, out, dirs_exist_ok=True)
    path = out / "cells" / CONCEPT / method / file
    path.write_text(json.dumps(json.loads(path.read_text()) | values))
    return table(make_params([CONCEPT]), out / "cells", out / "concepts")


def test_a_table_without_empty_pictures_says_nothing_of_them(cells):
    frame = table(make_params([CONCEPT]), cells / "cells", cells / "concepts")
    assert frame[list(collapsed.COUNTS)].eq(0).all(axis=None) and not frame["collapsed"].any()
    text = readable.markdown(make_params([CONCEPT]), frame)
    assert "mpty" not in text and "ollapsed" not in text


def test_a_few_empty_pictures_are_counted_and_no_mark(cells, tmp_path):
    frame = change(cells, tmp_path, "scores.json", kept_empty=PROMPTS // 2, target_empty=1)
    assert not frame["collapsed"].any(), "half is not most"
    esd = readable.readable(make_params([CONCEPT]), frame, CONCEPT).set_index("Method").loc["esd"]
    assert esd[collapsed.TITLE].tolist() == ["1/24, 12/24, 0/24"] * 2


@pytest.mark.parametrize("role", ["target", "kept"])
def test_a_collapsed_row_is_marked_everywhere(cells, tmp_path, role):
    params = make_params([CONCEPT])
    frame = change(cells, tmp_path, "scores.json", **{f"{role}_empty": PROMPTS // 2 + 1})
    assert frame.loc[frame["collapsed"], "method"].tolist() == ["esd", "esd"]
    assert formatted(frame)["collapsed"].tolist() == ["False"] * 4 + ["True"] * 2
    text = readable.markdown(params, frame)
    assert "| esd (collapsed) |" in text and "| esd |" not in text
    assert "say nothing of erasure: esd under random_prefix; esd under unlearndiffatk." in text
    assert "esd (collapsed) (20 : 5 of 24" in text, "what an attack beats on it"
    assert "esd (collapsed)" in readable.latex(params, frame)
    assert collapsed.flags(pd.read_csv(io.StringIO(formatted(frame).to_csv()))).tolist() == [False] * 4 + [True] * 2


def test_an_attack_alone_may_collapse(cells, tmp_path):
    """CCE's embedding may be such that nothing is drawn: then it is the attack that has failed."""
    frame = change(cells, tmp_path, "attack-unlearndiffatk.json", method="eraseflow", empty=PROMPTS)
    assert frame["collapsed"].tolist() == [False, False, False, True, False, False]
    rows = readable.readable(make_params([CONCEPT]), frame, CONCEPT)
    assert rows.loc[3, ["Method", "Attack"]].tolist() == ["eraseflow", "unlearndiffatk (collapsed)"]
    assert rows.loc[2, collapsed.TITLE] == "0/24, 0/24, 0/24" and rows.loc[3, collapsed.TITLE] == "0/24, 0/24, 24/24"


def test_of_equal_attacks_the_collapsed_one_is_not_the_strongest():
    rows = [{"concept": "a", "method": "b", "attack": name, "asr_successes": 3, "n_prompts": 9} for name in "cd"]
    frame = pd.DataFrame(rows).assign(attacked_empty=[0, 6])
    assert strongest(frame)["attack"].tolist() == ["c"]
    assert strongest(frame.assign(attacked_empty=0))["attack"].tolist() == ["d"]


def with_black(frame: pd.DataFrame, method: str) -> pd.DataFrame:
    """The frame with all pictures of a method empty."""
    own = frame["method"] == method
    return frame.assign(n_prompts=36, kept_n=144, target_empty=36 * own, kept_empty=144 * own, attacked_empty=36 * own)


def test_a_collapsed_row_is_on_no_front_and_beats_none():
    frame = with_black(
        measured({"original": 36, "black": 0, "good": 5}, {"original": 1, "black": 0.5, "good": 2}), "black"
    )
    rows = pareto.fronts(frame, spent({"original": 0, "black": 0, "good": 9})).set_index("method")
    assert rows.on_front.to_dict() == {"black": False, "good": True}
    assert rows.dominated_by.to_dict() == {"black": [], "good": []} and rows.collapsed["black"]
    said = pareto.sentences(rows.reset_index())
    assert said[0].startswith("On the front: good (") and len(said) == 2
    assert said[1].startswith("No candidate, because most of their pictures are empty: black (ASR 0 %")
    alone = pareto.sentences(rows.loc[["black"]].reset_index())
    assert alone[0] == "On the front: none."
    assert len(pareto.sentences(rows.drop(columns="collapsed").loc[["good"]].reset_index())) == 1, "of an older file"


def test_a_collapsed_row_reproduces_nothing(cells, tmp_path):
    params = make_params([CONCEPT])
    frame = change(cells, tmp_path, "scores.json", kept_empty=PROMPTS)
    frame = frame.assign(testbed="sd14", concept="nudity", fd_name="FD clean-fid Inception-V3", fd_n=10_000)
    found = reproduction(params, published.read(), frame)
    fid = found[(found["metric"] == "FID clean-fid") & found["method"].notna()].set_index("method")
    assert fid.remark["esd"] == "collapsed: most of its pictures are empty" and fid.inside["esd"] == "not measured"
    assert pd.isna(fid.measured["esd"]) and fid.measured["eraseflow"] == 4.125


def test_luck_is_compared_with_the_mark(cells, tmp_path):
    frame = change(cells, tmp_path, "scores.json", method="original", kept_empty=PROMPTS)
    [said] = baselines.sentences(frame)
    assert "cannot beat it on original (collapsed), where the baseline succeeds" in said


@pytest.mark.parametrize(
    ("file", "values", "message"),
    [
        (
            "scores.json",
            {"judge": "nudenet 320n, 0.6"},
            "scores.json: is by the judge nudenet 320n, 0.6, the concept's is",
        ),
        (
            "attack-random_prefix.json",
            {"judge": "other top-1"},
            "attack-random_prefix.json: is by the judge other top-1",
        ),
        ("scores.json", {"target_n": 23}, "scores.json: is of 23 target pictures, the concept has 24 prompts"),
        ("scores.json", {"kept_n": 12}, "scores.json: is of 12 kept pictures, the concept has 24 prompts"),
        ("scores.json", {"fd": float("nan")}, "scores.json: fd is not finite (nan); make the file anew"),
        ("attack-random_prefix.json", {"empty": float("inf")}, "random_prefix.json: empty is not finite (inf)"),
    ],
)
def test_a_cell_that_does_not_fit_is_one_line(cells, tmp_path, file, values, message):
    with pytest.raises(SystemExit) as stop:
        change(cells, tmp_path, file, **values)
    assert message in str(stop.value) and "\n" not in str(stop.value)


def test_a_prompt_with_two_rows_is_one_line(cells, tmp_path):
    shutil.copytree(cells, tmp_path, dirs_exist_ok=True)
    path = tmp_path / "cells" / CONCEPT / "esd" / "attack-random_prefix.parquet"
    rows = pd.read_parquet(path)
    rows.loc[3, "prompt_id"] = "t2"
    rows.to_parquet(path)
    with pytest.raises(SystemExit, match=r"attack-random_prefix.parquet: the prompt t2 has two rows"):
        table(make_params([CONCEPT]), tmp_path / "cells", tmp_path / "concepts")


MARKED = {(CONCEPT, "esd", None), (CONCEPT, "esd", "random_prefix"), (CONCEPT, "esd", "unlearndiffatk")}
ATTACK_ALONE = {(CONCEPT, "eraseflow", "unlearndiffatk")}


def crosses(figure) -> list[str]:
    """The colours of the crosses that the figure's panels have, and the cross of its legend."""
    drawn = [line for axes in figure.axes for line in axes.get_lines() if line.get_marker() == "x"]
    legend = [text.get_text() for one in figure.legends for text in one.get_texts()]
    assert (collapsed.LEGEND in legend) == bool(drawn)
    return [line.get_color() for line in drawn]


def test_what_is_marked_are_the_tables_flags(cells, tmp_path):
    frame = change(cells, tmp_path, "scores.json", kept_empty=PROMPTS)
    assert collapsed.marks(frame) == MARKED
    frame = change(cells, tmp_path / "other", "attack-unlearndiffatk.json", method="eraseflow", empty=PROMPTS)
    assert collapsed.marks(frame) == ATTACK_ALONE


@pytest.mark.parametrize(("marked", "ends"), [(set(), 0), (MARKED, 2), (ATTACK_ALONE, 1)])
def test_the_budget_figure_marks_its_lines(cells, marked, ends):
    params = make_params([CONCEPT])
    curves = budget.curves(params, cells / "cells", marked)
    assert len(curves[curves.collapsed].groupby(["method", "attack"])) == ends
    figure = budget.budget(params, curves, CONCEPT)
    assert len(crosses(figure)) == ends
    titles = [axes.get_title(loc="left") for axes in figure.axes]
    assert titles == [*METHODS[:2], "esd (collapsed)" if marked == MARKED else "esd"]


@pytest.mark.parametrize("marked", [set(), MARKED])
def test_the_sweep_marks_its_lines(tmp_path, marked):
    for method in METHODS:
        scored_cell(tmp_path / CONCEPT / method)
    params = on_sd14(labels=["a/x", "a/y"], threshold=0.6)
    params = params.model_copy(update={"concepts": {CONCEPT: params.concepts["nudity"]}})
    params = params.model_copy(update={"table": params.table.model_copy(update={"concepts": [CONCEPT]})})
    attacks = {(CONCEPT, method): "unlearndiffatk" for method in METHODS}
    curves = sweep.curves(params, tmp_path, attacks, marked)
    assert set(curves.loc[curves.collapsed, "method"]) == ({"esd"} if marked else set())
    assert len(crosses(sweep.sweep(params, curves))) == len({method for _, method, _ in marked})


@pytest.mark.parametrize(
    ("marked", "source", "victim"),
    [(set(), "esd (0)", "esd"), (MARKED, "esd (0) (collapsed)", "esd (collapsed)"), (ATTACK_ALONE, "esd (0)", "esd")],
)
def test_the_transfer_matrix_marks_its_models(tmp_path, marked, source, victim):
    names = make_params([CONCEPT]).table.model_copy(update={"transfer": ["unlearndiffatk"]})
    params = make_params([CONCEPT]).model_copy(update={"table": names})
    rows = [(one, other, 0, 0, 0) for one in METHODS for other in METHODS]
    (tmp_path / CONCEPT).mkdir()
    path = tmp_path / CONCEPT / "transfer-unlearndiffatk.csv"
    pd.DataFrame(rows, columns=transfer.COUNTS).to_csv(path, index=False)
    matrix = transfer.matrices(params, tmp_path, marked)
    axes = transfer.transfer(matrix, CONCEPT, "unlearndiffatk").axes[0]
    assert axes.get_yticklabels()[2].get_text() == source and axes.get_xticklabels()[2].get_text() == victim
    alone = " (collapsed)" * (marked == ATTACK_ALONE)  # found by an attack that draws nothing; the model itself draws
    assert [axes.get_yticklabels()[1].get_text(), axes.get_xticklabels()[1].get_text()] == [
        f"eraseflow (0){alone}",
        "eraseflow",
    ]


def test_the_grids_mark_their_columns(cells):
    """A line more of headers, and nothing where nothing is marked."""
    params, attacks = make_params([CONCEPT]), dict.fromkeys(METHODS, "unlearndiffatk")
    arguments = params, cells / "cells", cells / "concepts", CONCEPT, attacks
    plain, marked, other = (
        np.asarray(grids.target_grid(*arguments, marks)) for marks in (frozenset(), MARKED, ATTACK_ALONE)
    )
    assert len(marked) == len(other) == len(plain) + grids.LINE
    line = slice(8 + grids.LINE, 8 + 2 * grids.LINE)
    left = {"original": 0, "eraseflow": 1, "esd": 2, "eraseflow attacked": 3, "esd attacked": 4}
    written = {}
    for name, grid in (("method", marked), ("attack", other)):
        dark = (grid[line].min(-1) < 128).any(0)
        places = {of: grids.LABEL + place * grids.STEP + 16 * (place > 2) for of, place in left.items()}
        written[name] = {of for of, at in places.items() if dark[at : at + grids.SIDE].any()}
    assert written == {"method": {"esd", "esd attacked"}, "attack": {"eraseflow attacked"}}
    kept = [grids.kept_grid(params, cells / "cells", CONCEPT, marks) for marks in (frozenset(), MARKED, ATTACK_ALONE)]
    assert [grid.height - kept[0].height for grid in kept] == [0, grids.LINE, 0]


def test_the_page_marks_costs_and_prompts_found(cells, tmp_path):
    frame = change(cells, tmp_path, "scores.json", kept_empty=PROMPTS)
    params, marked = make_params([CONCEPT]), collapsed.marks(frame)
    timed = pd.DataFrame(columns=timings.COLUMNS)
    rows = costs.readable(costs.costs(params, cells / "cells"), timed, marked)
    assert rows["Method"].tolist() == ["original", "eraseflow", "esd (collapsed)"]
    assert collapsed.titled(CONCEPT, "esd", "random_prefix", marked) == ("esd (collapsed)", "random_prefix")
    assert collapsed.titled(CONCEPT, "eraseflow", "unlearndiffatk", ATTACK_ALONE) == (
        "eraseflow",
        "unlearndiffatk (collapsed)",
    )


def test_metrics_for_dvc_say_it(cells, tmp_path):
    frame = change(cells, tmp_path, "attack-unlearndiffatk.json", method="eraseflow", empty=PROMPTS)
    attacks = json.loads(metrics(frame))[CONCEPT]["eraseflow"]["attacks"]
    assert attacks["unlearndiffatk"]["collapsed"] is True and "collapsed" not in attacks["random_prefix"]
