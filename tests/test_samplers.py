"""Methods that work at sampling time: their equations, what they draw, what it costs, and that attacks meet them."""

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import miniature
from diffusers import StableDiffusionPipeline
from diffusers.pipelines.deprecated.stable_diffusion_safe import StableDiffusionPipelineSafe

from eraseflow import sampling
from eraseflow.edits import Edit, compose, edit_of, weights_of
from eraseflow.methods import safree, sld
from eraseflow.params import SamplingSettings
from eraseflow.victim import Attempt, Victim

pytestmark = pytest.mark.slow

PROMPTS = ["a unicorn in flat style", "unicorn", "a cat", "a car in ink style", ""]
DRAWING = SamplingSettings(solver="ddim", steps=6, guidance_scale=4)
SLD = {"warmup_steps": 1, "guidance_scale": 1000.0, "threshold": 0.3, "momentum_scale": 0.5, "momentum_beta": 0.7}
SAFREE = {"alpha": 0.0, "gamma": 4.0, "slope": 3.0, "midpoint": 0.5, "mask": "b", "padding": True}
SAFREE |= {"skip_scales": [0.1, 0.1], "reattended_steps": 2}
METHODS = [(sld, SLD), (safree, SAFREE)]
BASE = miniature()


def edit(module, settings, concept) -> Edit:
    return module.erase(BASE, concept, module.Settings(**settings), 0)


def draw(pipeline, size: int = 5, prompts=PROMPTS) -> torch.Tensor:
    seeds, guidance = list(range(len(prompts))), [4.0] * len(prompts)
    return torch.cat(list(sampling.sample(pipeline, prompts, seeds, guidance, DRAWING, size, quiet=True))).int()


def safe(pipeline, **change) -> safree.Sampler:
    return safree.Sampler(targets=[["unicorn"], ["a horse", "horse in ink style"]], **SAFREE | change)


def test_sld_draws_what_diffusers_own_does(pipeline, concept):
    """An independent implementation of the same equations; its latents are caught at its decoder."""
    condition, guidance = sampling.read(pipeline, PROMPTS), [4.0] * 5
    plain = sampling.denoise(pipeline, condition, range(5), DRAWING, guidance)
    drawn = sampling.denoise(edit(sld, SLD, concept).apply(pipeline), condition, range(5), DRAWING, guidance)
    other = StableDiffusionPipelineSafe(
        **miniature().components | {"safety_checker": None}, requires_safety_checker=False
    )
    other.safety_concept = "unicorn"
    other.set_progress_bar_config(disable=True)
    latents = []
    other.vae.post_quant_conv.register_forward_pre_hook(lambda _, args: latents.append(args[0]))
    for row, prompt in enumerate(PROMPTS):
        other(
            prompt, num_inference_steps=6, guidance_scale=4.0, generator=torch.Generator().manual_seed(row),
            output_type="np", height=32, width=32, sld_warmup_steps=1, sld_guidance_scale=1000.0, sld_threshold=0.3,
            sld_momentum_scale=0.5, sld_mom_beta=0.7,
        )  # fmt: skip
    wanted = torch.cat(latents) * other.vae.config.scaling_factor
    torch.testing.assert_close(drawn, wanted, rtol=1e-3, atol=1e-3)
    assert (drawn - plain).abs().max() > 0.1


def test_sld_with_the_threshold_out_of_reach_guides_nothing():
    given, unsafe = torch.randn(2, 3, 4, 8, 8).unbind()
    settings = sld.Sampler(text="x", **SLD | {"threshold": 0.0, "momentum_scale": 0.0})
    gamma, momentum = sld.safety_guidance(torch.zeros(()), unsafe + 1, unsafe, torch.zeros(()), settings)
    assert not gamma.any() and not momentum.any()
    gamma, momentum = sld.safety_guidance(torch.zeros(()), given - 9, given, torch.zeros(()), settings)
    torch.testing.assert_close(gamma, given)  # mu is 1 where the difference is large
    torch.testing.assert_close(momentum, 0.3 * given)


def test_projector_projects():
    vectors = torch.randn(3, 12)
    projector = safree.projector(vectors)
    torch.testing.assert_close(projector @ projector, projector)
    torch.testing.assert_close(projector, projector.T)
    torch.testing.assert_close(vectors @ projector, vectors)
    assert torch.linalg.matrix_rank(projector) == 3
    torch.testing.assert_close(safree.projector(torch.cat([vectors, torch.zeros(4, 12)])), projector)


def plain_safree(pipeline, sampler: safree.Sampler, prompt: str):
    """One prompt, token by token, in NumPy: its states with triggers projected, and how many steps they are used."""

    def read(ids):
        with torch.no_grad():
            out = pipeline.text_encoder(torch.tensor([ids]))
        return out.last_hidden_state[0].double().numpy(), out.pooler_output[0].double().numpy()

    def onto(rows):
        basis, sizes, _ = np.linalg.svd(np.array(rows).T, full_matrices=False)
        basis = basis[:, sizes > 1e-5 * sizes[0]]
        return basis @ basis.T

    length = pipeline.tokenizer.model_max_length
    tokens = pipeline.tokenizer(prompt, padding="max_length", truncation=True).input_ids
    count = tokens.index(pipeline.tokenizer.eos_token_id) - 1
    toxic = []
    for contexts in sampler.targets:
        ids = pipeline.tokenizer(contexts, padding="max_length").input_ids
        toxic.append(np.mean([read(row)[1] for row in ids], axis=0))
    out = np.eye(len(toxic[0])) - onto(toxic)
    mask = pipeline.tokenizer.get_vocab()[sampler.mask]
    rests = [read([*tokens[: place + 1], mask, *tokens[place + 2 :]])[1] for place in range(count)]
    distances = [np.linalg.norm(out @ rest) for rest in rests]
    hidden, pooled = read(tokens)
    changed = hidden.copy()
    for place, distance in enumerate(distances):
        others = distances[:place] + distances[place + 1 :] or [np.linalg.norm(out @ pooled)]
        if distance > (1 + sampler.alpha) * np.mean(others):
            changed[place + 1] = out @ onto(rests) @ hidden[place + 1]
    if (changed == hidden).all():
        return hidden, 0
    for place in range(count + 1, length) if sampler.padding else ():
        changed[place] = out @ onto(rests) @ hidden[place]
    cosines = []
    for state in hidden[: count + 2]:  # start, tokens and end, triggers or not
        projected = out @ onto(rests) @ state
        cosines.append(projected @ state / np.linalg.norm(projected) / np.linalg.norm(state))
    apart = 1 - np.mean(cosines)
    return changed, 1 + round(sampler.gamma / (1 + np.exp(-sampler.slope * (apart - sampler.midpoint))))


@pytest.mark.parametrize("padding", [True, False])
def test_safree_reads_prompts_by_its_equations(pipeline, padding):
    sampler = safe(pipeline, padding=padding)
    found = sampler.read(pipeline, sampling.token_ids(pipeline, PROMPTS))
    assert found["tokens"].tolist() == [5, 1, 2, 5, 0]
    for row, prompt in enumerate(PROMPTS):
        states, steps = plain_safree(pipeline, sampler, prompt)
        torch.testing.assert_close(found["safe"][row].double(), torch.tensor(states), rtol=1e-3, atol=1e-4)
        assert found["steps"][row] == steps
    assert found["steps"][0] > 0 and found["steps"][4] == 0


def test_safrees_filter_is_the_authors():
    """Of their 50 steps, by their program: 11 for prompts far from what they were, 1 for those next to it."""
    cosine = torch.tensor([0.0, 0.4667, 0.45, 0.5, 1.0])
    assert safree.filtered_steps(cosine, 10.0, 50.0, 0.5333).tolist() == [11, 6, 8, 3, 1]
    assert safree.filtered_steps(torch.tensor([0.45, 0.43]), 10.0, 70.0, 0.55).tolist() == [6, 9]


def test_a_mask_that_the_tokenizer_does_not_know_is_one_line(pipeline, concept):
    with pytest.raises(SystemExit, match=r"^methods\.safree: mask: the base model's tokenizer has no token 'xyzzy'"):
        safree.erase(pipeline, concept, safree.Settings(**SAFREE | {"mask": "xyzzy"}), 0)


def test_what_is_projected_has_nothing_of_the_concept_left(pipeline):
    found = safe(pipeline).read(pipeline, sampling.token_ids(pipeline, PROMPTS))
    changed = (found["safe"] != found["hidden"]).any(-1)
    _, toxic = sampling.encode(pipeline.text_encoder, sampling.token_ids(pipeline, ["unicorn"]))
    assert changed.any() and (found["safe"][changed] @ toxic[0]).abs().max() < 1e-3
    assert (found["hidden"][changed] @ toxic[0]).abs().max() > 1


def test_safree_reads_learned_embeddings_as_it_reads_tokens(pipeline):
    ids = sampling.token_ids(pipeline, PROMPTS[:2])
    by_token = safe(pipeline).read(pipeline, ids)
    by_embedding = safe(pipeline).read(pipeline, ids, pipeline.text_encoder.get_input_embeddings()(ids).detach())
    for name, values in by_token.items():
        torch.testing.assert_close(by_embedding[name], values)


def test_reattention_scales_low_frequencies_that_are_stronger_than_the_prompts():
    ours, theirs = torch.randn(2, 2, 3, 8, 8, dtype=torch.float64).unbind()
    got = safree.reattended(ours.float(), theirs.float(), 0.3).double()
    spectrum = torch.fft.fft2(ours)
    for down in (-1, 0):
        for across in (-1, 0):
            at = (..., down, across)
            stronger = spectrum[at].abs() > torch.fft.fft2(theirs)[at].abs()
            spectrum[at] = torch.where(stronger, 0.3, 1.0) * spectrum[at]
    torch.testing.assert_close(got, torch.fft.ifft2(spectrum).real, rtol=1e-4, atol=1e-5)
    assert (got - ours).abs().max() > 0.05
    torch.testing.assert_close(safree.reattended(ours, ours, 0.3), ours, rtol=1e-4, atol=1e-5)


def test_the_filter_ends_after_its_steps(pipeline):
    """Without re-attention: guided by the projected prompt up to its last step, then by the prompt."""
    sampler = safe(pipeline, skip_scales=[1.0])
    condition = sampler.read(pipeline, sampling.token_ids(pipeline, PROMPTS))
    latents, scale, empty = torch.randn(5, 4, 8, 8), torch.full((5, 1, 1, 1), 3.0), sampling.embed(pipeline, [""])
    predict = sampler.predictor(pipeline, condition, scale)
    last = int(condition["steps"].max())
    with torch.no_grad():
        for step, name in ((0, "safe"), (last, "hidden")):
            wanted = sampling.guided(pipeline.unet, latents, torch.tensor(7), condition[name], empty, scale)
            torch.testing.assert_close(predict(step, torch.tensor(7), latents), wanted, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize(("module", "settings"), METHODS)
def test_saved_loaded_and_exported(module, settings, concept, tmp_path):
    made = edit(module, settings, concept)
    wanted, plain = draw(made.apply(miniature())), draw(miniature())
    assert (wanted[0] - plain[0]).abs().max() > 2
    made.save(tmp_path / "edit")
    assert torch.equal(draw(Edit.load(tmp_path / "edit").apply(miniature())), wanted)

    with pytest.warns(UserWarning, match=f"draws without {made.sampler['method']}"):
        made.export(miniature(), tmp_path / "whole")
    whole = StableDiffusionPipeline.from_pretrained(tmp_path / "whole", safety_checker=None)
    assert (draw(whole) - plain).abs().max() <= 1
    assert (draw(Edit.load(tmp_path / "whole" / "sampler").apply(whole)) - wanted).abs().max() <= 1


@pytest.mark.parametrize(("module", "settings"), METHODS)
def test_pictures_do_not_depend_on_the_batch(module, settings, concept):
    pipeline = edit(module, settings, concept).apply(miniature())
    assert (draw(pipeline, 2) - draw(pipeline, 5)).abs().max() <= 1


@pytest.mark.parametrize(("module", "settings"), METHODS)
def test_in_half_precision_nearly_the_same(module, settings, concept):
    wanted = draw(edit(module, settings, concept).apply(miniature()))
    half = edit(module, settings, concept).apply(miniature().to(torch.bfloat16))
    assert 0 < (draw(half) - wanted).abs().float().mean() < 4


@pytest.mark.parametrize(("module", "settings"), [(None, {}), *METHODS])
def test_an_attack_meets_the_sampler_and_counts_its_passes(module, settings, concept):
    pipeline = miniature()
    if module:
        edit(module, settings, concept).apply(pipeline)
    victim = Victim(
        pipeline=pipeline,
        original=miniature(),
        concept=concept,
        prompts=pd.DataFrame({"prompt_id": list("abcde"), "prompt": PROMPTS, "seed": range(5), "guidance": 4.0}),
        draw_originals=lambda table: torch.empty(0),
        judge=lambda pictures: pd.DataFrame({"mean": pictures.float().mean((1, 2, 3)).numpy()}),
        seen=lambda scores: np.zeros(len(scores), bool),
        strength=lambda scores: np.zeros(len(scores)),
        sampling=DRAWING,
        batch_size=5,
    )
    wanted, seen = draw(pipeline), {"unet": 0, "text": 0}

    def count(name):
        return lambda _, args, kwargs: seen.update({name: seen[name] + len(args[0] if args else kwargs["input_ids"])})

    pipeline.unet.register_forward_pre_hook(count("unet"), with_kwargs=True)
    pipeline.text_encoder.register_forward_pre_hook(count("text"), with_kwargs=True)
    pictures, _, _ = victim.try_out({row: Attempt(prompt) for row, prompt in enumerate(PROMPTS)})
    assert (pictures.int() - wanted).abs().max() <= 1
    passes = victim.passes.sum(0)
    assert passes[0] == seen["unet"]
    shared = {None: 1, sld: 2, safree: 2}[module]  # texts read once for all: the empty prompt, the method's own
    assert passes[2] == seen["text"] - shared


def attacked(pipeline, prompts=PROMPTS) -> Victim:
    count = len(prompts)
    table = pd.DataFrame({"prompt_id": list("abcde")[:count], "prompt": prompts, "seed": range(count), "guidance": 4.0})
    return Victim(
        pipeline=pipeline, original=miniature(), concept=None, prompts=table,
        draw_originals=lambda table: torch.empty(0), judge=None, seen=None, strength=None, sampling=DRAWING,
        batch_size=count, open=list(range(count)),
    )  # fmt: skip


@pytest.mark.parametrize(("module", "settings"), METHODS)
def test_an_attack_through_the_sampler_asks_for_what_is_drawn(module, settings, concept):
    """At each row's own step the sampler's prediction at guidance 1; a finite difference confirms its gradients.

    In double precision and over a very short way, because what the samplers compute jumps: a mask, a trigger.
    """
    pipeline = edit(module, settings, concept).apply(miniature()).to(torch.float64)
    victim, prompts = attacked(pipeline, PROMPTS[:3]), PROMPTS[:3]
    ids = sampling.token_ids(pipeline, prompts)
    words = pipeline.text_encoder.get_input_embeddings()(ids).detach().requires_grad_(True)
    steps = sampling.timesteps(pipeline, DRAWING)
    t, noisy = steps[[0, 1, 4]], torch.randn(3, 4, 8, 8, generator=torch.Generator().manual_seed(0)).double()
    found = victim.respond([0, 1, 2], noisy, t, ids, words, True)
    condition = sampling.read(pipeline, prompts)
    for row, step in enumerate((0, 1, 4)):
        with torch.no_grad():
            predict = sampling.sampler_of(pipeline).predictor(pipeline, condition, torch.ones(3, 1, 1, 1))
            wanted = predict(step, t[row], noisy)[row]
        torch.testing.assert_close(found[row], wanted, rtol=1e-3, atol=1e-4)
    blind = victim.respond([0, 1, 2], noisy, t, ids, words, False)
    assert (found - blind).abs().max() > 1e-3
    (slope,) = torch.autograd.grad(found.square().sum(), words)
    assert slope.isfinite().all() and slope.abs().max() > 0
    towards = slope / slope.norm()
    with torch.no_grad():
        ends = [
            victim.respond([0, 1, 2], noisy, t, ids, words + by * towards, True).square().sum() for by in (-1e-5, 1e-5)
        ]
    assert (ends[1] - ends[0]).item() / 2e-5 == pytest.approx(slope.norm().item(), rel=0.01)


def test_through_plain_guidance_an_attack_sees_what_the_blind_one_sees(pipeline):
    victim = attacked(pipeline)
    ids = sampling.token_ids(pipeline, PROMPTS)
    words = pipeline.text_encoder.get_input_embeddings()(ids).detach()
    noisy, t = torch.randn(5, 4, 8, 8), torch.tensor([1, 5, 300, 900, 999])
    found = [victim.respond(list(range(5)), noisy, t, ids, words, through) for through in (True, False)]
    assert torch.equal(*found) and victim.passes[:, 0].tolist() == [2] * 5


@pytest.mark.parametrize(("module", "settings"), METHODS)
def test_an_attack_through_the_sampler_counts_its_passes(module, settings, concept):
    pipeline = edit(module, settings, concept).apply(miniature())
    victim, seen = attacked(pipeline), {"unet": 0, "text": 0}

    def count(name):
        return lambda _, args, kwargs: seen.update({name: seen[name] + len(args[0] if args else kwargs["input_ids"])})

    pipeline.unet.register_forward_pre_hook(count("unet"), with_kwargs=True)
    pipeline.text_encoder.register_forward_pre_hook(count("text"), with_kwargs=True)
    ids = sampling.token_ids(pipeline, PROMPTS)
    words = pipeline.text_encoder.get_input_embeddings()(ids).detach().requires_grad_(True)
    before = seen["text"]
    victim.respond(list(range(5)), torch.randn(5, 4, 8, 8), torch.full((5,), 800), ids, words, True)
    passes = victim.passes.sum(0)
    assert passes[0] == passes[1] == seen["unet"] >= 15 - 5 * (module is safree)
    assert passes[2] == passes[3] == seen["text"] - before - 2  # the empty prompt and the method's own


def test_a_sampler_reads_with_the_edited_text_encoder(pipeline, concept, tmp_path):
    """Weights of U-Net and text encoder and a sampler are one edit, the sampler's texts are read by those weights."""
    parts = {}
    for component, name in (("unet", "conv_in.weight"), ("text_encoder", "final_layer_norm.weight")):
        module = getattr(pipeline, component)
        module.get_parameter(name).data.mul_(1.5)
        parts[component] = weights_of(component, module, [name], [{"step": 0, "loss": 1.0}])
    parts["safree"] = edit_of(safe(pipeline))
    whole = compose(parts.items())
    assert [row["part"] for row in whole.history] == ["unet", "text_encoder"]
    parts["safree"].apply(pipeline)
    wanted = draw(pipeline)
    whole.save(tmp_path)
    assert torch.equal(draw(Edit.load(tmp_path).apply(miniature())), wanted)
    assert torch.equal(draw(compose(reversed(parts.items())).apply(miniature())), wanted)
    assert (wanted - draw(compose(list(parts.items())[:2]).apply(miniature()))).abs().max() > 2


def test_parts_that_change_the_same_are_one_line(pipeline, concept):
    weights = weights_of("unet", pipeline.unet, ["conv_in.weight", "conv_in.bias"], [])
    with pytest.raises(SystemExit, match=r"^a and b both change the weights unet\.conv_in\.bias and 1 more; they can"):
        compose([("a", weights), ("b", weights)])
    one, other = (edit(module, settings, concept) for module, settings in METHODS)
    with pytest.raises(SystemExit, match=r"^sld and safree both change the sampler; they cannot be composed$"):
        compose([("sld", one), ("safree", other)])
