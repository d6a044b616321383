"""CA against its equation, and that each picture is trained with its own pair."""

import copy

import pytest
import torch

from eraseflow.cross_attention import projections
from eraseflow.methods import ca
from eraseflow.sampling import embed

pytestmark = pytest.mark.slow

SETTINGS = {
    "iterations": 40, "batch_size": 4, "learning_rate": 1e-2, "preserve_scale": 0.0, "pictures": 6, "num_steps": 2,
    "guidance_scale": 2.0,
}  # fmt: skip


@pytest.mark.parametrize("scale", [0.0, 0.7])
def test_the_loss_and_its_gradient_term_by_term(pipeline, scale):
    """Against passes one by one, in which the anchor's prediction is a constant of the first term."""
    torch.manual_seed(0)
    unet, plain = pipeline.unet, copy.deepcopy(pipeline.unet)
    noisy, noise = torch.randn(2, 3, 4, 8, 8)
    target, anchor = torch.randn(2, 3, 24, 32)
    t = torch.tensor([5, 301, 900])
    ablated, kept = ca.ablation_loss(unet, noisy, t, target, anchor, noise, scale)
    (ablated + scale * kept).backward()
    wanted, kept_wanted = 0.0, 0.0
    for n in range(3):
        one = slice(n, n + 1)
        given, fixed = (plain(noisy[one], t[one], prompt[one]).sample for prompt in (target, anchor))
        wanted = wanted + (given - fixed.detach()).square().mean() / 3
        kept_wanted = kept_wanted + scale * (fixed - noise[one]).square().mean() / 3
    torch.testing.assert_close(ablated, wanted, rtol=1e-4, atol=1e-7)
    torch.testing.assert_close(scale * kept, torch.as_tensor(kept_wanted), rtol=1e-4, atol=1e-7)
    (wanted + kept_wanted).backward()
    for (name, weight), other in zip(unet.named_parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(weight.grad, other.grad, rtol=1e-2, atol=1e-5, msg=name)


def test_batches_mix_pairs_and_each_picture_keeps_its_own(pipeline, concept, monkeypatch):
    """Pictures are of the anchor's own sentence: of three pairs, the pictures are drawn in turn."""
    concept = concept.model_copy(update={"also": {"knife": "saw", "axe": "hammer"}})
    targets, anchors = (embed(pipeline, side) for side in zip(*concept.pairs, strict=True))
    batches, drawn, real = [], [], ca.own_pictures.draw

    def pictures(pipeline, condition, seeds, *how):
        drawn.append(condition)
        return real(pipeline, condition, seeds, *how)

    def loss(unet, noisy, t, target, anchor, noise, scale):
        batches.append((target, anchor))
        return unet.get_parameter(projections(unet)[0]).sum(), torch.zeros(())

    monkeypatch.setattr(ca.own_pictures, "draw", pictures)
    monkeypatch.setattr(ca, "ablation_loss", loss)
    ca.erase(pipeline, concept, ca.Settings(**SETTINGS | {"iterations": 5}), 0)
    assert torch.equal(drawn[0], anchors.repeat(2, 1, 1))
    mixed = 0
    for target, anchor in batches:
        rows = [next(i for i in range(3) if torch.equal(row, targets[i])) for row in target]
        assert torch.equal(anchor, anchors[rows])
        mixed += len(set(rows)) > 1
    assert mixed >= 3


@pytest.mark.parametrize("scale", [0.0, 1.0])
def test_keys_and_values_learn_to_answer_the_target_as_the_anchor(pipeline, concept, scale):
    before = copy.deepcopy(pipeline.unet.state_dict())
    edit = ca.erase(
        pipeline,
        concept,
        ca.Settings(**SETTINGS | {"preserve_scale": scale, "iterations": 120, "learning_rate": 3e-4}),
        0,
    )
    changed = {name for name, tensor in pipeline.unet.state_dict().items() if not torch.equal(tensor, before[name])}
    assert changed == set(projections(pipeline.unet))
    assert edit.tensors.keys() == {f"unet.{name}" for name in changed}
    losses = [row["ablation"] for row in edit.history]
    assert sum(losses[-20:]) < 0.8 * sum(losses[:20])
