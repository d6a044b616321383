"""The emoji testbed as it is in git: pictures, the base model's size and what it draws."""

import hashlib
import json
import os
import re
import shutil
from functools import cache, partial
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from diffusers import StableDiffusionPipeline
from PIL import Image
from safetensors.torch import load_file
from torch.utils.flop_counter import FlopCounterMode
from transformers import CLIPTextModel, CLIPTokenizer

from eraseflow import params, sampling, verdict
from eraseflow.emoji import (
    autoencoder,
    base,
    captions,
    cards,
    checkpoint,
    denoiser,
    english,
    exam,
    judges,
    text_encoder,
    tokenizer,
)
from eraseflow.emoji.augment import augment, ink, recolour
from eraseflow.emoji.captions import Caption
from eraseflow.emoji.vocabulary import FURTHER, HELD_OUT_OTHERS, HELD_OUT_PAIRS, NAMES, OTHERS, STYLES, UNSEEN
from eraseflow.judges import emoji_classifier
from eraseflow.testbeds import emoji

pytestmark = pytest.mark.slow

FOLDER = emoji.PICTURES.parent
pool = cache(captions.pool)  # of every picture all captions, five seconds


@pytest.mark.parametrize("name", ["pictures", "others", "further", "unseen"])
def test_pictures_are_whole_and_licensed(name):
    table = pd.read_parquet(FOLDER / f"{name}.parquet")
    assert [hashlib.sha256(png).hexdigest() for png in table.png] == table.sha256.tolist()
    names, styles = {
        "pictures": (NAMES, STYLES),
        "others": (OTHERS, STYLES),
        "further": ([*NAMES, *OTHERS], FURTHER),
        "unseen": (NAMES, UNSEEN[:1]),
    }[name]
    expected = {(n, s) for n in names for s in styles}
    found = list(zip(table["name"], table["style"], strict=True))
    assert len(set(found)) == len(found) and (
        set(found) == expected if name in ("pictures", "others") else set(found) <= expected
    )
    assert len(table) > 150
    for source, licence in [*STYLES.values(), *FURTHER.items(), UNSEEN[1]]:
        text = (FOLDER / "licences" / f"{source}.txt").read_text()
        assert licence in text and not re.search("<year>|<copyright holders>", text)


def test_pictures_are_few_megabytes_and_differ():
    assert sum(file.stat().st_size for file in FOLDER.rglob("*.*")) < 25_000_000
    table = pd.concat(
        [
            pd.read_parquet(FOLDER / f"{name}.parquet", columns=["name", "sha256"])
            for name in ("pictures", "others", "further")
        ]
    )
    twice = table[table.sha256.duplicated(keep=False)]
    assert not set(twice.name) & set(NAMES), "what is a name in one place and something else in another"


def test_judges_do_not_train_on_what_their_cards_measure():
    table, images = judges.load(FOLDER)
    assert len(table) == len(images) and images.shape[1:] == (3, 64, 64)
    assert not set(zip(table["name"], table["style"], strict=True)) & HELD_OUT_PAIRS
    assert not set(table["name"]) & set(HELD_OUT_OTHERS)
    earlier = table[table["style"] == "noto-v1"]["name"]
    assert not set(zip(earlier, ["soft"] * len(earlier), strict=True)) & HELD_OUT_PAIRS, (
        "the same artist's earlier drawings"
    )
    rows = judges.draw(table, 32, np.random.default_rng(0))
    assert len(set(rows)) == 32 and (table["group"][rows] == "").sum() == 11


def test_recolouring_leaves_grey_and_brightness():
    images = torch.rand(5, 3, 4, 4, generator=torch.Generator().manual_seed(0)) * 0.4 + 0.3
    grey = images.mean(1, keepdim=True).expand(-1, 3, -1, -1)
    assert torch.allclose(recolour(grey, np.random.default_rng(1)), grey, atol=1e-3)
    weights = torch.tensor([0.299, 0.587, 0.114])[:, None, None]
    turned = recolour(images, np.random.default_rng(1))
    assert torch.allclose((turned * weights).sum(1), (images * weights).sum(1), atol=1e-3)
    assert not torch.allclose(turned, images, atol=0.02)


def test_inked_pictures_are_black_and_white():
    images = torch.ones(64, 3, 16, 16)
    images[:, :, 4:12, 4:12] = torch.tensor([0.8, 0.1, 0.1]).view(3, 1, 1)
    inked = ink(images, np.random.default_rng(0))
    assert torch.equal(inked, ink(images, np.random.default_rng(0))) and torch.equal(inked[:, 0], inked[:, 2])
    assert (inked[:, :, 0, 0] > 0.9).all(), "the ground stays white"
    middle, edge = inked[:, 0, 8, 8], inked[:, 0, 4, 8]
    assert (edge < 0.1).float().mean() > 0.9 and 0.3 < (middle < 0.1).float().mean() < 0.7, "filled or outlined"


def test_augmentation_is_small_seeded_and_white_at_the_edges():
    images = torch.rand(4, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    first, second = (augment(images, np.random.default_rng(3)) for _ in range(2))
    assert torch.equal(first, second) and first.min() >= 0 and first.max() <= 1
    assert torch.allclose(augment(images, np.random.default_rng(3), strength=0.0), images, atol=1e-5)
    black = augment(torch.zeros(64, 3, 64, 64), np.random.default_rng(0))
    assert black[:, :, 32, 32].max() < 0.2 and black[:, :, :, 0].max() > 0.8


def test_base_model_is_small_and_loads_plainly():
    pipeline = StableDiffusionPipeline.from_pretrained("models/emoji", safety_checker=None)
    assert sum(file.stat().st_size for file in Path("models/emoji").rglob("*.safetensors")) <= 40_000_000
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        pipeline.unet(torch.zeros(1, 4, 8, 8), 5, torch.zeros(1, tokenizer.LENGTH, text_encoder.WIDTH))
    assert counter.get_total_flops() <= 200_000_000
    assert pipeline.scheduler.config.beta_schedule == "scaled_linear"


def test_cards_of_few_questions(tmp_path, monkeypatch):
    """All that the full ones have, of 3 questions a kind and 3 names; what a link leads to stays."""
    monkeypatch.setattr(exam, "questions", partial(exam.questions, 3))
    monkeypatch.setattr(cards, "NAMES", NAMES[:3])
    monkeypatch.setattr(cards, "GRID_COLUMNS", 2)
    (cached := tmp_path / "cached").write_text("cached")
    os.link(cached, tmp_path / "judges.json")
    cards.write(params.load(), tmp_path / "judges.json", tmp_path / "base")
    assert cached.read_text() == "cached"
    made, full = (json.loads(Path(path).read_text()) for path in (tmp_path / "judges.json", "reports/judges.json"))
    assert made.keys() == full.keys()
    asked, of_full = ([one["what"] for one in of["base"]["accuracies"]] for of in (made, full))
    assert asked == of_full
    assert made["emoji_classifier"]["accuracies"] == full["emoji_classifier"]["accuracies"], (
        "real pictures: all of them"
    )
    assert {one["n"] for one in made["base"]["accuracies"]} == {3}
    with Image.open(tmp_path / "base" / "samples.png") as grid:  # two bands of two columns and five styles
        assert grid.size == (2 * 34 + 2, 2 * 5 * 34 + 2)
    assert (tmp_path / "base" / "losses.png").stat().st_size > 1000


def test_base_model_reads_english():
    """A twelfth of what reports/judges.json tells, with room for the smaller sample."""
    asked = exam.questions(42)
    pipeline = emoji.load_pipeline("models/emoji", "cpu")
    settings, count = params.load().testbeds["emoji"].sampling, len(asked)
    drawn = sampling.sample(
        pipeline, list(asked.prompt), list(range(count)), [settings.guidance_scale] * count, settings, 48, quiet=True
    )
    scores = emoji_classifier.load()(torch.cat(list(drawn)))
    right = pd.Series(verdict.right(scores, asked.expect.str.split(";").str[0])).groupby(asked.kind).mean()
    least = {"trained patterns": 0.95, "held-out patterns": 0.85, "held-out adjectives and numbers": 0.85}
    least |= {"held-out synonyms": 0.25, "held-out pairs": 0.6}
    assert (right >= pd.Series(least)[right.index]).all(), right


def test_timesteps_are_drawn_by_their_weight():
    alphas = denoiser.scheduler().alphas_cumprod
    drawn = torch.cat([denoiser.timesteps(alphas, 200, np.random.default_rng(seed)) for seed in range(50)])
    ratio = alphas / (1 - alphas)
    weight = ratio.clamp(max=denoiser.MIN_SNR) / ratio
    for part in torch.arange(1000).split(125):
        share, expected = (drawn.unsqueeze(1) == part).any(1).float().mean(), weight[part].sum() / weight.sum()
        assert abs(share - expected) < 0.02
    assert drawn.min() >= 0 and drawn.max() <= 999


def test_training_resumes_exactly(tmp_path, monkeypatch):
    """Killed after a checkpoint, the U-Net's training ends with the same weights as one that was not."""
    monkeypatch.setattr(checkpoint, "EVERY", 2)
    latents = torch.randn(4, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    captions = [[Caption(f"{row} {text}") for text in "ab"] for row in range(4)]
    rows = {caption.text: row for row, caption in enumerate(one for shown in captions for one in shown)}
    states = torch.randn(8, 4, text_encoder.WIDTH, generator=torch.Generator().manual_seed(1))

    def train(saved):
        return denoiser.train(latents, captions, (rows, states), 5, 2, 0, saved, resume=True)

    whole, losses = train(tmp_path / "a.pt")
    real, count = denoiser.timesteps, 0

    def killed(*arguments):
        nonlocal count
        count += 1
        if count > 3:
            raise KeyboardInterrupt
        return real(*arguments)

    monkeypatch.setattr(denoiser, "timesteps", killed)
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path / "b.pt")
    monkeypatch.setattr(denoiser, "timesteps", real)
    resumed, again = train(tmp_path / "b.pt")
    assert again == losses
    for a, b in zip(whole.parameters(), resumed.parameters(), strict=True):
        assert torch.equal(a, b)


def test_a_judges_training_resumes_exactly(tmp_path, monkeypatch):
    monkeypatch.setattr(checkpoint, "EVERY", 2)
    calls: list[int] = []

    def train(saved, dies_at=99):
        def loss_of(rng):
            calls.append(0)
            if len(calls) == dies_at:
                raise KeyboardInterrupt
            given = torch.from_numpy(rng.normal(size=(4, 3))).float()
            return model(given).square().mean()

        torch.manual_seed(0)
        model = torch.nn.Sequential(torch.nn.Linear(3, 2), torch.nn.Dropout(0.5))
        calls.clear()
        return judges.optimise("it", model, 1e-2, 20, 0, saved, loss_of)

    whole = train(tmp_path / "a.pt")
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path / "b.pt", dies_at=12)
    resumed = train(tmp_path / "b.pt")
    assert len(calls) == 10, "ten steps were saved"
    for a, b in zip(whole.parameters(), resumed.parameters(), strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize("size", [0, 100, -100])
def test_a_damaged_checkpoint_begins_the_training_anew(tmp_path, capsys, size):
    layer = torch.nn.Linear(2, 2)
    path = tmp_path / "unet.pt"
    checkpoint.save(path, {"layer": layer}, [1.0])
    assert checkpoint.resume(path, {"layer": layer}) == [1.0]
    path.write_bytes(path.read_bytes()[:size])
    assert checkpoint.resume(path, {"layer": layer}) == []
    assert f"{path}: is damaged; this training begins anew\n" in capsys.readouterr().err


@pytest.fixture
def short_training(tmp_path, monkeypatch):
    """base.train with parts that are not trained at all, and the names of those that were made in each call."""
    made: list[str] = []

    def text(words, *_):
        made.append("text_encoder")
        return text_encoder.build(words), [1.0, 0.5]

    def vae(images, channels, *_):
        made.append("vae")
        return autoencoder.build(channels), [2.0]

    def unet(*_):
        made.append("unet")
        return denoiser.build(4), [3.0]

    def words(texts, folder):
        shutil.copytree("models/emoji/tokenizer", folder, dirs_exist_ok=True)
        return CLIPTokenizer.from_pretrained(folder)

    for module, function in ((text_encoder, text), (autoencoder, vae), (denoiser, unet)):
        monkeypatch.setattr(module, "train", function)
    monkeypatch.setattr(tokenizer, "build", words)
    monkeypatch.setattr(english, "read", lambda: None)
    monkeypatch.setattr(denoiser, "embed", lambda *_: None)
    monkeypatch.setattr(base, "pool", pool)
    monkeypatch.setattr(base, "WORK", tmp_path / "work")
    monkeypatch.setattr("eraseflow.shards.WORK", tmp_path / "work")
    monkeypatch.setattr(base, "fingerprint", lambda *_: "0")
    settings = params.load().emoji.base

    def train() -> list[str]:
        made.clear()
        base.train(emoji.PICTURES, tmp_path / "models" / "emoji", settings, resume=True)
        return list(made)

    return train


def test_the_base_model_is_replaced_whole(short_training, tmp_path):
    old = tmp_path / "models" / "emoji" / "unet" / "old.safetensors"
    old.parent.mkdir(parents=True)
    old.write_text("old")
    assert short_training() == ["text_encoder", "vae", "unet"]
    made = tmp_path / "models" / "emoji"
    assert not old.exists() and pd.read_csv(made / "losses.csv").text_encoder.tolist()[:2] == [1.0, 0.5]
    assert sorted(path.name for path in made.parent.iterdir()) == ["emoji"] and not list((tmp_path / "work").iterdir())
    pipeline = emoji.load_pipeline(str(made), "cpu")
    assert pipeline.unet.config.sample_size == 8 and pipeline.text_encoder.dtype == torch.float32
    weights = load_file(made / "text_encoder" / "model.safetensors")
    assert {weight.dtype for weight in weights.values()} == {torch.float16}


@pytest.mark.parametrize("damage", ["weights", "config", "losses", "nothing"])
def test_a_damaged_part_of_the_base_is_trained_anew(short_training, tmp_path, monkeypatch, capsys, damage):
    monkeypatch.setattr(base, "forget", lambda name: None)  # as after a kill
    short_training()
    work = tmp_path / "work" / "base-0"
    file = {"weights": "vae/diffusion_pytorch_model.safetensors", "config": "vae/config.json", "losses": "vae.csv"}
    if damage in file:
        content = (work / file[damage]).read_bytes()
        (work / file[damage]).write_bytes(content[: len(content) // 2] if damage != "losses" else b"")
    assert short_training() == (["unet"] if damage == "nothing" else ["vae", "unet"])
    assert (f"{work}/vae: is damaged; it is trained anew" in capsys.readouterr().err) == (damage != "nothing")


def test_a_part_that_is_saved_half_is_not_there(short_training, tmp_path, monkeypatch):
    real = CLIPTextModel.save_pretrained

    def killed(self, folder, **options):
        real(self, folder, **options)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(CLIPTextModel, "save_pretrained", killed)
        with pytest.raises(KeyboardInterrupt):
            short_training()
    assert not (tmp_path / "work" / "base-0" / "text_encoder").exists()
    assert short_training() == ["text_encoder", "vae", "unet"]
