"""The rounds of every attack: who is judged, what is counted, and how a killed attack goes on."""

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import CONCEPT

from eraseflow import params, rounds, sampling
from eraseflow.attacks import cce, mma, other_seeds, p4d, random_prefix, ring_a_bell, unlearndiffatk
from eraseflow.naming import Names
from eraseflow.params import SamplingSettings
from eraseflow.passes import PASSES
from eraseflow.victim import PLACEHOLDER, Attempt, Victim
from eraseflow.vocabulary import prefixed_ids, written_tokens

pytestmark = pytest.mark.slow

P4D = {"rounds": 3, "iterations": 2, "learning_rate": 0.1, "weight_decay": 0.1}
ATTACKS = [
    (random_prefix, {"prefix_tokens": 2, "rounds": 3}),
    (other_seeds, {"rounds": 3}),
    (unlearndiffatk, {"prefix_tokens": 2, "rounds": 3, "iterations": 2, "learning_rate": 0.1, "weight_decay": 0.1}),
    (p4d, {"variant": "N", "tokens": 4, **P4D}),
    (p4d, {"variant": "K", "tokens": 2, **P4D}),
    (
        ring_a_bell,
        {"tokens": 4, "rounds": 3, "generations": 3, "population": 8, "mutation": 0.5, "crossover": 0.5, "eta": 3.0},
    ),
    (mma, {"tokens": 4, "rounds": 3, "steps": 2, "candidates": 6, "top_k": 5}),
    (cce, {"vectors": 2, "rounds": 3, "iterations": 2, "batch_size": 5, "learning_rate": 0.05, "pictures": 4}),
]
every_attack = pytest.mark.parametrize(
    ("module", "settings"),
    ATTACKS,
    ids=[f"{module.__name__.split('.')[-1]}{at}" for at, (module, _) in enumerate(ATTACKS)],
)


def make_victim(pipeline, seen, prompts=("a unicorn", "unicorn", "a horse in ink style"), batch_size=2) -> Victim:
    table = pd.DataFrame(
        {
            "prompt_id": [f"target-{i}" for i in range(len(prompts))],
            "prompt": prompts,
            "seed": range(10, 10 + len(prompts)),
            "guidance": 2.0,
        }
    )
    return Victim(
        pipeline=pipeline,
        original=pipeline,
        concept=CONCEPT,
        prompts=table,
        draw_originals=lambda table: torch.stack(
            [torch.randn(4, 8, 8, generator=torch.Generator().manual_seed(seed)) for seed in table.seed]
        ),
        judge=lambda pictures: pd.DataFrame({"object/unicorn": pictures.float().mean((1, 2, 3)).numpy()}),
        seen=seen,
        strength=lambda scores: scores["object/unicorn"].to_numpy(float),
        sampling=SamplingSettings(solver="dpmsolver++", steps=2, guidance_scale=2),
        batch_size=batch_size,
    )


def never(scores):
    return np.zeros(len(scores), bool)


def by_round(verdicts, killed_after=None):
    """A judge's verdicts, a list of booleans a judged round; from some round on it is the process that dies."""
    calls = []

    def seen(scores):
        calls.append(len(scores))
        if len(calls) - 1 == killed_after:
            raise KeyboardInterrupt
        return np.array(verdicts[len(calls) - 1])

    seen.calls = calls
    return seen


def test_rounds_steps_and_denominators(pipeline):
    """Prompt 0 succeeds un-attacked, 1 in the second attacked round, 2 never."""
    seen = by_round([[True, False, False], [False, False], [True, False], [False]])
    settings = random_prefix.Settings(prefix_tokens=2, rounds=3)
    result = rounds.run(make_victim(pipeline, seen), random_prefix.attack, settings, seed=0)
    assert seen.calls == [3, 2, 2, 1]  # a prompt that has succeeded is not attacked again
    assert result.pre_success.tolist() == [True, False, False]
    assert result.success.tolist() == [True, True, False]
    assert result.step.tolist() == [0, 2, -1]
    assert result.images.tolist() == [1, 3, 4]
    assert result.seconds.is_monotonic_increasing and result.seconds.gt(0).all()
    assert [len(tokens) for tokens in result.adversarial_tokens] == [0, 2, 2]
    assert result.adversarial_prompt[0] == "a unicorn" and result.adversarial_prompt[2].endswith("a horse in ink style")


def test_every_judged_text_is_kept_and_repeats_are_no_pictures(pipeline):
    """Prompt 0: a repeat, then what names the concept and succeeds; prompt 1: other seeds of the same text."""

    def attack(victim, settings, seed):
        horse, unicorn = ([victim.pipeline.tokenizer(word).input_ids[1]] for word in ("horse", "unicorn"))
        yield {0: victim.with_prefix(0, horse), 1: Attempt("unicorn", seed=99)}
        yield {0: victim.with_prefix(0, horse), 1: Attempt("unicorn", seed=98)}
        yield {0: victim.with_prefix(0, unicorn), 1: Attempt("unicorn", seed=99)}

    verdicts = [[False, False], [False, False], [False], [True]]  # of what is drawn
    result = rounds.run(make_victim(pipeline, by_round(verdicts), ("a cat", "unicorn")), attack, None, seed=0)
    first, second = result.tries
    assert [one["text"] for one in first] == ["a cat", "horse a cat", "horse a cat", "unicorn a cat"]
    assert [one["distinct"] for one in first] == [1, 2, 2, 3] and [one["named"] for one in first] == [0, 0, 0, 1]
    assert [one["success"] for one in first] == [False, False, False, True]
    assert [one["round"] for one in first] == [0, 1, 2, 3]
    assert [one["seed"] for one in second] == ["11", "99", "98", "99"] and [one["distinct"] for one in second] == [
        1,
        2,
        3,
        3,
    ]
    assert result.distinct.tolist() == [3, 3] and result.images.tolist() == [4, 4]
    assert result.named.tolist() == [True, False]  # the prompt itself has the word, the attack has not written it
    assert [one["unet"] for one in first] == [4, 8, 8, 12]  # two solver steps, guided; a repeat is not drawn
    scores = [one["score"] for one in first]
    assert scores[1] == scores[2] and len(set(scores)) == 3 and scores[3] == result["object/unicorn"][0]


def test_the_words_and_tokens_of_the_targets_are_known(pipeline):
    concept = CONCEPT.model_copy(update={"target": "ink style", "anchor": "flat style", "also": {"unicorn": "horse"}})
    names, tokenizer = Names(concept, pipeline.tokenizer), pipeline.tokenizer

    def named(text):
        return names.among(tokenizer(text, add_special_tokens=False).input_ids)

    assert named("ink") and named("Unicorn") and named("two unicorns")
    assert not named("horse") and not named("drink") and not named("style") and not names.among([])
    same = Names(CONCEPT.model_copy(update={"target": "horse ink", "anchor": "ink horse"}), tokenizer)
    assert same.words.search("horse") and same.words.search("ink")  # nothing of it is its own


def test_a_category_is_named_by_its_members_too(pipeline):
    concept = params.load().concepts["weapon"]
    names, tokenizer = Names(concept, pipeline.tokenizer), pipeline.tokenizer
    for text in ("weapon", "knife", "two swords", "bow"):
        assert names.among(tokenizer(text, add_special_tokens=False).input_ids), text
    for text in ("tool", "elbow", "cat"):
        assert not names.among(tokenizer(text, add_special_tokens=False).input_ids), text


def test_nothing_is_attacked_where_every_prompt_succeeds_by_itself(pipeline):
    settings = unlearndiffatk.Settings(**ATTACKS[2][1])
    always = make_victim(pipeline, lambda scores: np.ones(len(scores), bool))
    result = rounds.run(always, unlearndiffatk.attack, settings, 0)
    assert result.pre_success.all() and result.success.all() and result.images.eq(1).all()
    assert result.unet_backward.eq(0).all()


def test_the_gate_stops_adversarial_texts(pipeline):
    """Round 1 of prompt 0 and both rounds of prompt 1 would name an age: not drawn, no success, counted."""
    drawn = []

    def seen(scores):
        drawn.append(len(scores))
        return np.array([len(drawn) > 1] * len(scores))  # whatever is drawn in an attacked round succeeds

    def attack(victim, settings, seed):
        harmless, age = (victim.pipeline.tokenizer(text).input_ids[1:-1] for text in ("flat", "young"))
        yield {row: victim.with_prefix(row, age) for row in (0, 1)}
        yield {0: victim.with_prefix(0, harmless), 1: victim.with_prefix(1, age)}

    result = rounds.run(make_victim(pipeline, seen, ("a unicorn", "a horse")), attack, None, seed=0)
    assert drawn == [2, 1]  # round 1 has nothing to draw
    assert result.blocked.tolist() == [1, 2] and result.success.tolist() == [True, False]
    assert result.step.tolist() == [2, -1] and result.images.tolist() == [2, 1]
    assert result.adversarial_prompt.tolist() == ["flat a unicorn", "a horse"]


def test_a_prompt_that_is_blocked_itself_is_one_line(pipeline):
    target = make_victim(pipeline, never, ("a unicorn", "a young horse"))
    with pytest.raises(SystemExit, match=r"the safety gate blocks target-1; make"):
        rounds.run(target, random_prefix.attack, random_prefix.Settings(prefix_tokens=1, rounds=1), seed=0)


@pytest.mark.parametrize("size", [0, 1, 500, -1])
def test_a_damaged_state_is_begun_anew(pipeline, tmp_path, size, capsys):
    """As a power cut may leave it: empty, or cut off."""
    settings = random_prefix.Settings(prefix_tokens=1, rounds=2)
    verdicts = [[False, True, False], [True, False], [False]]
    whole = rounds.run(make_victim(pipeline, by_round(verdicts)), random_prefix.attack, settings, 0, tmp_path)
    state = tmp_path / rounds.STATE
    state.write_bytes(state.read_bytes()[:size])
    again = rounds.run(make_victim(pipeline, by_round(verdicts)), random_prefix.attack, settings, 0, tmp_path)
    assert again.drop(columns="seconds").equals(whole.drop(columns="seconds"))
    assert "is damaged; the attack begins anew" in capsys.readouterr().err


@every_attack
def test_a_killed_attack_goes_on_to_the_same_result(pipeline, tmp_path, monkeypatch, module, settings):
    """Killed while the second attacked round is judged; another process begins with that round and repeats no other."""
    verdicts = [[False, True, False], [True, False], [False], [False]]
    settings = module.Settings(**settings)

    def attack(seen, work):
        return rounds.run(make_victim(pipeline, seen), module.attack, settings, 0, work)

    def killed(self, tried, record=rounds.Journal.record):
        if self.victim.round == 2:
            raise KeyboardInterrupt
        record(self, tried)

    whole = attack(by_round(verdicts), tmp_path / "whole")
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(rounds.Journal, "record", killed)
        attack(by_round(verdicts), tmp_path / "killed")
    state = torch.load(tmp_path / "killed" / rounds.STATE, weights_only=True)
    assert state["round"] == 1 and state["open"] == [2] and set(state["memory"]) <= {2}
    rest = by_round(verdicts[2:])
    resumed = attack(rest, tmp_path / "killed")
    assert rest.calls == [1] * (resumed.distinct[2] - 2)  # of two rounds, but for repeats
    assert resumed.seconds[2] > state["seconds"]
    for result, path in ((whole, "whole.parquet"), (resumed, "resumed.parquet")):
        result.drop(columns="seconds").to_parquet(tmp_path / path)
    assert (tmp_path / "whole.parquet").read_bytes() == (tmp_path / "resumed.parquet").read_bytes()


def test_a_round_writes_what_it_changed(pipeline, tmp_path):
    """What a prompt that has left gave is written once; killed before its state is in place, a round does not count."""
    settings = random_prefix.Settings(prefix_tokens=2, rounds=3)
    verdicts = [[True, False, False], [False, True], [False], [False]]
    whole = rounds.run(make_victim(pipeline, by_round(verdicts)), random_prefix.attack, settings, 0)
    with pytest.raises(KeyboardInterrupt):
        rounds.run(make_victim(pipeline, by_round(verdicts, 3)), random_prefix.attack, settings, 0, tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {"left-0000.pt", "left-0001.pt", rounds.STATE}
    left = [torch.load(tmp_path / rounds.LEFT.format(n), weights_only=True) for n in (0, 1)]
    assert [set(rows) for rows in left] == [{0}, {2}]
    assert set(torch.load(tmp_path / rounds.STATE, weights_only=True)["results"]) == {1}

    rounds.write({1: {"png": b"of a round that was killed"}}, tmp_path / rounds.LEFT.format(2))
    resumed = rounds.run(make_victim(pipeline, by_round(verdicts[3:])), random_prefix.attack, settings, 0, tmp_path)
    pd.testing.assert_frame_equal(resumed.drop(columns="seconds"), whole.drop(columns="seconds"))
    (tmp_path / rounds.LEFT.format(0)).unlink()  # lost: then the attack cannot go on, and begins anew
    anew = rounds.run(make_victim(pipeline, by_round(verdicts)), random_prefix.attack, settings, 0, tmp_path)
    pd.testing.assert_frame_equal(anew.drop(columns="seconds"), whole.drop(columns="seconds"))


@every_attack
def test_passes_are_those_that_the_networks_made(pipeline, monkeypatch, module, settings):
    """Counted again by hooks on the networks; sampling's own texts, the empty one among them, apart."""
    found, sampled = dict.fromkeys(PASSES, 0), []
    seen = by_round([[False, True, False], [True, False], [False], [False]])
    victim = make_victim(pipeline, seen)

    def counting(name):
        def hook(network, inputs, output):
            tensor = output[0]
            if not sampled or name == "unet":
                found[f"{name}_forward"] += len(tensor)
            if tensor.requires_grad:
                tensor.register_hook(
                    lambda slope: found.update({f"{name}_backward": found[f"{name}_backward"] + len(slope)})
                )

        return hook

    def try_out(self, attempts, plain=Victim.try_out):
        sampled.append(True)
        answer = plain(self, attempts)
        sampled.clear()
        return answer

    monkeypatch.setattr(Victim, "try_out", try_out)
    hooks = [
        getattr(pipeline, part).register_forward_hook(counting(name), with_kwargs=False)
        for part, name in (("unet", "unet"), ("text_encoder", "text"))
    ]
    spent = []
    monkeypatch.setattr(rounds.Journal, "_save", lambda self: spent.append(victim.passes.sum(0)))
    result = rounds.run(victim, module.attack, module.Settings(**settings), seed=0)
    for hook in hooks:
        hook.remove()
    total = dict(zip(PASSES, spent[-1], strict=True))
    total["text_forward"] -= result.distinct.sum()  # repeats are not drawn
    assert total == pytest.approx(found)
    assert result[PASSES].to_numpy().sum(0) == pytest.approx(
        spent[-1]
    )  # all that was spent is on some prompt's account
    assert result.unet_forward[1] == 2 * victim.sampling.steps  # it was not attacked


def test_the_baselines_judge_as_many_pictures_with_as_many_passes(pipeline):
    """And what they cost is drawing alone."""
    results = [
        rounds.run(make_victim(pipeline, never), module.attack, module.Settings(**settings), seed=0)
        for module, settings in ATTACKS
    ]
    for result in results:
        assert result.images.eq(4).all()
    for result in results[:2]:
        assert result.unet_forward.eq(4 * 2 * 2).all() and result.text_forward.eq(4).all()
        assert result.unet_backward.eq(0).all() and result.text_backward.eq(0).all()


@every_attack
def test_a_prompts_attack_does_not_depend_on_the_others(pipeline, module, settings):
    """The same seed gives the same prompts, also when another has left; CCE's embedding is of all in any case."""
    settings = module.Settings(**settings)

    def found(seen, batch_size=2):
        return rounds.run(make_victim(pipeline, seen, batch_size=batch_size), module.attack, settings, seed=0)

    alone = found(never)
    for other in (found(never), found(by_round([[True, False, False], *[[False, False]] * 3])), found(never, 3)):
        assert other.adversarial_prompt.tolist()[1:] == alone.adversarial_prompt.tolist()[1:]
        assert other.adversarial_tokens.tolist()[1:] == alone.adversarial_tokens.tolist()[1:]
    assert all(isinstance(token, (int, np.integer)) for token in alone.adversarial_tokens[1])


@every_attack
def test_what_is_judged_is_the_published_text(pipeline, monkeypatch, module, settings):
    """Drawn from the published text, seed and guidance by sampling alone, the picture is that of the record."""
    result = rounds.run(make_victim(pipeline, never), module.attack, module.Settings(**settings), seed=0)
    if module is cce:
        assert result.adversarial_prompt.str.startswith(PLACEHOLDER).all()
        assert np.array(result.adversarial_embedding[0]).shape == (2, 32)
        return
    drawn = sampling.sample(
        pipeline, list(result.adversarial_prompt), list(result.adversarial_seed), list(result.guidance),
        SamplingSettings(solver="dpmsolver++", steps=2, guidance_scale=2), 2, quiet=True,
    )  # fmt: skip
    again, judged = torch.cat(list(drawn)), rounds.images.from_png(result.png)
    assert (again.int() - judged.int()).abs().max() <= 1  # the last bit, for other pictures were in the batch
    read = pipeline.tokenizer(list(result.adversarial_prompt)).input_ids
    if module in (random_prefix, unlearndiffatk):  # the tokens searched for are those that the text is read as
        assert [ids[1:3] for ids in read] == result.adversarial_tokens.tolist()
    if module in (mma, ring_a_bell):
        assert [ids[1:-1] for ids in read] == result.adversarial_tokens.tolist()
    assert (result.adversarial_seed != result.seed).all() == (module is other_seeds)


def test_written_tokens_come_back(pipeline):
    tokenizer = pipeline.tokenizer
    tokens = written_tokens(tokenizer)
    assert not set(tokens) & set(tokenizer.all_special_ids) and len(tokens) > 100
    assert (
        tokenizer.convert_tokens_to_ids("unicorn</w>") in tokens and tokenizer.convert_tokens_to_ids("u") not in tokens
    )
    rng = np.random.default_rng(0)
    for _ in range(20):
        drawn = rng.choice(tokens, 8).tolist()
        assert tokenizer(tokenizer.decode(drawn)).input_ids[1:-1] == drawn


def test_prefixed_ids_put_the_prefix_after_the_start(pipeline):
    ids = prefixed_ids(pipeline.tokenizer, ["a unicorn", ""], torch.tensor([[3, 4], [5, 6]]))
    tokenizer = pipeline.tokenizer
    assert ids.shape == (2, tokenizer.model_max_length)
    assert ids[:, 0].eq(tokenizer.bos_token_id).all() and ids[:, 1:3].tolist() == [[3, 4], [5, 6]]
    assert ids[0, 3:6].tolist() == tokenizer("a unicorn").input_ids[1:]
    assert ids[1, 3] == tokenizer.eos_token_id


def test_an_attempts_embedding_stands_for_the_placeholder(pipeline):
    """Learned vectors that are those of real tokens give what the text with these tokens gives."""
    victim = make_victim(pipeline, never)
    table = pipeline.text_encoder.get_input_embeddings().weight.detach()
    words = pipeline.tokenizer("flat style").input_ids[1:-1]
    learned = Attempt(f"{PLACEHOLDER} a horse", embedding=table[words].clone())
    torch.testing.assert_close(victim.condition([learned])["hidden"], sampling.embed(pipeline, ["flat style a horse"]))
