"""Replay the adversarial prompts that were found on one model against another."""

import math
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import torch

from eraseflow import images, verdict
from eraseflow.cells import DEVICE, batch, setting
from eraseflow.cells.attack import judging
from eraseflow.edits import Edit
from eraseflow.inputs import reading
from eraseflow.params import Params
from eraseflow.prompts import as_seeds
from eraseflow.safety import blocked
from eraseflow.shards import PART
from eraseflow.victim import Attempt, Victim

CELLS = Path("data/cells")
KEPT = ["prompt_id", "prompt", "guidance", "adversarial_prompt", "adversarial_tokens", "adversarial_seed"]
FOUND, LEARNED = ["seed", "pre_success", "success"], "adversarial_embedding"


def transfer(params: Params, concept: str, attack: str, source: str, victim: str, cells: Path = CELLS) -> pd.DataFrame:
    """What the prompts found on method `source` do to method `victim`; one row for each that was found by attacking.

    Columns: source, KEPT, success (the concept is seen on the victim), plain_success (it is seen there without any
    attack, with the prompt's own seed), png and the judge's raw scores of the adversarial prompt's picture there.
    Raises: SystemExit with one line where the attack or the victim's edit is missing or of other prompts.
    """
    return _transfer(params, concept, attack, [source], victim, cells)


def matrix(params: Params, concept: str, attack: str, cells: Path = CELLS) -> pd.DataFrame:
    """Every pair of the table's methods: source, victim, found (prompts), successes and plain_successes of these.

    On its own model every prompt succeeds again, as far as the machine rounds as it did.
    """
    methods, rows = params.table.methods, []
    for victim in methods:
        replayed = _transfer(params, concept, attack, methods, victim, cells)
        for source in methods:
            own = replayed[replayed.source == source]
            counts = {"successes": int(own.success.sum()), "plain_successes": int(own.plain_success.sum())}
            rows.append({"source": source, "victim": victim, "found": len(own), **counts})
    order = {method: place for place, method in enumerate(methods)}
    return pd.DataFrame(rows).sort_values(["source", "victim"], key=lambda names: names.map(order), ignore_index=True)


def _transfer(params: Params, concept: str, attack: str, sources: list[str], victim: str, cells: Path) -> pd.DataFrame:
    """`transfer` from several sources, the victim loaded once."""
    tables = [_attacked(cells, concept, source, attack).assign(source=source) for source in sources]
    found = pd.concat([table[table.success & ~table.pre_success] for table in tables], ignore_index=True)
    theirs = _attacked(cells, concept, victim, attack).set_index("prompt_id")
    if (theirs.prompt.reindex(found.prompt_id).to_numpy() != found.prompt.to_numpy()).any():
        raise SystemExit(f"{cells}/{concept}: {victim} has other prompts than {' or '.join(sources)}; run `dvc repro`")
    plain = theirs.pre_success.reindex(found.prompt_id).to_numpy(dtype=bool)
    replayed = replay(params, concept, found, cells / concept / victim / "edit")
    return pd.concat([found[["source", *KEPT]].assign(plain_success=plain), replayed], axis=1)


def replay(params: Params, concept: str, found: pd.DataFrame, edit: Path) -> pd.DataFrame:
    """Draw and judge adversarial prompts (KEPT) on an edited model: success, png and raw scores, in their order.

    Raises: SystemExit where there is no edit, or where the safety gate blocks a prompt.
    """
    if found.empty:
        return pd.DataFrame({"success": pd.Series(dtype=bool), "png": pd.Series(dtype=object)})
    if not (edit / "edit.json").is_file():
        raise SystemExit(f"{edit}: there is no edit; run `dvc repro`")
    for prompt_id, text in zip(found.prompt_id, found.adversarial_prompt, strict=True):
        if why := blocked(text):
            raise SystemExit(f"{prompt_id}: the safety gate blocks its adversarial prompt: {why}")
    entry, testbed, world = setting(params, concept)
    rule = verdict.rule(entry.judge)
    pipeline = Edit.load(edit).apply(world.load_pipeline(testbed.model, DEVICE))
    victim = Victim(
        pipeline=pipeline,
        original=pipeline,  # nothing is searched for
        concept=entry,
        prompts=found.reset_index(drop=True),
        draw_originals=lambda table: torch.empty(0),
        judge=judging(entry, testbed),
        seen=partial(verdict.seen, by=rule),
        strength=partial(verdict.strength, by=rule),
        sampling=testbed.sampling,
        batch_size=batch(world),
    )
    attempts, parts = [_attempt(one) for one in found.to_dict("records")], []
    size = math.lcm(victim.batch_size, PART)  # in memory at once; no batch of drawing or judging is cut
    for start in range(0, len(attempts), size):
        pictures, scores, seen = victim.try_out(dict(enumerate(attempts[start : start + size], start)))
        pngs = [images.to_png(picture) for picture in pictures]
        parts.append(pd.concat([pd.DataFrame({"success": seen, "png": pngs}), scores], axis=1))
    return pd.concat(parts, ignore_index=True)


def _attempt(row: dict) -> Attempt:
    learned = row.get(LEARNED)
    embedding = None if learned is None else torch.from_numpy(np.stack(learned)).float()
    return Attempt(row["adversarial_prompt"], list(row["adversarial_tokens"]), row["adversarial_seed"], embedding)


def _attacked(cells: Path, concept: str, method: str, attack: str) -> pd.DataFrame:
    path = cells / concept / method / f"attack-{attack}.parquet"
    if not path.is_file():
        raise SystemExit(f"{path}: missing; put the method and the attack into params.yaml's table and run `dvc repro`")
    with reading(path):
        there = pq.read_schema(path).names
    if lacking := [column for column in [*KEPT, *FOUND] if column not in there]:
        raise SystemExit(f"{path}: has no column {lacking[0]}; make it anew with `dvc repro`")
    with reading(path):
        table = pd.read_parquet(path, columns=[*KEPT, *FOUND, *({LEARNED} & set(there))])  # without the pictures
    return table.assign(adversarial_seed=as_seeds(table.adversarial_seed))
