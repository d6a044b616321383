"""`make full`'s reports side by side: tables that were published at different times, by different code."""

from pathlib import Path

import pandas as pd
import pytest
from test_report import METHODS, make_cell, make_concept, make_params

from eraseflow import work_copy
from eraseflow.report import costs, orders, pareto, transfer, whole
from eraseflow.report.plausible import CellError
from eraseflow.report.table import formatted, table

pytestmark = pytest.mark.slow

CONCEPTS = ("unicorn", "ink_style")
PARAMS = make_params()


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> dict[str, dict[str, pd.DataFrame]]:
    """The lists of each concept's report."""
    folder, found = tmp_path_factory.mktemp("cells"), {}
    for concept in CONCEPTS:
        make_concept(folder / "concepts" / concept)
        for method in METHODS:
            make_cell(folder / "cells" / concept / method, concept, method)
        params = make_params([concept])
        frame, taken = table(params, folder / "cells", folder / "concepts"), costs.costs(params, folder / "cells")
        fronts = pareto.fronts(frame, taken)
        for name in ("dominated_by", "overlapping"):
            fronts[name] = fronts[name].map(" ".join)
        found[concept] = {"table.csv": formatted(frame), "costs.csv": taken, "pareto.csv": fronts}
        found[concept]["order.csv"] = pd.DataFrame(columns=orders.COLUMNS)
        found[concept]["transfer/matrices.csv"] = pd.DataFrame(columns=transfer.COLUMNS)
    return found


@pytest.fixture
def out(made, tmp_path) -> Path:
    for concept, lists in made.items():
        for name, rows in lists.items():
            (tmp_path / concept / name).parent.mkdir(parents=True, exist_ok=True)
            rows.to_csv(tmp_path / concept / name, index=False)
    return tmp_path


def change(path: Path, function) -> None:
    function(pd.read_csv(path, dtype=str, keep_default_na=False)).to_csv(path, index=False)


def page(out: Path, params=PARAMS) -> str:
    whole.write(params, [], out)
    return (out / "index.html").read_text()


def test_a_front_that_was_published_before_collapsed_rows_were_marked(out):
    """Beside a newer one: its methods have not collapsed, and neither have the newer one's."""
    change(out / "unicorn" / "pareto.csv", lambda rows: rows.drop(columns="collapsed"))
    change(out / "unicorn" / "table.csv", lambda rows: rows.drop(columns=["collapsed", "target_empty"]))
    said = page(out)
    assert "No candidate" not in said and said.count("On the front: eraseflow") == 2


def test_a_collapsed_row_is_no_candidate(out):
    def mark(rows: pd.DataFrame) -> pd.DataFrame:
        return rows.assign(collapsed=(rows.method == "esd").astype(str), on_front=(rows.method != "esd").astype(str))

    change(out / "ink_style" / "pareto.csv", mark)
    change(out / "unicorn" / "pareto.csv", lambda rows: rows.drop(columns="collapsed"))
    said = page(out)
    assert said.count("No candidate, because most of their pictures are empty: esd (") == 1


def test_a_method_that_has_left_the_table_since_it_was_published(out):
    said = page(out, make_params(methods=["original", "eraseflow"]))
    assert "3 methods" in said and "esd" in said


@pytest.mark.parametrize("column", ["fd_name", "clip_name"])
def test_scores_of_two_networks_do_not_meet(out, column):
    change(out / "unicorn" / "table.csv", lambda rows: rows.assign(**{column: "another"}))
    with pytest.raises(CellError, match=rf"{column} differs between cells \(another, ") as stop:
        page(out)
    assert not (out / "table.csv").exists() and "\n" not in str(stop.value)


@pytest.mark.parametrize("content", [b"", b"\xff\xfe\xfd", b'a,b\n"1,2\n'])
def test_a_damaged_list_is_one_line(out, content):
    (out / "unicorn" / "costs.csv").write_bytes(content)
    with pytest.raises(CellError, match=r"unicorn/costs\.csv: cannot be read \(.+\); take the folder away") as stop:
        page(out)
    assert "\n" not in str(stop.value)


@pytest.mark.parametrize("content", ["<<<<<<< HEAD\nstages:\n=======\n", "", "a: [", "stages"])
def test_a_lock_file_that_is_none_is_one_line(tmp_path, content):
    (tmp_path / "dvc.lock").write_text(content)
    with pytest.raises(SystemExit, match=r"dvc\.lock: is no lock file of DVC") as stop:
        work_copy.read_lock(tmp_path / "dvc.lock")
    assert "\n" not in str(stop.value)
