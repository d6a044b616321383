"""The emoji testbed as it is in git: pictures, captions, tokenizer, the base model's size and what it draws."""

import hashlib
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from diffusers import StableDiffusionPipeline
from torch.utils.flop_counter import FlopCounterMode
from transformers import CLIPTextModel

from eraseflow import params, sampling, verdict
from eraseflow.emoji import autoencoder, base, denoiser, text_encoder, tokenizer
from eraseflow.emoji.augment import augment
from eraseflow.emoji.vocabulary import FORMS, GROUP_OF, NAMES, STYLES, all_captions, write_caption
from eraseflow.judges import emoji_classifier
from eraseflow.testbeds import emoji


def test_pictures_are_whole_and_licensed():
    table = pd.read_parquet(emoji.PICTURES)
    assert [hashlib.sha256(png).hexdigest() for png in table.png] == table.sha256.tolist()
    assert sorted(zip(table.name, table["style"], strict=True)) == sorted((n, s) for n in NAMES for s in STYLES)
    assert table.sha256.is_unique
    for source, licence in STYLES.values():
        text = (emoji.PICTURES.parent / "licences" / f"{source}.txt").read_text()
        assert licence in text and not re.search("<year>|<copyright holders>", text)
    assert emoji.PICTURES.stat().st_size < 8_000_000


def test_captions_promise_what_is_true_and_read_well():
    assert sum(share for _, share in FORMS) == pytest.approx(1)
    for template, _ in FORMS:
        for name in NAMES:
            assert write_caption(template, name, "ink").fits(name, "ink")
    caption = write_caption("a {group} in {style} style", "unicorn", "ink")
    assert caption.text == "an animal in ink style"
    assert caption.fits("horse", "ink") and not caption.fits("car", "ink") and not caption.fits("horse", "flat")
    assert write_caption("a {name}", "unicorn", "ink").text == "a unicorn"
    assert write_caption("a {name}", "umbrella", "ink").text == "an umbrella"
    assert GROUP_OF["pistol"] == "weapon"


def test_every_word_of_the_captions_is_one_token(tmp_path):
    words = tokenizer.build(tmp_path)
    for caption in all_captions():
        assert len(words.tokenize(caption.text)) == len(caption.text.split())
        assert len(words(caption.text).input_ids) <= tokenizer.LENGTH
    assert words.eos_token_id == len(words) - 1
    assert words.unk_token_id not in words.convert_tokens_to_ids(words.tokenize("zebra, x-ray 7"))


def test_augmentation_is_small_seeded_and_white_at_the_edges():
    images = torch.rand(4, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    first, second = (augment(images, np.random.default_rng(3)) for _ in range(2))
    assert torch.equal(first, second) and first.min() >= 0 and first.max() <= 1
    assert torch.allclose(augment(images, np.random.default_rng(3), strength=0.0), images, atol=1e-5)
    black = augment(torch.zeros(64, 3, 64, 64), np.random.default_rng(0))
    assert black[:, :, 32, 32].max() < 0.2 and black[:, :, :, 0].max() > 0.8


def test_base_model_is_small_and_loads_plainly():
    pipeline = StableDiffusionPipeline.from_pretrained("models/emoji", safety_checker=None)
    assert sum(file.stat().st_size for file in Path("models/emoji").rglob("*.safetensors")) <= 15_000_000
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        pipeline.unet(torch.zeros(1, 4, 8, 8), 5, torch.zeros(1, tokenizer.LENGTH, 128))
    assert counter.get_total_flops() <= 150_000_000
    assert pipeline.scheduler.config.beta_schedule == "scaled_linear"


@pytest.mark.slow
def test_base_model_draws_what_is_asked():
    prompts = pd.read_csv("prompts/emoji/kept.csv").iloc[::6]
    pipeline = emoji.load_pipeline("models/emoji", "cpu")
    settings = params.load().testbeds["emoji"].sampling
    drawn = sampling.sample(
        pipeline, list(prompts.prompt), list(range(len(prompts))), [4.0] * len(prompts), settings, 48, quiet=True
    )
    right = verdict.right(emoji_classifier.load()(torch.cat(list(drawn))), prompts.expect)
    assert right.mean() >= 0.8


def test_training_resumes_exactly(tmp_path, monkeypatch):
    """Killed after a checkpoint, the U-Net's training ends with the same weights as one that was not."""
    monkeypatch.setattr(denoiser, "CHECKPOINT_EVERY", 2)
    table = pd.DataFrame({"name": NAMES[:4], "style": ["ink"] * 4})
    latents = torch.randn(4, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    texts = {caption.text: row for row, caption in enumerate(all_captions())}
    captions = (texts, torch.randn(len(texts), 4, 128, generator=torch.Generator().manual_seed(1)))

    def train(checkpoint):
        return denoiser.train(table, latents, captions, 5, 2, 0, checkpoint, resume=True)

    whole, losses = train(tmp_path / "a.pt")
    real, count = denoiser.random_caption, 0

    def killed(*arguments):
        nonlocal count
        count += 1
        if count > 2 * 3:
            raise KeyboardInterrupt
        return real(*arguments)

    monkeypatch.setattr(denoiser, "random_caption", killed)
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path / "b.pt")
    monkeypatch.setattr(denoiser, "random_caption", real)
    resumed, again = train(tmp_path / "b.pt")
    assert again == losses
    for a, b in zip(whole.parameters(), resumed.parameters(), strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize("size", [0, 100, -100])
def test_a_damaged_checkpoint_begins_the_unet_anew(tmp_path, monkeypatch, capsys, size):
    monkeypatch.setattr(denoiser, "CHECKPOINT_EVERY", 1)
    table = pd.DataFrame({"name": NAMES[:2], "style": ["ink"] * 2})
    texts = {caption.text: row for row, caption in enumerate(all_captions())}
    captions = (texts, torch.zeros(len(texts), 4, 128))

    def train():
        return denoiser.train(table, torch.ones(2, 4, 8, 8), captions, 1, 2, 0, tmp_path / "unet.pt", resume=True)[1]

    losses, content = train(), (tmp_path / "unet.pt").read_bytes()
    (tmp_path / "unet.pt").write_bytes(content[:size])
    assert train() == losses
    assert f"{tmp_path}/unet.pt: is damaged; the training of the U-Net begins anew\n" in capsys.readouterr().err
    assert train() == losses, "now it is whole"
    assert "damaged" not in capsys.readouterr().err


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

    def unet(table, latents, captions, steps, batch, seed, checkpoint, resume):
        made.append("unet")
        return denoiser.build(4), [3.0]

    for module, function in ((text_encoder, text), (autoencoder, vae), (denoiser, unet)):
        monkeypatch.setattr(module, "train", function)
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
    assert not old.exists() and pd.read_csv(made / "losses.csv").text_encoder.tolist() == [1.0, 0.5]
    assert sorted(path.name for path in made.parent.iterdir()) == ["emoji"] and not list((tmp_path / "work").iterdir())
    assert emoji.load_pipeline(str(made), "cpu").unet.config.sample_size == 8


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
