"""ESD and UCE against their defining equations."""

import copy

import pytest
import torch

from eraseflow.cross_attention import RIDGE
from eraseflow.methods import esd, uce

pytestmark = pytest.mark.slow


def test_esd_goal_is_equation_7(pipeline):
    latents, target, empty = torch.randn(3, 4, 8, 8), torch.randn(3, 24, 32), torch.randn(1, 24, 32)
    t = torch.tensor(301)
    with torch.no_grad():
        without = pipeline.unet(latents, t, empty.expand(3, -1, -1)).sample
        given = pipeline.unet(latents, t, target).sample
    wanted = without - 2.0 * (given - without)
    torch.testing.assert_close(esd.goal(pipeline.unet, latents, t, target, empty, 2.0), wanted, rtol=1e-4, atol=1e-5)


def test_esd_variants_split_the_unet_by_cross_attention(pipeline):
    x, u = (set(esd.trained_names(pipeline.unet, variant)) for variant in "xu")
    assert x and not x & u and x | u == {name for name, _ in pipeline.unet.named_parameters()}
    assert all("attn2" in name for name in x)


@pytest.mark.parametrize(("variant", "learning_rate"), [("x", 3e-3), ("u", 1e-3)])
def test_esd_trains_its_variant_only_and_moves_towards_the_goal(pipeline, concept, variant, learning_rate):
    before = copy.deepcopy(pipeline.unet.state_dict())
    settings = esd.Settings(
        iterations=30,
        batch_size=4,
        learning_rate=learning_rate,
        negative_guidance=3.0,
        num_steps=4,
        guidance_scale=1.0,
        variant=variant,
    )
    edit = esd.erase(pipeline, concept, settings, 0)
    changed = {name for name, tensor in pipeline.unet.state_dict().items() if not torch.equal(tensor, before[name])}
    trained = esd.trained_names(pipeline.unet, variant)
    assert 0.9 * len(trained) < len(changed) and changed <= set(trained)
    assert edit.tensors.keys() == {f"unet.{name}" for name in trained}
    losses = [row["loss"] for row in edit.history]
    assert sum(losses[-5:]) < sum(losses[:5])


def test_uce_closed_form_minimises_its_objective():
    """Against gradient descent's stationarity: autograd of the written-out objective vanishes at the solution."""
    torch.manual_seed(0)
    weight = torch.randn(5, 7, dtype=torch.float64)
    edited, anchors, preserved = (torch.randn(n, 7, dtype=torch.float64) for n in (3, 3, 9))
    solution = uce.closed_form(weight, edited, anchors, preserved, 0.7).requires_grad_(True)
    objective = (edited @ solution.T - anchors @ weight.T).square().sum() + 0.7 * (
        (preserved @ (solution - weight).T).square().sum() + RIDGE * (solution - weight).square().sum()
    )
    objective.backward()
    assert solution.grad.abs().max() < 1e-10
    assert (solution - weight).abs().max() > 1e-2


def test_uce_without_a_change_asked_changes_nothing():
    torch.manual_seed(0)
    weight, same = torch.randn(5, 7, dtype=torch.float64), torch.randn(3, 7, dtype=torch.float64)
    torch.testing.assert_close(uce.closed_form(weight, same, same, torch.randn(4, 7), 1.0), weight)


def test_uce_aligns_words_then_ends(pipeline):
    for target, anchor, words in (
        ("unicorn", "horse", 1),
        ("champagne bottle", "bottle", 1),
        ("weapon", "champagne bottle", 1),
    ):
        edited, anchors = uce.aligned(pipeline, target, anchor)
        assert edited.shape == anchors.shape
        ids = pipeline.tokenizer([target, anchor], padding="max_length", return_tensors="pt").input_ids
        lengths = [len(pipeline.tokenizer(text).input_ids) for text in (target, anchor)]
        hidden = pipeline.text_encoder(ids)[0]
        # the end token of the one stands over the end token of the other
        at = next(i for i in range(len(edited)) if torch.equal(edited[i], hidden[0, lengths[0] - 1]))
        assert torch.equal(anchors[at], hidden[1, lengths[1] - 1])
        assert at >= words
