"""What `erase` and the attacks give to the networks: prompts, latents, timesteps, and whose prediction is a target.

The losses themselves are tested method by method elsewhere. Here every pass through the U-Net is recorded.
"""

from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import pytest
import torch
from conftest import CONCEPT, miniature
from diffusers import StableDiffusionPipeline
from test_rounds import make_victim, never
from torch import Tensor
from torch.nn.functional import mse_loss

from eraseflow import own_pictures
from eraseflow.attacks import p4d, ring_a_bell, unlearndiffatk
from eraseflow.cross_attention import projections
from eraseflow.methods import advunlearn, ca, duo, eraseflow, esd, mace, race, salun, spm, uce
from eraseflow.sampling import embed

TARGET, ANCHOR, KEPT = CONCEPT.target, CONCEPT.anchor, CONCEPT.preserve
CONCEPT_OF_TWO = CONCEPT.model_copy(update={"also": {"dagger": "saw"}})
ESD: dict[str, Any] = {
    "iterations": 4, "batch_size": 2, "learning_rate": 1e-2, "negative_guidance": 3.0, "num_steps": 3,
    "guidance_scale": 2.0,
}  # fmt: skip
PICTURES: dict[str, Any] = {
    "iterations": 2, "batch_size": 2, "learning_rate": 1e-2, "preserve_scale": 0.5, "pictures": 3, "num_steps": 2,
    "guidance_scale": 2.0,
}  # fmt: skip


@dataclass
class Pass:
    """One pass through a U-Net; prompts: the sentence that each row's hidden states are of, or "?"."""

    unet: torch.nn.Module
    latents: Tensor
    t: Tensor
    prompts: list[str]
    predicted: Tensor


def recorded(pipeline) -> list[Pass]:
    """A list to which every pass of the U-Net and of its later copies is appended."""
    passes: list[Pass] = []
    known = ["", TARGET, ANCHOR, *KEPT]
    states = embed(pipeline, known)

    def note(unet, inputs, found):
        latents, t, hidden = inputs
        distances = (hidden[:, None] - states).abs().amax((2, 3))
        prompts = [known[int(row.argmin())] if row.min() < 1e-4 else "?" for row in distances]
        passes.append(Pass(unet, latents, torch.as_tensor(t), prompts, found.sample.detach().clone()))

    pipeline.unet.register_forward_hook(note)
    return passes


def spied(monkeypatch, owner, name: str) -> list[tuple]:
    """A list of the arguments and the result of every call of a function, which stays as it is."""
    calls, real = [], getattr(owner, name)

    def spy(*given, **named):
        calls.append((given, found := real(*given, **named)))
        return found

    monkeypatch.setattr(owner, name, spy)
    return calls


def check_esd_step(pipeline, passes: list[Pass], loss: float) -> int:
    """One step of ESD's loss (eq. 7), from its recorded passes; returns how many led to x_t."""
    *way, goal, student = passes
    for one in way:
        assert one.unet is pipeline.unet and one.prompts == ["", "", TARGET, TARGET], "x_t is denoised under the target"
    assert goal.unet is not pipeline.unet and goal.prompts == ["", "", TARGET, TARGET]
    assert student.unet is pipeline.unet
    pipeline.scheduler.set_timesteps(ESD["num_steps"])
    t = pipeline.scheduler.timesteps[len(way)]
    assert (goal.t == t).all() and (student.t == t).all(), "x_t and t belong together"
    assert torch.equal(goal.latents, student.latents.repeat(2, 1, 1, 1))
    for one, after in pairwise([*way, goal]):
        without, given = one.predicted.chunk(2)
        guided = without + ESD["guidance_scale"] * (given - without)
        wanted = pipeline.scheduler.step(guided, one.t[0], one.latents[:2])[0]
        torch.testing.assert_close(after.latents[:2], wanted, rtol=1e-4, atol=1e-4)
    without, given = goal.predicted.chunk(2)
    wanted = without - ESD["negative_guidance"] * (given - without)
    assert loss == pytest.approx(mse_loss(student.predicted, wanted).item(), rel=1e-4)
    return len(way)


def steps_of(passes: list[Pass], pipeline, after_goal: int = 1) -> list[list[Pass]]:
    """Recorded passes cut into training steps, each of which has the frozen U-Net's goal before its last ones."""
    ends = [at + 1 + after_goal for at, one in enumerate(passes) if one.unet is not pipeline.unet]
    assert len(ends) == 4, "the frozen U-Net gives the goal, in one pass a step"
    return [passes[start:end] for start, end in zip([0, *ends], ends, strict=False)]


def test_esd(pipeline, concept):
    passes = recorded(pipeline)
    edit = esd.erase(pipeline, concept, esd.Settings(**ESD, variant="x"), 0)
    steps = steps_of(passes, pipeline)
    lengths = [check_esd_step(pipeline, step, row["loss"]) for step, row in zip(steps, edit.history, strict=True)]
    assert max(lengths) > 0, "some x_t is not pure noise"
    assert all(step[-1].prompts == [TARGET, TARGET] for step in steps), "the student is under the target"


def test_race(pipeline, concept, monkeypatch):
    """An attack of one pass stands between the goal and the student's pass."""
    passes, attacks = recorded(pipeline), spied(monkeypatch, race, "attacked")
    settings = race.Settings(**ESD, esd_iterations=0, variant="x", epsilon=0.3, attack_steps=1)
    edit = race.erase(pipeline, concept, settings, 0)
    steps = steps_of(passes, pipeline, after_goal=2)
    assert len(attacks) == 4
    lengths = []
    for step, row, (given, _) in zip(steps, edit.history, attacks, strict=True):
        *before, attack, student = step
        lengths.append(check_esd_step(pipeline, [*before, student], row["loss"]))
        assert attack.prompts == student.prompts == ["?", "?"]
        assert torch.equal(given[4], step[0].latents[:2]), "e is the noise that x_t began with"
    assert max(lengths) > 0


def test_advunlearn(pipeline, concept, monkeypatch):
    """A step without an attack (warm-up), then one with: both terms of the loss, and the prefix trained under."""
    passes, attacks = recorded(pipeline), spied(monkeypatch, advunlearn, "attacked")
    reads = spied(monkeypatch, advunlearn, "read")
    settings = advunlearn.Settings(
        **ESD | {"iterations": 2}, warmup=1, prefix_tokens=2, attack_steps=1, attack_learning_rate=0.01, retain_batch=1,
        retain_scale=0.5,
    )  # fmt: skip
    edit = advunlearn.erase(pipeline, concept, settings, 0)
    prefixes = [given[2] for given, _ in reads if given[1] == [TARGET, TARGET]]
    assert len(attacks) == 1 and len(prefixes) == 3, "warm-up, attack, training under its result"
    assert prefixes[0].shape[1] == 0
    assert torch.equal(prefixes[2], attacks[0][1]) and not torch.equal(prefixes[2], prefixes[1])

    for one in (one for one in passes if len(one.prompts) == 6):
        assert one.prompts[:5] == ["", "", "", TARGET, TARGET] and one.prompts[5] in KEPT, "x_t is under the prompts"
    fixed, trained = ([one for one in passes if len(one.prompts) == count] for count in (5, 3))
    for before, after, row in zip(fixed, trained, edit.history, strict=True):
        assert before.prompts[:4] == ["", "", TARGET, TARGET] and before.prompts[4] in KEPT
        without, given, kept = before.predicted.split([2, 2, 1])
        wanted = without - ESD["negative_guidance"] * (given - without)
        assert row["erasing"] == pytest.approx(mse_loss(after.predicted[:2], wanted).item(), rel=1e-4)
        retaining = mse_loss(after.predicted[2:], kept).item()
        assert row["retaining"] == pytest.approx(retaining, rel=1e-3, abs=1e-10)
        assert row["loss"] == pytest.approx(row["erasing"] + 0.5 * row["retaining"])
    _, _, _, latents, _, sought, _ = attacks[0][0]
    assert torch.equal(latents, fixed[1].latents[:2]) and torch.equal(sought, fixed[1].predicted[2:4])


def test_duo(pipeline, concept, monkeypatch):
    passes = recorded(pipeline)
    draws, edits = spied(monkeypatch, own_pictures, "draw"), spied(monkeypatch, own_pictures, "sdedit")
    settings = duo.Settings(
        pairs=1, strength=0.5, num_steps=2, guidance_scale=2.0, prompt="target", iterations=2, batch_size=1,
        learning_rate=1e-2, beta=100.0, preserve_scale=1.0, lora_rank=2,
    )  # fmt: skip
    edit = duo.erase(pipeline, concept, settings, 0)
    [(drawing, unsafe)], [(editing, safe)] = draws, edits
    assert drawing[2] != editing[4], "SDEdit has its own noise"
    assert [one.prompts for one in passes[:2]] == [["", TARGET]] * 2, "unsafe pictures are of the target"
    assert passes[2].prompts == [TARGET, ANCHOR], "SDEdit leads from the target to the anchor"
    training = passes[3:]
    for reference, one, row in zip(training[::2], training[1::2], edit.history, strict=True):
        assert one.prompts == reference.prompts == [TARGET, TARGET, ""]
        assert one.t[0] == one.t[1] and one.t[2] == 999, "pure noise is at the last timestep"
        alpha = pipeline.scheduler.alphas_cumprod[one.t[0]]
        noises = (one.latents[:2] - alpha.sqrt() * torch.cat([safe, unsafe])) / (1 - alpha).sqrt()
        torch.testing.assert_close(
            noises[0], noises[1], rtol=1e-3, atol=1e-3, msg="a pair shares its noise, the safe picture first"
        )
        preference = duo.preference_loss(one.predicted[:2], reference.predicted[:2], noises[:1], 100.0)
        assert row["preference"] == pytest.approx(preference.item(), rel=1e-3)


def test_mace(pipeline, monkeypatch):
    """Each target is refined to its own anchor; the fusion is of the unedited weights to the layers with LoRAs."""
    unet, names, given = pipeline.unet, projections(pipeline.unet), []
    originals = {name: unet.get_parameter(name).detach().clone() for name in names}
    words = iter([TARGET, "dagger"])
    states = {word: mace.from_target_on(pipeline, word, [word]) for word in (TARGET, "dagger")}
    around = [mace.cooccurring(pipeline.tokenizer, embed(pipeline, pair), pair, pair) for pair in CONCEPT_OF_TWO.pairs]
    solved, unload = spied(monkeypatch, mace, "closed_form"), unet.unload_lora

    def noted():
        own = states[next(words)]
        given.append([unet.get_submodule(name.removesuffix(".weight"))(own).detach() for name in names])
        unload()

    monkeypatch.setattr(unet, "unload_lora", noted)
    settings = mace.Settings(**PICTURES | {"learning_rate": 0.1}, fuse_scale=0.1, lora_rank=2, mask_threshold=0.5)
    edit = mace.erase(pipeline, CONCEPT_OF_TWO, settings, 0)
    assert len(solved) == 2 * len(names) and len(given) == 2
    for at, name in enumerate(names):
        (weight, inputs, outputs, _, scale, *_), _ = solved[at]
        assert torch.equal(weight.float(), originals[name]) and scale == 0.5
        torch.testing.assert_close(inputs, torch.cat([target for target, _ in around]))
        wanted = torch.cat([anchor for _, anchor in around]) @ originals[name].T
        torch.testing.assert_close(outputs.float(), wanted, rtol=1e-3, atol=1e-5)
        (weight, inputs, outputs, _, scale, *_), fused = solved[len(names) + at]
        assert torch.equal(weight.float(), originals[name]) and scale == 0.1
        torch.testing.assert_close(inputs, torch.cat(list(states.values())))
        torch.testing.assert_close(outputs.float(), torch.cat([given[0][at], given[1][at]]), rtol=1e-3, atol=1e-4)
        assert torch.equal(edit.tensors[f"unet.{name}"], fused.float())


def test_spm(pipeline, concept):
    passes = recorded(pipeline)
    edit = spm.erase(pipeline, concept, spm.Settings(**ESD, anchored=1, anchoring_scale=0.1), 0)
    way = [one for one in passes if len(one.prompts) == 4]
    fixed, trained = ([one for one in passes if len(one.prompts) == count] for count in (5, 3))
    assert way and all(one.prompts == ["", "", TARGET, TARGET] for one in way), "x_t is denoised under the target"
    for before, after, row in zip(fixed, trained, edit.history, strict=True):
        assert before.prompts == [TARGET, TARGET, "?", ANCHOR, ANCHOR] and after.prompts == [TARGET, TARGET, "?"]
        given, _, without = before.predicted.split([2, 1, 2])
        wanted = without - ESD["negative_guidance"] * (given - without)
        assert row["erasing"] == pytest.approx(mse_loss(after.predicted[:2], wanted).item(), rel=1e-4)


def test_salun(pipeline, concept, monkeypatch):
    passes, draws = recorded(pipeline), spied(monkeypatch, own_pictures, "draw")
    noised = spied(monkeypatch, own_pictures, "noised")
    edit = salun.erase(pipeline, concept, salun.Settings(**PICTURES, saliency_batches=2), seed=1)
    pictures = draws[0][1]
    forget = pictures[:3]
    saliency, training = passes[2:4], passes[4:]  # the first two draw the pictures
    for one, ((_, clean, _), _) in zip(saliency, noised, strict=False):
        assert one.prompts == [TARGET, TARGET]
        assert all((picture == forget).flatten(1).all(1).any() for picture in clean), "saliency is of the target's"
    for wanted, given, row, ((_, clean, _), _) in zip(
        training[::2], training[1::2], edit.history, noised[2:], strict=True
    ):
        assert wanted.prompts == [ANCHOR, ANCHOR] and given.prompts[:2] == [TARGET, TARGET]
        assert torch.equal(wanted.latents, given.latents[:2])
        drawn_under = [TARGET] * 3 + [ANCHOR, *KEPT]
        rows = [int((picture - pictures).abs().sum((1, 2, 3)).argmin()) for picture in clean]
        assert given.prompts == [drawn_under[row] for row in rows], "each picture is under its own prompt"
        assert row["relabelling"] == pytest.approx(mse_loss(given.predicted[:2], wanted.predicted).item(), rel=1e-4)
        assert row["loss"] == pytest.approx(row["relabelling"] + 0.5 * row["retaining"])


def test_ca(pipeline, concept, monkeypatch):
    passes, noised = recorded(pipeline), spied(monkeypatch, own_pictures, "noised")
    edit = ca.erase(pipeline, concept, ca.Settings(**PICTURES), 0)
    assert [one.prompts for one in passes[:2]] == [[""] * 3 + [ANCHOR] * 3] * 2, "pictures are of the anchor"
    for one, row, (_, (noisy, t, noise)) in zip(passes[2:], edit.history, noised, strict=True):
        assert one.prompts == [TARGET, TARGET, ANCHOR, ANCHOR]
        assert torch.equal(one.latents, noisy.repeat(2, 1, 1, 1)) and torch.equal(one.t, t.repeat(2))
        given, wanted = one.predicted.chunk(2)
        assert row["ablation"] == pytest.approx(mse_loss(given, wanted).item(), rel=1e-4)
        assert row["preserving"] == pytest.approx(mse_loss(wanted, noise).item(), rel=1e-4)
        assert row["loss"] == pytest.approx(row["ablation"] + 0.5 * row["preserving"])


def test_uce(pipeline):
    """With little weight on what is preserved, each target's states give what its anchor's gave before."""
    before = {name: pipeline.unet.get_parameter(name).detach().clone() for name in projections(pipeline.unet)}
    edit = uce.erase(pipeline, CONCEPT_OF_TWO, uce.Settings(preserve_scale=1e-3), 0)
    for pair in CONCEPT_OF_TWO.pairs:
        target, anchor = uce.aligned(pipeline, *pair)
        for name, weight in before.items():
            left = target @ edit.tensors[f"unet.{name}"].T - anchor @ weight.T
            assert left.norm() < 0.3 * ((target - anchor) @ weight.T).norm(), pair


@pytest.mark.parametrize("cfg", [True, False])
def test_eraseflow(pipeline, concept, cfg):
    """Trajectories, drawn anew up to the switch, are under the anchor with guidance, the loss is under the target."""
    passes = recorded(pipeline)
    settings = eraseflow.Settings(
        epochs=3, switch_epoch=1, batch_size=1, num_steps=5, guidance_scale=2.0, cfg=cfg, eta=1.0, learning_rate=1e-3,
        flow_learning_rate=1e-3, log_beta=0.0, lora_rank=2,
    )  # fmt: skip
    eraseflow.erase(pipeline, concept, settings, 0)
    prompts = [one.prompts for one in passes]
    loss = [["", "", TARGET, TARGET] if cfg else [TARGET, TARGET]]  # both steps of the loss at once
    assert prompts == 2 * ([["", ANCHOR]] * 5 + loss) + loss


def changed() -> StableDiffusionPipeline:
    """A pipeline whose networks differ from `miniature`'s."""
    pipeline = miniature()
    torch.manual_seed(1)
    for part in (pipeline.unet, pipeline.text_encoder):
        for weight in part.parameters():
            weight.data += 0.1 * torch.randn_like(weight)
    return pipeline


def test_unlearndiffatk(pipeline, monkeypatch):
    """Timesteps in ascending order, and Adam's own weight decay before the projection."""
    settings = unlearndiffatk.Settings(prefix_tokens=2, rounds=2, iterations=1, learning_rate=0.1, weight_decay=0.25)
    victim = make_victim(pipeline, never, ("a unicorn",))
    victim.open = [0]
    slopes, noised = spied(monkeypatch, unlearndiffatk, "gradient"), spied(monkeypatch, victim, "noised")
    search = unlearndiffatk.attack(victim, settings, 0)
    next(search)
    moved = victim.memory[0]["chances"].clone()
    next(search)
    assert [given[1].tolist() for given, _ in noised] == [[250], [750]]
    for (given, _), (_, (noisy, noise)) in zip(slopes, noised, strict=True):
        assert torch.equal(given[5], noisy) and torch.equal(given[7], noise)
    start = torch.full_like(moved, 1 / moved.shape[1])
    start.grad = slopes[0][1][0]
    torch.optim.Adam([start], lr=0.1, weight_decay=0.25).step()
    torch.testing.assert_close(moved, unlearndiffatk.to_simplex(start))


def test_p4d(pipeline):
    """Each iteration: the unedited model's prediction under the prompt, then the edited one's under free tokens."""
    victim = make_victim(changed(), never, (TARGET,))
    victim.original, victim.open = pipeline, [0]
    original, edited = recorded(victim.original), recorded(victim.pipeline)
    settings = p4d.Settings(variant="N", tokens=2, rounds=1, iterations=3, learning_rate=0.1, weight_decay=0.1)
    next(p4d.attack(victim, settings, 0))
    assert [one.prompts for one in original] == [[TARGET]] * 3, "the wanted prediction is the unedited model's"
    assert [one.prompts for one in edited] == [["?"]] * 3
    for one, other in zip(original, edited, strict=True):
        assert torch.equal(one.latents, other.latents) and torch.equal(one.t, other.t)


def test_ring_a_bell(pipeline):
    """The wish, f(prompt) + eta c, is all of the unedited text encoder."""
    victim = make_victim(changed(), never, (TARGET,))
    victim.original, victim.open = pipeline, [0]
    settings = ring_a_bell.Settings(
        tokens=2, rounds=1, generations=1, population=4, mutation=0.5, crossover=0.5, eta=3.0
    )
    next(ring_a_bell.attack(victim, settings, 0))
    target, anchor = embed(pipeline, [TARGET, ANCHOR])
    torch.testing.assert_close(victim.memory[0]["wish"], target + 3 * (target - anchor), rtol=1e-4, atol=1e-4)
