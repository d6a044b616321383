"""A miniature Stable Diffusion of the same classes, with random weights, for every test that needs a pipeline."""

import atexit
import gc
import json
import os
import shutil
import tempfile
from functools import cache
from pathlib import Path

import pytest
import torch
from diffusers import AutoencoderKL, DDIMScheduler, StableDiffusionPipeline, UNet2DConditionModel
from hypothesis import HealthCheck, settings
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from eraseflow.emoji.captions import ADJECTIVES
from eraseflow.emoji.vocabulary import NAMES, STYLES
from eraseflow.params import Concept, ConceptJudge, Kept

ROOT = Path(__file__).parent.parent
WIDTH = 32
WORDS = (*ADJECTIVES, "a picture of the animal in no such style", "an elbow", "weapon", "tool", "drink", "word")

# Of the tests that draw their own examples; CONTRIBUTING.md says when to run the thousand.
settings.register_profile(
    "few", max_examples=60, derandomize=True, deadline=None, database=None, suppress_health_check=list(HealthCheck)
)
settings.register_profile("thousand", settings.get_profile("few"), max_examples=1000, derandomize=False)
settings.load_profile("few")


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers() -> int:
    """One more than cores: the slow tests start processes and wait for them, a quarter of the time for nothing else."""
    return 1 + (os.cpu_count() or 1)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files with slow tests come first, so that no worker is left alone with one of them at the end."""
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: item.path not in slow)


def pytest_collection_finish() -> None:
    """Let no later collection look at what is imported: half a second each, and statsmodels' Holm always does one."""
    gc.collect()
    gc.freeze()


@cache
def _small_vocabulary() -> str:
    """The folder of the emoji model's tokenizer cut down to what names and adjectives are made of: 20,000 tokens, of
    which every attack looks at 14,000, would take seconds a test.
    """
    folder = tempfile.mkdtemp(prefix="eraseflow-tests-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    own = json.loads((ROOT / "models" / "emoji" / "tokenizer" / "tokenizer.json").read_text(encoding="utf-8"))
    said = {word for text in (*NAMES, *STYLES, *WORDS) for word in text.split()}
    pieces = {f"{word}</w>"[start:end] for word in said for end in range(len(word) + 5) for start in range(end)}
    bpe, last = own["model"], own["added_tokens"]
    bpe["merges"] = [pair for pair in bpe["merges"] if "".join(pair) in pieces]
    kept = {"".join(pair) for pair in bpe["merges"]} | {token["content"] for token in last}
    tokens = [token for token in bpe["vocab"] if token in kept or len(token.removesuffix("</w>")) == 1]
    bpe["vocab"] = {token: place for place, token in enumerate(tokens)}
    for token in last:
        token["id"] = bpe["vocab"][token["content"]]
    own["post_processor"]["cls"][1], own["post_processor"]["sep"][1] = (token["id"] for token in last)
    Path(folder, "tokenizer.json").write_text(json.dumps(own), encoding="utf-8")
    shutil.copy(ROOT / "models" / "emoji" / "tokenizer" / "tokenizer_config.json", folder)
    return folder


def miniature() -> StableDiffusionPipeline:
    """8 x 8 latents, two levels, one head of everything; about 100,000 weights."""
    torch.manual_seed(7)
    words = CLIPTokenizer.from_pretrained(_small_vocabulary())
    text = CLIPTextModel(
        CLIPTextConfig(
            vocab_size=len(words),
            hidden_size=WIDTH,
            intermediate_size=WIDTH,
            projection_dim=WIDTH,
            num_hidden_layers=1,
            num_attention_heads=2,
            max_position_embeddings=words.model_max_length,
            bos_token_id=words.bos_token_id,
            eos_token_id=words.eos_token_id,
            pad_token_id=words.pad_token_id,
        )
    )
    unet = UNet2DConditionModel(
        sample_size=8,
        block_out_channels=(8, 16),
        layers_per_block=1,
        down_block_types=("CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D"),
        cross_attention_dim=WIDTH,
        attention_head_dim=2,
        norm_num_groups=4,
    )
    vae = AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 3,
        up_block_types=("UpDecoderBlock2D",) * 3,
        block_out_channels=(8, 8, 8),
        layers_per_block=1,
        norm_num_groups=4,
        sample_size=32,
    )
    scheduler = DDIMScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        clip_sample=False,
        set_alpha_to_one=False,
        steps_offset=1,
    )
    pipeline = StableDiffusionPipeline(
        vae=vae.eval(),
        text_encoder=text.eval(),
        tokenizer=words,
        unet=unet.eval(),
        scheduler=scheduler,
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


@pytest.fixture
def pipeline() -> StableDiffusionPipeline:
    return miniature()


CONCEPT = Concept(
    testbed="emoji",
    kind="fine_grained",
    target="unicorn",
    anchor="horse",
    prompts="prompts/emoji/unicorn.csv",
    preserve=["cat", "car"],
    judge=ConceptJudge(name="emoji_classifier", counts=["object/unicorn"]),
    kept=Kept(without=["object/unicorn"], neighbours=["object/horse"], count=8),
)


@pytest.fixture
def concept() -> Concept:
    return CONCEPT
