"""The gallery of adversarial prompts: what was drawn before the erasure, after it, and under attack."""

from pathlib import Path
from typing import Any

from eraseflow.params import Params
from eraseflow.report.cells import Cell
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
    plain = {method: Cell.of(cells, concept, method).pictures("target") for method in params.table.methods}
    for method in params.table.methods:
        for attack in params.table.attacks:
            rows = Cell.of(cells, concept, method).attack(attack, ("png", "flagged", "adversarial_seed"))
            rows = rows[rows["success"] & ~rows["pre_success"]]
            some = rows.iloc[evenly(len(rows), most(params))]
            for prompt_id, (_, row) in zip(map(str, some.index), some.iterrows(), strict=True):
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
