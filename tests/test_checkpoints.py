"""Weights as people publish them: each form gives the same edit as the weights themselves, or one line that is true."""

import gzip
import json
import shutil

import published_names
import pytest
import torch
from conftest import CONCEPT, miniature
from diffusers import StableDiffusionPipeline
from given_weights import drawn, edit_of, fails, settings
from safetensors.torch import load_file, save_file

from eraseflow import hub
from eraseflow.checkpoints import files, places, plans
from eraseflow.methods import pretrained

pytestmark = pytest.mark.slow

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture(scope="module")
def other() -> StableDiffusionPipeline:
    """The miniature with every weight of every component moved."""
    pipeline = miniature()
    torch.manual_seed(3)
    for component in ("unet", "text_encoder", "vae"):
        for weight in getattr(pipeline, component).parameters():
            weight.data += 0.02 * torch.randn_like(weight)
    return pipeline


def weights(pipeline, *components: str) -> dict[str, torch.Tensor]:
    return {
        f"{component}.{name}": weight.data
        for component in components
        for name, weight in getattr(pipeline, component).named_parameters()
    }


def holds(edit, wanted: dict[str, torch.Tensor]) -> None:
    assert edit.kind == "weights" and edit.tensors.keys() == wanted.keys()
    assert all(torch.equal(edit.tensors[name], tensor) for name, tensor in wanted.items())


@pytest.mark.parametrize("name", ["one.ckpt", "one.safetensors", "one.pth"])
def test_one_file_of_compvis(other, tmp_path, name, capsys):
    tensors = {key: tensor.contiguous() for key, tensor in published_names.whole(other).items()}
    if name.endswith("safetensors"):
        save_file({key: tensor.clone() for key, tensor in tensors.items()}, tmp_path / name)
    else:
        content = {"state_dict": tensors, "epoch": 3, "optimizer_states": [{"lr": 0.1}], "global_step": 7}
        torch.save(content, tmp_path / name)
    edit = edit_of(tmp_path / name)
    holds(edit, weights(other, "unet", "text_encoder", "vae"))
    assert torch.equal(drawn(edit.apply(miniature())), drawn(other))
    said = capsys.readouterr().out
    for what in ("EMA", "noise schedule", "older versions of transformers", "training loss"):
        assert what in said
    assert name.endswith("safetensors") or "no tensors" in said


def nested(pipeline) -> dict:
    """What ESD's first program saves: a state dict for each trained layer."""
    return {
        f"unet.{name}": module.state_dict()
        for name, module in pipeline.unet.named_modules()
        if name.endswith(("attn2.to_k", "attn2.to_v"))
    }


CROSS = ("attn2.to_k.weight", "attn2.to_v.weight")
UNET_FORMS = {
    "bare": lambda unet: unet,
    "prefixed": lambda unet: {f"unet.{key}": tensor for key, tensor in unet.items()},
    "under unet": lambda unet: {"unet": unet, "optimizer": {"state": {0: {"exp_avg": torch.ones(2)}}}},
    "data parallel": lambda unet: {"state_dict": {f"module.{key}": tensor for key, tensor in unet.items()}},
    "compiled": lambda unet: {"model": {f"_orig_mod.{key}": tensor for key, tensor in unet.items()}},
    "model": lambda unet: {f"model.{key}": tensor for key, tensor in unet.items()},
}


@pytest.mark.parametrize("form", UNET_FORMS)
@pytest.mark.parametrize("part", ["all", "cross-attention"])
def test_state_dicts_of_the_unet(other, tmp_path, form, part):
    """As diffusers and as CompVis name it, whole and in part: the last blocks too."""
    chosen = other.unet.state_dict()
    latent = published_names.of_unet(other.unet)
    if part != "all":
        chosen = {key: tensor for key, tensor in chosen.items() if key.endswith(CROSS)}
        latent = {key: tensor for key, tensor in latent.items() if key.endswith(CROSS)}
    wanted = {f"unet.{key}": tensor for key, tensor in chosen.items()}
    torch.save(UNET_FORMS[form](chosen), tmp_path / "ours.pt")
    holds(edit_of(tmp_path / "ours.pt"), wanted)
    latent = {f"diffusion_model.{key}": tensor for key, tensor in latent.items()}
    torch.save(UNET_FORMS[form](latent) if form not in ("prefixed", "under unet") else latent, tmp_path / "ldm.pt")
    holds(edit_of(tmp_path / "ldm.pt"), wanted)


def test_state_dicts_in_state_dicts(other, tmp_path):
    torch.save(nested(other), tmp_path / "esd.pt", _use_new_zipfile_serialization=False)
    wanted = {name: weight for name, weight in weights(other, "unet").items() if name.endswith(CROSS)}
    holds(edit_of(tmp_path / "esd.pt"), wanted)


@pytest.mark.parametrize(
    "prefix",
    [
        "",
        "text_model.",
        "text_encoder.text_model.",
        "text_encoder.",
        "cond_stage_model.transformer.text_model.",
        "module.",
    ],
)
def test_state_dicts_of_the_text_encoder(other, tmp_path, prefix):
    tensors = {f"{prefix}{name}": tensor for name, tensor in other.text_encoder.state_dict().items()}
    torch.save(tensors | {f"{prefix}embeddings.position_ids": torch.arange(24)[None]}, tmp_path / "text.bin")
    holds(edit_of(tmp_path / "text.bin"), weights(other, "text_encoder"))


def test_two_components_in_one_file(other, tmp_path):
    content = {"unet": other.unet.state_dict(), "text_encoder": other.text_encoder.state_dict()}
    torch.save(content, tmp_path / "both.pt")
    holds(edit_of(tmp_path / "both.pt"), weights(other, "unet", "text_encoder"))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_precisions(other, tmp_path, dtype):
    """Rounding alone is no difference, whichever of the two is coarser; what is edited keeps its own precision."""
    torch.save({key: tensor.to(dtype) for key, tensor in miniature().unet.state_dict().items()}, tmp_path / "base.pt")
    assert "holds the base model's own weights" in fails(tmp_path / "base.pt")
    for base in (torch.float16, torch.bfloat16):
        with pytest.raises(SystemExit, match="holds the base model's own weights"):
            pretrained.erase(miniature().to(dtype=base), CONCEPT, settings(tmp_path / "base.pt"), 0)
    torch.save({key: tensor.to(dtype) for key, tensor in other.unet.state_dict().items()}, tmp_path / "edit.pt")
    edit = edit_of(tmp_path / "edit.pt")
    assert edit.tensors.keys() == weights(other, "unet").keys()
    assert {tensor.dtype for tensor in edit.tensors.values()} == {dtype}


def test_folders_of_every_age(other, tmp_path):
    """In shards, in half precision, in both, and as pickles, of diffusers and transformers."""
    everything = weights(other, "unet", "text_encoder", "vae")
    other.save_pretrained(tmp_path / "shards", max_shard_size="200KB")
    assert len(list((tmp_path / "shards" / "unet").glob("*-of-*"))) > 1
    other.save_pretrained(tmp_path / "both")
    miniature().to(dtype=torch.float16).save_pretrained(tmp_path / "both", variant="fp16")
    shutil.copytree(tmp_path / "both", tmp_path / "bins")
    for path in list((tmp_path / "bins").glob("*/*.safetensors")):
        if "fp16" not in path.name:
            name = "pytorch_model.bin" if path.parent.name == "text_encoder" else path.with_suffix(".bin").name
            torch.save(load_file(path), path.parent / name)
        path.unlink()
    for folder in ("shards", "both", "bins"):
        holds(edit_of(tmp_path / folder), everything)
        holds(edit_of(tmp_path / folder / "model_index.json"), everything)
        holds(edit_of(tmp_path / folder / "unet"), weights(other, "unet"))
        holds(edit_of(tmp_path / folder / "text_encoder"), weights(other, "text_encoder"))
        holds(edit_of(tmp_path / folder / "vae"), weights(other, "vae"))
    (tmp_path / "both" / "unet" / "diffusion_pytorch_model.safetensors").unlink()
    assert "own weights" in fails(tmp_path / "both" / "unet"), "the fp16 one is the base's, rounded"
    shard = next((tmp_path / "shards" / "unet").glob("*00002-of-*"))
    assert "is one of" in fails(shard) and "name their folder" in fails(shard)
    index = tmp_path / "shards" / "unet" / "diffusion_pytorch_model.safetensors.index.json"
    holds(edit_of(index), weights(other, "unet"))
    shard.unlink()
    assert "shards of diffusion_pytorch_model, found" in fails(tmp_path / "shards")


def test_the_old_autoencoders_names(other, tmp_path):
    old = {".to_q.": ".query.", ".to_k.": ".key.", ".to_v.": ".value.", ".to_out.0.": ".proj_attn."}
    tensors = {published_names.replaced(key, {a.strip("."): b.strip(".") for a, b in old.items()}): tensor
               for key, tensor in other.vae.state_dict().items()}  # fmt: skip
    assert any(".proj_attn." in key for key in tensors)
    save_file(tensors, tmp_path / "vae.safetensors")
    holds(edit_of(tmp_path / "vae.safetensors"), weights(other, "vae"))


def test_projections_as_linear_layers(other, tmp_path):
    """A U-Net with use_linear_projection has the same numbers in another shape."""
    tensors = other.unet.state_dict()
    tensors = {key: w[:, :, 0, 0].clone() if "proj_in.w" in key else w for key, w in tensors.items()}
    save_file(tensors, tmp_path / "x.safetensors")
    holds(edit_of(tmp_path / "x.safetensors"), weights(other, "unet"))


def test_a_folder_and_a_file_of_a_repository(other, tmp_path, monkeypatch):
    """Only what is read is fetched."""
    other.save_pretrained(tmp_path / "nudity")
    torch.save(other.unet.state_dict(), tmp_path / "unet.pt")
    torch.save({}, tmp_path / "nudity" / "unet" / "optimizer.bin")
    names = [path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*") if path.is_file()]
    asked = []
    monkeypatch.setattr(hub, "names", lambda source: asked.append(source) or names)
    monkeypatch.setattr(hub, "snapshot", lambda source, patterns: asked.append(patterns) or tmp_path)
    holds(edit_of(f"some/one@{COMMIT}/nudity"), weights(other, "unet", "text_encoder", "vae"))
    assert asked[0] == f"some/one@{COMMIT}" and "nudity/unet/diffusion_pytorch_model.safetensors" in asked[1]
    assert not any("optimizer" in name or "tokenizer" in name for name in asked[1])
    holds(edit_of(f"datasets/some/one@{COMMIT}/unet.pt"), weights(other, "unet"))
    assert asked[2:] == [f"datasets/some/one@{COMMIT}", ["unet.pt"]]
    assert "there is no nudty; did you mean 'nudity'?" in fails(f"some/one@{COMMIT}/nudty")
    assert places.files(f"some/one@{COMMIT}/nudity") == []


def test_local_paths(other, tmp_path, monkeypatch):
    save_file(other.unet.state_dict(), tmp_path / "the weights.safetensors")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    for place in ("the weights.safetensors", "./the weights.safetensors", "~/the weights.safetensors", tmp_path):
        holds(edit_of(place), weights(other, "unet"))
        assert [path.name for path in places.files(str(place))] == ["the weights.safetensors"]
    assert "did you mean 'the weights.safetensors'?" in fails("the wieghts.safetensors")


def test_what_is_no_checkpoint_is_one_line(other, tmp_path):
    save_file(other.unet.state_dict(), tmp_path / "whole.safetensors")
    whole = (tmp_path / "whole.safetensors").read_bytes()
    torch.save(other.unet.state_dict(), tmp_path / "whole.pt")
    pickled = (tmp_path / "whole.pt").read_bytes()
    lfs = b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 4\n"
    for name, content, said in [
        ("a.safetensors", lfs, "is a Git LFS pointer"),
        ("b.bin", b"\n<!DOCTYPE html><html>", "is a web page"),
        ("c.safetensors", whole[:-8], "is cut off"),
        ("d.safetensors", whole[:300], "is cut off"),
        ("e.safetensors", whole + b"12345678", "is damaged"),
        ("e2.safetensors", whole.replace(b'"shape":[8]', b'"shape":[9]'), "is damaged"),
        ("f.pt", pickled[:-100], "is cut off or damaged"),
        ("g.safetensors.gz", gzip.compress(whole), "is compressed by gzip"),
        ("h.pt", b"", "is empty"),
        ("i.ckpt", b"hello, this is a note\n", "is a text file"),
        ("j.ckpt", bytes(range(128, 256)), "is a pickle that is damaged"),
        ("k.ckpt", bytes(range(1, 256)), "neither a safetensors file nor a state dict"),
    ]:
        (tmp_path / name).write_bytes(content)
        assert said in fails(tmp_path / name), name
    torch.save(other.unet, tmp_path / "module.pt")
    assert "needs code to be read, diffusers.models.unets.unet_2d" in fails(tmp_path / "module.pt")
    torch.save([torch.zeros(1)], tmp_path / "list.pt")
    assert "holds a list, which says not where its tensors belong" in fails(tmp_path / "list.pt")
    torch.save({"epoch": 3}, tmp_path / "none.pt")
    assert "holds no weights" in fails(tmp_path / "none.pt")


@pytest.mark.parametrize("length", [0x180, 0x4B50, 0x8B1F])
def test_a_header_as_long_as_another_formats_mark(tmp_path, length):
    """A pickle begins with 80 in hexadecimal digits, a ZIP archive with 504B, gzip with 1F8B."""
    header = json.dumps(
        {"__metadata__": {"a": "b"}, "conv_in.bias": {"dtype": "F32", "shape": [8], "data_offsets": [0, 32]}}
    )
    content = length.to_bytes(8, "little") + header.ljust(length).encode() + bytes(32)
    (tmp_path / "x.safetensors").write_bytes(content)
    assert edit_of(tmp_path / "x.safetensors").tensors.keys() == {"unet.conv_in.bias"}
    assert files.read(tmp_path / "x.safetensors").metadata == {"a": "b"}


def test_a_component_that_is_not_there_is_one_line(other, tmp_path):
    """The base model's would be drawn with in its place."""
    for folder, name in (("a", "vae"), ("b", "unet")):
        other.save_pretrained(tmp_path / folder)
        shutil.rmtree(tmp_path / folder / name)
        assert f"names a {name}, whose folder is not there" in fails(tmp_path / folder)
        other.save_pretrained(tmp_path / folder)
        (tmp_path / folder / "unet" / "diffusion_pytorch_model.safetensors").unlink()
        assert "unet: holds no weights that are read here" in fails(tmp_path / folder)


def test_a_sampler_in_a_files_folder_is_not_the_files(other, tmp_path):
    save_file(other.unet.state_dict(), tmp_path / "x.safetensors")
    (tmp_path / "sampler").mkdir()
    (tmp_path / "sampler" / "edit.json").write_text('{"kind": "sampler", "sampler": {}}')
    holds(edit_of(tmp_path / "x.safetensors"), weights(other, "unet"))


def test_folders_beside_a_components_are_named(other, tmp_path, capsys):
    other.unet.save_pretrained(tmp_path / "unet")
    miniature().unet.save_pretrained(tmp_path / "unet_ema")
    torch.save({}, tmp_path / "optimizer.bin")
    holds(edit_of(tmp_path), weights(other, "unet"))
    assert "left out unet_ema/" in capsys.readouterr().out


def test_a_weight_that_is_no_tensor_is_one_line(other, tmp_path):
    torch.save(other.unet.state_dict() | {"conv_in.bias": [0.0] * 8}, tmp_path / "x.pt")
    assert "conv_in.bias is no tensor" in fails(tmp_path / "x.pt")


def test_several_candidates_are_named(other, tmp_path):
    save_file(other.unet.state_dict(), tmp_path / "a.safetensors")
    torch.save(other.unet.state_dict(), tmp_path / "b.pt")
    assert "holds several candidates, a.safetensors, b.pt; name one of them" in fails(tmp_path)
    (tmp_path / "twins").mkdir()
    for name in ("model.bin", "pytorch_model.bin"):
        torch.save(other.unet.state_dict(), tmp_path / "twins" / name)
    assert "holds several candidates, model.bin, pytorch_model.bin" in fails(tmp_path / "twins")
    other.save_pretrained(tmp_path / "pipeline")
    save_file(other.unet.state_dict(), tmp_path / "pipeline" / "a.safetensors")
    assert "a pipeline (model_index.json), a.safetensors" in fails(tmp_path / "pipeline")
    holds(edit_of(tmp_path / "pipeline" / "model_index.json"), weights(other, "unet", "text_encoder", "vae"))
    (tmp_path / "deep" / "nudity").mkdir(parents=True)
    assert "holds no weights" in fails(tmp_path / "deep")
    save_file(other.unet.state_dict(), tmp_path / "deep" / "nudity" / "a.safetensors")
    assert "name one of its folders, nudity" in fails(tmp_path / "deep")


@pytest.mark.parametrize(
    ("tensors", "said"),
    [
        ({"conditioner.embedders.0.x": (1,)}, "one of Stable Diffusion XL"),
        ({"cond_stage_model.model.ln_final.weight": (1,)}, "one of Stable Diffusion 2"),
        ({"double_blocks.0.img_attn.proj.weight": (1,)}, "one of FLUX"),
        ({"conv_in.weight": (8, 9, 3, 3)}, "those of an inpainting model"),
        ({"conv_in.bias": (8,), "v_pred": (0,)}, "v-prediction"),
        (
            {"down_blocks.0.attentions.0.transformer_blocks.0.attn2.to_k.weight": (8, 1024)},
            "those of Stable Diffusion 2",
        ),
        ({"conv_in.bias": (8,), "unet.conv_in.bias": (8,)}, "are the same weight, unet.conv_in.bias"),
        ({"unet.conv_inn.bias": (8,)}, "did you mean 'conv_in.bias'"),
        ({"model_ema.diffusion_modelconv_inbias": (8,)}, "holds no weights of this base model, only 1 (model_ema"),
    ],
)
def test_other_models_are_one_line(tmp_path, tensors, said):
    save_file({key: torch.zeros(shape) for key, shape in tensors.items()}, tmp_path / "x.safetensors")
    assert said in fails(tmp_path / "x.safetensors")


@pytest.mark.parametrize("dtype", [torch.int8, torch.float8_e4m3fn])
def test_quantised_weights_are_one_line(tmp_path, dtype):
    save_file({"conv_in.bias": torch.zeros(8).to(dtype)}, tmp_path / "x.safetensors")
    torch.save({"conv_in.bias": torch.zeros(8).to(dtype)}, tmp_path / "x.pt")
    for name in ("x.safetensors", "x.pt"):
        assert "neither quantised nor sparse" in fails(tmp_path / name)


def test_numbers_that_are_not_finite_are_one_line(tmp_path):
    save_file({"conv_in.bias": torch.tensor([0.0, torch.nan] * 4)}, tmp_path / "x.safetensors")
    assert "conv_in.bias is not finite (nan)" in fails(tmp_path / "x.safetensors")


@pytest.mark.parametrize(
    ("file", "change", "said"),
    [
        ("unet/config.json", {"attention_head_dim": 4}, "has attention_head_dim 4, the base model's unet 2"),
        ("vae/config.json", {"scaling_factor": 0.3}, "has scaling_factor 0.3"),
        ("text_encoder/config.json", {"hidden_act": "gelu"}, "has hidden_act 'gelu'"),
        ("scheduler/scheduler_config.json", {"prediction_type": "v_prediction"}, "prediction_type is 'v_prediction'"),
        ("scheduler/scheduler_config.json", {"beta_end": 0.02}, "noise schedule"),
        ("model_index.json", {"text_encoder_2": ["transformers", "CLIPTextModel"]}, "'text_encoder_2'"),
    ],
)
def test_what_is_not_in_the_tensors_must_be_the_bases(other, tmp_path, file, change, said):
    other.save_pretrained(tmp_path)
    path = tmp_path / file
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    assert said in fails(tmp_path)


def test_a_key_that_is_left_out_means_its_default(other, tmp_path):
    """diffusers' default of eight heads, where the base has two."""
    other.save_pretrained(tmp_path)
    path = tmp_path / "unet" / "config.json"
    config = json.loads(path.read_text())
    assert config.pop("attention_head_dim") == 2 and config.pop("up_block_types")
    path.write_text(json.dumps(config))
    assert "has attention_head_dim 8, the base model's unet 2" in fails(tmp_path)


def test_the_check_sees_it_in_the_headers(other, tmp_path):
    """Before any stage and without loading a weight, by the base's own files."""
    miniature().save_pretrained(tmp_path / "base")
    other.save_pretrained(tmp_path / "good")
    base = str(tmp_path / "base")
    pretrained.ready(settings(tmp_path / "good"), "unicorn", base)
    save_file({"conv_in.bias": torch.zeros(9)}, tmp_path / "x.safetensors")
    with pytest.raises(SystemExit, match=r"unet.conv_in.bias has the shape \(9,\), the base model's \(8,\)"):
        pretrained.ready(settings(tmp_path / "x.safetensors"), "unicorn", base)
    assert plans.base_of(base).shapes == {name: tuple(w.shape) for name, w in weights(
        miniature(), "unet", "text_encoder", "vae").items()}  # fmt: skip
