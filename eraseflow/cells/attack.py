"""Attack one erasure."""

import json
import time
from pathlib import Path

import pandas as pd
import torch
from torch import Tensor

from eraseflow import prompts, sampling, verdict, victim
from eraseflow.cells import DEVICE, PRECISION, batch, flags, module, setting
from eraseflow.edits import Edit
from eraseflow.params import Params, SamplingSettings
from eraseflow.shards import fingerprint, forget, in_shards, write_parquet

JUDGES = Path("models/judges")
COLUMNS = ["prompt_id", "prompt", "seed", "guidance", "attackable"]


def attack(params: Params, concept: str, prompts_csv: Path, edit: Path, attack: str, out: Path) -> None:
    """Attack the weights just trained: `out` (a parquet, a row a target prompt) and the same name .json (costs).

    All prompts that may be used are attacked; `attackable` says which of them UnlearnDiffAtk, as published, attacks.
    """
    entry, testbed, world = setting(params, concept)
    settings = params.settings("attacks", attack, entry.testbed, entry.kind)
    seed, size = params.table.seed, batch(world)
    rule = verdict.rule(entry.judge)
    material = [Path(path) for path in (entry.judge.questions, entry.judge.references) if path]
    table = prompts.read(prompts_csv, "target")[COLUMNS]
    name = f"attack-{attack}-" + fingerprint(
        edit, testbed.model, Path(testbed.model), JUDGES, table, testbed.sampling, PRECISION, size,
        entry.judge, rule, *material, testbed.safety_judge, settings, seed,
    )  # fmt: skip
    started = time.perf_counter()
    pipeline = world.load_pipeline(testbed.model, DEVICE)
    originals = encode(pipeline, table, testbed.sampling, size)
    pipeline = Edit.load(edit).apply(pipeline)
    judge, flag = module("judges", entry.judge.name).load(DEVICE, entry), flags.load(testbed, entry)

    def search(part: slice) -> pd.DataFrame:
        rows = table.iloc[part].reset_index(drop=True)
        target = victim.Victim(
            pipeline=pipeline,
            prompts=rows,
            originals=originals[part],
            judge=lambda pictures: pd.concat([judge(pictures), flag(pictures)], axis=1),
            seen=lambda scores: verdict.seen(scores, rule),
            sampling=testbed.sampling,
            batch_size=size,
        )
        return victim.run(target, module("attacks", attack).attack, settings, seed)

    results = in_shards(name, len(table), size, search)
    seconds = time.perf_counter() - started
    attacked = int((~results.pre_success).sum())
    per_prompt = seconds / attacked if attacked else None
    costs = {
        "seconds": round(seconds, 2),
        "seconds_per_prompt": per_prompt and round(per_prompt, 3),
        "attacked": attacked,
        "blocked": int(results.blocked.sum()),
    }
    write_parquet(results, out)
    out.with_suffix(".json").write_text(json.dumps(costs, indent=1) + "\n")
    forget(name)


@torch.no_grad()
def encode(pipeline, table: pd.DataFrame, settings: SamplingSettings, size: int) -> Tensor:
    """The scaled latents of what the pipeline draws for the prompts: the autoencoder's mean of the picture."""
    batches = sampling.sample(
        pipeline, list(table.prompt), list(table.seed), list(table.guidance), settings, size, quiet=True
    )
    vae = pipeline.vae
    latents = [vae.encode(batch.to(vae.device, vae.dtype) / 127.5 - 1).latent_dist.mean.float() for batch in batches]
    return torch.cat(latents) * vae.config.scaling_factor
