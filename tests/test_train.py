"""`python -m eraseflow.train`, the authors' command: its options, its checkpoints, what it leaves behind."""

import json
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import pytest
import torch
from diffusers import StableDiffusionPipeline
from miniature_sd import build
from project_clone import ENVIRONMENT, ROOT, as_stage, call, hand_over
from safetensors.torch import load_file

from eraseflow import __main__, params, train
from eraseflow.testbeds import sd14

# The README's command, word for word but for the model, and smaller where only time is at stake.
PUBLISHED = [
    "--target_prompt", "Nike Shoes", "--anchor_prompt", "Sports Shoes", "--name", "erasure", "--seed", "0",
    "--use_lora", "--lora_rank", "4", "--mixed_precision", "bf16", "--num_epochs", "4", "--switch_epoch", "2",
    "--learning_rate", "3e-4", "--flow_learning_rate", "3e-4", "--guidance_scale", "5.0", "--cfg", "--eta", "1.0",
    "--beta", "2.5", "--save_dir", "checkpoints", "--batch_size", "1", "--num_steps", "10", "--save_freq", "1",
    "--max_grad_norm", "1.0",
]  # fmt: skip
SHORT = ["--target_prompt", "unicorn", "--anchor_prompt", "horse", "--name", "short", "--num_steps", "5"]


def run(folder: Path, *options: str) -> subprocess.CompletedProcess:
    return call(folder, sys.executable, as_stage("train", folder), *options, **hand_over(ROOT))


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> str:
    return str(build(tmp_path_factory.mktemp("model")))


@pytest.fixture(scope="module")
def trained(tmp_path_factory, model) -> tuple[Path, str]:
    """A folder in which the published command has run to its end, and what it said."""
    folder = tmp_path_factory.mktemp("trained")
    done = run(folder, *PUBLISHED, "--model_id", model)
    return folder, done.stderr + done.stdout


@pytest.mark.parametrize("command", [["eraseflow", "train"], ["eraseflow.train"]])
def test_the_command_by_either_name(command, monkeypatch):
    monkeypatch.setattr(sys, "argv", [command[0], *command[1:], "--target_prompt", "unicorn"])
    with pytest.raises(
        SystemExit, match=r"required: --anchor_prompt, --name \(see python -m eraseflow.train --help\)$"
    ):
        (__main__.main if command[1:] else train.main)()


def test_the_default_model_is_that_of_the_testbed():
    assert params.load(ROOT / "params.yaml").testbeds["sd14"].model == sd14.MODEL
    assert train.parser().parse_args(SHORT).model_id == sd14.MODEL


@pytest.mark.slow
def test_progress_tells_loss_sign_and_log_z(trained):
    _, said = trained
    assert re.search(r"4/4 .*loss \d\S*, residual [+-], log Z -0\.19", said)
    assert "checkpoints/erasure: 4 epochs in" in said


@pytest.mark.slow
def test_its_lora_loads_into_plain_diffusers_and_changes_what_is_drawn(trained, model):
    folder = trained[0] / "checkpoints" / "erasure"
    assert {path.name for path in folder.iterdir()} == {
        "pytorch_lora_weights.safetensors", "edit.json", "training.csv", "state.pt",
    }  # fmt: skip
    tensors = load_file(folder / "pytorch_lora_weights.safetensors")
    assert {tensor.dtype for tensor in tensors.values()} == {torch.float32}
    assert all(tensor.abs().max() > 0 for name, tensor in tensors.items() if name.endswith("lora.up.weight"))
    pipeline = StableDiffusionPipeline.from_pretrained(model, safety_checker=None)
    pipeline.set_progress_bar_config(disable=True)

    def draw():
        generator = torch.Generator().manual_seed(0)
        options = {"num_inference_steps": 2, "generator": generator, "output_type": "pt"}
        return pipeline("Nike Shoes", **options).images

    before = draw()
    pipeline.load_lora_weights(str(folder))
    assert (draw() - before).abs().max() > 0
    history = pd.read_csv(folder / "training.csv")
    assert history.step.tolist() == [0, 1, 2, 3] and history.log_beta.eq(2.5).all()


@pytest.mark.slow
def test_resumed_after_a_kill_it_gives_the_same_lora(trained, model, tmp_path):
    process = subprocess.Popen(
        [sys.executable, "-m", "eraseflow.train", *PUBLISHED, "--model_id", model],
        cwd=tmp_path,
        env=ENVIRONMENT | {"PYTHONPATH": str(ROOT)},
        stderr=subprocess.DEVNULL,
    )
    folder = tmp_path / "checkpoints" / "erasure"
    while not (folder / "state.pt").is_file() and process.poll() is None:
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    process.wait()
    done = run(tmp_path, *PUBLISHED, "--model_id", model, "--resume")
    first = re.search(r"(\d)/4 \[", done.stderr)
    assert first and int(first[1]) >= 1, "it started anew"
    whole = trained[0] / "checkpoints" / "erasure"
    name = "pytorch_lora_weights.safetensors"
    theirs, ours = load_file(whole / name), load_file(folder / name)
    assert theirs.keys() == ours.keys()
    for key, tensor in theirs.items():
        assert torch.equal(tensor, ours[key]), key


@pytest.mark.slow
def test_the_emoji_model_trains_too_and_checkpoints_come_at_their_frequency(tmp_path):
    options = [*SHORT, "--use_lora", "--model_id", str(ROOT / "models" / "emoji"), "--mixed_precision", "no"]
    done = run(tmp_path, *options, "--logbeta", "auto", "--num_epochs", "3", "--save_freq", "2")
    folder = tmp_path / "checkpoints" / "short"
    assert "3 epochs" in done.stdout and len(pd.read_csv(folder / "training.csv")) == 3
    pipeline = StableDiffusionPipeline.from_pretrained(ROOT / "models" / "emoji", safety_checker=None)
    pipeline.load_lora_weights(str(folder))
    # the last checkpoint stands at the end; one before it, after every second epoch
    assert torch.load(folder / "state.pt", weights_only=True)["history"][-1]["step"] == 2


def test_the_whole_unet_without_use_lora(model, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["train", *SHORT, "--model_id", model, "--num_epochs", "1"])
    train.main()
    assert "1 epochs" in capsys.readouterr().out
    tensors = load_file(tmp_path / "checkpoints" / "short" / "weights.safetensors")
    assert "unet.conv_in.weight" in tensors and not list(tmp_path.rglob("pytorch_lora*"))


def fails(monkeypatch, *options: str) -> str:
    """The one line with which the command ends."""
    monkeypatch.setattr(sys, "argv", ["train", *options])
    with pytest.raises(SystemExit) as failure:
        train.main()
    assert isinstance(failure.value.code, str) and len(failure.value.code.splitlines()) == 1
    return failure.value.code


@pytest.mark.parametrize(
    ("options", "what"),
    [
        (["--num_epochs", "0"], "argument --num_epochs: should be greater than or equal to 1, found 0"),
        (["--num_epochs", "many"], "argument --num_epochs: expected a whole number, found 'many'"),
        (["--switch_epoch", "-1"], "argument --switch_epoch: should be greater than or equal to 0, found -1"),
        (["--batch_size", "0"], "argument --batch_size: should be greater than or equal to 1"),
        (["--num_steps", "4"], "argument --num_steps: should be greater than or equal to 5, found 4"),
        (["--num_steps", "2000"], "argument --num_steps: should be less than 1000, found 2000"),
        (["--num_steps", "600"], "argument --num_steps: 600 solver steps would start at timestep 600 of 1,000"),
        (["--guidance_scale", "0.5"], "argument --guidance_scale: should be greater than or equal to 1"),
        (["--eta", "0"], "argument --eta: should be greater than or equal to 0.01"),
        (["--eta", "1.5"], "argument --eta: should be less than or equal to 1"),
        (["--beta", "big"], "argument --beta/--logbeta: expected a number or auto, found 'big'"),
        (["--logbeta", "nan"], "argument --beta/--logbeta: expected a number or auto, found 'nan'"),
        (["--learning_rate", "-1"], "argument --learning_rate: should be greater than or equal to 0.0"),
        (["--flow_learning_rate", "0"], "argument --flow_learning_rate: should be greater than or equal to 0.0"),
        (["--max_grad_norm", "0"], "argument --max_grad_norm: should be greater than or equal to 0.0"),
        (["--use_lora", "--lora_rank", "0"], "argument --lora_rank: should be greater than or equal to 1"),
        (["--mixed_precision", "fp8"], "argument --mixed_precision: invalid choice: 'fp8'"),
        (["--save_freq", "0"], "argument --save_freq: expected a whole number above 0, found '0'"),
        (["--seed", "-3"], "argument --seed: expected"),
        (["--seed", "4294967296"], "argument --seed: expected a whole number from 0 to 4294967295"),
        *(
            (["--seed", text], "argument --seed: expected")
            for text in ("7.0", "1e3", "+7", " 7", "0x7", "1_0", "٣", "７")
        ),
        (["--guidance_scale", "1_0"], "argument --guidance_scale: expected a number, found '1_0'"),
        (["--guidance_scale", "inf"], "argument --guidance_scale: expected a number, found 'inf'"),
        (["--num_steps", "５０"], "argument --num_steps: expected a whole number, found '５０'"),
        (["--anchor_prompt", " Unicorn"], "argument --anchor_prompt: must differ from the target prompt"),
        (["--target_prompt", " "], "argument --target_prompt: is blank"),
        (["--target_prompt", "..."], "argument --target_prompt: has no letter or digit, found '...'"),
        (["--anchor_prompt", "a\u200bb"], "argument --anchor_prompt: has the invisible character '\\u200b'"),
        (["--target_prompt", "STRASSE", "--anchor_prompt", "stra\u00dfe"], "must differ from the target prompt"),
        (
            ["--target_prompt", "a boy"],
            "argument --target_prompt: the safety gate blocks it, since training draws from it: it has",
        ),
        (["--name", "../x"], "argument --name: expected a folder's name without slashes, found '../x'"),
        (["--resume"], "has no checkpoint"),
        (["--learning_rat", "1"], "unrecognized arguments: --learning_rat"),
        (["--model_id", "CompVis/stable-diffusion-v1-4"], "expected a folder that exists, or a Hub repository pinned"),
        (["--model_id", "no/such/folder"], "expected a folder that exists"),
    ],
)
def test_every_bad_option_is_one_line(monkeypatch, tmp_path, options, what):
    monkeypatch.chdir(tmp_path)
    assert what in fails(monkeypatch, *SHORT, *options)
    assert not list(tmp_path.iterdir())


def test_a_file_is_no_folder_for_checkpoints(monkeypatch, tmp_path):
    (tmp_path / "file").touch()
    said = fails(monkeypatch, *SHORT, "--save_dir", str(tmp_path / "file" / "x"))
    assert said == f"argument --save_dir: {tmp_path / 'file'} is a file; expected a folder"


def test_a_prompt_longer_than_the_text_encoder_reads_is_one_line(monkeypatch, tmp_path, model):
    monkeypatch.chdir(tmp_path)
    said = fails(monkeypatch, *SHORT, "--model_id", model, "--anchor_prompt", "horse " * 200)
    assert "has 202 tokens, the text encoder reads 77" in said and not list(tmp_path.iterdir())


def test_prompts_are_compared_as_the_model_reads_them(monkeypatch, tmp_path, model):
    """As in params.yaml: what is not the same text may be the same tokens, of which nothing can be learned."""
    monkeypatch.chdir(tmp_path)
    words = ["--target_prompt", "uni-corn", "--anchor_prompt", "uni - corn"]
    said = fails(monkeypatch, *SHORT, *words, "--model_id", model)
    assert said == (
        "argument --anchor_prompt: the anchor 'uni - corn' of 'uni-corn' has the tokens of the target 'uni-corn'; "
        "target and anchor must differ"
    )
    said = fails(monkeypatch, *SHORT, "--anchor_prompt", "a <|endoftext|>", "--model_id", model)
    assert "argument --anchor_prompt: 'a <|endoftext|>': the tokenizer of" in said and not list(tmp_path.iterdir())


def test_a_schedule_that_the_model_has_not(monkeypatch, tmp_path, model):
    trailing = tmp_path / "trailing"
    shutil.copytree(model, trailing)
    file = trailing / "scheduler" / "scheduler_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"timestep_spacing": "trailing"}))
    said = fails(monkeypatch, *SHORT, "--model_id", str(trailing), "--num_steps", "499", "--save_dir", str(tmp_path))
    assert said.startswith("argument --num_steps: 499 solver steps: the model's trailing spacing makes 500 timesteps")


def test_a_model_of_the_hub_needs_a_gpu(monkeypatch):
    monkeypatch.delenv("ERASEFLOW_DEVICE", raising=False)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert "no GPU is found here" in fails(monkeypatch, *SHORT)


def test_a_prompt_is_needed(monkeypatch):
    assert "required: --target_prompt, --anchor_prompt, --name" in fails(monkeypatch)


def test_8_bit_adam_without_its_package_is_one_line(monkeypatch):
    found = train.importlib.util.find_spec
    monkeypatch.setattr(train.importlib.util, "find_spec", lambda name: None if name == "bitsandbytes" else found(name))
    assert "argument --use_8bit_adam: needs the package bitsandbytes" in fails(monkeypatch, *SHORT, "--use_8bit_adam")


def test_a_training_is_not_overwritten(monkeypatch, tmp_path):
    (tmp_path / "short").mkdir()
    (tmp_path / "short" / "state.pt").touch()
    assert "holds a training already" in fails(monkeypatch, *SHORT, "--save_dir", str(tmp_path))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("change", "what"),
    [
        (["--beta", "3"], "was trained with beta = 2.5, not 3.0"),
        (["--mixed_precision", "fp32"], "was trained with mixed_precision = 'bf16', not 'fp32'"),
        (["--seed", "1"], "was trained with seed = 0, not 1"),
        (["--anchor_prompt", "Boots"], "was trained with prompts = [('Nike Shoes', 'Sports Shoes')], not"),
    ],
)
def test_other_settings_do_not_go_on_with_a_training(trained, model, monkeypatch, change, what):
    monkeypatch.chdir(trained[0])
    assert what in fails(monkeypatch, *PUBLISHED, "--model_id", model, "--resume", *change)


def test_another_kind_of_device_does_not_go_on_with_a_training(tmp_path):
    torch.save({"identity": {"seed": 0, "device": "cuda"}}, tmp_path / "state.pt")
    with pytest.raises(SystemExit, match="was trained with device = 'cuda', not 'cpu'"):
        train.resume(None, {"seed": 0, "device": "cpu"}, tmp_path)


@pytest.mark.parametrize("size", [0, 1, 300, -1])
def test_a_damaged_checkpoint_is_one_line(tmp_path, size):
    """As a power cut may leave it: empty, or cut off."""
    torch.save({"identity": {}, "weights": [torch.zeros(999)]}, tmp_path / "state.pt")
    (tmp_path / "state.pt").write_bytes((tmp_path / "state.pt").read_bytes()[:size])
    with pytest.raises(SystemExit, match=r"state\.pt is damaged; .* begins anew$"):
        train.resume(None, {}, tmp_path)
