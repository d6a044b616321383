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

from eraseflow import params, sampling, verdict
from eraseflow.emoji import denoiser, tokenizer
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
