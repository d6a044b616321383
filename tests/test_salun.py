"""SalUn against its equations: the mask, the gradients it comes from, the two terms."""

import copy

import numpy as np
import pytest
import torch

from eraseflow.fine_tuning import FineTuning
from eraseflow.methods import salun

pytestmark = pytest.mark.slow

SETTINGS = {
    "iterations": 30, "batch_size": 4, "learning_rate": 3e-3, "preserve_scale": 0.0, "saliency_batches": 3,
    "pictures": 6, "num_steps": 2, "guidance_scale": 2.0,
}  # fmt: skip


def test_the_mask_is_everything_from_the_median_on():
    rng = np.random.default_rng(0)
    gradients = [rng.normal(size=shape) * size for shape, size in (((3, 5), 1), ((40,), 0.1), ((2, 2, 2), 5))]
    flat = np.abs(np.concatenate([gradient.ravel() for gradient in gradients]))
    found = salun.mask([torch.tensor(gradient) for gradient in gradients], 0.5)
    for ours, gradient in zip(found, gradients, strict=True):
        assert np.array_equal(ours.numpy(), np.abs(gradient) >= np.median(flat))
    assert sum(int(part.sum()) for part in found) == (len(flat) + 1) // 2
    for share, count in ((1.0, 63), (0.1, 6)):
        assert sum(int(part.sum()) for part in salun.mask([torch.tensor(g) for g in gradients], share)) == count


def test_saliency_is_the_gradient_of_the_diffusion_loss(pipeline):
    """Against passes one by one over the same draws, without masters."""
    torch.manual_seed(0)
    pictures, prompts = torch.randn(6, 4, 8, 8), torch.randn(6, 24, 32)
    plain = copy.deepcopy(pipeline.unet)
    settings = salun.Settings(**SETTINGS)
    tuning = FineTuning(list(pipeline.unet.parameters()), torch.optim.Adam, 1e-3)
    found = salun.saliency(pipeline, tuning, pictures, prompts, settings, torch.Generator().manual_seed(3))
    rng = torch.Generator().manual_seed(3)
    alphas = pipeline.scheduler.alphas_cumprod
    for _ in range(3):
        chosen = torch.randint(6, (4,), generator=rng)
        noise = torch.randn(4, 4, 8, 8, generator=rng)
        times = torch.randint(1000, (4,), generator=rng)
        for row, e, t in zip(chosen, noise, times, strict=True):
            noisy = alphas[t].sqrt() * pictures[row] + (1 - alphas[t]).sqrt() * e
            ((plain(noisy[None], t, prompts[row][None]).sample[0] - e).square().mean() / 4).backward()
    for ours, theirs in zip(found, plain.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs.grad, rtol=1e-2, atol=1e-4)


def test_the_loss_and_its_gradient_term_by_term(pipeline):
    torch.manual_seed(0)
    unet, plain = pipeline.unet, copy.deepcopy(pipeline.unet)
    noisy, noise = torch.randn(2, 4, 4, 8, 8)
    target, anchor, retained = torch.randn(3, 2, 24, 32)
    t = torch.tensor([5, 301, 900, 40])
    relabelling, retaining = salun.losses(unet, noisy, t, noise, target, anchor, retained)
    (relabelling + 0.3 * retaining).backward()
    wanted = []
    for n in range(2):
        given, fixed = (plain(noisy[n : n + 1], t[n], prompt[n : n + 1]).sample for prompt in (target, anchor))
        kept = plain(noisy[2 + n : 3 + n], t[2 + n], retained[n : n + 1]).sample
        wanted.append(((given - fixed.detach()).square().mean(), (kept - noise[2 + n]).square().mean()))
    first, second = (torch.stack(terms).mean() for terms in zip(*wanted, strict=True))
    torch.testing.assert_close(relabelling, first, rtol=1e-4, atol=1e-7)
    torch.testing.assert_close(retaining, second, rtol=1e-4, atol=1e-7)
    (first + 0.3 * second).backward()
    for weight, other in zip(unet.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(weight.grad, other.grad, rtol=1e-2, atol=1e-5)


@pytest.mark.parametrize("share", [0.5, 0.1])
def test_only_salient_weights_move_and_the_concept_is_relabelled(pipeline, concept, share, monkeypatch):
    before = copy.deepcopy(pipeline.unet.state_dict())
    masks, real = [], salun.mask
    monkeypatch.setattr(salun, "mask", lambda *given: masks.append(real(*given)) or masks[-1])
    edit = salun.erase(pipeline, concept, salun.Settings(**SETTINGS, salient=share), 0)
    moved = [edit.tensors[f"unet.{name}"] != before[name] for name, _ in pipeline.unet.named_parameters()]
    assert not any((change & ~salient).any() for change, salient in zip(moved, masks[0], strict=True))
    count = sum(change.numel() for change in moved)
    assert sum(int(change.sum()) for change in moved) / count == pytest.approx(share, rel=0.02)
    losses = [row["relabelling"] for row in edit.history]
    assert sum(losses[-5:]) < 0.8 * sum(losses[:5])


def test_what_is_retained_is_anchors_and_preserved_prompts(pipeline, concept, monkeypatch):
    drawn, real = [], salun.own_pictures.draw
    monkeypatch.setattr(salun.own_pictures, "draw", lambda *given: drawn.append(given[1]) or real(*given))
    salun.erase(pipeline, concept, salun.Settings(**SETTINGS | {"iterations": 1}), 0)
    forget, retain = salun.embed(pipeline, ["unicorn"]), salun.embed(pipeline, ["horse", "cat", "car"])
    assert torch.equal(drawn[0], torch.cat([forget.expand(6, -1, -1), retain.repeat(2, 1, 1)]))
