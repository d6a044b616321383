"""The prompts of a concept: those on which it is measured and attacked, and those that must be kept."""

import csv
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pandas as pd

from eraseflow import csv_files, prompt_files, prompt_sources
from eraseflow.outputs import write_csv
from eraseflow.params import Concept, Testbed
from eraseflow.prompt_files import RUN_STRIDE
from eraseflow.safety import blocked

FIRST_SEED = 1_000  # of the items, below it are the seeds of trainings
KEPT_DRAW_SEED = 0  # which kept prompts are drawn; not the table's seed, so that runs are compared on the same prompts
ATTACKED_TOKENS = 60  # UnlearnDiffAtk's limit, start and end included
COLUMNS = ["prompt_id", "role", "prompt", "expect", "seed", "guidance", "tokens", "attackable", "source"]
OPTIONAL = ["expect", "seed", "guidance", "images", "tokens"]  # columns that a prompt file may have


def resolve(
    concept: Concept,
    testbed: Testbed,
    seed: int,
    tokenizer,
    most: int | None = None,
    most_kept: int | None = None,
) -> tuple[pd.DataFrame, dict]:
    """All prompts of a concept that may be used, targets first (COLUMNS), and how many there are of which sort.

    most, most_kept: how many targets and how many of the concept's kept prompts at most, see `spread` and
    `spread_near`; what is left out changes neither id nor seed of the others.

    tokens include start and end; they are the file's own number where it has one. Counts of the targets: official (one
    a picture that the file asks for), excluded_by_safety_gate and their ids, used; of the used over_length (the text
    encoder cuts them), over_60_tokens (UnlearnDiffAtk, as published, does not attack them) and attackable (neither).
    `kept` has the same of the kept prompts, where official counts the pool.
    Raises: SystemExit with one line where texts cannot be had or nothing is left.
    """
    official = _complete(prompt_sources.texts(concept.prompts, testbed, seed), "target", testbed, seed)
    pool = prompt_sources.texts(testbed.kept, testbed, seed)
    target = official[official.blocked == ""]
    if target.empty:
        raise SystemExit(f"{concept.prompts}: the safety gate leaves none of the {len(official)} prompts")
    target = target.iloc[spread(len(target), most)]
    kept = _complete(_chosen(pool[pool.blocked == ""], concept, testbed), "kept", testbed, seed)
    kept = kept.iloc[spread_near(_near(kept, concept), most_kept)]
    table = pd.concat([target, kept], ignore_index=True)
    if table.tokens.isna().any():
        ids = tokenizer(list(table.prompt), truncation=False, verbose=False).input_ids
        table["tokens"] = table.tokens.fillna(pd.Series([float(len(tokens)) for tokens in ids]))
    table["tokens"] = table.tokens.astype("int64")
    length = tokenizer.model_max_length
    table["attackable"] = (table.tokens <= min(ATTACKED_TOKENS, length)) & (table.role == "target")
    counts = _counts(official, table[table.role == "target"], length)
    counts["excluded"] = list(official.prompt_id[official.blocked != ""])
    counts["attackable"] = int(table.attackable.sum())
    counts["kept"] = _counts(pool, table[table.role == "kept"], length)
    return table[COLUMNS], counts


def spread(count: int, most: int | None) -> list[int]:
    """Which of `count` rows are used where there may be `most`: evenly spaced, the first of each of `most` equal parts.

    So whatever a file is sorted by is there in its proportion, and nobody chooses.
    """
    wanted = count if most is None else min(most, count)
    return [place * count // wanted for place in range(wanted)]


def spread_near(near: pd.Series, most: int | None) -> list[int]:
    """The same, but as many of the near rows (booleans) as there are, up to half of `most`.

    What is far from the erased concept stays easily, and of a few neighbours evenly spaced ones would be next to none.
    """
    wanted = len(near) if most is None else min(most, len(near))
    close, far = np.flatnonzero(near), np.flatnonzero(~near)
    few = min(len(close), max(wanted // 2, wanted - len(far)))
    return sorted([*close[spread(len(close), few)].tolist(), *far[spread(len(far), wanted - few)].tolist()])


def read(path: Path, role: str | None = None) -> pd.DataFrame:
    """The prompts (of a role) that `resolve` gave, from the concept's prompts.csv.

    seed is uint64, the only type that holds every seed.
    Raises: SystemExit where the file is missing, or has come to hold a prompt that the safety gate blocks.
    """
    sheet = csv_files.read(path, str(path), {column: set() for column in COLUMNS}, needed=COLUMNS, padded=False)
    rows = pd.DataFrame([row for _, row in sheet.rows], columns=COLUMNS)
    rows = rows[rows.role == role].reset_index(drop=True) if role else rows
    for prompt_id, prompt in zip(rows.prompt_id, rows.prompt, strict=True):
        if why := blocked(prompt):
            raise SystemExit(f"{path}: {prompt_id}: the safety gate blocks this prompt: {why}; make the file anew")
    rows["attackable"] = rows.attackable == "True"
    return rows.assign(seed=as_seeds(map(int, rows.seed)), guidance=rows.guidance.map(float)).astype(
        {"tokens": "int64"}
    )


def as_seeds(seeds: Iterable[int]) -> np.ndarray:
    """Seeds from 0 to 2^64 - 1 as a column holds them; pandas by itself would make some of them rounded floats."""
    return np.array([int(seed) for seed in seeds], dtype="uint64")


def write(table: pd.DataFrame, path: Path) -> None:
    """The file that `read` reads. A lone carriage return would end a row if it were not in quotes."""
    returns = table.prompt.str.contains("\r").any()
    write_csv(table, path, quoting=csv.QUOTE_ALL if returns else csv.QUOTE_MINIMAL)


def drawn_twice(table: pd.DataFrame, tokenizer) -> str:
    """One line on rows that ask for the same picture, which then counts more than once; "" where there are none.

    Prompts count by the tokens that the model reads, so that spaces or capitals make no difference where it sees none;
    seeds by their lower 32 bits, see sampling.initial_noise.
    """
    tokens = [str(ids) for ids in tokenizer(list(table.prompt), truncation=True).input_ids]
    asked = {"role": table.role, "tokens": tokens, "guidance": table.guidance, "seed": table.seed % 2**32}
    again = pd.DataFrame(asked).duplicated()
    if not again.any():
        return ""
    what = "ask for a picture that an earlier one has (tokens, guidance and the lower 32 bits of the seed are equal)"
    return f"{again.sum()} prompts {what}: {', '.join(table.prompt_id[again][:3])}{', ...' * int(again.sum() > 3)}"


def every_kept(testbed: Testbed) -> pd.DataFrame:
    """The prompts, gated, of which every concept takes those that it must keep: prompt, expect, source and blocked."""
    pool = prompt_sources.texts(testbed.kept, testbed)
    return pool[pool.blocked == ""]


def _complete(rows: pd.DataFrame, role: str, testbed: Testbed, seed: int) -> pd.DataFrame:
    """Fill in what the file leaves out: ids by row, seeds from FIRST_SEED up, the testbed's guidance.

    A row with `images` stands for so many pictures, whose seeds follow on the row's own.
    """
    rows = rows.reset_index(drop=True)
    rows = rows.reindex(columns=[*dict.fromkeys([*rows.columns, *OPTIONAL])], fill_value="")
    rows = rows.loc[rows.index.repeat([int(images or 1) for images in rows.images])]
    picture = rows.groupby(level=0).cumcount().tolist()
    seeds = [int(own) + at if own else None for own, at in zip(rows.seed, picture, strict=True)]
    rows = rows.reset_index(drop=True)
    own_guidance = [prompt_files.guidance(own) if own else None for own in rows.guidance]
    default = testbed.sampling.guidance_scale
    return pd.DataFrame(
        {
            "prompt_id": [f"{role}-{row:04d}" for row in rows.index],
            "role": role,
            "prompt": rows.prompt.str.strip(),
            "expect": rows.expect,
            "seed": as_seeds(
                (row + FIRST_SEED if own is None else own) + RUN_STRIDE * seed for row, own in enumerate(seeds)
            ),
            "guidance": [default if own is None else own for own in own_guidance],
            "tokens": pd.to_numeric(rows.tokens),
            "source": rows.source,
            "blocked": rows.blocked,
        }
    )


def _chosen(rows: pd.DataFrame, concept: Concept, testbed: Testbed) -> pd.DataFrame:
    """The kept prompts of a concept: all neighbours, and others drawn by a fixed seed, `count` in all."""
    expected = rows.expect.str.split(";")
    rows = rows[[not set(labels) & set(concept.kept.without) for labels in expected]]
    near = _near(rows, concept)
    others = rows[~near]
    room = min(max(concept.kept.count - int(near.sum()), 0), len(others))
    rows = pd.concat([rows[near].head(concept.kept.count), others.sample(room, random_state=KEPT_DRAW_SEED)])
    if rows.empty:
        raise SystemExit(f"{testbed.kept}: nothing is left to keep for the target {concept.target!r}")
    return rows.sort_index()


def _near(rows: pd.DataFrame, concept: Concept) -> pd.Series:
    """Which rows expect a neighbour of the concept (n,)."""
    neighbours = set(concept.kept.neighbours)
    return rows.expect.map(lambda labels: not neighbours.isdisjoint(labels.split(";"))).astype(bool)


def _counts(official: pd.DataFrame, used: pd.DataFrame, length: int) -> dict:
    return {
        "official": len(official),
        "excluded_by_safety_gate": int((official.blocked != "").sum()),
        "used": len(used),
        "over_length": int((used.tokens > length).sum()),
        "over_60_tokens": int((used.tokens > ATTACKED_TOKENS).sum()),
    }
