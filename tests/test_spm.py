"""SPM against its two terms, its sampled states, and where its adapters are."""

import copy

import pytest
import torch
from conftest import miniature
from torch import nn

from eraseflow.edits import add_lora
from eraseflow.methods import spm

pytestmark = pytest.mark.slow

SETTINGS = {
    "iterations": 40, "batch_size": 4, "learning_rate": 1e-2, "negative_guidance": 2.0, "num_steps": 3,
    "guidance_scale": 2.0, "anchored": 3, "anchoring_scale": 0.1,
}  # fmt: skip


def adapted_unet(unet):
    """Adapters that do something."""
    torch.manual_seed(0)
    for weight in add_lora(unet, 1, spm.layers(unet), start=True):
        weight.data += 0.1 * torch.randn_like(weight)
    return unet


def test_both_terms_against_an_unedited_copy(pipeline):
    frozen = copy.deepcopy(pipeline.unet)
    unet = adapted_unet(pipeline.unet)
    latents, t = torch.randn(2, 4, 8, 8), torch.tensor(301)
    target, surrogate, others = torch.randn(2, 24, 32), torch.randn(2, 24, 32), torch.randn(3, 24, 32)
    erasing, anchoring = spm.losses(unet, latents, t, target, surrogate, others, 1.5)
    wanted, wanted_anchoring = 0.0, 0.0
    with torch.no_grad():
        for n in range(2):
            x = latents[n : n + 1]
            base, given = (frozen(x, t, prompt[n : n + 1]).sample for prompt in (surrogate, target))
            ours = unet(x, t, target[n : n + 1]).sample
            wanted += (ours - (base - 1.5 * (given - base))).square().mean() / 2
        for n in range(3):
            x, prompt = latents[n % 2 : n % 2 + 1], others[n : n + 1]
            wanted_anchoring += (unet(x, t, prompt).sample - frozen(x, t, prompt).sample).square().mean() / 3
    torch.testing.assert_close(erasing, wanted, rtol=1e-4, atol=1e-7)
    torch.testing.assert_close(anchoring, wanted_anchoring, rtol=1e-4, atol=1e-7)
    (erasing + anchoring).backward()
    gradients = {name: weight.grad for name, weight in unet.named_parameters() if weight.grad is not None}
    assert len(gradients) == 2 * len(spm.layers(frozen)) and all("lora" in name for name in gradients)


def test_sampled_states_are_about_as_long_and_seldom_alike():
    """In two dimensions, where it can be integrated: the mean cosine under a density of min(1, 1 - cosine)."""
    concept = torch.tensor([[[3.0, 4.0]]]).expand(20_000, -1, -1)
    found = spm.sampled(concept, torch.Generator().manual_seed(0)).flatten(1)
    lengths = found.norm(dim=1)
    assert 4 <= lengths.min() < 4.01 and 5.99 < lengths.max() <= 6
    angles = torch.linspace(0, 2 * torch.pi, 10_001)
    chance = (1 - angles.cos()).clamp(max=1)
    wanted = (chance * angles.cos()).mean() / chance.mean()
    cosines = nn.functional.cosine_similarity(found, concept.flatten(1))
    assert cosines.mean().item() == pytest.approx(wanted.item(), abs=0.02) and wanted < -0.2
    again = spm.sampled(concept, torch.Generator().manual_seed(0)).flatten(1)
    assert torch.equal(found, again)


def test_every_linear_and_convolutional_layer_of_the_transformers_has_an_adapter(pipeline, concept):
    unet = pipeline.unet
    names = set(spm.layers(unet))
    blocks = [name.split(".attentions.")[0] for name in names]
    assert {block.split(".")[0] for block in blocks} == {"down_blocks", "mid_block", "up_blocks"}
    one = {name.split(".attentions.0.")[1] for name in names if name.startswith("mid_block")}
    inner = [f"attn{n}.{part}" for n in (1, 2) for part in ("to_q", "to_k", "to_v", "to_out.0")]
    wanted = {f"transformer_blocks.0.{part}" for part in (*inner, "ff.net.0.proj", "ff.net.2")}
    assert one == wanted | {"proj_in", "proj_out"}
    assert isinstance(unet.get_submodule("mid_block.attentions.0.proj_in"), nn.Conv2d)
    edit = spm.erase(pipeline, concept, spm.Settings(**SETTINGS | {"iterations": 1}), 0)
    assert len(edit.tensors) == 2 * len(names)
    downs = [tensor for name, tensor in edit.tensors.items() if name.endswith("lora.down.weight")]
    assert len(downs) == len(names) and {len(tensor) for tensor in downs} == {1}, "one dimension each"


def test_it_erases_and_anchoring_holds_it_back(concept):
    runs = []
    for scale in (0.1, 1e3):
        pipeline = miniature()
        before = copy.deepcopy(pipeline.unet.state_dict())
        edit = spm.erase(pipeline, concept, spm.Settings(**SETTINGS | {"anchoring_scale": scale}), 0)
        runs.append(edit.history)
        kept = {name.replace("base_layer.", ""): weight for name, weight in pipeline.unet.state_dict().items()}
        assert all(torch.equal(weight, kept[name]) for name, weight in before.items())
    free, held = runs
    assert sum(row["erasing"] for row in free[-5:]) < 0.8 * sum(row["erasing"] for row in free[:5])
    assert sum(row["anchoring"] for row in held[-5:]) < 0.5 * sum(row["anchoring"] for row in free[-5:])
