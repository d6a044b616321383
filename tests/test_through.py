"""Attacks through samplers as rows of the table: where they are, and that the blind ones are marked."""

import json
import re
from pathlib import Path

import pandas as pd
import pytest
import small_chain
import yaml

from eraseflow.params import Params

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Path:
    """A report of a method that works while a picture is drawn and of one that does not."""
    folder = tmp_path_factory.mktemp("through")
    raw = small_chain.write(folder)
    attacks = ["random_prefix", "unlearndiffatk", "unlearndiffatk_through"]
    raw["table"] |= {"methods": ["uce", "sld"], "attacks": attacks}
    (folder / "params.yaml").write_text(yaml.safe_dump(raw, sort_keys=False))
    with pytest.MonkeyPatch.context() as patch, small_chain.quick():
        patch.chdir(folder)
        small_chain.run(Params.model_validate(raw))
    return folder


def test_an_attack_through_a_sampler_is_on_rows_that_have_one(made):
    frame = pd.read_csv(made / "reports/table.csv")
    assert frame[["method", "attack", "blind"]].to_numpy().tolist() == [
        ["uce", "random_prefix", False], ["uce", "unlearndiffatk", False],
        ["sld", "random_prefix", False], ["sld", "unlearndiffatk", True], ["sld", "unlearndiffatk_through", False],
    ]  # fmt: skip
    cell = made / "data/cells/unicorn/uce"
    assert json.loads((cell / "attack-unlearndiffatk_through.json").read_text()) == {"applies": False}
    assert pd.read_parquet(cell / "attack-unlearndiffatk_through.parquet").empty


def test_the_blind_one_is_marked(made):
    text, page = ((made / "reports" / name).read_text() for name in ("table.md", "index.html"))
    rows = [tuple(cell.split(" (collapsed)")[0] for cell in line.split(" | ")[:2]) for line in text.splitlines()]
    assert ("| sld", "unlearndiffatk (blind)") in rows and ("| sld", "unlearndiffatk_through") in rows
    assert ("| uce", "unlearndiffatk") in rows and ("| uce", "unlearndiffatk (blind)") not in rows
    spans = re.findall(r'<th scope="row" rowspan="(\d)">(uce|sld)', page)
    assert spans == [("2", "uce"), ("3", "sld")]


def test_gradients_through_the_sampler_cost_its_passes(made):
    """Three samples a step of the search where the blind one has one; the pictures cost both the same."""
    cell = made / "data/cells/unicorn/sld"
    blind, through = (
        pd.read_parquet(cell / f"attack-{name}.parquet") for name in ("unlearndiffatk", "unlearndiffatk_through")
    )
    drawn = blind.images * 3 * 2  # of two solver steps
    assert (blind.unet_forward - drawn).tolist() == blind.unet_backward.tolist() == [1.0]
    assert (through.unet_forward - drawn).tolist() == through.unet_backward.tolist() == [3.0]


def test_budgets_begin_at_what_the_methods_own_picture_takes(made):
    curves = pd.read_csv(made / "reports/budget/curves.csv")
    assert curves.groupby("method").passes.min().to_dict() == {"uce": 4, "sld": 6}
