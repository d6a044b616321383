"""Rows of the table from weights that exist already: every form that a source may have, and what is wrong with one."""

import json

import pytest
import torch
from conftest import miniature
from diffusers import StableDiffusionPipeline
from given_weights import drawn, edit_of, fails, settings
from safetensors.torch import load_file, save_file

from eraseflow import edits
from eraseflow.definitions import definition
from eraseflow.edits import Edit, add_lora, lora_of
from eraseflow.methods import pretrained, sld

LAYER = "unet.down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q"


@pytest.fixture
def lora() -> Edit:
    pipeline = miniature()
    torch.manual_seed(1)
    for weight in add_lora(pipeline.unet, 2):
        weight.data += 0.1 * torch.randn_like(weight)
    return lora_of(pipeline.unet, [])


@pytest.fixture
def changed() -> StableDiffusionPipeline:
    """The miniature with one weight of each component moved."""
    pipeline = miniature()
    pipeline.unet.get_parameter("conv_in.weight").data += 0.1
    pipeline.text_encoder.get_parameter("final_layer_norm.bias").data += 0.2
    pipeline.vae.get_parameter("decoder.conv_out.bias").data += 0.3
    return pipeline


CHANGED = {"unet.conv_in.weight", "text_encoder.final_layer_norm.bias", "vae.decoder.conv_out.bias"}


def test_of_a_whole_pipeline_only_what_differs_is_kept(changed, tmp_path):
    changed.save_pretrained(tmp_path)
    edit = edit_of(tmp_path)
    assert edit.kind == "weights" and edit.tensors.keys() == CHANGED and edit.history == []
    assert torch.equal(drawn(edit.apply(miniature())), drawn(changed))
    assert not torch.equal(drawn(miniature()), drawn(changed))


def test_the_precision_of_a_file_is_no_difference(changed, concept, tmp_path):
    changed.save_pretrained(tmp_path / "single")
    half = miniature().to(dtype=torch.bfloat16)
    assert pretrained.erase(half, concept, settings(tmp_path / "single"), 0).tensors.keys() == CHANGED
    changed.to(dtype=torch.float16).save_pretrained(tmp_path / "half")
    assert edit_of(tmp_path / "half").tensors.keys() == CHANGED


def test_an_exported_edit_comes_back_as_the_same_pictures(lora, tmp_path):
    lora.export(miniature(), tmp_path / "whole")
    edit = edit_of(tmp_path / "whole")
    assert all(".attn" in name for name in edit.tensors)
    edit.save(tmp_path / "edit")
    again = drawn(Edit.load(tmp_path / "edit").apply(miniature()))
    assert torch.equal(again, drawn(lora.apply(miniature())))


def test_a_sampler_beside_an_exported_pipeline_comes_with_it(lora, tmp_path):
    sampler = edits.edit_of(sld.Sampler("unicorn", 0, 1000.0, 0.01, 0.3, 0.4))
    whole = edits.compose([("eraseflow", lora), ("sld", sampler)])
    whole.save(tmp_path / "edit")
    with pytest.warns(UserWarning, match="without sld"):
        whole.export(miniature(), tmp_path / "whole")
    for place, kinds in (
        ("whole", ["weights", "sampler"]),
        ("edit", ["lora", "sampler"]),
        ("whole/sampler", ["sampler"]),
    ):
        edit = edit_of(tmp_path / place)
        assert [leaf.kind for leaf in edit.leaves()] == kinds
        assert edit.leaves()[-1].sampler == sampler.sampler


@pytest.mark.parametrize("as_file", [True, False])
def test_a_lora_stays_a_lora(lora, tmp_path, as_file):
    lora.save(tmp_path)
    edit = edit_of(tmp_path / "pytorch_lora_weights.safetensors" if as_file else tmp_path)
    assert edit.kind == "lora" and edit.tensors.keys() == lora.tensors.keys()
    assert all(torch.equal(edit.tensors[name], tensor) for name, tensor in lora.tensors.items())


@pytest.mark.parametrize("with_metadata", [True, False])
def test_another_alpha_gives_what_diffusers_draws(tmp_path, with_metadata):
    """As diffusers saves it now, with its own record of alpha, and with older files' alpha keys."""
    from peft import LoraConfig
    from peft.utils import get_peft_model_state_dict

    pipeline = miniature()
    torch.manual_seed(1)
    options = {"r": 2, "lora_alpha": 6, "init_lora_weights": "gaussian", "target_modules": ["to_q", "to_v"]}
    pipeline.unet.add_adapter(LoraConfig(**options))
    for name, weight in pipeline.unet.named_parameters():
        if "lora" in name:
            weight.data = 0.1 * torch.randn_like(weight)
    layers = get_peft_model_state_dict(pipeline.unet)
    if with_metadata:
        config = {"unet_lora_adapter_metadata": {**pipeline.unet.peft_config["default"].to_dict()}}
        StableDiffusionPipeline.save_lora_weights(tmp_path, unet_lora_layers=layers, **config)
    else:
        alphas = {f"unet.{name.partition('.lora')[0]}.alpha": torch.tensor(6.0) for name in layers}
        tensors = {f"unet.{name}": tensor.contiguous() for name, tensor in layers.items()}
        save_file(tensors | alphas, tmp_path / "pytorch_lora_weights.safetensors")
    edit = edit_of(tmp_path)
    edit.save(tmp_path / "edit")
    ours = drawn(Edit.load(tmp_path / "edit").apply(miniature()))
    assert (ours - drawn(pipeline)).abs().max() < 1e-4
    assert (ours - drawn(miniature())).abs().max() > 1e-2


def test_state_dicts_of_unet_and_text_encoder(changed, tmp_path):
    """Whole, in part, with older versions' prefix and position ids, and as a component's folder."""
    part = {"conv_in.weight": changed.unet.get_parameter("conv_in.weight").data}
    save_file(part, tmp_path / "part.safetensors")
    save_file(changed.unet.state_dict(), tmp_path / "unet.safetensors")
    changed.unet.save_pretrained(tmp_path / "unet")
    for place in ("part.safetensors", "unet.safetensors", "unet"):
        assert edit_of(tmp_path / place).tensors.keys() == {"unet.conv_in.weight"}
    text = {f"text_model.{name.replace('text_model.', '')}": w for name, w in changed.text_encoder.state_dict().items()}
    text["text_model.embeddings.position_ids"] = torch.arange(24)[None]
    save_file(text, tmp_path / "text.safetensors")
    changed.text_encoder.save_pretrained(tmp_path / "text")
    for place in ("text.safetensors", "text"):
        assert edit_of(tmp_path / place).tensors.keys() == {"text_encoder.final_layer_norm.bias"}


def test_an_edit_of_ours(changed, tmp_path):
    name = "unet.conv_in.weight"
    edit = Edit("weights", {name: changed.unet.get_parameter("conv_in.weight").data})
    edit.save(tmp_path)
    assert torch.equal(edit_of(tmp_path).tensors[name], edit.tensors[name])


def test_a_repository_without_a_commit_says_where_to_find_one():
    said = fails("EraseFlow/NUDITY")
    assert "https://huggingface.co/EraseFlow/NUDITY/commits/main and write EraseFlow/NUDITY@<its 40" in said


def test_ready_needs_no_torch_and_asks_for_the_tables_concepts(tmp_path):
    ready = definition("methods", "pretrained", "ready")
    assert "torch" not in ready.__globals__
    miniature().save_pretrained(tmp_path)
    ready(settings(tmp_path), "unicorn", str(tmp_path))
    with pytest.raises(SystemExit, match=r"sources\.unicron: names no weights for it; did you mean 'unicorn'"):
        ready(settings(tmp_path), "unicron", str(tmp_path))


def test_an_unknown_key_is_one_line(tmp_path):
    save_file({"conv_inn.weight": torch.zeros(1)}, tmp_path / "x.safetensors")
    said = "the key 'conv_inn.weight' is no weight of this base model in diffusers' or CompVis' names; did you mean"
    assert said in fails(tmp_path / "x.safetensors")


def test_a_wrong_shape_is_one_line(tmp_path):
    save_file({"conv_in.bias": torch.zeros(9)}, tmp_path / "x.safetensors")
    assert "unet.conv_in.bias has the shape (9,), the base model's (8,)" in fails(tmp_path / "x.safetensors")


def test_a_folder_with_a_weight_missing_is_one_line(changed, tmp_path):
    changed.unet.save_pretrained(tmp_path)
    tensors = load_file(tmp_path / "diffusion_pytorch_model.safetensors")
    del tensors["conv_in.weight"]
    save_file(tensors, tmp_path / "diffusion_pytorch_model.safetensors", {"format": "pt"})
    assert "lacks the unet's weights conv_in.weight" in fails(tmp_path)


def test_another_architecture_is_one_line(changed, tmp_path):
    changed.save_pretrained(tmp_path)
    config = json.loads((tmp_path / "unet" / "config.json").read_text())
    (tmp_path / "unet" / "config.json").write_text(json.dumps(config | {"block_out_channels": [8, 8]}))
    assert "has block_out_channels [8, 8], the base model's unet [8, 16]" in fails(tmp_path)


@pytest.mark.parametrize(
    ("name", "shape", "what"),
    [
        ("unet.nowhere.to_q.lora_A.weight", (2, 8), "is of no layer of this base model"),
        ("lora_unet_down_blocks_0.lora_down.weight", (2, 8), "is of no layer of this base model"),
        (f"{LAYER}.lora_A.weight", (2, 9), "needs two matrices"),
    ],
)
def test_a_lora_that_does_not_fit_is_one_line(tmp_path, name, shape, what):
    save_file({name: torch.zeros(shape)}, tmp_path / "pytorch_lora_weights.safetensors")
    assert what in fails(tmp_path)


def test_matrices_of_another_shape_are_one_line(tmp_path):
    tensors = {f"{LAYER}.lora_A.weight": torch.zeros(2, 9), f"{LAYER}.lora_B.weight": torch.zeros(8, 2)}
    save_file(tensors, tmp_path / "pytorch_lora_weights.safetensors")
    assert "lora_A.weight has the shape (2, 9), expected (2, 8)" in fails(tmp_path)
