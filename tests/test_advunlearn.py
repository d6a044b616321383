"""AdvUnlearn: the adversarial prefix, what is trained, and that attacks meet the edited text encoder."""

import pytest
import torch
from conftest import miniature
from test_rounds import every_attack, make_victim, never

from eraseflow import rounds
from eraseflow.edits import Edit
from eraseflow.methods import advunlearn
from eraseflow.sampling import embed

pytestmark = pytest.mark.slow

SETTINGS = {
    "iterations": 30, "warmup": 2, "batch_size": 2, "learning_rate": 3e-3, "negative_guidance": 3.0, "num_steps": 3,
    "guidance_scale": 2.0, "prefix_tokens": 2, "attack_steps": 2, "attack_learning_rate": 0.01, "retain_batch": 2,
    "retain_scale": 1.0,
}  # fmt: skip


def test_some_steps_must_have_a_prefix():
    assert advunlearn.Settings(**SETTINGS | {"warmup": 29}).warmup == 29
    with pytest.raises(ValueError, match="warmup 30 leaves none of 30 iterations with a prefix"):
        advunlearn.Settings(**SETTINGS | {"warmup": 30})


def tokens_of(pipeline, text: str) -> list[int]:
    return pipeline.tokenizer(text, add_special_tokens=False).input_ids


def test_words_as_a_prefix_are_read_as_words(pipeline):
    ids = torch.tensor([tokens_of(pipeline, "cat car")] * 2)
    prefix = pipeline.text_encoder.get_input_embeddings()(ids)
    ours = advunlearn.read(pipeline, ["unicorn", "a horse"], prefix)
    torch.testing.assert_close(ours, embed(pipeline, ["cat car unicorn", "cat car a horse"]), rtol=1e-4, atol=1e-5)
    plain = advunlearn.read(pipeline, ["unicorn"], prefix[:1, :0])
    torch.testing.assert_close(plain, embed(pipeline, ["unicorn"]), rtol=1e-4, atol=1e-5)


def test_the_attack_goes_down_the_lower_levels_loss(pipeline):
    torch.manual_seed(0)
    latents, t, start = torch.randn(2, 4, 8, 8), torch.tensor(301), torch.randn(2, 3, 32)
    prompts = ["unicorn", "a unicorn"]
    with torch.no_grad():
        concept = miniature().unet(latents, t, embed(pipeline, ["a dog", "a dog"])).sample

    def loss(prefix):
        hidden = advunlearn.read(pipeline, prompts, prefix)
        return sum(
            (pipeline.unet(latents[n : n + 1], t, hidden[n : n + 1]).sample - concept[n]).square().sum() for n in (0, 1)
        )

    prefix = start.clone().requires_grad_(True)
    loss(prefix).backward()
    settings = advunlearn.Settings(**SETTINGS | {"attack_steps": 1})
    moved = advunlearn.attacked(pipeline, prompts, start.clone(), latents, t, concept, settings)
    clear = prefix.grad.abs() > 1e-4 * prefix.grad.abs().max()  # the sign of nearly nothing is rounding's
    torch.testing.assert_close(moved[clear], (start - 0.01 * prefix.grad.sign())[clear], rtol=1e-4, atol=1e-6)
    further = advunlearn.attacked(
        pipeline, prompts, start.clone(), latents, t, concept, advunlearn.Settings(**SETTINGS | {"attack_steps": 20})
    )
    with torch.no_grad():
        assert loss(further) < loss(moved) < loss(start)


def test_the_encoders_layers_alone_are_trained_towards_the_goal(pipeline, concept):
    parts = {"unet": pipeline.unet, "text_encoder": pipeline.text_encoder}
    weights = {f"{part}.{name}": weight for part in parts for name, weight in parts[part].named_parameters()}
    before = {name: weight.detach().clone() for name, weight in weights.items()}
    edit = advunlearn.erase(pipeline, concept, advunlearn.Settings(**SETTINGS), 0)
    changed = {name for name, weight in weights.items() if not torch.equal(weight, before[name])}
    assert changed and changed <= set(edit.tensors)
    assert all(name.startswith("text_encoder.") and ".layers." in name for name in edit.tensors)
    erasing = [row["erasing"] for row in edit.history]
    assert sum(erasing[-10:]) < sum(erasing[:10])


def test_retained_prompts_move_less_than_the_target(concept):
    moved = {}
    for scale in (0.0, 100.0):
        pipeline = miniature()
        prompts = [*concept.preserve, concept.target]
        before = embed(pipeline, prompts)
        advunlearn.erase(pipeline, concept, advunlearn.Settings(**SETTINGS | {"retain_scale": scale}), 0)
        moved[scale] = (embed(pipeline, prompts) - before).flatten(1).norm(dim=1)
    assert (moved[100.0][:-1] < 0.5 * moved[0.0][:-1]).all()


def test_without_prompts_to_retain_it_is_one_line(pipeline, concept):
    with pytest.raises(SystemExit, match=r"concepts\.unicorn\.preserve: is empty"):
        empty = concept.model_copy(update={"preserve": []})
        advunlearn.erase(pipeline, empty, advunlearn.Settings(**SETTINGS), 0)


@pytest.fixture(scope="module")
def text_edit() -> Edit:
    from conftest import CONCEPT

    return advunlearn.erase(miniature(), CONCEPT, advunlearn.Settings(**SETTINGS | {"iterations": 3}), 0)


@every_attack
def test_every_attack_reads_with_the_edited_encoder(text_edit, module, settings):
    """The same attack on the unedited model draws other pictures; what it compares with is the unedited encoder's."""
    drawn = []
    for edit in (text_edit, Edit("weights", {})):
        victim = make_victim(edit.apply(miniature()), never)
        victim.original = miniature()
        victim.original.text_encoder.requires_grad_(False)
        ids = victim.pipeline.tokenizer("unicorn", padding="max_length", return_tensors="pt").input_ids
        same = torch.equal(victim.read([0], ids), victim.read([0], ids, original=True))
        assert same == (not edit.tensors)
        found = rounds.run(victim, module.attack, module.Settings(**settings), 0)
        assert found.text_forward.gt(0).all()
        drawn.append(list(found.png))
    assert all(a != b for a, b in zip(*drawn, strict=True))
