"""A LoRA in each of its formats gives what diffusers and PEFT make of it themselves, or one line that is true."""

import pytest
import torch
from conftest import miniature
from diffusers import StableDiffusionPipeline
from given_weights import drawn, edit_of, fails
from peft import LoHaConfig, LoraConfig, get_peft_model
from peft.utils import get_peft_model_state_dict
from safetensors.torch import load_file, save_file

from eraseflow.edits import Edit

pytestmark = pytest.mark.slow

ATTENTION = ["to_q", "to_k", "to_v", "to_out.0"]
EVERYWHERE = [*ATTENTION, "proj_in", "ff.net.0.proj", "conv1", "time_emb_proj", "downsamplers.0.conv"]
TEXT = ["q_proj", "v_proj", "out_proj", "fc1"]


def randomise(module) -> None:
    for name, weight in module.named_parameters():
        if "lora_" in name:
            weight.data = 0.1 * torch.randn_like(weight)


def with_lora(unet: list[str], text: list[str] = (), **options) -> StableDiffusionPipeline:
    """The miniature with adapters of random matrices on these layers, by PEFT."""
    pipeline = miniature()
    torch.manual_seed(1)
    for module, layers in ((pipeline.unet, unet), (pipeline.text_encoder, text)):
        if layers:
            module.add_adapter(LoraConfig(**{"r": 2, "lora_alpha": 6, **options}, target_modules=list(layers)))
            randomise(module)
    return pipeline


def layers_of(pipeline) -> dict[str, dict[str, torch.Tensor]]:
    """Of each component with an adapter, what PEFT would save."""
    components = ("unet", "text_encoder")
    adapted = [each for each in components if getattr(getattr(pipeline, each), "peft_config", None)]
    return {
        each: {key: tensor.contiguous() for key, tensor in get_peft_model_state_dict(getattr(pipeline, each)).items()}
        for each in adapted
    }


def fused(pipeline) -> dict[str, torch.Tensor]:
    """All weights with the adapters merged by PEFT."""
    found = {}
    for component in ("unet", "text_encoder"):
        module = getattr(pipeline, component)
        for layer in module.modules():
            if hasattr(layer, "merge") and hasattr(layer, "base_layer"):
                layer.merge()
        for name, weight in module.named_parameters():
            if "lora_" not in name:
                found[f"{component}.{name.replace('.base_layer', '')}"] = weight.data
    return found


def is_same(edit: Edit, wanted: dict[str, torch.Tensor], tmp_path) -> None:
    """The edited miniature has these weights, and the edit, saved and loaded, names just what differs."""
    edit.save(tmp_path / "saved")
    pipeline = Edit.load(tmp_path / "saved").apply(miniature())
    base = dict(miniature().unet.named_parameters(prefix="unet"))
    base |= dict(miniature().text_encoder.named_parameters(prefix="text_encoder"))
    got = dict(pipeline.unet.named_parameters(prefix="unet"))
    got |= dict(pipeline.text_encoder.named_parameters(prefix="text_encoder"))
    assert wanted.keys() == got.keys()
    for name, weight in wanted.items():
        torch.testing.assert_close(got[name].data, weight, atol=1e-6, rtol=1e-5)
    moved = {name for name, weight in wanted.items() if (weight - base[name]).abs().max() > 1e-6}
    assert edit.changed() == moved and moved


def kohya(pipeline, alphas=lambda layer: 6.0) -> dict[str, torch.Tensor]:
    """kohya's names and alphas."""
    found = {}
    for component, layers in layers_of(pipeline).items():
        for key, tensor in layers.items():
            layer, _, part = key.partition(".lora_")
            inner = f"text_model.{layer}" if component == "text_encoder" else layer
            name = f"lora_{'te' if component == 'text_encoder' else 'unet'}_{inner.replace('.', '_')}"
            found[f"{name}.lora_{'down' if part.startswith('A') else 'up'}.weight"] = tensor
            found[f"{name}.alpha"] = torch.tensor(alphas(layer))
    return found


@pytest.mark.parametrize("suffix", ["safetensors", "pt"])
def test_kohyas_format_is_what_diffusers_loads(tmp_path, suffix):
    pipeline = with_lora([*ATTENTION, "proj_in", "ff.net.0.proj"], TEXT)
    tensors = kohya(pipeline)
    path = tmp_path / f"x.{suffix}"
    save_file(tensors, path) if suffix == "safetensors" else torch.save(tensors, path)
    edit = edit_of(path)
    assert [leaf.kind for leaf in edit.leaves()] == ["lora", "weights"]
    plain = miniature()
    plain.load_lora_weights({key: tensor.clone() for key, tensor in tensors.items()})
    assert (drawn(edit.apply(miniature())) - drawn(plain)).abs().max() < 1e-4
    assert (drawn(plain) - drawn(miniature())).abs().max() > 1e-2
    is_same(edit, fused(plain), tmp_path)


def test_every_layer_has_its_own_alpha(tmp_path):
    """W + alpha / rank * up @ down, whatever sort of layer, convolutions too."""
    pipeline = with_lora(EVERYWHERE)
    alphas = {layer: 1.0 + place for place, layer in enumerate(sorted({k.partition(".lora_")[0] for k in layers_of(
        pipeline)["unet"]}))}  # fmt: skip
    save_file(kohya(pipeline, alphas.get), tmp_path / "x.safetensors")
    for layer, alpha in alphas.items():
        pipeline.unet.get_submodule(layer).scaling["default"] = alpha / 2
    is_same(edit_of(tmp_path / "x.safetensors"), fused(pipeline), tmp_path)


@pytest.mark.parametrize("text", [[], TEXT])
@pytest.mark.parametrize("form", ["today", "former", "bare", "bin"])
def test_diffusers_formats(tmp_path, form, text):
    """Today's with its record of alpha; the first one of attention processors, where alpha is the rank; no prefix."""
    pipeline = with_lora(ATTENTION, text, **({} if form == "today" else {"lora_alpha": 2}))
    layers = layers_of(pipeline)
    if form == "today":
        records = {
            f"{component}_lora_adapter_metadata": getattr(pipeline, component).peft_config["default"].to_dict()
            for component in layers
        }
        tensors = {f"{component}_lora_layers": each for component, each in layers.items()}
        StableDiffusionPipeline.save_lora_weights(tmp_path, **tensors, **records)
    elif form == "bare":
        everything = {key: tensor for each in layers.values() for key, tensor in each.items()}
        save_file(everything, tmp_path / "x.safetensors")
    else:
        former = {}
        for component, each in layers.items():
            for key, tensor in each.items():
                key = key.replace("lora_A", "lora.down").replace("lora_B", "lora.up").replace(".to_out.0.", ".to_out.")
                for name in ("to_q", "to_k", "to_v", "to_out"):
                    key = key.replace(f".{name}.lora.", f".processor.{name}_lora.")
                key = key.replace("_proj.lora.", "_proj.lora_linear_layer.").replace(
                    "fc1.lora.", "fc1.lora_linear_layer."
                )
                former[f"{component}.{'text_model.' * (component != 'unet')}{key}"] = tensor
        assert any(".processor.to_out_lora.up.weight" in key for key in former)
        save_file(former, tmp_path / "x.safetensors") if form == "former" else torch.save(
            former, tmp_path / "pytorch_lora_weights.bin"
        )
    is_same(edit_of(tmp_path), fused(pipeline), tmp_path)


ADAPTERS = {
    "plain": {},
    "rank-stabilised": {"use_rslora": True},
    "patterns": {"rank_pattern": {"attn2.to_k": 3}, "alpha_pattern": {"to_q": 5, r"down_blocks\.0\..*to_v": 1}},
    "both": {"use_rslora": True, "rank_pattern": {"to_k": 4}, "alpha_pattern": {"attn1.to_k": 9}},
    "convolutions": {"target_modules": EVERYWHERE, "lora_dropout": 0.5},
}


def save_adapter(folder, component="unet", **options):
    """A folder as PEFT saves it, of random matrices. Returns PEFT's model."""
    layers = ATTENTION if component == "unet" else TEXT
    config = LoraConfig(**{"r": 2, "lora_alpha": 6, "target_modules": layers, **options})
    torch.manual_seed(1)
    model = get_peft_model(getattr(miniature(), component), config)
    randomise(model)
    model.save_pretrained(folder)
    return model


@pytest.mark.parametrize("options", ADAPTERS)
def test_adapters_of_peft_are_what_peft_merges(tmp_path, options):
    model = save_adapter(tmp_path / "adapter", **ADAPTERS[options])
    pipeline = miniature()
    pipeline.unet = model.merge_and_unload()
    wanted = fused(pipeline)
    is_same(edit_of(tmp_path / "adapter"), wanted, tmp_path)


def test_an_adapter_as_a_file_and_as_a_pickle(tmp_path):
    pipeline = miniature()
    pipeline.unet = save_adapter(tmp_path / "adapter").merge_and_unload()
    wanted = fused(pipeline)
    is_same(edit_of(tmp_path / "adapter" / "adapter_model.safetensors"), wanted, tmp_path)
    torch.save(
        load_file(tmp_path / "adapter" / "adapter_model.safetensors"), tmp_path / "adapter" / "adapter_model.bin"
    )
    (tmp_path / "adapter" / "adapter_model.safetensors").unlink()
    is_same(edit_of(tmp_path / "adapter"), wanted, tmp_path)


def test_adapters_of_both_networks(tmp_path):
    """In folders of a pipeline's names; the text encoder's alone is an edit of weights."""
    pipeline = miniature()
    pipeline.unet = save_adapter(tmp_path / "both" / "unet").merge_and_unload()
    pipeline.text_encoder = save_adapter(tmp_path / "both" / "text_encoder", "text_encoder").merge_and_unload()
    is_same(edit_of(tmp_path / "both"), fused(pipeline), tmp_path)
    pipeline.unet = miniature().unet
    edit = edit_of(tmp_path / "both" / "text_encoder")
    assert edit.kind == "weights"
    is_same(edit, fused(pipeline), tmp_path)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"use_dora": True}, "use_dora is True; expected a plain LoRA"),
        ({"lora_bias": True, "target_modules": ["conv1"]}, "lora_bias is True"),
        ({"bias": "lora_only"}, "bias is 'lora_only'"),
        ({"modules_to_save": ["conv_in"]}, "modules_to_save is ['conv_in']"),
    ],
)
def test_other_adapters_are_one_line(tmp_path, options, said):
    save_adapter(tmp_path, **options)
    assert said in fails(tmp_path)
    assert "adapter_config.json" in fails(tmp_path)


def test_starts_that_change_the_base_are_one_line(tmp_path):
    """PiSSA's matrices are not added to the base's weights, but to what the start has left of them."""
    save_adapter(tmp_path)
    config = tmp_path / "adapter_config.json"
    config.write_text(config.read_text().replace('"init_lora_weights": true', '"init_lora_weights": "pissa"'))
    assert "init_lora_weights is 'pissa'" in fails(tmp_path)


def test_another_tuner_is_one_line(tmp_path):
    get_peft_model(miniature().unet, LoHaConfig(r=2, target_modules=ATTENTION)).save_pretrained(tmp_path)
    assert "peft_type is LOHA" in fails(tmp_path)


def test_an_adapter_without_its_configuration_is_one_line(tmp_path):
    save_adapter(tmp_path)
    (tmp_path / "adapter_config.json").unlink()
    assert "adapter_config.json" in fails(tmp_path)


LAYER = "lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn1_to_q"


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        ([f"{LAYER}.lora_down.weight", f"{LAYER}.lora_up.weight", f"{LAYER}.dora_scale"], "is DoRA"),
        ([f"{LAYER}.hada_w1_a", f"{LAYER}.hada_w1_b"], "is LoHa"),
        ([f"{LAYER}.lokr_w1", f"{LAYER}.lokr_w2"], "is LoKr"),
        ([f"{LAYER}.lora_down.weight", f"{LAYER}.lora_mid.weight"], "is LoCon with a core tensor"),
        ([f"{LAYER}.diff"], "holds whole differences"),
        (["lora_te2_text_model_encoder_layers_0_mlp_fc1.lora_down.weight"], "Stable Diffusion XL"),
        (["transformer.single_transformer_blocks.0.attn.to_q.lora_A.weight"], "FLUX"),
        ([f"{LAYER}s.lora_down.weight"], f"did you mean '{LAYER.removeprefix('lora_unet_')}'"),
        ([f"{LAYER}.lora_down.weight", "unet.conv_out.weight"], "is of no LoRA, though others are"),
    ],
)
def test_kin_of_lora_are_one_line(tmp_path, keys, said):
    save_file({key: torch.zeros(2, 8) for key in keys}, tmp_path / "x.safetensors")
    assert said in fails(tmp_path / "x.safetensors")


@pytest.mark.parametrize("alpha", [torch.tensor(1.0), torch.tensor([1.0]), 1.0, 1])
def test_an_alpha_in_any_form(tmp_path, alpha):
    down, up = torch.ones(2, 8), torch.ones(8, 2)
    tensors = {f"{LAYER}.lora_down.weight": down, f"{LAYER}.lora_up.weight": up, f"{LAYER}.alpha": alpha}
    torch.save({"state_dict": tensors, "global_step": 3}, tmp_path / "x.pt")
    assert {tensor.max().item() for tensor in edit_of(tmp_path / "x.pt").tensors.values()} == {1.0, 0.5}
    del tensors[f"{LAYER}.alpha"]
    torch.save(tensors | {"lora_alpha": 1}, tmp_path / "x.pt")
    assert "has 'lora_alpha' beside the matrices" in fails(tmp_path / "x.pt")
    save_file(tensors, tmp_path / "x.safetensors", {"ss_network_alpha": "1"})
    assert "says ss_network_alpha 1 in its metadata" in fails(tmp_path / "x.safetensors")


def test_a_lora_that_changes_nothing_is_one_line(tmp_path):
    tensors = kohya(with_lora(ATTENTION))
    save_file({key: 0 * w if "lora_up" in key else w for key, w in tensors.items()}, tmp_path / "x.safetensors")
    assert "so that its row would be that of `original`" in fails(tmp_path / "x.safetensors")
    for value, said in ((torch.nan, "not finite"), (torch.inf, "not finite")):
        save_file({key: value * w if "lora_up" in key else w for key, w in tensors.items()}, tmp_path / "x.safetensors")
        assert said in fails(tmp_path / "x.safetensors")
