"""A planted NaN stops a training, a drawing, an attack and a file in one line that says where it appeared first."""

import re

import pandas as pd
import pytest
import torch
from diffusers import DDIMScheduler
from safetensors.torch import save_file
from test_rounds import ATTACKS, make_victim, never

from eraseflow import finite, rounds, sampling
from eraseflow.attacks import cce, mma, p4d, ring_a_bell, unlearndiffatk
from eraseflow.cross_attention import solve
from eraseflow.edits import Edit, add_lora, lora_of
from eraseflow.fine_tuning import FineTuning
from eraseflow.methods import advunlearn, ca, duo, eraseflow, esd, mace, race, rece, safree, salun, sld, spm, uce
from eraseflow.own_pictures import denoised
from eraseflow.params import SamplingSettings

pytestmark = pytest.mark.slow

NAN = float("nan")
DRAWING = SamplingSettings(solver="ddim", steps=4, guidance_scale=2)
FAST = {"num_steps": 2, "guidance_scale": 2.0, "iterations": 3, "batch_size": 2, "learning_rate": 1e-2}
ERASING = FAST | {"negative_guidance": 1.0}
KEPT = FAST | {"preserve_scale": 1.0, "pictures": 2}
TRAINED = {
    esd: ERASING | {"variant": "x"},
    race: ERASING | {"esd_iterations": 1, "variant": "u", "epsilon": 0.1, "attack_steps": 1},
    advunlearn: ERASING
    | {"warmup": 1, "prefix_tokens": 2, "attack_steps": 1, "attack_learning_rate": 0.01}
    | {"retain_batch": 2, "retain_scale": 1.0},
    spm: ERASING | {"anchored": 2, "anchoring_scale": 1.0},
    ca: KEPT,
    salun: KEPT | {"saliency_batches": 1},
    mace: KEPT | {"fuse_scale": 1.0, "lora_rank": 1, "mask_threshold": 0.4},
    duo: FAST | {"pairs": 2, "strength": 0.5, "prompt": "target", "beta": 10.0, "preserve_scale": 1.0, "lora_rank": 2},
    eraseflow: {"epochs": 3, "switch_epoch": 3, "batch_size": 1, "num_steps": 5, "guidance_scale": 2.0, "eta": 1.0}
    | {"learning_rate": 1e-2, "flow_learning_rate": 1e-2, "log_beta": 2.5, "lora_rank": 2},
}
CLOSED = {uce: {"preserve_scale": 1.0}, rece: {"preserve_scale": 1.0, "rounds": 2, "regularisation": 0.1}}
SAMPLERS = {
    sld: {"warmup_steps": 0, "guidance_scale": 10.0, "threshold": 0.1, "momentum_scale": 0.3, "momentum_beta": 0.5},
    safree: {
        "alpha": 0.01,
        "gamma": 10.0,
        "slope": 50.0,
        "midpoint": 0.5,
        "mask": "b",
        "padding": True,
        "skip_scales": [0.5],
        "reattended_steps": 2,
    },
}


def named(modules):
    return pytest.mark.parametrize("module", modules, ids=[one.__name__.rpartition(".")[2] for one in modules])


def stopped(function, *arguments, **options) -> str:
    with pytest.raises(finite.NotFinite) as stop:
        function(*arguments, **options)
    message = str(stop.value)
    assert "\n" not in message and stop.value.code == message  # one line, exit status 1
    return message


def erase(module, pipeline, concept, **changed):
    settings = module.Settings(**(TRAINED | CLOSED | SAMPLERS)[module])
    settings = settings.model_copy(update=changed)  # also to what params.yaml may not say
    return module.erase(pipeline, concept, settings, 0)


def poison(layer, value=NAN):
    layer.weight.data.view(-1)[-1] = value


@named(TRAINED)
def test_a_method_on_a_unet_of_nan(module, pipeline, concept):
    poison(pipeline.unet.conv_out)
    said = stopped(erase, module, pipeline, concept)
    assert re.search(r"from solver step 1 of \d on|: step 0: loss is not finite \(nan\)", said), said


@named(TRAINED)
def test_a_learning_rate_that_throws_the_weights_out(module, pipeline, concept):
    said = stopped(erase, module, pipeline, concept, learning_rate=1e39)
    assert re.search(r"(step|epoch) 0: the optimiser's step is not finite; its learning rate is too large", said), said


@named(TRAINED)
def test_a_learning_rate_that_throws_the_predictions_out(module, pipeline, concept):
    said = stopped(erase, module, pipeline, concept, learning_rate=1e25)
    place = r"(step|epoch) 1: |after step 1: |from solver step \d of \d on|: the closed form"
    assert re.search(place, said) and "not finite" in said, said


@named(CLOSED)
def test_a_closed_form_of_nan(module, pipeline, concept):
    poison(pipeline.unet.get_submodule("mid_block.attentions.0.transformer_blocks.0.attn2.to_v"))
    said = stopped(erase, module, pipeline, concept)
    name = module.__name__.rpartition(".")[2]
    assert said.startswith(f"{name}: ")
    assert "unet.mid_block.attentions.0.transformer_blocks.0.attn2.to_v.weight: the closed form's solution" in said


def test_a_singular_system():
    said = stopped(solve, torch.zeros(2, 2), torch.ones(2, 1), "unet.weight")
    assert said == "unet.weight: the closed form's linear system is singular"


@named(SAMPLERS)
def test_a_sampler_on_a_model_of_nan(module, pipeline, concept):
    edited = erase(module, pipeline, concept).apply(pipeline)
    poison(edited.unet.conv_out)
    draw = sampling.sample(edited, ["a car"], [1], [2.0], DRAWING, 1, True, ["kept-1"])
    assert stopped(list, draw) == "kept-1: the latents are not finite from solver step 1 of 4 on"


def test_the_step_and_the_prompt_of_a_drawing(pipeline, monkeypatch):
    plain, calls = DDIMScheduler.step, []

    def step(self, noise, t, latents, **options):
        calls.append(t)
        found = plain(self, noise, t, latents, **options)
        if len(calls) == 4 + 3:  # the second batch's third step
            found.prev_sample[1, 0, 0, 0] = float("inf")
        return found

    monkeypatch.setattr(DDIMScheduler, "step", step)
    arguments = ["a", "b", "c", "d"], range(4), [2.0] * 4, DRAWING, 2, True, ["one", "two", "three", "four"]
    assert (
        stopped(list, sampling.sample(pipeline, *arguments))
        == "four: the latents are not finite from solver step 3 of 4 on"
    )


def test_a_drawing_names_the_text_encoder(pipeline):
    poison(pipeline.text_encoder.get_input_embeddings())  # the end token's, which is in every prompt
    said = stopped(list, sampling.sample(pipeline, ["a", "b"], [1, 2], [2.0] * 2, DRAWING, 2, True, ["one", "two"]))
    assert said == "one: the text encoder's states are not finite"


def test_an_autoencoder_that_overflows(pipeline):
    latents = torch.randn(2, 4, 8, 8)
    latents[1] = 3e38
    said = stopped(sampling.decode, pipeline, latents, ["one", "two"])
    assert said.startswith("two: the autoencoder's picture is not finite in torch.float32, though its latents are")


def test_pictures_to_train_on(pipeline):
    scheduler = DDIMScheduler.from_config(pipeline.scheduler.config)
    scheduler.set_timesteps(4)
    latents, hidden = torch.randn(1, 4, 8, 8), sampling.embed(pipeline, ["a"])
    latents[0, 0] = NAN
    said = stopped(denoised, pipeline, scheduler, latents, scheduler.timesteps, hidden, hidden, 2.0)
    assert said == "a picture to train on: its latents are not finite from solver step 1 of 4 on"


def test_weights_that_leave_their_range():
    """The first step's loss and gradient are fine."""
    good, weight = torch.zeros(3), torch.ones(3)
    tuning = FineTuning([good, weight], torch.optim.SGD, 1e38, ["good", "mine.weight"])
    for _ in tuning.steps(2, "mine"):
        tuning.backward(1e3 * weight.sum() + 0 * good.sum())
        break
    assert stopped(tuning.step, loss=weight.sum()) == "mine: after step 0: mine.weight is not finite (-inf)"


def test_a_gradient_of_nan_with_a_finite_loss():
    weight = torch.zeros(3, requires_grad=True)
    tuning = FineTuning([weight], torch.optim.Adam, 0.1)
    for _ in tuning.steps(2, "mine"):
        break
    loss = weight.sqrt().sum()  # 0, and steeper than any number there
    tuning.backward(loss)
    assert stopped(tuning.step, loss=loss) == "mine: step 0: grad_norm is not finite (inf)"


def test_a_training_without_any_gradient():
    weight = torch.zeros(3, requires_grad=True)
    tuning = FineTuning([weight], torch.optim.Adam, 0.1)
    for _ in tuning.steps(2, "mine"):
        tuning.backward((0 * weight).sum())
        tuning.step(loss=torch.ones(()))
    with pytest.raises(SystemExit, match=r"^mine: the gradient was 0 in all 2 steps; nothing is trained$"):
        tuning.edit("unet", ["weight"])


ids = [f"{module.__name__.rpartition('.')[2]}{place}" for place, (module, _) in enumerate(ATTACKS)]


@pytest.mark.parametrize(("module", "settings"), ATTACKS, ids=ids)
def test_an_attack_on_a_model_that_turns_to_nan(module, settings, pipeline, tmp_path):
    """The un-attacked round is fine, and its state is there; in what follows every network gives NaN."""
    victim = make_victim(pipeline, never)

    def attack(victim, settings, seed):
        poison(pipeline.unet.conv_out)
        poison(pipeline.text_encoder.final_layer_norm)
        yield from module.attack(victim, settings, seed)

    said = stopped(rounds.run, victim, attack, module.Settings(**settings), 5, tmp_path)
    assert re.match(r"(target-\d|all open prompts): round 1: ", said), said
    state = torch.load(tmp_path / rounds.STATE, weights_only=True)
    assert state["round"] == 0 and all(row["step"] == -1 for row in state["results"].values())


LEARNING = {module: settings for module, settings in ATTACKS if module in (cce, p4d)}


@named(LEARNING)
def test_what_an_attack_learns(module, pipeline):
    settings = module.Settings(**LEARNING[module]).model_copy(update={"learning_rate": 1e39})
    name = module.__name__.rpartition(".")[2]
    said = stopped(rounds.run, make_victim(pipeline, never), module.attack, settings, 5)
    assert said == f"{name}: round 1: the optimiser's step is not finite; its learning rate is too large"
    settings = settings.model_copy(update={"learning_rate": 1e30})
    said = stopped(rounds.run, make_victim(pipeline, never), module.attack, settings, 5)
    assert re.search(r"round 1: .+ is not finite", said), said


@named([unlearndiffatk, mma, ring_a_bell])
def test_a_target_encoder_of_nan(module, pipeline):
    poison(pipeline.text_encoder.get_input_embeddings())
    settings = module.Settings(**next(values for one, values in ATTACKS if one is module))
    said = stopped(rounds.run, make_victim(pipeline, never), module.attack, settings, 5)
    assert said == "target-0: round 0: the text encoder's states are not finite"


def test_the_pass_of_an_attack(pipeline):
    victim = make_victim(pipeline, never)
    latents, hidden = torch.randn(2, 4, 8, 8), sampling.embed(pipeline, ["a", "b"])

    def attack(victim, settings, seed):
        victim.predict([0, 2], latents, torch.tensor([5, 5]), hidden)
        latents[1] = NAN
        victim.predict([0, 2], latents, torch.tensor([5, 5]), hidden)
        yield {}

    said = stopped(rounds.run, victim, attack, None, 0)
    assert said == "target-2: round 1: the U-Net's output is not finite in its pass 2"


def test_a_judge_of_nan(pipeline):
    victim = make_victim(pipeline, never)
    victim.judge = lambda pictures: pd.DataFrame({"a/b": [0.0, 0.5, NAN][: len(pictures)], "a/c": 0.0})
    said = stopped(rounds.run, victim, ATTACKS[0][0].attack, ATTACKS[0][0].Settings(**ATTACKS[0][1]), 0)
    assert said == "the judge's scores: target-2: round 0: a/b is not finite (nan)"


def test_an_edit_of_nan_is_neither_saved_nor_loaded_nor_applied(pipeline, tmp_path):
    bad = Edit("weights", {"unet.good": torch.ones(2), "unet.conv_in.weight": torch.tensor([1.0, NAN])})
    said = stopped(bad.save, tmp_path / "edit")
    assert said == f"{tmp_path}/edit: the edit cannot be saved: unet.conv_in.weight is not finite (nan)"
    assert not (tmp_path / "edit").exists()
    Edit("parts", parts=[Edit("weights", {"unet.good": torch.ones(2)})]).save(tmp_path / "edit")
    save_file(bad.tensors, tmp_path / "edit" / "0-weights" / "weights.safetensors")
    said = stopped(Edit.load, tmp_path / "edit")
    assert said == f"{tmp_path}/edit/0-weights/weights.safetensors: unet.conv_in.weight is not finite (nan)"

    weights = add_lora(pipeline.unet, 2)
    for weight in weights:
        weight.data.fill_(1e25)  # their product overflows
    edit = lora_of(pipeline.unet, [])
    pipeline.unet.unload_lora()
    assert stopped(edit.apply, pipeline).startswith("the edited model: unet: down_blocks.0.")


def test_an_edit_that_overflows_in_half_precision(pipeline):
    pipeline.unet.half()
    edit = Edit("weights", {"unet.conv_in.bias": torch.full((8,), 1e6)})
    assert stopped(edit.apply, pipeline) == "the edited model: unet.conv_in.bias is not finite (inf)"


def test_a_base_model_of_nan(pipeline):
    finite.pipeline(pipeline, "models/mine")
    poison(pipeline.vae.decoder.conv_out, float("-inf"))
    said = stopped(finite.pipeline, pipeline, "models/mine")
    assert said == "models/mine: vae: decoder.conv_out.weight is not finite (-inf)"


def test_large_numbers_are_finite():
    finite.check("here", [("large", torch.full((1000,), 3e38)), ("whole", torch.tensor([1]))])
    watch = finite.Watch()
    watch.see(torch.full((2, 1000), 3e38))
    assert watch.first() is None


def test_json_holds_no_nan():
    assert finite.as_json("here", {"a": [1.5, None, "nan"]}) == '{"a": [1.5, null, "nan"]}\n'
    said = stopped(finite.as_json, "scores.json", {"fd": 1.0, "clip": {"ViT": [0.5, float("inf")]}})
    assert said == "scores.json: clip.ViT.1 is not finite (inf)"
