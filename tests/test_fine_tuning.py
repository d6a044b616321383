"""The training loop that methods share, against PyTorch's own on a network in full precision."""

import copy

import pytest
import torch

from eraseflow.fine_tuning import FineTuning


@pytest.mark.parametrize("max_norm", [0.01, float("inf")])
def test_steps_are_the_optimisers(max_norm):
    torch.manual_seed(0)
    ours = torch.nn.Linear(4, 3)
    theirs, x = copy.deepcopy(ours), torch.randn(8, 4)
    before = ours.bias.detach().clone()
    optimiser = torch.optim.AdamW([theirs.weight], lr=0.1)
    tuning = FineTuning.of(ours, ["weight"], torch.optim.AdamW, 0.1)
    for step in tuning.steps(5, "test"):
        loss = ours(x).square().mean()
        tuning.backward(loss, 24)
        tuning.step(max_norm, loss=loss)
        optimiser.zero_grad()
        theirs(x).square().mean().backward()
        norm = torch.nn.utils.clip_grad_norm_([theirs.weight], max_norm)
        optimiser.step()
        row = tuning.history[-1]
        assert row["step"] == step and row["loss"] == loss.item() and row["seconds"] > 0
        assert row["grad_norm"] == pytest.approx(norm.item(), rel=1e-5)
    torch.testing.assert_close(ours.weight, theirs.weight, rtol=1e-5, atol=1e-6)
    assert torch.equal(ours.bias, before)
    [(name, tensor)] = tuning.edit("unet", ["weight"]).tensors.items()
    assert name == "unet.weight" and torch.equal(tensor, ours.weight)


def test_small_steps_in_half_precision_add_up():
    """Each alone is less than what bf16 can tell from 1."""
    network = torch.nn.Linear(1, 1, bias=False).to(torch.bfloat16)
    network.weight.data.fill_(1.0)
    tuning = FineTuning.of(network, ["weight"], torch.optim.SGD, 1e-3)
    for _ in tuning.steps(100, "test"):
        loss = network(torch.ones(1, 1, dtype=torch.bfloat16)).sum()
        tuning.backward(loss)
        tuning.step(loss=loss)
    assert tuning.edit("unet", ["weight"]).tensors["unet.weight"].item() == pytest.approx(0.9, abs=1e-4)
    assert network.weight.item() == pytest.approx(0.9, abs=1e-2)
