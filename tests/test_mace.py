"""MACE against its equations, and the cross-attention maps that it trains on."""

import pytest
import torch
from conftest import CONCEPT, miniature

from eraseflow.cross_attention import RIDGE, attention_maps, projections
from eraseflow.methods import mace
from eraseflow.sampling import embed

pytestmark = pytest.mark.slow

SETTINGS = {
    "preserve_scale": 0.1, "fuse_scale": 0.1, "lora_rank": 2, "iterations": 20, "batch_size": 4, "learning_rate": 3e-2,
    "pictures": 4, "mask_threshold": 0.6, "num_steps": 3, "guidance_scale": 2.0,
}  # fmt: skip


def test_maps_are_the_attention_that_the_layers_use(pipeline):
    """Times the values, through the output layer: what the fused layer gives."""
    layers = [layer for name, layer in pipeline.unet.named_modules() if name.endswith("attn2")]
    given = []
    for layer in layers:
        layer.register_forward_hook(lambda layer, inputs, found: given.append((layer, found)))
    hidden = torch.randn(3, 24, 32)
    with torch.no_grad(), attention_maps(pipeline.unet) as maps:
        pipeline.unet(torch.randn(3, 4, 8, 8), 301, hidden)
        assert len(maps) == len(given) == len(layers) > 2
        for found, (layer, wanted) in zip(maps, given, strict=True):
            assert found.shape[:2] == (3, layer.heads) and found.shape[3] == 24
            torch.testing.assert_close(found.sum(-1), torch.ones(found.shape[:3]))
            values = layer.to_v(hidden).view(3, 24, layer.heads, -1).transpose(1, 2)
            ours = layer.to_out[0]((found @ values).transpose(1, 2).flatten(2))
            torch.testing.assert_close(ours, wanted, rtol=1e-4, atol=1e-5)
    pipeline.unet(torch.randn(3, 4, 8, 8), 301, hidden)
    assert len(maps) == len(layers), "nothing is recorded afterwards"


def test_the_refinement_is_the_minimum_of_equation_4():
    """Autograd of the written-out objective vanishes at the solution."""
    torch.manual_seed(0)
    weight = torch.randn(5, 7, dtype=torch.float64)
    around, anchors, preserved = (torch.randn(n, 7, dtype=torch.float64) for n in (3, 3, 9))
    solution = mace.closed_form(weight, around, anchors @ weight.T, preserved, 0.7).requires_grad_(True)
    objective = sum((solution @ f - weight @ g).square().sum() for f, g in zip(around, anchors, strict=True))
    objective += 0.7 * sum((solution @ p - weight @ p).square().sum() for p in preserved)
    objective += 0.7 * RIDGE * (solution - weight).square().sum()
    objective.backward()
    assert solution.grad.abs().max() < 1e-10 and (solution - weight).abs().max() > 1e-2


def test_the_fusion_is_the_minimum_of_equation_8():
    """Of two LoRAs, each for its own prompts."""
    torch.manual_seed(0)
    weight, refined = torch.randn(2, 5, 7, dtype=torch.float64)
    deltas = torch.randn(2, 5, 7, dtype=torch.float64)
    prompts, preserved = torch.randn(2, 4, 7, dtype=torch.float64), torch.randn(9, 7, dtype=torch.float64)
    outputs = torch.cat([states @ (refined + delta).T for states, delta in zip(prompts, deltas, strict=True)])
    solution = mace.closed_form(weight, prompts.flatten(0, 1), outputs, preserved, 0.3).requires_grad_(True)
    objective = 0.3 * RIDGE * (solution - weight).square().sum()
    for states, delta in zip(prompts, deltas, strict=True):
        objective = objective + sum((solution @ f - (refined + delta) @ f).square().sum() for f in states)
    objective = objective + 0.3 * sum((solution @ p - weight @ p).square().sum() for p in preserved)
    objective.backward()
    assert solution.grad.abs().max() < 1e-10


def test_focal_sampling_is_equation_7():
    density = mace.focal(1000)
    unscaled = [
        1 / (1 + 2.718281828 ** -(0.05 * (t - 200))) - 1 / (1 + 2.718281828 ** -(0.05 * (t - 400))) for t in (150, 300)
    ]
    assert density.sum() == pytest.approx(1) and density.argmax() == 300
    assert (density[150] / density[300]).item() == pytest.approx(unscaled[0] / unscaled[1], rel=1e-6)
    assert density[200:401].sum() > 0.85


def test_attention_loss_in_loops():
    torch.manual_seed(0)
    maps = [torch.rand(2, 3, 16, 5), torch.rand(2, 3, 4, 5)]
    words = torch.tensor([[0.0, 1, 1, 0, 0], [0, 0, 1, 0, 0]])
    masks = torch.zeros(2, 4, 4)
    masks[0, :2, :2] = 1
    masks[1, 3, 3] = 1
    inside = [masks.flatten(1), torch.tensor([[1.0, 0, 0, 0], [0, 0, 0, 1]])]  # a quarter is in if any part of it is
    wanted = 0.0
    for found, places in zip(maps, inside, strict=True):
        for picture in range(2):
            for token in range(5):
                for place in range(found.shape[2]):
                    if words[picture, token] and places[picture, place]:
                        wanted += found[picture, :, place, token].mean().item() ** 2 / 2
    assert mace.attention_loss(maps, words, masks).item() == pytest.approx(wanted, rel=1e-5)


@pytest.mark.parametrize(
    ("phrases", "context", "same"),
    [
        (("champagne bottle", "bottle"), "a {} in flat style", 3),
        (("unicorn", "champagne bottle"), "flat style {}", 0),
        (("unicorn", ""), "a {} in flat style", 3),
    ],
)
def test_what_stands_around_is_paired_word_by_word(pipeline, phrases, context, same):
    """The first pairs are of the words after the phrase, then comes the end of one over the end of the other."""
    tokenizer = pipeline.tokenizer
    sentences = tuple(context.format(phrase) for phrase in phrases)
    states = embed(pipeline, sentences)
    ids = tokenizer(list(sentences), padding="max_length", return_tensors="pt").input_ids
    around, anchors = mace.cooccurring(tokenizer, states, sentences, phrases)
    length = states.shape[1] - max((ids[row] != tokenizer.eos_token_id).sum().item() for row in range(2)) + same
    assert len(around) == len(anchors) == length
    for side, row in ((around, 0), (anchors, 1)):
        end = (ids[row] == tokenizer.eos_token_id).nonzero()[0].item()
        assert torch.equal(side, states[row, end - same : end - same + length])


def test_the_loras_are_fused_from_the_target_on(pipeline):
    """What stands before it is the same in every prompt, the start token above all."""
    states = embed(pipeline, ["unicorn", "a unicorn in flat style"])
    ours = mace.from_target_on(pipeline, "unicorn", ["unicorn", "a unicorn in flat style"])
    assert torch.equal(ours, torch.cat([states[0, 1:], states[1, 2:]]))


def test_a_target_that_is_no_word_of_its_sentence_is_one_line(pipeline):
    with pytest.raises(SystemExit, match="mace: the tokens of 'unicorn' are not in 'unicornes'") as failure:
        mace.phrase_at(pipeline.tokenizer, "unicornes", "unicorn")
    assert len(str(failure.value).splitlines()) == 1


def test_masks_are_where_the_targets_words_are_attended_to(pipeline):
    rng = torch.Generator().manual_seed(0)
    part, whole = (
        mace.Target(pipeline, "unicorn", ["a unicorn"], mace.Settings(**SETTINGS | {"mask_threshold": at}), rng).masks
        for at in (0.9, 0.0)
    )
    assert (whole == 1).all() and part.shape == (4, 8, 8)
    assert (part.mean((1, 2)) > 0).all() and (part.mean((1, 2)) < 1).all()


CONCEPT_OF_TWO = CONCEPT.model_copy(update={"also": {"dagger": "saw"}, "contexts": ["{}", "{} in flat style"]})


def test_a_lora_a_target_takes_the_attention_away(pipeline):
    edit = mace.erase(pipeline, CONCEPT_OF_TWO, mace.Settings(**SETTINGS), 0)
    assert [row["step"] for row in edit.history] == list(range(40)), "20 steps for each of two targets"
    for of_target in (edit.history[:20], edit.history[20:]):
        losses = [row["loss"] for row in of_target]
        assert sum(losses[-5:]) < 0.9 * sum(losses[:5])
    assert not any("lora" in name for name, _ in pipeline.unet.named_parameters())
    for name, weight in edit.tensors.items():
        assert torch.equal(pipeline.unet.get_parameter(name.removeprefix("unet.")), weight)


def test_keys_of_what_stands_around_become_the_anchors_or_the_preserved_stay(pipeline):
    """With LoRAs that hardly move: refinement and fusion alone, with little and with much weight on what is kept."""
    names = projections(pipeline.unet)
    before = {name: pipeline.unet.get_parameter(name).detach().clone() for name in names}
    sentences = ("dagger in flat style", "saw in flat style")
    around, anchors = mace.cooccurring(pipeline.tokenizer, embed(pipeline, sentences), sentences, ("dagger", "saw"))
    kept = embed(pipeline, CONCEPT.preserve).flatten(0, 1)
    for scale in (1e-3, 1e3):
        still = {"preserve_scale": scale, "fuse_scale": scale, "learning_rate": 1e-7}
        edit = mace.erase(miniature(), CONCEPT_OF_TWO, mace.Settings(**SETTINGS | still), 0)
        assert set(edit.tensors) == {f"unet.{name}" for name in names} and all("attn2.to_" in name for name in names)
        for name in names:
            weight, new = before[name], edit.tensors[f"unet.{name}"]
            if scale < 1:
                assert (around @ new.T - anchors @ weight.T).norm() < 0.5 * ((around - anchors) @ weight.T).norm()
            else:
                assert 0 < (kept @ (new - weight).T).norm() < 0.01 * (kept @ weight.T).norm()
