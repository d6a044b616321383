"""`python -m eraseflow export`: a whole pipeline for plain diffusers and a card that says what was measured."""

import json
import sys
from pathlib import Path

import pandas as pd
import pytest
import torch
import yaml
from diffusers import StableDiffusionPipeline
from miniature_sd import build

from eraseflow import __main__, edits, export, params, sampling
from eraseflow.definitions import definition
from eraseflow.edits import Edit
from eraseflow.methods import sld
from eraseflow.testbeds import emoji, sd14

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parent.parent
PROMPT, SEED = "a horse in flat style", 7
SCORES = {
    "target_n": 36, "target_seen": 4, "kept_n": 144, "kept_right": 132, "fd": 1.25, "fd_name": "FD emoji-clip",
    "fd_n": 144, "clip_score": 49.5, "clip_name": "CLIP score emoji-clip",
    "clip_n": 144, "clip_scores": {"CLIP score emoji-clip": 49.5}, "summary": {"another judge, %": 12.5},
}  # fmt: skip


@pytest.fixture
def project(tmp_path, monkeypatch) -> Path:
    """A folder with the repository's params, prompts and base model, and no cell."""
    for name in ("models", "prompts", "params.yaml"):
        (tmp_path / name).symlink_to(ROOT / name)
    monkeypatch.chdir(tmp_path)
    for variable in ("ERASEFLOW_DEVICE", "ERASEFLOW_PRECISION"):
        monkeypatch.setenv(variable, "")  # so that what `export` sets goes again
    return tmp_path


def train(concept: str, method: str, edit: Edit) -> Path:
    cell = export.CELLS / concept / method
    edit.save(cell / "edit")
    costs = {"optimiser_steps": 100, "device": "cpu", "precision": "fp32"}
    (cell / "costs.json").write_text(json.dumps(costs))
    return cell


def score(concept: str, cell: Path, **change) -> None:
    (cell / "scores.json").write_text(json.dumps(SCORES | change))
    attack = pd.DataFrame({"prompt_id": [f"target-{row:04d}" for row in range(36)], "prompt": "x", "seed": 1})
    success = [row < 9 for row in range(36)]
    step = [1 if succeeds else -1 for succeeds in success]
    attack = attack.assign(pre_success=False, success=success, step=step, adversarial_prompt="x")
    attack.to_parquet(cell / "attack-unlearndiffatk.parquet")
    (export.CONCEPTS / concept).mkdir(parents=True, exist_ok=True)
    counts = {"official": 40, "excluded_by_safety_gate": 4, "attackable": 36, "used": 36, "kept": {"used": 144}}
    (export.CONCEPTS / concept / "counts.json").write_text(json.dumps(counts))


def run(monkeypatch, *options: str) -> None:
    monkeypatch.setattr(sys, "argv", ["eraseflow", "export", *options])
    __main__.main()


def moved(pipeline) -> Edit:
    """An edit of text encoder and U-Net that can be seen."""
    torch.manual_seed(0)
    tensors = {}
    for component, name in (("unet", "conv_in.weight"), ("text_encoder", "final_layer_norm.weight")):
        weight = getattr(pipeline, component).get_parameter(name).data
        tensors[f"{component}.{name}"] = weight + 0.3 * weight.std() * torch.randn_like(weight)
    return Edit("weights", tensors)


def ours(pipeline, settings: params.SamplingSettings) -> torch.Tensor:
    """What the cell's stage draws."""
    batches = sampling.sample(pipeline, [PROMPT], [SEED], [settings.guidance_scale], settings, 1, quiet=True)
    return torch.cat(list(batches))[0].int()


def plainly(folder: Path, settings: params.SamplingSettings) -> torch.Tensor:
    """What somebody else draws, as the model card says."""
    pipeline = StableDiffusionPipeline.from_pretrained(folder)
    generator = torch.Generator().manual_seed(SEED)
    options = {"num_inference_steps": settings.steps, "guidance_scale": settings.guidance_scale, "output_type": "pt"}
    return (pipeline(PROMPT, generator=generator, **options).images[0] * 255).round().int()


def test_plain_diffusers_draws_what_was_measured(project, monkeypatch):
    base = emoji.load_pipeline("models/emoji", "cpu")
    settings = params.load().testbeds["emoji"].sampling
    unedited, edit = ours(base, settings), moved(base)
    train("unicorn", "esd", edit)
    run(monkeypatch, "--concept", "unicorn", "--method", "esd", "out/whole")
    drawn = plainly(project / "out" / "whole", settings)
    assert (drawn - ours(edit.apply(base), settings)).abs().max() <= 1
    assert (drawn - unedited).abs().max() > 30
    assert [path.name for path in (project / "out").iterdir()] == ["whole"]


def test_on_stable_diffusion(project, monkeypatch, tmp_path):
    """On the miniature with the real tokenizer, whose published scheduler is another than the measured one."""
    model = str(build(tmp_path / "sd"))
    everything = params.load()
    change = {"model": model, "sampling": everything.testbeds["sd14"].sampling.model_copy(update={"steps": 4})}
    testbed = everything.testbeds["sd14"].model_copy(update=change)
    everything = everything.model_copy(update={"testbeds": {"sd14": testbed}})
    edit = moved(sd14.load_pipeline(model, "cpu"))
    train("church", "uce", edit)
    monkeypatch.setattr(export, "as_noted", lambda *_: None)  # no stage has noted this model
    export.export(everything, "church", "uce", tmp_path / "whole")
    measured = ours(edit.apply(sd14.load_pipeline(model, "cpu")), testbed.sampling)
    assert (plainly(tmp_path / "whole", testbed.sampling) - measured).abs().max() <= 1
    assert "creativeml-openrail-m" in (tmp_path / "whole" / "README.md").read_text()


def test_the_card_says_what_how_and_what_was_measured(project, monkeypatch):
    edit = moved(emoji.load_pipeline("models/emoji", "cpu"))
    score("weapon_named", train("weapon_named", "eraseflow", edit))
    score("weapon_named", train("weapon_named", "original", Edit("weights", {})), target_seen=30, fd=0.25)
    run(monkeypatch, "--concept", "weapon_named", "--method", "eraseflow", "whole")
    card = Path("whole/README.md").read_text()
    front = yaml.safe_load(card.split("---")[1])
    assert front["license"] == "cc-by-sa-4.0" and front["base_model"] == "models/emoji"
    assert "concept-erasure" in front["tags"]
    assert "- “weapon”, with “tool” in its place\n- “knife”, with “saw” in its place" in card
    assert "arXiv 2511.00804" in card and "Seed: 0. 100 optimiser steps (cpu, fp32)" in card
    settings = params.load().settings("methods", "eraseflow", "emoji", "category")
    assert f"epochs: {settings.epochs}\n" in card and f"learning_rate: {settings.learning_rate}\n" in card
    judge = "(emoji_classifier top-1)"
    assert f"show the concept ↓ {judge} | 4/36 = 11 % (4-25) | 30/36 = 83 % (68-92) |" in card
    assert f"under unlearndiffatk ↓ {judge} | 9/36 = 25 % (14-41) | 9/36" in card
    assert f"Kept prompts drawn right ↑ {judge} | 132/144 = 92 % (86-95) |" in card
    assert "FD emoji-clip ↓ (of 144 pictures) | 1.25 | 0.25 |" in card
    assert "CLIP score emoji-clip ↑ | 49.5 |" in card and "another judge, % (target prompts) | 12.5 |" in card
    assert "of all 36 target prompts used (40 in the file, 4 left out by the safety gate)" in card
    assert "random_prefix" not in card, "there are no files of this attack"
    for section in ("## Limits", "The concept may come back", "## Licence", "OpenMoji (CC BY-SA 4.0"):
        assert section in card


def test_what_works_at_sampling_time_lies_beside_and_the_card_says_so(project, monkeypatch):
    """The weights are in the pipeline; the card's own code draws what the cell drew."""
    base = emoji.load_pipeline("models/emoji", "cpu")
    settings = params.load().testbeds["emoji"].sampling
    weights, sampler = moved(base), edits.edit_of(sld.Sampler("horse", 0, 50.0, 100.0, 0.5, 0.7))  # smooth
    both = edits.compose([("eraseflow", weights), ("safree", sampler)])
    train("unicorn", "eraseflow+safree", both)
    with pytest.warns(UserWarning, match="plain diffusers draws without sld"):
        run(monkeypatch, "--concept", "unicorn", "--method", "eraseflow+safree", "whole")
    assert (plainly(project / "whole", settings) - ours(weights.apply(base), settings)).abs().max() <= 1
    wanted = ours(both.apply(emoji.load_pipeline("models/emoji", "cpu")), settings)

    card = Path("whole/README.md").read_text()
    assert "**Plain diffusers loads this folder without sld, so it draws un-erased, or less erased.**" in card
    assert "arXiv 2511.00804" in card and "SAFREE: training-free" in card and "eraseflow:\n  epochs: 20" in card
    code = card.split("```python\n")[1].split("```")[0]
    code = code.replace("path/to/this/folder", "whole").replace("a prompt", PROMPT).replace("[0]", f"[{SEED}]")
    space: dict = {}
    exec(code, space)
    assert (space["pictures"][0].int() - wanted).abs().max() <= 1
    assert (wanted - plainly(project / "whole", settings)).abs().max() > 8


def test_without_scores_the_card_says_so(project, monkeypatch):
    train("unicorn", "uce", Edit("weights", {}))
    run(monkeypatch, "--concept", "unicorn", "--method", "uce", "whole")
    assert "## Measured\n\nNot yet.\n" in Path("whole/README.md").read_text()


def test_a_failure_leaves_nothing(project, monkeypatch):
    train("unicorn", "uce", Edit("weights", {}))
    monkeypatch.setattr(edits.Edit, "export", lambda self, pipeline, folder: folder.mkdir() or 1 / 0)
    with pytest.raises(ZeroDivisionError):
        run(monkeypatch, "--concept", "unicorn", "--method", "uce", "whole")
    assert not Path("whole").exists() and not list(project.glob(".whole*"))


@pytest.mark.parametrize(
    ("options", "what"),
    [
        (["--concept", "unicron", "--method", "uce"], "has no concept 'unicron'; did you mean 'unicorn'?"),
        (["--concept", "unicorn", "--method", "ezd"], "has no method 'ezd'; did you mean 'esd'?"),
        (["--concept", "unicorn", "--method", "pretrained"], "methods.pretrained: has no block for testbed 'emoji'"),
        (["--concept", "unicorn", "--method", "esd"], "this cell is not trained; `dvc repro train@unicorn-esd`"),
    ],
)
def test_a_mistake_is_one_line(project, monkeypatch, options, what):
    with pytest.raises(SystemExit) as failure:
        run(monkeypatch, *options, "whole")
    assert what in str(failure.value) and len(str(failure.value).splitlines()) == 1
    assert not Path("whole").exists()


def test_only_an_empty_folder_is_filled(project, monkeypatch):
    train("unicorn", "uce", Edit("weights", {}))
    Path("taken").mkdir()
    Path("taken/file").touch()
    for name in ("taken", "taken/file"):
        with pytest.raises(SystemExit, match="is there already and not empty; name a new folder"):
            run(monkeypatch, "--concept", "unicorn", "--method", "uce", name)
    Path("empty").mkdir()
    run(monkeypatch, "--concept", "unicorn", "--method", "uce", "empty")
    assert Path("empty/model_index.json").is_file()


@pytest.mark.parametrize("name", ["emoji", "sd14"])
def test_every_testbed_has_a_licence(name):
    short, text = definition("testbeds", name, "LICENCE")
    assert short == short.lower() and len(text) > 50
