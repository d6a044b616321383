"""Base models of another kind than epsilon-predicting Stable Diffusion are refused in one line, before any work."""

import json
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
from diffusers import DDIMScheduler, PNDMScheduler

from eraseflow import params, train
from eraseflow.export import export
from eraseflow.testbeds import base_model, emoji, sd14

ROOT = Path(__file__).parent.parent
SD14 = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}
SCHEDULER, UNET, TEXT, VAE, INDEX = (
    *("scheduler/scheduler_config.json", "unet/config.json", "text_encoder/config.json", "vae/config.json"),
    "model_index.json",
)
# What is changed in which file of a supported model, and the message.
OTHERS = [
    (SCHEDULER, {"prediction_type": "v_prediction"}, "prediction_type is 'v_prediction'; only 'epsilon' is supported"),
    (SCHEDULER, {"prediction_type": "sample"}, "prediction_type is 'sample'"),
    (SCHEDULER, {"rescale_betas_zero_snr": True}, "rescale_betas_zero_snr is True"),
    (SCHEDULER, {"clip_sample": True}, "clip_sample is True"),
    (SCHEDULER, {"thresholding": True}, "thresholding is True"),
    (SCHEDULER, {"num_train_timesteps": 500}, "num_train_timesteps is 500"),
    (SCHEDULER, {"timestep_spacing": "linspace"}, "timestep_spacing is 'linspace'"),
    (SCHEDULER, {"steps_offset": 20}, "steps_offset is 20; only 0 or 1 is supported"),
    (SCHEDULER, {"beta_schedule": "squaredcos_cap_v2"}, "beta_schedule is 'squaredcos_cap_v2'"),
    (SCHEDULER, {"beta_end": 0.05}, "its last alpha_cumprod is 3.7e-09"),
    (SCHEDULER, {"trained_betas": [0.01] * 999 + [1.0]}, "its last alpha_cumprod is 0.0e+00"),
    (SCHEDULER, {"trained_betas": [0.01] * 10}, "its last alpha_cumprod is 9.0e-01 after 10 timesteps"),
    (SCHEDULER, {"_class_name": "LCMScheduler"}, "is a LCMScheduler"),
    (SCHEDULER, {"_class_name": "FlowMatchEulerDiscreteScheduler"}, "is a FlowMatchEulerDiscreteScheduler"),
    (INDEX, {"_class_name": "StableDiffusionXLPipeline"}, "is a StableDiffusionXLPipeline"),
    (INDEX, {"_class_name": "StableDiffusion3Pipeline"}, "is a StableDiffusion3Pipeline"),
    (INDEX, {"_class_name": "FluxPipeline"}, "is a FluxPipeline"),
    (INDEX, {"_class_name": "StableDiffusionInpaintPipeline"}, "is a StableDiffusionInpaintPipeline"),
    (INDEX, {"text_encoder": ["transformers", "CLIPTextModelWithProjection"]}, "expected CLIPTextModel"),
    (INDEX, {"vae": ["diffusers", "AutoencoderTiny"]}, "its vae is AutoencoderTiny, expected AutoencoderKL"),
    (INDEX, {"unet": None}, "its unet is None"),
    (UNET, {"in_channels": 9}, "in_channels is 9, expected 4"),
    (UNET, {"out_channels": 8}, "out_channels is 8, expected 4"),
    (UNET, {"cross_attention_dim": 2048}, "cross_attention_dim is 2048, the text encoder's hidden_size 256"),
    (UNET, {"sample_size": [64, 96]}, "only square pictures"),
    (UNET, {"time_cond_proj_dim": 256}, "time_cond_proj_dim is 256"),
    (UNET, {"addition_embed_type": "text_time"}, "addition_embed_type is 'text_time'"),
    (TEXT, {"hidden_size": 1024}, "cross_attention_dim is 256, the text encoder's hidden_size 1024"),
    (VAE, {"latent_channels": 16}, "in_channels is 4, expected 16"),
    (VAE, {"shift_factor": 0.1159}, "shift_factor is 0.1159"),
]


@pytest.fixture
def folder(tmp_path) -> Path:
    """The emoji model without its weights."""
    model, unwanted = tmp_path / "model", shutil.ignore_patterns("*.safetensors", "*.csv")
    return Path(shutil.copytree(ROOT / "models" / "emoji", model, ignore=unwanted))


def change(folder: Path, file: str, values: dict) -> None:
    content = json.loads((folder / file).read_text())
    (folder / file).write_text(json.dumps(content | values))


def said(function, *arguments) -> str:
    with pytest.raises(SystemExit) as stop:
        function(*arguments)
    message = str(stop.value)
    assert "\n" not in message
    return message


@pytest.mark.parametrize(("file", "values", "message"), OTHERS)
def test_another_kind_of_model(folder, file, values, message):
    base_model.check(folder, "model")
    change(folder, file, values)
    found = said(base_model.check, folder, "model")
    assert message in found
    assert found.startswith("model: ")
    assert found.split(": ")[1] in (file, UNET)  # what does not fit together is said of the U-Net


@pytest.mark.parametrize("file", [SCHEDULER, UNET, TEXT, VAE, INDEX])
def test_a_config_that_cannot_be_read(folder, file):
    (folder / file).write_text("{")
    assert said(base_model.check, folder, "model").startswith(f"model: {file}: cannot be read")
    (folder / file).unlink()
    assert said(base_model.check, folder, "model").startswith(f"model: has no {file}")


def test_stable_diffusions_own_configs(folder):
    """Version 1.4 has PNDM and leaves most keys out; version 2 at 512 pixels has another width and predicts noise."""
    pndm = {"_class_name": "PNDMScheduler", "num_train_timesteps": 1000, "set_alpha_to_one": False, "steps_offset": 1}
    (folder / SCHEDULER).write_text(json.dumps(SD14 | pndm | {"skip_prk_steps": True, "trained_betas": None}))
    base_model.check(folder, "model")
    PNDMScheduler(**SD14).save_pretrained(folder / "scheduler")
    change(folder, UNET, {"cross_attention_dim": 1024, "sample_size": 64})
    change(folder, TEXT, {"hidden_size": 1024})
    base_model.check(folder, "model")


@pytest.mark.parametrize("betas", [SD14, {}, {"trained_betas": np.linspace(1e-4, 0.01, 1000).tolist()}])
def test_the_schedule_is_diffusers(betas):
    wanted = DDIMScheduler(**betas).alphas_cumprod.numpy()
    np.testing.assert_allclose(base_model.signal(betas), wanted, rtol=2e-4)


def test_weights_of_another_noise_schedule_than_the_base_models(folder):
    base_model.check(folder, "model", like=SD14)
    base_model.check(folder, "model", like=DDIMScheduler(**SD14).config)
    assert "its noise schedule is not the base model's" in said(
        base_model.check, folder, "model", SD14 | {"beta_end": 0.013}
    )


def test_every_way_to_load_a_model_refuses_it_before_its_weights_are_read(folder, tmp_path, monkeypatch):
    for variable in ("ERASEFLOW_DEVICE", "ERASEFLOW_PRECISION"):
        monkeypatch.setenv(variable, "")  # both commands set it
    change(folder, SCHEDULER, {"prediction_type": "v_prediction"})
    for name in sd14.WEIGHTS:
        (folder / name).touch()
    message = f"{folder}: {SCHEDULER}: prediction_type is 'v_prediction'; only 'epsilon' is supported"
    testbed = params.load(ROOT / "params.yaml").testbeds["emoji"].model_copy(update={"model": str(folder)})
    for world in (emoji, sd14):
        assert said(world.load_pipeline, str(folder), "cpu") == message
    assert said(emoji.ready, testbed, "cpu") == message
    monkeypatch.setattr(sd14, "coco", lambda testbed: tmp_path)
    monkeypatch.setattr(sd14, "real_names", lambda testbed: [])
    assert said(sd14.ready, testbed, "cpu") == message

    monkeypatch.chdir(tmp_path)
    options = ["--target_prompt", "a", "--anchor_prompt", "b", "--name", "c", "--model_id", str(folder)]
    monkeypatch.setattr(sys, "argv", ["train", *options])
    assert said(train.main) == message
    assert not Path("checkpoints").exists()

    monkeypatch.setattr("eraseflow.export.check", lambda *_: None)
    everything = params.load(ROOT / "params.yaml")
    changed = everything.model_copy(update={"testbeds": everything.testbeds | {"emoji": testbed}})
    assert said(export, changed, "unicorn", "esd", tmp_path / "out") == message
    assert not (tmp_path / "out").exists()
