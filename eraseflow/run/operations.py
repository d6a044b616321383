"""What a stage takes that nobody has measured yet: its passes through the U-Net, and their operations.

Only passes count, a picture each. Loading, judging and hashing come to it, which takes a minute or two a stage.
"""

import json
from functools import cache
from math import prod
from pathlib import Path
from typing import Any

import pandas as pd

from eraseflow import prompt_files
from eraseflow.definitions import definition
from eraseflow.params import Params, of_kind

COSTS = Path("reports/costs.csv")  # passes of the default table's trainings
SPEED = 125e12  # operations a second: 40 % of an A100's bf16 peak
# Settings to which the passes of a training are proportional; num_steps: of the trajectories that it draws.
PROPORTIONAL = ("epochs", "iterations", "rounds", "batch_size", "num_steps")
PNG = 0.58  # of the bytes of a picture's pixels, of pictures that Stable Diffusion has drawn
# Of the published unet/config.json of Stable Diffusion 1.4 what diffusers has otherwise by default.
PUBLISHED = {"sample_size": 64, "cross_attention_dim": 768}


def seconds(stage: str, params: Params) -> float | None:
    """At SPEED; None where its passes are not known, or the testbed is one for processors."""
    if definition("testbeds", params.table.testbed, "THREADS", None) == 1:
        return None
    count = passes(stage, params)
    return None if count is None else count * of_a_pass(params.testbeds[params.table.testbed].model) / SPEED


def passes(stage: str, params: Params) -> float | None:
    """Pictures through the U-Net, at most; a pass back counts as one. None where it is not known.

    An attack ends at a prompt's first success, so that it takes less than all its rounds.
    """
    kind, _, names = stage.partition("@")
    parts = names.split("-")
    sampling = params.testbeds[params.table.testbed].sampling
    picture = sampling.steps * (2 if sampling.guidance_scale > 1 else 1)
    if kind == "sample":
        return picture * pictures(params, parts[0])
    if kind == "attack":
        found = settings(params, "attacks", parts[0], parts[1], params.table.testbed)
        search = 2 * found.get("iterations", 0)
        return prompts(params, parts[1]) * found["rounds"] * (picture + search)
    if kind == "train":
        return training(params, parts[0], parts[1])
    return None


def disk(stage: str, params: Params) -> float | None:
    """Bytes of the pictures that a stage draws, as far as these are known."""
    kind, _, names = stage.partition("@")
    side = 8 * PUBLISHED["sample_size"]
    if kind != "sample" or definition("testbeds", params.table.testbed, "THREADS", None) == 1:
        return None
    return PNG * 3 * side**2 * pictures(params, names.split("-")[0])


def pictures(params: Params, concept: str) -> int:
    """How many of the concept's and of the kept prompts are drawn, at most."""
    count, kept = params.concepts[concept].kept.count, params.table.kept
    return prompts(params, concept) + (count if kept is None else min(count, kept))


def training(params: Params, concept: str, row: str) -> float | None:
    """As many passes as the row's training on emoji has taken, in proportion to the settings that say how often."""
    if not COSTS.is_file():
        return None
    costs = pd.read_csv(COSTS)
    total = 0.0
    for part in params.parts(row):
        known = costs[costs.method == part].unet_passes
        if known.empty or "emoji" not in params.methods[part].on:
            return None
        here = settings(params, "methods", part, concept, params.table.testbed)
        there = settings(params, "methods", part, concept, "emoji")
        ratio = prod(here[name] / there[name] for name in PROPORTIONAL if here.get(name) and there.get(name))
        total += float(known.mean()) * ratio
    return total


def settings(params: Params, family: str, name: str, concept: str, testbed: str) -> dict[str, Any]:
    """As params.yaml has them, for the concept's kind."""
    block = (params.methods if family == "methods" else params.attacks)[name].on[testbed]
    return of_kind(block, params.concepts[concept].kind)


def prompts(params: Params, concept: str) -> int:
    """How many pictures of the concept are drawn, at most: the safety gate may leave some out."""
    path = params.concepts[concept].prompts
    sheet = prompt_files.read(Path(path), path)
    count = sum(int(row.get("images") or 1) for _, row in sheet.rows)
    return count if params.table.prompts is None else min(count, params.table.prompts)


@cache
def of_a_pass(model: str) -> float:
    """Operations of one picture's pass through the U-Net of a model that lies here, or of Stable Diffusion 1.4."""
    import torch
    from diffusers import UNet2DConditionModel
    from torch.utils.flop_counter import FlopCounterMode

    shape, tokens = PUBLISHED, 77
    if Path(model, "unet/config.json").is_file():
        shape, text = (
            json.loads(Path(model, part, "config.json").read_text(encoding="utf-8"))
            for part in ("unet", "text_encoder")
        )
        tokens = text["max_position_embeddings"]
    with torch.device("meta"), torch.no_grad(), FlopCounterMode(display=False) as count:
        unet = UNet2DConditionModel.from_config(shape)
        side, width = unet.config["sample_size"], unet.config["cross_attention_dim"]
        unet(torch.empty(1, unet.config["in_channels"], side, side), torch.empty(1), torch.empty(1, tokens, width))
    return float(count.get_total_flops())
