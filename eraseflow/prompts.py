"""The prompts of a concept: those on which it is measured and attacked, and those that must be kept."""

from pathlib import Path

import pandas as pd

from eraseflow.params import Concept, Testbed

FIRST_SEED = 1_000  # of the items, below it are the seeds of trainings
RUN_STRIDE = 1_000_003  # between the item seeds of tables with different seeds
KEPT_DRAW_SEED = 0  # which kept prompts are drawn; not the table's seed, so that runs are compared on the same prompts


def _read(path: str) -> pd.DataFrame:
    """The file as text: a prompt such as "null" is a prompt."""
    return pd.read_csv(Path(path), dtype=str, keep_default_na=False)


def _complete(rows: pd.DataFrame, role: str, testbed: Testbed, seed: int) -> pd.DataFrame:
    """Fill in what the file leaves out: ids by row, seeds from FIRST_SEED up, the testbed's guidance."""
    rows = rows.reset_index(drop=True).reindex(columns=["prompt", "expect", "seed", "guidance"], fill_value="")
    own_seed, own_guidance = pd.to_numeric(rows.seed), pd.to_numeric(rows.guidance)  # NaN where empty
    return pd.DataFrame(
        {
            "prompt_id": [f"{role}-{row:04d}" for row in rows.index],
            "role": role,
            "prompt": rows.prompt.str.strip(),
            "expect": rows.expect,
            "seed": own_seed.fillna(rows.index.to_series() + FIRST_SEED).astype("int64") + RUN_STRIDE * seed,
            "guidance": own_guidance.fillna(testbed.sampling.guidance_scale).astype("float64"),
        }
    )


def target(concept: Concept, testbed: Testbed, seed: int) -> pd.DataFrame:
    """The concept's own prompts: prompt_id, role, prompt, expect, seed, guidance."""
    return _complete(_read(concept.prompts), "target", testbed, seed)


def every_kept(testbed: Testbed) -> pd.DataFrame:
    """The testbed's kept prompts, from which every concept takes its own: prompt and expect, in the file's order."""
    return _read(testbed.kept)


def kept(concept: Concept, testbed: Testbed, seed: int) -> pd.DataFrame:
    """The prompts that must be kept: all neighbours, and others drawn by a fixed seed, `count` in all.

    Columns as of `target`. Raises: SystemExit where the concept leaves nothing to keep.
    """
    rows = every_kept(testbed)
    expected = rows.expect.str.split(";")
    rows = rows[[not set(labels) & set(concept.kept.without) for labels in expected]]
    near = rows.expect.str.split(";").map(lambda labels: bool(set(labels) & set(concept.kept.neighbours)))
    others = rows[~near]
    room = min(max(concept.kept.count - int(near.sum()), 0), len(others))
    rows = pd.concat([rows[near].head(concept.kept.count), others.sample(room, random_state=KEPT_DRAW_SEED)])
    if rows.empty:
        raise SystemExit(f"{testbed.kept}: nothing is left to keep for the target {concept.target!r}")
    return _complete(rows.sort_index(), "kept", testbed, seed)
