"""The gallery of adversarial prompts: what was drawn before the erasure, after it, and under attack."""

from itertools import chain
from pathlib import Path
from typing import Any

import pandas as pd

from eraseflow.params import Params
from eraseflow.report.cells import Cell, decoded
from eraseflow.report.data_uri import data_uri
from eraseflow.report.grids import evenly, thumbnail

EACH, ALL = 3, 48  # rows of each method and attack, and of a concept in all, of which each has one at least


def most(params: Params) -> int:
    """How many adversarial prompts of each method and attack are shown, so that many of these do not fill the page."""
    return max(1, min(EACH, ALL // (len(params.table.methods) * len(params.table.attacks))))


def found(params: Params, cells: Path, concept: str, hidden: dict[str, str]) -> list[dict[str, Any]]:
    """Some adversarial prompts that brought the concept back where the prompt alone did not; `hidden` ones by name.

    With what the method draws for the prompt and for the adversarial one and, where the table has the unedited model,
    what that draws: `pictures`, titles to data URIs.
    """
    shown, blur = [], params.report.blur
    own = {method: Cell.of(cells, concept, method) for method in params.table.methods}
    found = {
        (method, attack): _some(params, cell, attack)
        for method, cell in own.items()
        for attack in params.attacks_on(method)
    }
    plain = {}
    for method, cell in own.items():
        compared = [rows.index for (by, _), rows in found.items() if method in (by, "original")]
        rows = cell.pictures("target").loc[list(dict.fromkeys(chain(*compared)))]
        plain[method] = rows.assign(png=cell.pngs(rows))
    for (method, attack), rows in found.items():
        for prompt_id, (_, row) in zip(map(str, rows.index), rows.iterrows(), strict=True):
            one = {"method": method, "attack": attack, **{str(name): value for name, value in row.items()}}
            if prompt_id in hidden:
                one |= {"prompt": hidden[prompt_id], "adversarial_prompt": "in the cell's parquet file"}
            drawn: dict[str, Any] = {"erased": plain[method].loc[prompt_id], "attacked": row}
            if "original" in plain:
                drawn = {"original": plain["original"].loc[prompt_id]} | drawn
            one["pictures"] = {
                title: data_uri(thumbnail(each["png"], each["flagged"] and blur), "image/png")
                for title, each in drawn.items()
            }
            shown.append(one)
    return shown


def _some(params: Params, cell: Cell, attack: str) -> pd.DataFrame:
    """Some of the prompts that the attack found, evenly spread, with their pictures."""
    rows = cell.attack(attack, ("png", "flagged", "named", "adversarial_seed"))
    rows = rows[rows["success"] & ~rows["pre_success"]]
    some = rows.iloc[evenly(len(rows), most(params))].copy()
    decoded(cell.folder / f"attack-{attack}.parquet", some["png"])
    return some
