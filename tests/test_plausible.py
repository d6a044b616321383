"""A number that cannot be ends the report in one line that names file, row and column."""

import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from safetensors.numpy import save_file
from test_report import make_cell, make_concept, make_params

from eraseflow.report import budget, costs, grids, transfer
from eraseflow.report.cells import Cell, read_reference
from eraseflow.report.plausible import CellError
from eraseflow.report.table import table

pytestmark = pytest.mark.slow

NAN, INF = float("nan"), float("inf")
CELL = Path("cells/unicorn/eraseflow")


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Path:
    """The files of one cell and its concept."""
    folder = tmp_path_factory.mktemp("made")
    make_cell(folder / "cells" / "unicorn" / "eraseflow", "unicorn", "eraseflow")
    make_concept(folder / "concepts" / "unicorn")
    return folder


@pytest.fixture
def own(made, tmp_path) -> Path:
    return Path(shutil.copytree(made, tmp_path / "own"))


def read(folder: Path) -> None:
    """All that the report reads of the cell."""
    params, cell = make_params(["unicorn"], ["eraseflow"]), Cell.of(folder / "cells", "unicorn", "eraseflow")
    table(params, folder / "cells", folder / "concepts")
    budget.curves(params, folder / "cells")
    costs.costs(params, folder / "cells")
    cell.training()
    for role in ("target", "kept"):
        cell.pictures(role)


def stopped(function, *arguments) -> str:
    with pytest.raises(CellError) as stop:
        function(*arguments)
    said = str(stop.value)
    assert "\n" not in said and stop.value.code == said
    return said


def rewrite(path, change) -> None:
    frame = pd.read_csv(path) if path.suffix == ".csv" else pd.read_parquet(path).reset_index(drop=True)
    frame = change(frame)
    frame.to_csv(path, index=False) if path.suffix == ".csv" else frame.to_parquet(path)


def put(column, row, value):
    def change(frame):
        frame = frame.astype({column: object}) if isinstance(value, str) else frame
        frame.loc[row, column] = value
        return frame

    return change


@pytest.mark.parametrize(
    ("file", "column", "row", "value", "message"),
    [
        ("training.csv", "residual", 4, NAN, "training.csv: row 5: residual: is not finite, found nan; make the file"),
        ("training.csv", "loss", 39, INF, "training.csv: row 40: loss: is not finite, found inf"),
        ("training.csv", "loss", 0, "much", "training.csv: row 1: loss: is not finite, found much"),
        ("training.csv", "step", 3, -2, "training.csv: row 4: step: expected a finite number from 0 to inf, found -2"),
        ("attack-random_prefix.parquet", "blocked", 2, NAN, "random_prefix.parquet: t2: blocked: expected a finite"),
        ("attack-random_prefix.parquet", "unet_forward", 2, -24.0, "t2: unet_forward: expected a finite number from 0"),
        ("attack-random_prefix.parquet", "images", 1, 0, "t1: images: expected a finite number from 1 to inf, found 0"),
        ("attack-random_prefix.parquet", "step", 0, -1, "t0: success: is True, but step is -1; make the file anew"),
        ("attack-random_prefix.parquet", "step", 3, 0, "t3: pre_success: is False, but step is 0; make the file anew"),
    ],
)
def test_a_number_that_cannot_be(own, file, column, row, value, message):
    rewrite(own / CELL / file, put(column, row, value))
    said = stopped(read, own)
    assert said.startswith(str(own / CELL / file)) and message in said


@pytest.mark.parametrize("file", ["judged.parquet", "attack-unlearndiffatk.parquet"])
def test_a_judges_score_of_nan(own, file):
    """One of many, which pandas would skip; a score that a whole role has not is no mistake."""
    path = own / CELL / file
    rewrite(path, lambda frame: frame.assign(**{"style/ink": 0.5, "style/flat": 0.25}))
    if "role" in pd.read_parquet(path):
        rewrite(path, lambda frame: frame.assign(**{"style/flat": frame["style/flat"].where(frame["role"] == "kept")}))
    read(own)
    rewrite(path, put("style/ink", 7, NAN))
    assert f"{path}: t7: style/ink: is not finite, found nan" in stopped(read, own)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda frame: frame.assign(right=frame["right"].map({True: "yes", False: "no"})), "Need to pass bool-like"),
        (lambda frame: frame.iloc[1:], "its pictures are not those of samples.parquet"),
        (lambda frame: pd.concat([frame, frame.iloc[:1]]), "Merge keys are not unique"),
        (lambda frame: frame.replace({"prompt_id": {"t3": "t99"}}), "its pictures are not those of samples.parquet"),
        (lambda frame: frame.assign(flagged=0.5), "flagged: expected true or false in every row"),
    ],
    ids=["text", "a row less", "a row twice", "another row", "flags"],
)
def test_verdicts_that_do_not_fit(own, change, message):
    rewrite(own / CELL / "judged.parquet", change)
    said = stopped(read, own)
    assert said.startswith(str(own / CELL / "judged.parquet")) and message in said


def test_a_success_is_true_or_false(own):
    path = own / CELL / "attack-random_prefix.parquet"
    rewrite(path, lambda frame: frame.assign(success=frame["success"] * 0.5))
    assert f"{path}: success: expected true or false in every row" in stopped(read, own)


@pytest.mark.parametrize(
    ("file", "values", "message"),
    [
        ("scores.json", {"fd": None}, "fd: expected a number from -0.1 to inf, found None"),
        ("scores.json", {"fd": -3.0}, "fd: expected a number from -0.1 to inf, found -3.0"),
        ("scores.json", {"clip_score": "31"}, "clip_score: expected a number from -101 to 101, found '31'"),
        ("scores.json", {"kept_empty": 25}, "kept_empty: expected a number from 0 to 24, found 25"),
        ("costs.json", {"optimiser_steps": -1}, "optimiser_steps: expected a number from 0 to inf, found -1"),
        ("costs.json", {"unet_forward": None}, "unet_forward: expected a number from 0 to inf, found None"),
        ("attack-random_prefix.json", {"empty": -1}, "empty: expected a number from 0 to inf, found -1"),
        ("attack-random_prefix.json", {"empty": None}, "empty: expected a number from 0 to inf, found None"),
    ],
)
def test_numbers_of_json_files(own, file, values, message):
    path = own / CELL / file
    path.write_text(json.dumps(json.loads(path.read_text()) | values))
    assert f"{path}: {message}" in stopped(read, own)


def test_counts_of_prompts(own):
    path = own / "concepts" / "unicorn" / "counts.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"official": -1}))
    assert f"{path}: official: expected a number from 0 to inf, found -1" in stopped(read, own)


def test_features_of_real_pictures(tmp_path):
    features, path, about = np.ones((3, 4), np.float32), tmp_path / "features.safetensors", tmp_path / "reference.json"
    names = ["horse flat", "horse ink", "cat ink"]
    about.write_text(json.dumps({"pictures": 3, "sha256": "0" * 64, "names": names}))
    save_file({"features": features}, path)
    assert read_reference(about)["pictures"] == 3
    features[1, 2] = NAN
    save_file({"features": features}, path)
    said = f"{path}: horse ink: feature 3: is not finite, found nan; make the file anew"
    assert said in stopped(read_reference, about)
    save_file({"features": features[:2]}, path)
    assert f"{path}: has features of the shape (2, 4), expected 3 rows" in stopped(read_reference, about)
    path.write_bytes(path.read_bytes()[:30])
    assert f"{path}: cannot be read" in stopped(read_reference, about)


@pytest.mark.parametrize("content", [b"", b"\x89PNG\r\n\x1a\n", b"<html>", "half"])
def test_pictures_that_cannot_be_read(own, content):
    """The grid shows t0 of the un-attacked and of the attacked pictures."""
    params, folder = make_params(["unicorn"], ["eraseflow"]), own / CELL
    grid = params, own / "cells", own / "concepts", "unicorn", {"eraseflow": "unlearndiffatk"}
    for name in ("samples", "attack-unlearndiffatk"):
        path = folder / f"{name}.parquet"
        whole = pd.read_parquet(path).reset_index(drop=True)
        pngs = list(whole["png"])
        pngs[0] = pngs[0][: len(pngs[0]) // 2] if content == "half" else content
        whole.assign(png=pngs).to_parquet(path)
        assert f"{path}: t0: its picture cannot be read (" in stopped(grids.target_grid, *grid)
        whole.to_parquet(path)


def test_prompts_replayed_are_no_more_than_were_found(tmp_path):
    path = tmp_path / "unicorn" / "transfer-unlearndiffatk.csv"
    path.parent.mkdir()
    params = make_params(["unicorn"], ["esd"])
    params = params.model_copy(update={"table": params.table.model_copy(update={"transfer": ["unlearndiffatk"]})})
    row = {"source": "esd", "victim": "esd", "found": 3, "successes": 3, "plain_successes": 0}
    for wrong, said in (
        ({"successes": 4}, "row 1: successes: is 4, of 3 found"),
        ({"found": NAN}, "row 1: found: expected a finite number from 0 to inf, found nan"),
    ):
        pd.DataFrame([row | wrong]).to_csv(path, index=False)
        assert f"{path}: {said}; make the file anew" in stopped(transfer.matrices, params, tmp_path)
