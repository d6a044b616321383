"""The page's gallery of adversarial prompts, and how the prompts of one method do on the others' models."""

import base64
import io
import re
import shutil

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from test_report import METHODS, inputs, make_params, plain_report, plainly, run  # noqa: F401  (fixtures)

from eraseflow.checks import check_table
from eraseflow.params import Params, ParamsError
from eraseflow.report import gallery, grids, transfer
from eraseflow.report.cells import Cell

pytestmark = pytest.mark.slow

NUMBERS = {("eraseflow", "esd"): (10, 4, 1), ("esd", "eraseflow"): (16, 0, 0), ("esd", "esd"): (16, 16, 0)}


def replaying(params: Params, attacks=("unlearndiffatk",)) -> Params:
    return params.model_copy(update={"table": params.table.model_copy(update={"transfer": list(attacks)})})


@pytest.fixture
def replayed(inputs, tmp_path):  # noqa: F811
    """The inputs with a matrix for unicorn and one for ink_style, where nothing was found."""
    shutil.copytree(inputs, tmp_path / "inputs")
    for concept in ("unicorn", "ink_style"):
        rows = [
            (source, victim, *(NUMBERS.get((source, victim), (0, 0, 0)) if concept == "unicorn" else (0, 0, 0)))
            for source in METHODS
            for victim in METHODS
        ]
        path = tmp_path / "inputs" / "concepts" / concept / "transfer-unlearndiffatk.csv"
        pd.DataFrame(rows, columns=transfer.COUNTS).to_csv(path, index=False)
    return tmp_path / "inputs"


def test_matrices_are_drawn_and_listed(plainly, replayed, tmp_path):  # noqa: F811
    out = tmp_path / "reports"
    run(replayed, out, replaying(make_params()))
    rows = pd.read_csv(out / "transfer" / "matrices.csv")
    assert list(rows.columns) == transfer.COLUMNS and len(rows) == 2 * len(METHODS) ** 2
    row = rows[(rows.concept == "unicorn") & (rows.source == "eraseflow") & (rows.victim == "esd")].iloc[0]
    assert (row.found, row.successes, row.plain_successes) == (10, 4, 1)
    drawn = {f"{concept}_unlearndiffatk.{kind}" for concept in ("unicorn", "ink_style") for kind in ("png", "svg")}
    assert {path.name for path in (out / "transfer").iterdir()} == drawn | {"matrices.csv"}
    assert (out / "index.html").read_text().count("replayed on the model of a column") == 2
    run(replayed, out, make_params())
    assert [path.name for path in (out / "transfer").iterdir()] == ["matrices.csv"]


def test_the_figure_writes_every_count(replayed):
    params = replaying(make_params(["unicorn"]))
    figure = transfer.transfer(transfer.matrices(params, replayed / "concepts"), "unicorn", "unlearndiffatk")
    written = [text.get_text() for text in figure.axes[0].texts]
    at = {(source, victim): written[3 * y + x] for y, source in enumerate(METHODS) for x, victim in enumerate(METHODS)}
    assert at["eraseflow", "esd"] == "4/10 (1)" and at["esd", "esd"] == "16/16" and at["original", "esd"] == ""


def test_a_matrix_that_does_not_fit_is_one_line(replayed):
    params = replaying(make_params(methods=["original", "esd"]))
    with pytest.raises(SystemExit, match=r"unicorn/transfer-unlearndiffatk.csv: its methods are not those of the"):
        transfer.matrices(params, replayed / "concepts")
    with pytest.raises(SystemExit, match=r"transfer-random_prefix.csv: missing"):
        transfer.matrices(replaying(make_params(), ["random_prefix"]), replayed / "concepts")


def test_only_attacks_of_the_table_are_replayed(tmp_path):
    with pytest.raises(ParamsError, match=r"table.transfer: 'unlearndifatk' is no attack .* 'unlearndiffatk'"):
        check_table(replaying(make_params(), ["unlearndifatk"]), tmp_path)


def rows_of(html: str, concept: str) -> list[list[str]]:
    """The cells of each row of a concept's gallery."""
    table = html.partition(f'aria-label="Adversarial prompts of {concept}"')[2].partition("</table>")[0]
    return [re.findall(r"<td>(.*?)</td>", row, re.DOTALL) for row in table.split("<tr>")[2:]]


def shown(cell: str) -> np.ndarray:
    [data] = re.findall(r"data:image/png;base64,([^\"]+)", cell)
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(data))))


def test_gallery_has_original_erased_and_attacked_pictures_with_text_and_round(plain_report, inputs):  # noqa: F811
    """Of eraseflow's prompts 2 to 11 UnlearnDiffAtk found, three are shown: the first, a middle and the last."""
    rows = [row for row in rows_of((plain_report / "index.html").read_text(), "unicorn") if "eraseflow" in row]
    first = next(row for row in rows if "unlearndiffatk" in row)
    cells = {method: Cell.of(inputs / "cells", "unicorn", method) for method in ("original", "eraseflow")}
    pngs = [cell.pngs(cell.pictures("target").loc[["t2"]])["t2"] for cell in cells.values()]
    pngs.append(cells["eraseflow"].attack("unlearndiffatk", ("png",)).loc["t2", "png"])
    for cell, png in zip(first[:3], pngs, strict=True):
        np.testing.assert_array_equal(shown(cell), np.asarray(Image.open(io.BytesIO(grids.thumbnail(png, False)))))
    assert first[3].startswith("a unicorn &lt;2&gt;") and "seed 2" in first[3] and first[-1] == "3"
    assert "&lt;script&gt;" in first[4] and first[5:7] == ["unlearndiffatk", "eraseflow"]
    assert len([row for row in rows if "unlearndiffatk" in row]) == 3


def test_a_full_table_shows_fewer_of_each(inputs):  # noqa: F811
    assert gallery.most(make_params()) == 3
    many = make_params(methods=[f"m{n}" for n in range(14)])
    assert gallery.most(many) == 1


@pytest.mark.parametrize("blur", [True, False])
def test_flagged_pictures_of_the_gallery_are_blurred(inputs, tmp_path, blur):  # noqa: F811
    shutil.copytree(inputs / "cells", tmp_path / "cells")
    path = tmp_path / "cells" / "unicorn" / "esd" / "attack-unlearndiffatk.parquet"
    frame = pd.read_parquet(path)
    frame.assign(flagged=True).to_parquet(path)
    params = make_params(["unicorn"], ["original", "esd"])
    params = params.model_copy(update={"report": params.report.model_copy(update={"blur": blur})})
    [one, *_] = [row for row in gallery.found(params, tmp_path / "cells", "unicorn", {}) if "unlearn" in row["attack"]]
    fine = {title: shown(picture + '"').astype(int) for title, picture in one["pictures"].items()}
    steps = {title: np.abs(np.diff(pixels, axis=0)).max() for title, pixels in fine.items()}
    assert (steps["attacked"] < 40) == blur and min(steps["original"], steps["erased"]) > 100
