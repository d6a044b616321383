"""DUO against its equations, and the pairs of pictures that it trains on."""

import math

import pytest
import torch
from diffusers import DDIMScheduler

from eraseflow import own_pictures
from eraseflow.methods import duo
from eraseflow.params import SamplingSettings
from eraseflow.sampling import denoise, embed

pytestmark = pytest.mark.slow

SETTINGS = {
    "pairs": 4, "strength": 0.75, "num_steps": 4, "guidance_scale": 2.0, "prompt": "target", "iterations": 30,
    "batch_size": 4, "learning_rate": 1e-2, "beta": 100.0, "preserve_scale": 0.0, "lora_rank": 4,
}  # fmt: skip


def test_preference_loss_pair_by_pair():
    torch.manual_seed(0)
    predicted, reference, noise = torch.randn(6, 4, 8, 8), torch.randn(6, 4, 8, 8), torch.randn(3, 4, 8, 8)
    wanted = 0.0
    for n in range(3):
        gains = [
            ((noise[n] - predicted[at]) ** 2).mean().item() - ((noise[n] - reference[at]) ** 2).mean().item()
            for at in (n, 3 + n)
        ]
        wanted += math.log(1 + math.exp(2.0 * (gains[0] - gains[1]))) / 3
    assert duo.preference_loss(predicted, reference, noise, 2.0).item() == pytest.approx(wanted, rel=1e-5)


def test_the_unedited_model_has_no_preference_and_learns_the_safe_picture():
    reference, noise = torch.randn(2, 4, 8, 8), torch.randn(1, 4, 8, 8)
    predicted = reference.clone().requires_grad_(True)
    loss = duo.preference_loss(predicted, reference, noise, 500.0)
    assert loss.item() == pytest.approx(math.log(2), rel=1e-5)
    loss.backward()
    nearer = predicted - 1e-3 * predicted.grad
    error, before = ((side - noise).square().flatten(1).mean(1) for side in (nearer, reference))
    assert error[0] < before[0] and error[1] > before[1]


def test_drawn_pictures_are_the_samplers(pipeline):
    hidden, seeds = embed(pipeline, ["unicorn", "a horse", ""]), [3, 4, 5]
    settings = SamplingSettings(solver="ddim", steps=4, guidance_scale=2.0)
    wanted = denoise(pipeline, {"hidden": hidden}, seeds, settings, [2.0] * 3)
    ours = own_pictures.draw(pipeline, hidden, seeds, 4, 2.0, embed(pipeline, [""]))
    torch.testing.assert_close(ours, wanted, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("strength", "passes"), [(0.05, 1), (0.75, 8), (1.0, 10)])
def test_sdedit_begins_at_its_strength_and_a_perfect_network_gives_the_picture_back(
    pipeline, monkeypatch, strength, passes
):
    clean, seeds, asked = torch.randn(3, 4, 8, 8), [7, 8, 9], []
    noise = own_pictures.initial_noise(pipeline, seeds)
    hidden, avoided = embed(pipeline, ["a horse"] * 3), embed(pipeline, ["unicorn"] * 3)

    def perfect(unet, latents, t, condition, empty, scale):
        assert torch.equal(condition, hidden) and torch.equal(empty, avoided) and scale == 4.0
        alpha = pipeline.scheduler.alphas_cumprod[t]
        torch.testing.assert_close(latents, alpha.sqrt() * clean + (1 - alpha).sqrt() * noise, rtol=1e-3, atol=1e-4)
        asked.append(int(t))
        return noise

    monkeypatch.setattr(own_pictures, "guided", perfect)
    ours = own_pictures.sdedit(pipeline, clean, hidden, avoided, seeds, strength, 10, 4.0)
    scheduler = DDIMScheduler.from_config(pipeline.scheduler.config)
    scheduler.set_timesteps(10)
    assert asked == scheduler.timesteps[-passes:].tolist()
    last = scheduler.final_alpha_cumprod
    torch.testing.assert_close(ours, last.sqrt() * clean + (1 - last).sqrt() * noise, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("prompt", ["empty", "target"])
def test_training_comes_to_prefer_the_safe_pictures(pipeline, concept, prompt):
    edit = duo.erase(pipeline, concept, duo.Settings(**SETTINGS | {"prompt": prompt}), 0)
    assert edit.history[0]["preference"] == pytest.approx(math.log(2)) and edit.history[0]["preserving"] == 0
    second_half = [row["preference"] for row in edit.history[len(edit.history) // 2 :]]
    assert sum(second_half) / len(second_half) < 0.9 * math.log(2)
    assert edit.kind == "lora"


def test_the_preserving_term_holds_what_pure_noise_gives(pipeline, concept):
    from conftest import miniature

    free = duo.erase(miniature(), concept, duo.Settings(**SETTINGS), 0).history[-1]["preserving"]
    settings = duo.Settings(**SETTINGS | {"preserve_scale": 1e4})
    held = duo.erase(pipeline, concept, settings, 0).history[-1]["preserving"]
    assert 0 < held < 0.3 * free
