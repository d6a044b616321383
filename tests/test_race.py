"""RACE: the perturbation that it trains under, and that it begins as ESD."""

import pytest
import torch
from conftest import miniature

from eraseflow.erasing_goal import trained_names
from eraseflow.methods import race

pytestmark = pytest.mark.slow

SETTINGS = {
    "esd_iterations": 2, "iterations": 2, "batch_size": 2, "learning_rate": 1e-3, "negative_guidance": 1.0,
    "num_steps": 3, "guidance_scale": 2.0, "variant": "x", "epsilon": 0.3, "attack_steps": 8,
}  # fmt: skip


def inputs():
    torch.manual_seed(0)
    return torch.randn(3, 4, 8, 8), torch.tensor(301), torch.randn(3, 24, 32), torch.randn(3, 4, 8, 8)


def test_one_step_of_the_attack_is_projected_gradient_descent(pipeline):
    """On the written-out loss, from the same random start."""
    latents, t, hidden, noise = inputs()
    settings = race.Settings(**SETTINGS | {"attack_steps": 1})
    moved = race.attacked(pipeline.unet, latents, t, hidden, noise, settings, torch.Generator().manual_seed(5))
    start = hidden + 0.3 * (2 * torch.rand(hidden.shape, generator=torch.Generator().manual_seed(5)) - 1)
    start.requires_grad_(True)
    sum(
        ((noise[n] - pipeline.unet(latents[n : n + 1], t, start[n : n + 1]).sample) ** 2).sum() for n in range(3)
    ).backward()
    wanted = torch.maximum(torch.minimum(start - 0.3 / 4 * start.grad.sign(), hidden + 0.3), hidden - 0.3)
    clear = start.grad.abs() > 1e-4 * start.grad.abs().max()  # the sign of nearly nothing is rounding's
    assert clear.float().mean() > 0.5
    torch.testing.assert_close(moved[clear], wanted.detach()[clear], rtol=1e-4, atol=1e-5)


def test_the_attack_stays_in_its_ball_and_predicts_the_noise_better(pipeline):
    latents, t, hidden, noise = inputs()
    pipeline.unet.requires_grad_(False)
    moved = race.attacked(pipeline.unet, latents, t, hidden, noise, race.Settings(**SETTINGS), torch.Generator())
    assert not moved.requires_grad
    assert 0.29 < (moved - hidden).abs().max() <= 0.3 + 1e-6
    with torch.no_grad():
        errors = [(pipeline.unet(latents, t, side).sample - noise).square().mean() for side in (moved, hidden)]
    assert errors[0] < errors[1]


def test_it_begins_as_esd_and_goes_on_under_attack(concept):
    runs = []
    for epsilon in (0.3, 1e-9):
        pipeline = miniature()
        before = {name: weight.detach().clone() for name, weight in pipeline.unet.named_parameters()}
        edit = race.erase(pipeline, concept, race.Settings(**SETTINGS | {"epsilon": epsilon}), 0)
        changed = {name for name, weight in pipeline.unet.named_parameters() if not torch.equal(weight, before[name])}
        assert changed and changed <= set(trained_names(pipeline.unet, "x"))
        runs.append([row["loss"] for row in edit.history])
    assert runs[0][:2] == runs[1][:2], "plain ESD"
    assert runs[0][2] != runs[1][2]
