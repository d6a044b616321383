"""Draw one cell's set of pictures, shared by every judge and score."""

from functools import cache
from pathlib import Path

import pandas as pd

from eraseflow import images, prompts, sampling
from eraseflow.cells import DEVICE, ROUNDING, batch, setting
from eraseflow.edits import Edit
from eraseflow.outside.content import digests
from eraseflow.outside.notes import model_files
from eraseflow.params import Params
from eraseflow.shards import fingerprint, forget, in_shards, write_parquet

COLUMNS = ["prompt_id", "role", "prompt", "expect", "seed", "guidance"]


def sample(params: Params, concept: str, prompts_csv: Path, edit: Path, out: Path) -> None:
    """Draw target and kept prompts into a parquet (COLUMNS and png); a killed run goes on where it stopped."""
    _, testbed, world = setting(params, concept)
    table, size = prompts.read(prompts_csv)[COLUMNS], batch(world)
    model = digests(model_files(params.concepts[concept].testbed, testbed))
    name = "sample-" + fingerprint(edit, testbed.model, model, table, testbed.sampling, ROUNDING, size)

    @cache
    def pipeline():  # loaded only if there is something left to draw
        return Edit.load(edit).apply(world.load_pipeline(testbed.model, DEVICE))

    def draw(part: slice) -> pd.DataFrame:
        rows = table.iloc[part]
        batches = sampling.sample(
            pipeline(), list(rows.prompt), list(rows.seed), list(rows.guidance), testbed.sampling, size,
            names=list(rows.prompt_id),
        )  # fmt: skip
        return rows.assign(png=[images.to_png(picture) for batch in batches for picture in batch])

    write_parquet(in_shards(name, len(table), size, draw), out)
    forget(name)
