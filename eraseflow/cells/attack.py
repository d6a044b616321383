"""Attack one erasure."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import ModuleType

import pandas as pd
import torch
from torch import Tensor

from eraseflow import allocator, finite, images, prompts, rounds, sampling, timings, verdict
from eraseflow.cells import DEVICE, PRECISION, ROUNDING, batch, flags, module, setting
from eraseflow.edits import Edit, share
from eraseflow.outputs import write_text
from eraseflow.outside import notes
from eraseflow.outside.content import digests
from eraseflow.params import Concept, Params, SamplingSettings, Testbed
from eraseflow.passes import PASSES
from eraseflow.shards import WORK, fingerprint, forget, write_parquet
from eraseflow.victim import Victim

JUDGES = Path("models/judges")
COLUMNS = ["prompt_id", "prompt", "seed", "guidance", "attackable"]


def attack(params: Params, concept: str, prompts_csv: Path, edit: Path, attack: str, out: Path) -> None:
    """Attack the weights just trained: `out` (a parquet, a row a target prompt) and the same name .json.

    That has the counted costs and, where the concept's judges sum up pictures, what they say of the attacked ones.
    Its seconds go into a record beside them (see timings.py).
    All prompts that may be used are attacked; `attackable` says which of them UnlearnDiffAtk, as published, attacks. An
    attack through the sampler does not apply to an edit that has none, where it is the blind one: then its table has no
    rows.
    """
    entry, testbed, world = setting(params, concept)
    settings = params.settings("attacks", attack, entry.testbed, entry.kind)
    seed, size = params.table.seed, batch(world)
    rule = verdict.rule(entry.judge)
    read = digests(notes.model_files(entry.testbed, testbed)), notes.of_judges(params, concept).now()
    table = prompts.read(prompts_csv, "target")[COLUMNS]
    name = f"attack-{attack}-" + fingerprint(
        edit, testbed.model, JUDGES, table, testbed.sampling, ROUNDING, size,
        entry.judge, rule, *read, testbed.safety_judge, settings, seed,
    )  # fmt: skip
    loaded = Edit.load(edit)
    if params.through_sampler(attack) and not any(leaf.kind == "sampler" for leaf in loaded.leaves()):
        write_parquet(pd.DataFrame({"prompt_id": pd.Series(dtype=str)}), out)
        write_text(finite.as_json(f"{out.with_suffix('.json')}", {"applies": False}), out.with_suffix(".json"))
        return
    search = partial(
        rounds.run,
        attack=module("attacks", params.attack_module(attack)).attack,
        settings=settings,
        seed=seed,
        work=WORK / name,
    )
    results = _searched(search, loaded, entry, testbed, world, table)
    allocator.give_back()
    seconds = float(results.pop("seconds").max())
    said = summaries(entry, results)
    numbers = costs(results) | {"judge": rule.name} | ({"summary": said} if said else {})
    text = finite.as_json(f"{out.with_suffix('.json')}", numbers, indent=1)
    write_parquet(results, out)
    write_text(text, out.with_suffix(".json"))
    timings.keep([out.with_suffix(".json")], out.stem, {"seconds": round(seconds, 2)}, DEVICE, PRECISION)
    forget(name)


def _searched(
    search: Callable[[Victim], pd.DataFrame],
    edit: Edit,
    entry: Concept,
    testbed: Testbed,
    world: ModuleType,
    table: pd.DataFrame,
) -> pd.DataFrame:
    """What `search` finds; when this returns its networks are gone, for a judge that sums up can be as large."""
    original = world.load_pipeline(testbed.model, DEVICE)
    edited = edit.apply(world.load_pipeline(testbed.model, DEVICE))
    share(edited, original)
    return search(victim_of(entry, testbed, batch(world), original, edited, table))


def victim_of(entry: Concept, testbed: Testbed, size: int, original, edited, table: pd.DataFrame) -> Victim:
    """An edited pipeline and the prompts of a table, which the concept's judge judges."""
    rule = verdict.rule(entry.judge)
    return Victim(
        pipeline=edited,
        original=original,
        concept=entry,
        prompts=table,
        draw_originals=partial(encode, original, settings=testbed.sampling, size=size),
        judge=judging(entry, testbed),
        seen=partial(verdict.seen, by=rule),
        strength=partial(verdict.strength, by=rule),
        sampling=testbed.sampling,
        batch_size=size,
    )


def judging(concept: Concept, testbed: Testbed) -> Callable[[Tensor], pd.DataFrame]:
    """Pictures (n, 3, H, W) uint8 to the raw scores of the concept's judge and what the safety judge says of them."""
    judge, flag = module("judges", concept.judge.name).load(DEVICE, concept), flags.load(testbed, concept)
    return lambda pictures: pd.concat([judge(pictures), flag(pictures)], axis=1)


def costs(results: pd.DataFrame) -> dict:
    """What an attack took in all, but for its seconds.

    images and PASSES of the attacked prompts, their un-attacked picture included; attacked, how many they are; blocked
    adversarial texts; empty: prompts whose last picture is empty.
    """
    attacked = results[~results.pre_success]
    return {
        "attacked": len(attacked),
        "images": int(attacked.images.sum()),
        **{name: round(attacked[name].sum()) for name in PASSES},
        "blocked": int(results.blocked.sum()),
        "empty": int(results["empty"].sum()),
    }


def summaries(concept: Concept, results: pd.DataFrame) -> dict[str, float]:
    """What the concept's judges sum up of every prompt's last picture, such as a score of styles under attack."""
    said: dict[str, float] = {}
    for name in (concept.judge.name, *concept.scored_by):
        judging = module("judges", name)
        if hasattr(judging, "summary"):
            known = name == concept.judge.name  # its scores stand beside the pictures
            raw = results if known else images.look(images.in_parts(results.png), judging.load(DEVICE, concept))[0]
            said |= {title: round(value, 4) for title, value in judging.summary(raw, concept).items()}
    return said


@torch.no_grad()
def encode(pipeline, table: pd.DataFrame, settings: SamplingSettings, size: int) -> Tensor:
    """The scaled latents of what the pipeline draws for the prompts: the autoencoder's mean of the picture."""
    names = [f"{name}, drawn by the unedited model" for name in table.prompt_id]
    batches = sampling.sample(
        pipeline, list(table.prompt), list(table.seed), list(table.guidance), settings, size, True, names
    )
    vae = pipeline.vae
    latents = [vae.encode(batch.to(vae.device, vae.dtype) / 127.5 - 1).latent_dist.mean.float() for batch in batches]
    watch = finite.Watch()
    watch.see(torch.cat(latents))
    if wrong := watch.first():
        raise finite.NotFinite(f"{names[wrong[1]]}: its picture's latents are not finite in {vae.dtype}")
    return torch.cat(latents) * vae.config.scaling_factor
