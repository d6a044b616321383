"""The ledger against trainings whose costs are known."""

import copy

import pytest
import torch
from test_edits import FAST

from eraseflow import sampling
from eraseflow.edits import Edit
from eraseflow.fine_tuning import FineTuning
from eraseflow.ledger import Ledger
from eraseflow.methods import eraseflow, esd, uce
from eraseflow.passes import PASSES

NAMES = ["mid_block.attentions.0.transformer_blocks.0.attn2.to_k.weight"]


def costs(pipeline, erase) -> dict:
    ledger = Ledger()
    with ledger.watch(pipeline):
        edit = erase()
    return ledger.costs(edit)


def measured(pipeline, erase) -> dict:
    ledger = Ledger()
    with ledger.watch(pipeline):
        erase()
    return ledger.measured()


def inputs(pipeline, count: int) -> tuple:
    width = pipeline.text_encoder.config.hidden_size
    return (
        torch.zeros(count, 4, 8, 8),
        torch.full((count,), 10),
        torch.linspace(-1, 1, 3 * width).view(3, -1).expand(count, -1, -1),
    )


def test_a_training_by_hand(pipeline):
    """3 steps of a batch of 4 with gradient, beside each 2 pictures of a frozen deep copy, and 5 texts once."""

    def erase() -> Edit:
        frozen = copy.deepcopy(pipeline.unet)
        sampling.embed(pipeline, list("abcde"))
        tuning = FineTuning.of(pipeline.unet, NAMES, torch.optim.SGD, 1.0)
        for _ in range(3):
            with torch.no_grad():
                frozen(*inputs(pipeline, 2))
            loss = pipeline.unet(*inputs(pipeline, 4)).sample.square().mean()
            tuning.backward(loss)
            tuning.step(loss=loss)
        pipeline.unet(*inputs(pipeline, 1))  # with a graph, but no gradient ever reaches it
        return tuning.edit("unet", NAMES)

    found = costs(pipeline, erase)
    assert [found[name] for name in PASSES] == [3 * 4 + 3 * 2 + 1, 3 * 4, 5, 0]
    weights = pipeline.unet.get_parameter(NAMES[0]).numel()
    assert found["optimiser_steps"] == 3 and found["trained_weights"] == found["stored_weights"] == weights
    assert found["trained_bytes"] == found["stored_bytes"] == 4 * weights and "seconds" not in found


def test_a_text_encoder_in_training_and_an_attack_inside_it(pipeline):
    """A text has a backward pass where its embedding is trained; an attack's short-lived optimisers count once."""

    def erase() -> Edit:
        encoder = pipeline.text_encoder
        trained = encoder.get_input_embeddings().weight
        outer = torch.optim.SGD([trained], lr=0.1)
        for _ in range(2):
            for _ in range(3):
                soft = torch.zeros(2, 5, requires_grad=True)
                soft.sum().backward()
                torch.optim.Adam([soft]).step()
            encoder(torch.tensor([[1, 2]]))[0].sum().backward()
            outer.step()
        return Edit("weights", {"text_encoder.embedding": trained}, [{"step": 0}, {"step": 1}])

    found = costs(pipeline, erase)
    assert [found[name] for name in PASSES] == [0, 0, 2, 2]
    assert found["trained_weights"] == found["stored_weights"] + 10


def test_nothing_counts_outside_and_parts_add_up(pipeline):
    ledger, copies = Ledger(), []
    for _ in range(2):
        with ledger.watch(pipeline), torch.no_grad():
            pipeline.unet(*inputs(pipeline, 3))
            copies.append(copy.deepcopy(pipeline.unet))
    for unet in (pipeline.unet, *copies):
        unet(*inputs(pipeline, 1)).sample.sum().backward()
    assert ledger.passes == {"unet_forward": 6, "unet_backward": 0, "text_forward": 0, "text_backward": 0}
    assert not pipeline.unet._forward_hooks


def test_an_error_leaves_no_hook(pipeline):
    with pytest.raises(RuntimeError), Ledger().watch(pipeline):
        raise RuntimeError
    assert not pipeline.unet._forward_hooks and not pipeline.text_encoder._forward_hooks


def test_peak_memory_is_what_was_there_at_once(pipeline):
    def erase(megabytes: list[int]) -> Edit:
        for size in megabytes:
            torch.ones(size * 2**18)  # float32; freed at once
        return Edit("weights", {})

    ten, hundred, again = (measured(pipeline, lambda sizes=sizes: erase(sizes)) for sizes in ([30], [100, 100], [30]))
    assert 90e6 < hundred["peak_memory_bytes"] < 180e6
    assert hundred["seconds"] > 0
    assert max(ten["peak_memory_bytes"], again["peak_memory_bytes"]) < 80e6, "the mark is set back"


def test_methods(pipeline, concept):
    """UCE solves for its weights; ESD and EraseFlow train what they store (EraseFlow log Z besides)."""
    closed = costs(pipeline, lambda: uce.erase(pipeline, concept, uce.Settings(preserve_scale=1.0), 0))
    assert closed["unet_forward"] == closed["trained_weights"] == closed["optimiser_steps"] == 0
    assert closed["text_forward"] > 0 and closed["stored_weights"] > 0
    settings = esd.Settings(**FAST, negative_guidance=1.0, variant="x")
    tuned = costs(pipeline, lambda: esd.erase(pipeline, concept, settings, 0))
    assert tuned["optimiser_steps"] == 2 and tuned["trained_weights"] == tuned["stored_weights"] > 0
    assert tuned["unet_backward"] == 2 * 2 < tuned["unet_forward"]
    settings = eraseflow.Settings(
        epochs=2, switch_epoch=1, batch_size=2, num_steps=5, guidance_scale=2.0, eta=1.0,
        learning_rate=1e-3, flow_learning_rate=1e-3, log_beta=2.5, lora_rank=2,
    )  # fmt: skip
    flow = costs(pipeline, lambda: eraseflow.erase(pipeline, concept, settings, 0))
    assert flow["trained_weights"] == flow["stored_weights"] + 1 and flow["unet_backward"] > 0
