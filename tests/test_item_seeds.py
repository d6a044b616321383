"""Seeds of 64 bits from a user's file to every picture: what plain diffusers draws from them, in every stage."""

import random

import numpy as np
import pandas as pd
import pytest
import torch
from diffusers import DPMSolverMultistepScheduler, StableDiffusionPipeline
from test_rounds import make_victim, never
from transformers import CLIPTokenizer

from eraseflow import images, params, prompts
from eraseflow.cells import attack, concept, sample, transfer
from eraseflow.edits import Edit
from eraseflow.params import Attack

pytestmark = pytest.mark.slow

SEEDS = [0, 1, 2**31, 2**32 - 1, 2**32 + 5, 2**53 + 1, 2**63 - 1, 2**63, 2**63 + 7, 2**64 - 1]
STEPS = 2


def plain_noise(seed: int) -> np.ndarray:
    return torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(seed)).numpy()


@pytest.fixture(scope="module")
def cell(tmp_path_factory):
    """The stages of one cell with a user's file: seeds of all sizes in columns as UnlearnDiffAtk names them."""
    folder, patch = tmp_path_factory.mktemp("cell"), pytest.MonkeyPatch()
    rng = random.Random(0)
    seeds = [*SEEDS, *(rng.getrandbits(64) for _ in range(4))]
    lines = [f"{n},a unicorn in flat style,{seed},{2 + n / 10}" for n, seed in enumerate(seeds)]
    file = folder / "unicorn.csv"
    file.write_text("\n".join(["case_number,prompt,evaluation_seed,evaluation_guidance", *lines]) + "\n")
    everything = params.load()
    testbed = everything.testbeds["emoji"]
    testbed = testbed.model_copy(update={"sampling": testbed.sampling.model_copy(update={"steps": STEPS})})
    entry = everything.concepts["unicorn"]
    kept = entry.kept.model_copy(update={"count": 1, "neighbours": []})
    entry = entry.model_copy(update={"prompts": str(file), "kept": kept})
    changes = {"concepts": {"unicorn": entry}, "testbeds": {"emoji": testbed}}
    changes["attacks"] = everything.attacks | {"other_seeds": Attack(emoji={"rounds": 1})}
    everything = everything.model_copy(update=changes)
    for module in ("eraseflow.shards", "eraseflow.cells.attack"):
        patch.setattr(f"{module}.WORK", folder / "work")
    # Nothing is seen un-attacked, all of it once attacked, so that every prompt is replayed.
    calls: list[int] = []
    patch.setattr("eraseflow.verdict.seen", lambda raw, by: np.full(len(raw), bool(calls) or bool(calls.append(1))))
    method = folder / "unicorn" / "esd"
    Edit("weights", {}).save(method / "edit")
    concept.concept(everything, "unicorn", folder / "concept")
    prompts_csv = folder / "concept" / "prompts.csv"
    sample.sample(everything, "unicorn", prompts_csv, method / "edit", method / "samples.parquet")
    for name in ("other_seeds", "random_prefix"):
        calls.clear()
        out = method / f"attack-{name}.parquet"
        attack.attack(everything, "unicorn", prompts_csv, method / "edit", name, out)
    yield seeds, everything, folder
    patch.undo()


def plain(pictures: pd.DataFrame, seeds, guidance, texts) -> None:
    """The PNGs are what diffusers' own call draws, up to one grey level of rounding."""
    pipeline = StableDiffusionPipeline.from_pretrained("models/emoji", safety_checker=None)
    pipeline.scheduler = DPMSolverMultistepScheduler.from_config(pipeline.scheduler.config, timestep_spacing="linspace")
    pipeline.set_progress_bar_config(disable=True)
    ours = images.from_png(pictures.png)
    for row, (seed, scale, text) in enumerate(zip(seeds, guidance, texts, strict=True)):
        wanted = pipeline(
            text, num_inference_steps=STEPS, guidance_scale=scale, generator=torch.Generator().manual_seed(int(seed)),
            output_type="pt",
        ).images[0]  # fmt: skip
        assert (ours[row].float() - wanted * 255).abs().max() <= 2.01, (seed, text)


def test_prompts_csv_has_the_seeds_to_the_digit(cell):
    seeds, _, folder = cell
    table = prompts.read(folder / "concept" / "prompts.csv", "target")
    assert [int(seed) for seed in table.seed] == seeds and table.seed.dtype == np.uint64
    assert table.guidance.tolist() == [2 + n / 10 for n in range(len(seeds))]
    assert table.source.tolist() == [f"case/{n}" for n in range(len(seeds))]


def test_the_stages_pictures_are_plain_diffusers(cell):
    seeds, everything, folder = cell
    method = folder / "unicorn" / "esd"
    sampled = pd.read_parquet(method / "samples.parquet")
    target = sampled[sampled.role == "target"]
    assert [int(seed) for seed in target.seed] == seeds
    guidance = [2 + n / 10 for n in range(len(seeds))]
    plain(target, seeds, guidance, target.prompt)
    for name in ("other_seeds", "random_prefix"):
        found = pd.read_parquet(method / f"attack-{name}.parquet")
        assert [int(seed) for seed in found.seed] == seeds
        own = [int(seed) for seed in found.adversarial_seed]
        assert (own == seeds) == (name == "random_prefix") and found.adversarial_seed.dtype == np.uint64
        plain(found, own, guidance, found.adversarial_prompt)
        replayed = transfer.transfer(everything, "unicorn", name, "esd", "esd", folder)
        assert [int(seed) for seed in replayed.adversarial_seed] == own and list(replayed.png) == list(found.png)
        replayed.to_parquet(folder / "out.parquet")
        assert [int(seed) for seed in pd.read_parquet(folder / "out.parquet").adversarial_seed] == own


def test_a_run_adds_to_the_seeds_without_going_round(cell):
    seeds, everything, _ = cell
    entry, testbed = everything.concepts["unicorn"], everything.testbeds["emoji"]
    room = 2**64 - 1 - max(seed for seed in seeds if seed < 2**64 - 1)
    with pytest.raises(SystemExit, match=f"{2**64 - 1} and table.seed 1 times 1000003 added, is beyond"):
        prompts.prompt_sources.texts(entry.prompts, testbed, 1)
    assert room > 0 and len(prompts.prompt_sources.texts(entry.prompts, testbed, 0)) == len(seeds)


def test_an_attacks_random_numbers_are_a_seeds_own(pipeline):
    """Those of seeds below 2^32 are as they were; larger ones meet no other seed under another key."""
    numbers = [5, 2**32 - 1, 5 + 2**32, 5 + 2**33, 2**63 + 5, 2**64 - 1]
    victim = make_victim(pipeline, never, ["a unicorn"] * len(numbers))
    victim.prompts = victim.prompts.assign(seed=prompts.as_seeds(numbers))
    keys = [(run, step) for run in (0, 1, 2, 3) for step in (0, 1, 2)]
    drawn = {
        (seed, key): tuple(victim.rng(row, *key).integers(2**62, size=3))
        for row, seed in enumerate(numbers)
        for key in keys
    }
    assert len(set(drawn.values())) == len(drawn)
    for (seed, key), found in drawn.items():
        if seed < 2**32:
            assert found == tuple(np.random.default_rng((seed, *key)).integers(2**62, size=3))


def test_rows_that_ask_for_one_picture_are_named():
    reads = CLIPTokenizer.from_pretrained("models/emoji/tokenizer")
    table = pd.DataFrame({"prompt_id": ["a", "b", "c", "d"], "role": "target", "prompt": "a cat", "guidance": 7.5})
    assert prompts.drawn_twice(table.assign(seed=prompts.as_seeds([1, 2, 3, 2**33])), reads) == ""
    said = prompts.drawn_twice(table.assign(seed=prompts.as_seeds([1, 2, 2, 2**32 + 1])), reads)
    assert said.startswith("2 prompts ask for a picture that an earlier one has") and said.endswith("c, d")
    spaced = table.assign(seed=prompts.as_seeds([1] * 4), prompt=["a cat", "a  cat", "A cat ", "acat"])
    assert prompts.drawn_twice(spaced, reads).endswith("b, c")
    np.testing.assert_array_equal(plain_noise(1), plain_noise(2**32 + 1))  # PyTorch's own doing
