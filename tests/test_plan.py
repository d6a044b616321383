"""What the plan reckons with where nothing was measured, and how it is told."""

import sys

import pytest

from eraseflow import __main__
from eraseflow.params import load
from eraseflow.run import operations, plan
from eraseflow.run.plan import Stage

PARAMS = load()


def on(testbed: str, **changes):
    names = {"testbed": testbed, "prompts": None, "kept": None} | changes
    return PARAMS.model_copy(update={"table": PARAMS.table.model_copy(update=names)})


def test_a_pass_of_stable_diffusion_is_what_its_paper_counts():
    """A guided pass of 1.61 TFLOP; benchmarks/sd14_shape.py counts it on the published config."""
    assert 2 * operations.of_a_pass("CompVis/stable-diffusion-v1-4@x") == pytest.approx(1.61e12, rel=0.01)
    assert operations.of_a_pass("models/emoji") == pytest.approx(200e6, rel=0.05)


def test_passes_by_hand():
    """Of 50 guided steps a picture has 100."""
    sd14 = on("sd14")
    assert operations.passes("sample@van_gogh-esd", sd14) == 100 * (50 + 1000)
    assert operations.passes("sample@van_gogh-esd", on("sd14", prompts=8, kept=10)) == 100 * 18
    assert operations.passes("attack@random_prefix-van_gogh-esd", sd14) == 50 * 50 * 100
    assert operations.passes("attack@unlearndiffatk-van_gogh-esd", sd14) == 50 * 50 * (100 + 2 * 40)
    assert operations.passes("train@van_gogh-original", sd14) == 0
    assert operations.passes("score@van_gogh-esd", sd14) is None


def test_a_training_is_reckoned_in_proportion_to_its_settings(tmp_path, monkeypatch):
    """ESD: 200 iterations of 1 of 50 steps, on emoji 100 of 4 of 25."""
    (tmp_path / "costs.csv").write_text("concept,method,unet_passes\nunicorn,esd,9000\nweapon,esd,11000\n")
    monkeypatch.setattr(operations, "COSTS", tmp_path / "costs.csv")
    assert operations.passes("train@van_gogh-esd", on("sd14")) == 10000 * (200 * 1 * 50) / (100 * 4 * 25)
    assert operations.passes("train@van_gogh-uce", on("sd14")) is None


def test_a_processors_testbed_is_not_reckoned_as_a_gpu():
    assert operations.seconds("sample@unicorn-esd", on("emoji")) is None
    assert operations.disk("sample@unicorn-esd", on("emoji")) is None


def test_the_command(capsys, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["eraseflow", "plan"])
    monkeypatch.setattr(plan, "plan", lambda *_: {})
    __main__.main()
    assert capsys.readouterr().out == "nothing to do: every stage is as code, params and dvc.lock say\n"


def test_the_text():
    stages = {
        "train@a-x": Stage(frozenset(), 60.0, memory=2e9, disk=5e6),
        "train@a-y": Stage(frozenset(), 30.0, reckoned=True),
        "score@a-x": Stage(frozenset({"train@a-x"}), 20.0),
        "report": Stage(frozenset({"score@a-x", "train@a-y"}), None),
    }
    text = plan.text(stages)
    assert "train              2     1 min 30 s*    2.0 GB    5.0 MB\n" in text
    assert "4 stages, at most" in text
    assert "workers and time: 1: 1 min 50 s, 2: 1 min 20 s, 8: 1 min 20 s, 64: 1 min 20 s" in text
    assert "the longest chain takes 1 min 20 s: train@a-x, score@a-x, report" in text
    assert "* 1 stages like which none was measured" in text and "left out of all times: report" in text
