"""Attacks: the projection, one step's gradient against a plain implementation, and the bookkeeping of rounds."""

import numpy as np
import pandas as pd
import pytest
import torch
from scipy.optimize import minimize

from eraseflow import victim
from eraseflow.attacks import random_prefix, unlearndiffatk
from eraseflow.params import SamplingSettings
from eraseflow.vocabulary import ordinary_tokens, prefixed_ids


def make_victim(pipeline, seen, prompts=("a unicorn", "unicorn", "a horse in ink style")):
    table = pd.DataFrame(
        {
            "prompt_id": [f"target-{i}" for i in range(len(prompts))],
            "prompt": prompts,
            "seed": range(10, 10 + len(prompts)),
            "guidance": 2.0,
        }
    )
    rng = torch.Generator().manual_seed(0)
    return victim.Victim(
        pipeline=pipeline,
        prompts=table,
        originals=torch.randn(len(prompts), 4, 8, 8, generator=rng),
        judge=lambda pictures: pd.DataFrame({"object/unicorn": pictures.float().mean((1, 2, 3)).numpy()}),
        seen=seen,
        sampling=SamplingSettings(solver="dpmsolver++", steps=2, guidance_scale=2),
        batch_size=8,
    )


def test_projection_is_the_nearest_point_of_the_simplex():
    rng = np.random.default_rng(0)
    for _ in range(5):
        row = rng.normal(0, 1, 6)
        ours = unlearndiffatk.to_simplex(torch.tensor(row)).numpy()
        assert ours.min() >= 0 and ours.sum() == pytest.approx(1)
        best = minimize(
            lambda x, row=row: ((x - row) ** 2).sum(), np.full(6, 1 / 6), bounds=[(0, 1)] * 6,
            constraints={"type": "eq", "fun": lambda x: x.sum() - 1}, tol=1e-12,
        )  # fmt: skip
        np.testing.assert_allclose(ours, best.x, atol=1e-4)
    inside = torch.tensor([[0.2, 0.3, 0.5]])
    torch.testing.assert_close(unlearndiffatk.to_simplex(inside), inside)


def test_one_steps_gradient_is_that_of_the_one_hot_form(pipeline):
    """The published form: straight-through one-hot rows times the whole embedding table, a prompt at a time."""
    tokens = torch.tensor(ordinary_tokens(pipeline.tokenizer))
    weight = pipeline.text_encoder.get_input_embeddings().weight.detach()
    rng = torch.Generator().manual_seed(0)
    chances = torch.rand(2, 3, len(tokens), generator=rng).softmax(-1).requires_grad_(True)
    drawn = torch.randint(0, len(tokens), (2, 3), generator=rng)
    noisy, noise = torch.randn(2, 2, 4, 8, 8, generator=rng)
    prompts = ["a unicorn", "horse in ink style"]

    slope = chances @ weight[tokens]
    soft = weight[tokens][drawn] + slope - slope.detach()
    unlearndiffatk.denoising_loss(pipeline, prompts, tokens[drawn], soft, noisy, 250, noise).sum().backward()
    ours, chances.grad = chances.grad, None

    for row, prompt in enumerate(prompts):
        hard = torch.nn.functional.one_hot(drawn[row], len(tokens)).float()
        through = hard + chances[row] - chances[row].detach()
        full = torch.zeros(3, len(weight)).index_copy(1, tokens, through)
        plain_ids = pipeline.tokenizer(prompt, padding="max_length", return_tensors="pt").input_ids
        words = weight[plain_ids[0]]
        embeddings = torch.cat([words[:1], full @ weight, words[1:-3]])[None]
        ids = torch.cat([plain_ids[:, :1], tokens[drawn[row]][None], plain_ids[:, 1:-3]], dim=1)
        with victim.token_embeddings(pipeline.text_encoder, embeddings):
            hidden = pipeline.text_encoder(ids)[0]
        predicted = pipeline.unet(noisy[row : row + 1], torch.tensor([250]), hidden).sample
        torch.nn.functional.mse_loss(predicted, noise[row : row + 1]).backward()
    assert ours.abs().max() > 0
    torch.testing.assert_close(ours, chances.grad, rtol=1e-3, atol=1e-6)


def test_prefixed_ids_put_the_prefix_after_the_start(pipeline):
    ids = prefixed_ids(pipeline.tokenizer, ["a unicorn", ""], torch.tensor([[3, 4], [5, 6]]))
    tokenizer = pipeline.tokenizer
    assert ids.shape == (2, tokenizer.model_max_length)
    assert ids[:, 0].eq(tokenizer.bos_token_id).all() and ids[:, 1:3].tolist() == [[3, 4], [5, 6]]
    assert ids[0, 3:6].tolist() == tokenizer("a unicorn").input_ids[1:]


def test_rounds_steps_and_denominators(pipeline):
    """Prompt 0 succeeds un-attacked, 1 in the second attacked round, 2 never."""
    calls = []

    def seen(scores):
        calls.append(len(scores))
        return np.array([[True, False, False], [False, False], [True, False], [False]][len(calls) - 1])

    settings = random_prefix.Settings(prefix_tokens=2, rounds=3)
    result = victim.run(make_victim(pipeline, seen), random_prefix.attack, settings, seed=0)
    assert calls == [3, 2, 2, 1]  # a prompt that has succeeded is not attacked again
    assert result.pre_success.tolist() == [True, False, False]
    assert result.success.tolist() == [True, True, False]
    assert result.step.tolist() == [0, 2, -1]
    assert result.images.tolist() == [1, 3, 4]
    assert [len(tokens) for tokens in result.adversarial_tokens] == [0, 2, 2]
    assert result.adversarial_prompt[0] == "a unicorn" and result.adversarial_prompt[2].endswith("a horse in ink style")


def test_nothing_is_attacked_where_every_prompt_succeeds_by_itself(pipeline):
    settings = unlearndiffatk.Settings(prefix_tokens=2, rounds=2, iterations=1, learning_rate=0.1, weight_decay=0.0)
    result = victim.run(
        make_victim(pipeline, lambda scores: np.ones(len(scores), bool)), unlearndiffatk.attack, settings, 0
    )
    assert result.pre_success.all() and result.success.all() and result.images.eq(1).all()


def test_the_gate_stops_adversarial_texts(pipeline):
    """Round 1 of prompt 0 and both rounds of prompt 1 would name an age: not drawn, no success, counted."""
    drawn = []

    def seen(scores):
        drawn.append(len(scores))
        return np.array([len(drawn) > 1] * len(scores))  # whatever is drawn in an attacked round succeeds

    def attack(victim, settings, seed):
        harmless, age = (victim.pipeline.tokenizer(text).input_ids[1:-1] for text in ("flat", "young"))
        yield {0: age, 1: age}
        yield {0: harmless, 1: age}

    result = victim.run(make_victim(pipeline, seen, ("a unicorn", "a horse")), attack, None, seed=0)
    assert drawn == [2, 1]  # round 1 has nothing to draw
    assert result.blocked.tolist() == [1, 2] and result.success.tolist() == [True, False]
    assert result.step.tolist() == [2, -1] and result.images.tolist() == [2, 1]
    assert result.adversarial_prompt.tolist() == ["flat a unicorn", "a horse"]


def test_a_prompt_that_is_blocked_itself_is_one_line(pipeline):
    target = make_victim(pipeline, lambda scores: np.ones(len(scores), bool), ("a unicorn", "a young horse"))
    with pytest.raises(SystemExit, match=r"the safety gate blocks target-1; make"):
        victim.run(target, random_prefix.attack, random_prefix.Settings(prefix_tokens=1, rounds=1), seed=0)


@pytest.mark.parametrize(
    ("module", "settings"),
    [
        (random_prefix, {"prefix_tokens": 2, "rounds": 2}),
        (unlearndiffatk, {"prefix_tokens": 2, "rounds": 2, "iterations": 2, "learning_rate": 0.1, "weight_decay": 0.1}),
    ],
)
def test_a_prompts_attack_does_not_depend_on_the_others(pipeline, module, settings):
    """The same seed gives the same tokens, also when another prompt has left the batch."""
    settings = module.Settings(**settings)

    def tokens(seen):
        return victim.run(make_victim(pipeline, seen), module.attack, settings, seed=0).adversarial_tokens.tolist()

    never = tokens(lambda scores: np.zeros(len(scores), bool))
    assert never == tokens(lambda scores: np.zeros(len(scores), bool))
    first_leaves = tokens(lambda scores: np.array([len(scores) == 3 and row == 0 for row in range(len(scores))]))
    assert first_leaves[1:] == never[1:] and first_leaves[0] == []
    assert all(isinstance(token, (int, np.integer)) for token in never[1])
