"""An Edit applied, saved, loaded, exported: the same model each way, also for plain diffusers."""

import pytest
import torch
from conftest import miniature
from diffusers import StableDiffusionPipeline

from eraseflow.edits import Edit, add_lora, compose, lora_of, share, weights_of
from eraseflow.methods import advunlearn, ca, duo, esd, mace, original, race, rece, salun, spm, uce
from eraseflow.sampling import embed

pytestmark = pytest.mark.slow

FAST = {"num_steps": 2, "guidance_scale": 2.0, "iterations": 2, "batch_size": 2, "learning_rate": 1e-2}


def predict(pipeline):
    """What the whole model makes of two prompts."""
    latents = torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        return pipeline.unet(latents, torch.tensor([5, 700]), embed(pipeline, ["unicorn", "a car"])).sample


def lora(pipeline, concept) -> Edit:
    weights = add_lora(pipeline.unet, 2)
    for weight in weights:
        weight.data += 0.1 * torch.randn_like(weight)
    return lora_of(pipeline.unet, [])


def finetuned(pipeline, concept) -> Edit:
    return esd.erase(pipeline, concept, esd.Settings(**FAST, negative_guidance=1.0, variant="x"), 0)


def closed_form(pipeline, concept) -> Edit:
    return uce.erase(pipeline, concept, uce.Settings(preserve_scale=1.0), 0)


def composed(pipeline, concept) -> Edit:
    """A LoRA on all attentions and weights that are in none of them."""
    made = lora(pipeline, concept)
    name = "conv_in.weight"
    pipeline.unet.get_parameter(name).data.mul_(1.2)
    return compose([("lora", made), ("weights", weights_of("unet", pipeline.unet, [name], []))])


def fused(pipeline, concept) -> Edit:
    more = {"preserve_scale": 1.0, "fuse_scale": 1.0, "lora_rank": 1, "pictures": 2, "mask_threshold": 0.4}
    return mace.erase(pipeline, concept, mace.Settings(**FAST, **more), 0)


def preferred(pipeline, concept) -> Edit:
    more = {"pairs": 2, "strength": 0.5, "prompt": "target", "beta": 100.0, "preserve_scale": 1.0, "lora_rank": 2}
    return duo.erase(pipeline, concept, duo.Settings(**FAST | {"learning_rate": 0.1}, **more), 0)


def hardened(pipeline, concept) -> Edit:
    more = {"esd_iterations": 1, "negative_guidance": 1.0, "variant": "x", "epsilon": 0.1, "attack_steps": 2}
    return race.erase(pipeline, concept, race.Settings(**FAST, **more), 0)


def of_the_text_encoder(pipeline, concept) -> Edit:
    attack = {"warmup": 1, "prefix_tokens": 2, "attack_steps": 2, "attack_learning_rate": 0.01}
    more = {"negative_guidance": 1.0, "retain_batch": 2, "retain_scale": 1.0}
    return advunlearn.erase(pipeline, concept, advunlearn.Settings(**FAST, **attack, **more), 0)


def finetuned_elsewhere(pipeline, concept) -> Edit:
    return esd.erase(pipeline, concept, esd.Settings(**FAST, negative_guidance=1.0, variant="u"), 0)


def ablated(pipeline, concept) -> Edit:
    return ca.erase(pipeline, concept, ca.Settings(**FAST, preserve_scale=1.0, pictures=2), 0)


def derived_and_erased(pipeline, concept) -> Edit:
    return rece.erase(pipeline, concept, rece.Settings(preserve_scale=1.0, rounds=2, regularisation=0.1), 0)


def adapted(pipeline, concept) -> Edit:
    more = {"negative_guidance": 1.0, "anchored": 2, "anchoring_scale": 1.0}
    return spm.erase(pipeline, concept, spm.Settings(**FAST | {"learning_rate": 0.1}, **more), 0)


def salient(pipeline, concept) -> Edit:
    more = {"preserve_scale": 1.0, "saliency_batches": 2, "pictures": 2}
    return salun.erase(pipeline, concept, salun.Settings(**FAST, **more), 0)


MAKERS = [
    *(lora, finetuned, finetuned_elsewhere, closed_form, composed, fused, preferred, hardened, of_the_text_encoder),
    *(ablated, derived_and_erased, adapted, salient),
]


@pytest.mark.parametrize("make", MAKERS)
def test_every_way_to_use_an_edit_gives_the_same_model(make, tmp_path, concept):
    edited, plain = miniature(), miniature()
    edit = make(edited, concept)
    wanted = predict(edited)
    assert (wanted - predict(plain)).abs().max() > 1e-3

    edit.save(tmp_path / "edit")
    applied = Edit.load(tmp_path / "edit").apply(miniature())
    torch.testing.assert_close(predict(applied), wanted, rtol=1e-4, atol=1e-5)
    assert not any("lora" in name or "base_layer" in name for name, _ in applied.unet.named_parameters())

    edit.export(plain, tmp_path / "whole")
    reloaded = StableDiffusionPipeline.from_pretrained(tmp_path / "whole", safety_checker=None)
    torch.testing.assert_close(predict(reloaded), wanted, rtol=1e-4, atol=1e-5)
    if edit.kind == "lora":
        loaded = miniature()
        loaded.load_lora_weights(str(tmp_path / "edit"))
        torch.testing.assert_close(predict(loaded), wanted, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("make", [lora, finetuned, of_the_text_encoder])
def test_what_an_edit_leaves_equal_is_held_once(make, concept):
    """Edited and unedited model stay what they were, and have apart what the edit changed."""
    edit, unedited, edited = make(miniature(), concept), miniature(), miniature()
    edit.apply(edited)
    before = predict(edited), predict(unedited)
    share(edited, unedited)
    assert torch.equal(predict(edited), before[0]) and torch.equal(predict(unedited), before[1])
    apart = {
        f"{part}.{name}"
        for part in ("unet", "text_encoder", "vae")
        for name, weight in getattr(edited, part).named_parameters()
        if weight.data_ptr() != getattr(unedited, part).get_parameter(name).data_ptr()
    }
    assert apart == edit.changed()


def test_original_changes_nothing(pipeline, concept, tmp_path):
    before = predict(pipeline)
    original.erase(pipeline, concept, original.Settings(), 0).save(tmp_path / "edit")
    assert torch.equal(predict(Edit.load(tmp_path / "edit").apply(pipeline)), before)


def test_a_lora_and_weights_that_it_changes_cannot_be_composed(pipeline, concept):
    made, others = lora(pipeline, concept), closed_form(miniature(), concept)
    assert others.changed() < made.changed() <= {f"unet.{name}" for name, _ in miniature().unet.named_parameters()}
    with pytest.raises(
        SystemExit, match=r"^uce and eraseflow both change the weights unet\.down_blocks.* more; they ca"
    ):
        compose([("uce", others), ("eraseflow", made)])


def test_weights_of_another_component(pipeline, tmp_path):
    name = "final_layer_norm.weight"
    pipeline.text_encoder.get_parameter(name).data.fill_(0.5)
    edit = weights_of("text_encoder", pipeline.text_encoder, [name], [])
    edit.save(tmp_path / "edit")
    fresh = Edit.load(tmp_path / "edit").apply(miniature())
    assert (fresh.text_encoder.get_parameter(name) == 0.5).all()
