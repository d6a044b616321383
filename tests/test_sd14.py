"""The sd14 testbed on a miniature of the same classes: loading, solver, methods and attacks in both precisions."""

import json
from functools import cache
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from diffusers import DDIMScheduler, StableDiffusionPipeline
from miniature_sd import build
from open_clip.tokenizer import SimpleTokenizer
from PIL import Image
from small_chain import another

from eraseflow import cells, params, rounds, sampling, victim
from eraseflow.attacks import unlearndiffatk
from eraseflow.definitions import definition
from eraseflow.edits import Edit
from eraseflow.methods import advunlearn, ca, duo, eraseflow, esd, mace, race, rece, salun, spm, uce
from eraseflow.params import Concept, ConceptJudge, Kept, SamplingSettings
from eraseflow.testbeds import sd14

pytestmark = pytest.mark.slow

PROMPTS = ["a photo of a Pegasus", "a horse", ""]
SETTINGS = SamplingSettings(solver="ddim", steps=4, guidance_scale=7.5)
FLOW = {
    "epochs": 2, "switch_epoch": 1, "batch_size": 1, "num_steps": 5, "guidance_scale": 5.0, "eta": 1.0,
    "learning_rate": 1e-1, "flow_learning_rate": 3e-4, "log_beta": 2.5, "lora_rank": 4,
}  # fmt: skip
ESD = {
    "iterations": 2, "batch_size": 1, "learning_rate": 1e-3, "negative_guidance": 2.0, "num_steps": 4,
    "guidance_scale": 3.0, "variant": "x",
}  # fmt: skip


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> str:
    return str(build(tmp_path_factory.mktemp("model")))


@pytest.fixture
def concept() -> Concept:
    return Concept(
        testbed="sd14",
        kind="fine_grained",
        target="Pegasus",
        anchor="horse",
        prompts="prompts/sd14/pegasus.csv",
        preserve=["bird"],
        judge=ConceptJudge(name="emoji_classifier", counts=["object/unicorn"]),
        kept=Kept(without=[], neighbours=[], count=8),
    )


def load(model: str, monkeypatch, precision: str = "fp32") -> StableDiffusionPipeline:
    monkeypatch.setattr(cells, "PRECISION", precision)
    return another(loaded(model, precision))


@cache
def loaded(model: str, precision: str) -> StableDiffusionPipeline:
    """In cells.PRECISION, which this is; to be copied, for CLIP's tokenizer takes half a second to load."""
    return sd14.load_pipeline(model, "cpu")


def draw(pipeline) -> torch.Tensor:
    return torch.cat(list(sampling.sample(pipeline, PROMPTS, [1, 2, 3], [7.5, 7.5, 3.0], SETTINGS, 2, quiet=True)))


def relative(a: torch.Tensor, b: torch.Tensor) -> float:
    return ((a.double() - b.double()).norm() / b.double().norm()).item()


def test_the_tokenizer_is_clips(model, monkeypatch):
    words, independent = load(model, monkeypatch).tokenizer, SimpleTokenizer()
    assert len(words) == 49408
    for text in [*PROMPTS, "Vincent van Gogh's café, 1888!! (oil)", "naïve 東京 🎨 x", "one " * 100]:
        ids = words(text, padding="max_length", truncation=True).input_ids
        assert len(ids) == 77
        used = len(words(text, truncation=True).input_ids)
        assert ids[:used] == independent([text])[0].tolist()[:used]


def test_ddim_of_the_models_own_schedule_as_diffusers_draws_it(model, monkeypatch):
    pipeline = load(model, monkeypatch)
    ours = draw(pipeline)
    plain = StableDiffusionPipeline.from_pretrained(model, safety_checker=None)
    plain.scheduler = DDIMScheduler.from_config(plain.scheduler.config, clip_sample=False)
    assert plain.scheduler.config.beta_schedule == pipeline.scheduler.config.beta_schedule == "scaled_linear"
    for row, (prompt, seed, scale) in enumerate(zip(PROMPTS, (1, 2, 3), (7.5, 7.5, 3.0), strict=True)):
        picture = plain(
            prompt, num_inference_steps=4, guidance_scale=scale, generator=torch.Generator().manual_seed(seed),
            output_type="pt",
        ).images[0]  # fmt: skip
        assert picture.shape == (3, 64, 64)
        assert (ours[row].float() - picture * 255).abs().max() <= 1.01


@pytest.mark.parametrize(("precision", "apart"), [("bf16", 4), ("fp16", 0.5)])
def test_half_precision_draws_nearly_the_same(model, monkeypatch, precision, apart):
    wanted = draw(load(model, monkeypatch)).int()
    pipeline = load(model, monkeypatch, precision)
    for part in (pipeline.unet, pipeline.vae, pipeline.text_encoder):
        assert {weight.dtype for weight in part.parameters()} == {cells.DTYPES[precision]}
    assert 0 < (draw(pipeline).int() - wanted).abs().float().mean() <= apart


@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
def test_eraseflow_trains_a_float32_lora_on_any_base(model, monkeypatch, concept, precision):
    edit = eraseflow.erase(load(model, monkeypatch, precision), concept, eraseflow.Settings(**FLOW), seed=0)
    assert {tensor.dtype for tensor in edit.tensors.values()} == {torch.float32}
    assert all(np.isfinite([row["loss"], row["grad_norm_lora"]]).all() for row in edit.history)
    whole = eraseflow.erase(load(model, monkeypatch), concept, eraseflow.Settings(**FLOW), seed=0)
    assert edit.history[0]["residual"] == pytest.approx(whole.history[0]["residual"], rel=0.05)
    assert edit.history[0]["grad_norm_lora"] == pytest.approx(whole.history[0]["grad_norm_lora"], rel=0.1)


def test_a_lora_merged_into_a_half_precision_base_does_the_same(model, monkeypatch, concept):
    """To bf16's rounding of the network itself: the LoRA's effect is not lost in it."""
    edit = eraseflow.erase(load(model, monkeypatch), concept, eraseflow.Settings(**FLOW), seed=0)
    latents = torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(0))

    def predict(pipeline):
        dtype = pipeline.unet.dtype
        with torch.no_grad():
            return pipeline.unet(latents.to(dtype), 500, sampling.embed(pipeline, ["Pegasus", ""])).sample.float()

    plain, edited = (predict(pipeline) for pipeline in (load(model, monkeypatch), edit.apply(load(model, monkeypatch))))
    half = predict(edit.apply(load(model, monkeypatch, "bf16")))
    base = predict(load(model, monkeypatch, "bf16"))
    assert relative(plain, edited) > 0.1
    assert relative(half - base, edited - plain) < 0.1


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_esds_small_steps_are_not_rounded_away(model, monkeypatch, concept, precision):
    """Adam moves a weight by the learning rate: in bf16 alone, most of these steps would be nothing."""
    settings = esd.Settings(**ESD | {"learning_rate": 1e-5})
    pipeline = load(model, monkeypatch, precision)
    before = {name: weight.detach().float().clone() for name, weight in pipeline.unet.named_parameters()}
    edit = esd.erase(pipeline, concept, settings, seed=0)
    moved = torch.cat([(edit.tensors[f"unet.{n}"] - w).flatten() for n, w in before.items() if "attn2" in n])
    assert {tensor.dtype for tensor in edit.tensors.values()} == {torch.float32}
    assert (moved != 0).float().mean() > 0.9
    assert edit.history[0]["loss"] == pytest.approx(
        esd.erase(load(model, monkeypatch), concept, settings, seed=0).history[0]["loss"], rel=0.5
    )


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_uce_in_half_precision_is_the_rounded_solution(model, monkeypatch, concept, precision):
    settings = uce.Settings(preserve_scale=1.0)
    wanted = uce.erase(load(model, monkeypatch), concept, settings, seed=0)
    edit = uce.erase(load(model, monkeypatch, precision), concept, settings, seed=0)
    for name, tensor in edit.tensors.items():
        assert relative(tensor, wanted.tensors[name]) < 0.02


@pytest.mark.parametrize(("precision", "apart"), [("bf16", 6), ("fp16", 1)])
@pytest.mark.parametrize("method", ["sld", "safree"])
def test_what_works_at_sampling_time_draws_nearly_the_same(model, monkeypatch, concept, method, precision, apart):
    """With the published settings, on CLIP's tokenizer and 77 tokens."""
    settings = params.load().settings("methods", method, "sd14")
    settings = settings.model_copy(update={"warmup_steps": 1, "alpha": 0.0})
    edit = cells.module("methods", method).erase(load(model, monkeypatch), concept, settings, 0)
    plain, whole = draw(load(model, monkeypatch)), draw(edit.apply(load(model, monkeypatch))).int()
    half = draw(edit.apply(load(model, monkeypatch, precision))).int()
    assert (whole - plain.int()).abs().max() > 2
    assert (half - whole).abs().float().mean() < apart


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_rece_in_half_precision_is_the_rounded_solution(model, monkeypatch, concept, precision):
    """Less closely than UCE's: what a round derives and erases stems from all the rounded weights at once."""
    settings = rece.Settings(preserve_scale=1.0, rounds=2, regularisation=0.1)
    wanted = rece.erase(load(model, monkeypatch), concept, settings, seed=0)
    edit = rece.erase(load(model, monkeypatch, precision), concept, settings, seed=0)
    for name, tensor in edit.tensors.items():
        assert tensor.dtype == cells.DTYPES[precision]
        assert relative(tensor, wanted.tensors[name]) < 0.05


TRAININGS = [
    (
        ca,
        {"preserve_scale": 1.0, "pictures": 2},
    ),
    (
        spm,
        {"negative_guidance": 1.0, "anchored": 3, "anchoring_scale": 1.0},
    ),
    (
        salun,
        {"preserve_scale": 1.0, "saliency_batches": 2, "pictures": 2},
    ),
    (
        mace,
        {"preserve_scale": 0.1, "fuse_scale": 0.1, "lora_rank": 1, "pictures": 2, "mask_threshold": 0.4},
    ),
    (
        duo,
        {"pairs": 2, "strength": 0.5, "prompt": "empty", "beta": 500.0, "preserve_scale": 1e6, "lora_rank": 2},
    ),
    (
        race,
        {"esd_iterations": 1, "negative_guidance": 1.0, "variant": "u", "epsilon": 0.1, "attack_steps": 2},
    ),
    (
        advunlearn,
        {"warmup": 1, "negative_guidance": 1.0, "prefix_tokens": 1, "attack_steps": 2, "attack_learning_rate": 1e-3,
         "retain_batch": 2, "retain_scale": 1.0},
    ),
]  # fmt: skip


@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
@pytest.mark.parametrize(
    ("method", "settings"), TRAININGS, ids=["ca", "spm", "salun", "mace", "duo", "race", "advunlearn"]
)
def test_every_training_in_any_precision(model, monkeypatch, concept, method, settings, precision):
    """Small steps: in float32 whatever the base's precision, from a first loss that is nearly the same.

    What the target's words change in this random network is hardly more than what bf16 rounds.
    """
    steps = {"iterations": 2, "batch_size": 2, "learning_rate": 1e-5, "num_steps": 4, "guidance_scale": 2.0}
    settings = method.Settings(**steps, **settings)
    pipeline = load(model, monkeypatch, precision)
    before = {name: weight.detach().float().clone() for name, weight in pipeline.text_encoder.named_parameters()}
    edit = method.erase(pipeline, concept, settings, seed=0)
    assert {tensor.dtype for tensor in edit.tensors.values()} == {torch.float32}
    assert all(tensor.isfinite().all() for tensor in edit.tensors.values())
    whole = method.erase(load(model, monkeypatch), concept, settings, seed=0)
    # Of two predictions whose difference is all that the first loss is; how a processor rounds bf16 is a part of it.
    rounding = 5e-5 if method in (spm, advunlearn) else None
    assert edit.history[0]["loss"] == pytest.approx(whole.history[0]["loss"], rel=0.5, abs=rounding)
    if method is advunlearn:
        prefix = "text_encoder."
        moved = torch.cat(
            [(tensor - before[name.removeprefix(prefix)]).flatten() for name, tensor in edit.tensors.items()]
        )
        assert (moved != 0).float().mean() > 0.9
    drawn = draw(edit.apply(load(model, monkeypatch, precision)))
    assert drawn.float().std() > 1


@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
def test_an_attack_in_any_precision(model, monkeypatch, concept, precision):
    pipeline = load(model, monkeypatch, precision)
    prompts = pd.DataFrame({"prompt_id": ["a", "b"], "prompt": PROMPTS[:2], "seed": [1, 2], "guidance": 7.5})
    target = victim.Victim(
        pipeline=pipeline,
        original=pipeline,
        concept=concept,
        prompts=prompts,
        draw_originals=lambda table: torch.randn(len(table), 4, 8, 8, generator=torch.Generator().manual_seed(0)),
        judge=lambda pictures: pd.DataFrame({"mean": pictures.float().mean((1, 2, 3)).numpy()}),
        seen=lambda scores: np.zeros(len(scores), bool),
        strength=lambda scores: np.zeros(len(scores)),
        sampling=SETTINGS,
        batch_size=2,
    )
    settings = unlearndiffatk.Settings(prefix_tokens=3, rounds=2, iterations=2, learning_rate=0.01, weight_decay=0.1)
    result = rounds.run(target, unlearndiffatk.attack, settings, seed=0)
    assert (result.images + result.blocked).eq(3).all() and result.adversarial_tokens.map(len).eq(3).all()


def test_edits_of_half_precision_survive_the_file(model, monkeypatch, concept, tmp_path):
    edit = uce.erase(load(model, monkeypatch, "bf16"), concept, uce.Settings(preserve_scale=1.0), 0)
    edit.save(tmp_path)
    pipeline = Edit.load(tmp_path).apply(load(model, monkeypatch, "bf16"))
    for name, tensor in edit.tensors.items():
        assert torch.equal(pipeline.unet.get_parameter(name.removeprefix("unet.")), tensor)


def test_a_compiled_unet_trains_and_draws_the_same(model, monkeypatch, concept):
    """Compiled before the LoRA comes in, while it is trained, and after it is merged."""
    monkeypatch.setattr(cells, "PRECISION", "fp32")
    settings = eraseflow.Settings(**FLOW)
    wanted = eraseflow.erase(load(model, monkeypatch), concept, settings, seed=0)
    drawn = draw(wanted.apply(load(model, monkeypatch))).int()
    monkeypatch.setenv("ERASEFLOW_COMPILE", "eager")
    pipeline = sd14.load_pipeline(model, "cpu")
    assert pipeline.unet._compiled_call_impl is not None
    edit = eraseflow.erase(pipeline, concept, settings, seed=0)
    for name, tensor in wanted.tensors.items():
        torch.testing.assert_close(edit.tensors[name], tensor, rtol=1e-4, atol=1e-6)
    assert (draw(edit.apply(sd14.load_pipeline(model, "cpu"))).int() - drawn).abs().max() <= 1


@pytest.mark.parametrize("missing", ["unet/diffusion_pytorch_model.safetensors", "model_index.json"])
def test_a_folder_without_safetensors_is_one_line(tmp_path, missing):
    (build(tmp_path) / missing).unlink()
    with pytest.raises(SystemExit, match=f"has no {missing}") as failure:
        sd14.load_pipeline(str(tmp_path), "cpu")
    assert len(str(failure.value).splitlines()) == 1


def test_a_pickle_is_never_read(tmp_path):
    folder = build(tmp_path)
    weights = folder / "unet/diffusion_pytorch_model.safetensors"
    torch.save({"conv_in.weight": torch.zeros(1)}, weights.with_suffix(".bin"))
    weights.unlink()
    with pytest.raises(SystemExit, match="has no unet"):
        sd14.load_pipeline(str(folder), "cpu")


def needs(model: str, coco: str | None) -> params.Testbed:
    return params.Testbed(
        model=model, kept=f"{coco}/kept.csv", features="emoji_clip", clip=["emoji_clip"], sampling=SETTINGS, coco=coco
    )


@pytest.fixture
def coco(tmp_path) -> str:
    """A folder as COCO's with three pictures of different sizes, the last one grey."""
    (tmp_path / "coco" / "val2014").mkdir(parents=True)
    captions = {
        "images": [{"id": 1, "file_name": "a.jpg"}],
        "annotations": [{"id": 1, "image_id": 1, "caption": "a lamp"}],
    }
    (tmp_path / "coco" / "captions_val2014.json").write_text(json.dumps(captions))
    (tmp_path / "coco" / "kept.csv").write_text("coco_val2014_captions,seed\n1,0\n")
    rng = np.random.default_rng(0)
    for name, shape in {"c.jpg": (40, 60, 3), "a.jpg": (64, 64, 3), "b.jpg": (30, 20)}.items():
        Image.fromarray(rng.integers(0, 256, shape, np.uint8)).save(tmp_path / "coco" / "val2014" / name)
    return str(tmp_path / "coco")


def test_ready_asks_for_model_coco_and_gpu(model, coco, tmp_path, monkeypatch):
    """Found and called without importing the module, as `check` does."""
    ready = definition("testbeds", "sd14", "ready")
    ready(needs(model, coco), "cpu")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: (8, 0))
    ready(needs(model, coco), "")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    for device in ("", "cuda:1"):
        with pytest.raises(SystemExit, match="no GPU is found here; run where there is one, or with ERASEFLOW_DEVICE"):
            ready(needs(model, coco), device)
    with pytest.raises(SystemExit, match="expected a folder that exists, or a Hub repository pinned to a commit"):
        ready(needs(str(tmp_path / "nowhere"), coco), "cpu")
    (Path(coco) / "captions_val2014.json").unlink()
    for folder, what in ((coco, "captions_val2014.json"), (str(tmp_path), "val2014"), (None, "val2014")):
        with pytest.raises(SystemExit, match=f"has no {what}; testbeds.sd14.coco must be a folder") as failure:
            ready(needs(model, folder), "cpu")
        assert len(str(failure.value).splitlines()) == 1


def test_real_pictures_are_cocos_in_order(model, coco):
    names = ["a.jpg", "b.jpg", "c.jpg"]
    found = sd14.real_pictures(needs(model, coco), names)
    assert [tuple(picture.shape) for picture in found] == [(3, 64, 64), (3, 30, 20), (3, 40, 60)]
    assert found[1][0].equal(found[1][2]) and all(picture.dtype == torch.uint8 for picture in found)
    assert sd14.compared(names, pd.Series(["c.jpg"])) == [0, 1, 2]
    with pytest.raises(SystemExit, match=r"has no d\.jpg, the picture of a kept prompt"):
        sd14.real_pictures(needs(model, coco), ["a.jpg", "d.jpg"])


def test_an_unknown_precision_is_one_line(monkeypatch):
    import importlib

    monkeypatch.setenv("ERASEFLOW_PRECISION", "float8")
    with pytest.raises(SystemExit, match="expected fp32, bf16 or fp16, found 'float8'"):
        importlib.reload(cells)
    monkeypatch.delenv("ERASEFLOW_PRECISION")
    importlib.reload(cells)
