"""The trajectory-balance loss: its gradient, its zero, its invariances, and what training leaves behind."""

import copy
import math
import re
import sys

import pytest
import torch
from conftest import miniature
from torch.distributions import Normal

from eraseflow import trajectory_balance
from eraseflow.ddim import Schedule, trajectory
from eraseflow.edits import add_lora
from eraseflow.methods import eraseflow as method
from eraseflow.sampling import embed, guided

pytestmark = pytest.mark.slow

STEPS, ETA, SCALE = 10, 1.0, 3.0


def build(pipeline, dtype):
    """Schedule, predictors under target and anchor, LoRA weights and two trajectories."""
    pipeline.to(dtype=dtype)
    target, anchor, empty = (x.to(dtype) for x in embed(pipeline, ["unicorn", "horse", ""]).split(1))
    torch.manual_seed(0)
    add_lora(pipeline.unet, 2)
    weights = [w for w in pipeline.unet.parameters() if w.requires_grad]
    for weight in weights:  # away from the zero start, in the precision of the test
        weight.data = weight.data.to(dtype) + 0.05 * torch.randn(weight.shape, dtype=dtype)
    schedule = Schedule.of(pipeline.scheduler, STEPS)
    schedule = Schedule(schedule.timesteps, schedule.alphas.to(dtype), schedule.previous_alphas.to(dtype))

    def predict(prompt):
        return lambda x, t: guided(pipeline.unet, x, t, prompt.expand(len(x), -1, -1), empty, SCALE)

    rng = torch.Generator().manual_seed(1)
    start = torch.randn(2, 4, 8, 8, generator=rng, dtype=dtype)
    states = trajectory(schedule, predict(anchor), start, ETA, rng, STEPS)
    return schedule, predict(target), predict(anchor), weights, states


def plain_loss(pipeline, predict, states, steps, offset):
    """Equation 8 written out with torch's Normal and the textbook formulas, all graphs held."""
    cumulative = pipeline.scheduler.alphas_cumprod.to(states.dtype)
    losses = []
    for b in range(states.shape[1]):
        total = offset
        for j in steps.tolist():
            t = 1000 // STEPS * (STEPS - 1 - j) + 1
            a, prev = cumulative[t], cumulative[max(t - 1000 // STEPS, 0)]
            x, cleaner = states[j, b][None], states[j + 1, b][None]
            noise = predict(x, torch.tensor([t]))
            sigma = ETA * torch.sqrt((1 - prev) / (1 - a) * (1 - a / prev))
            x0 = (x - torch.sqrt(1 - a) * noise) / torch.sqrt(a)
            mean = torch.sqrt(prev) * x0 + torch.sqrt(1 - prev - sigma**2) * noise
            forward = Normal(mean, sigma).log_prob(cleaner).mean()
            backward = Normal(torch.sqrt(a / prev) * cleaner, torch.sqrt(1 - a / prev)).log_prob(x).mean()
            total = total + forward - backward
        losses.append(total**2)
    return torch.stack(losses).mean()


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.float64, 1e-10)])
@pytest.mark.parametrize("chunk", [1, 3, 20])
def test_streamed_gradient_is_the_plain_gradient(pipeline, dtype, tolerance, chunk):
    schedule, target, _, weights, states = build(pipeline, dtype)
    steps = torch.tensor([0, 3, 4, 8, 9])
    log_z = torch.nn.Parameter(torch.tensor(-0.2, dtype=dtype))
    residuals = trajectory_balance.streamed_gradient(
        schedule, [target] * 2, states, steps, ETA, log_z - 1.5, weights, chunk
    )
    streamed = [w.grad.clone() for w in [*weights, log_z]]

    loss = plain_loss(pipeline, target, states, steps, log_z - 1.5)
    plain = torch.autograd.grad(loss, [*weights, log_z])
    assert residuals.square().mean().item() == pytest.approx(loss.item(), rel=tolerance * 10)
    size = torch.cat([g.flatten() for g in plain]).norm()
    assert size > 0
    for a, b in zip(streamed, plain, strict=True):
        assert (a - b).norm() / size < tolerance


def test_matched_log_beta_gives_a_matched_policy_no_loss(pipeline):
    schedule, _, anchor, weights, states = build(pipeline, torch.float64)
    steps = torch.tensor([1, 8, 9])
    value = trajectory_balance.matched_value(schedule, [anchor], states[:, :1], ETA, [steps])
    log_z = torch.nn.Parameter(torch.tensor(method.START_LOG_Z, dtype=torch.float64))
    offset = log_z - (value + method.START_LOG_Z)
    residuals = trajectory_balance.streamed_gradient(schedule, [anchor], states[:, :1], steps, ETA, offset, weights, 20)
    assert residuals.abs().max() < 1e-9
    assert max(weight.grad.abs().max() for weight in weights) < 1e-7


def test_order_of_steps_does_not_matter(pipeline):
    schedule, target, _, weights, states = build(pipeline, torch.float64)
    results = []
    for steps in (torch.tensor([0, 2, 5, 8, 9]), torch.tensor([9, 5, 0, 8, 2])):
        log_z = torch.nn.Parameter(torch.tensor(0.0, dtype=torch.float64))
        trajectory_balance.streamed_gradient(schedule, [target] * 2, states, steps, ETA, log_z - 2.5, weights, 2)
        results.append(torch.cat([w.grad.flatten() for w in weights]))
    torch.testing.assert_close(results[0], results[1], rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize(("num_steps", "skip_last"), [(10, 0), (25, 0), (50, 0), (10, 2), (25, 3)])
def test_loss_steps_are_the_last_fifth_and_as_many_others(num_steps, skip_last):
    fifth, stop = num_steps // 5, num_steps - skip_last
    rngs = [torch.Generator().manual_seed(seed) for seed in range(20)]
    draws = [trajectory_balance.loss_steps(num_steps, skip_last, rng).tolist() for rng in rngs]
    for steps in draws:
        assert len(set(steps)) == len(steps) == 2 * fifth
        assert steps[-fifth:] == list(range(stop - fifth, stop))
        assert max(steps[:fifth]) < stop - fifth
    assert len({tuple(steps) for steps in draws}) > 1


def test_no_step_has_zero_variance_and_sd14_calibration():
    """The published log beta: for a unit-variance noise prediction the summed log ratio is about 2.96."""
    from diffusers import DDIMScheduler

    scheduler = DDIMScheduler(
        beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", set_alpha_to_one=False, steps_offset=1
    )
    schedule = Schedule.of(scheduler, 50)
    assert schedule.timesteps[0] == 981 and schedule.timesteps[-1] == 1
    j = torch.arange(50)
    latents, noise = torch.zeros(50, 1, 1, 1), torch.ones(50, 1, 1, 1)
    _, std = schedule.step(j, latents, noise, 1.0)
    assert (std > 0).all()
    # E[log p - log q] of one step: the entropies' difference plus half of (E|x - q mean|^2 / q var - 1)
    a, prev = schedule.alphas.double(), schedule.previous_alphas.double()
    p_var = (1 - prev) / (1 - a) * (1 - a / prev)
    ratio = a / prev
    # x_j - sqrt(ratio) x_{j+1} = (1 - ratio) / sqrt(1 - a) eps - sqrt(ratio) sigma z
    spread = (1 - ratio) ** 2 / (1 - a) + ratio * p_var
    expected = -0.5 * p_var.log() + 0.5 * (1 - ratio).log() - 0.5 + 0.5 * spread / (1 - ratio)
    total = sum(expected[j].mean() * k for j, k in ((slice(0, 40), 10), (slice(40, 50), 10)))
    assert total.item() == pytest.approx(2.96, abs=0.05)


def settings(**change) -> method.Settings:
    return method.Settings(
        **dict(
            epochs=4, switch_epoch=1, batch_size=2, num_steps=10, guidance_scale=2.0, eta=1.0,
            learning_rate=1e-3, flow_learning_rate=1e-3, log_beta="auto", lora_rank=2,
        )
        | change
    )  # fmt: skip


def test_training_moves_only_a_lora_and_logs_every_step(pipeline, concept):
    before = copy.deepcopy(pipeline.unet.state_dict())
    edit = method.erase(pipeline, concept, settings(epochs=3), seed=3)
    assert edit.kind == "lora" and [row["step"] for row in edit.history] == [0, 1, 2]
    for row in edit.history:
        assert row["sign"] == math.copysign(1, row["residual"])
        assert row["grad_norm_lora"] > 0 and row["grad_norm_log_z"] > 0
    assert all(tensor.abs().max() > 0 for name, tensor in edit.tensors.items() if ".up." in name)
    after = {name.replace(".base_layer", ""): tensor for name, tensor in pipeline.unet.state_dict().items()}
    for name, tensor in before.items():
        assert torch.equal(after[name], tensor)


PAIRS = [("unicorn", "horse"), ("a unicorn in ink style", "a horse in ink style"), ("flat style unicorn", "horse")]


@pytest.mark.parametrize("stop", [1, 3])
def test_a_training_that_goes_on_gives_the_same_weights(tmp_path, stop):
    """Before and after the switch epoch; through a file that holds no pickled objects."""
    whole = method.Training(miniature(), PAIRS, settings(), seed=5)
    for _ in range(4):
        whole.epoch()
    first = method.Training(miniature(), PAIRS, settings(), seed=5)
    for _ in range(stop):
        first.epoch()
    torch.save(first.state(), tmp_path / "state.pt")
    second = method.Training(miniature(), PAIRS, settings(), seed=5)
    second.go_on(torch.load(tmp_path / "state.pt", weights_only=True))
    for _ in range(4 - stop):
        second.epoch()
    for name, tensor in whole.edit().tensors.items():
        assert torch.equal(tensor, second.edit().tensors[name])
    seconds = {"seconds"}
    for ours, theirs in zip(whole.history, second.history, strict=True):
        assert {k: v for k, v in ours.items() if k not in seconds} == {
            k: v for k, v in theirs.items() if k not in seconds
        }


def test_every_pair_comes_once_before_any_comes_again(pipeline):
    training = method.Training(pipeline, PAIRS, settings(log_beta=2.5), seed=0)
    taken = training._next_pairs(2) + training._next_pairs(4)
    assert sorted(taken[:3]) == sorted(taken[3:]) == [0, 1, 2]


def test_without_a_lora_the_whole_unet_is_trained(pipeline):
    before = copy.deepcopy(pipeline.unet.state_dict())
    training = method.Training(pipeline, PAIRS, settings(lora_rank=None, log_beta=2.5, cfg=False), seed=0)
    training.epoch()
    edit = training.edit()
    assert edit.kind == "weights" and len(edit.tensors) == len(before)
    assert sum(not torch.equal(edit.tensors[f"unet.{name}"], tensor) for name, tensor in before.items()) > 100


def test_eight_bit_adam_without_its_package_is_one_line(pipeline, monkeypatch):
    monkeypatch.setitem(sys.modules, "bitsandbytes.optim", None)
    with pytest.raises(SystemExit, match="needs the package bitsandbytes"):
        method.Training(pipeline, PAIRS, settings(use_8bit_adam=True), seed=0)


def test_the_margin_shifts_the_residual_by_itself(pipeline):
    """log beta above the matched value keeps the residual of a matched policy negative."""
    plain = method.Training(pipeline, PAIRS, settings(), seed=0).epoch()
    shifted = method.Training(miniature(), PAIRS, settings(log_beta_margin=0.5), seed=0).epoch()
    assert shifted["residual"] == pytest.approx(plain["residual"] - 0.5, abs=1e-4)


def test_the_graph_of_one_stable_diffusion_step_is_held_at_a_time(pipeline, monkeypatch):
    """All steps of small latents go in one pass; of 64 x 64 latents, one."""
    seen = []
    plain = method.streamed_gradient
    monkeypatch.setattr(method, "streamed_gradient", lambda *a: seen.append(a[-1]) or plain(*a))
    method.Training(pipeline, PAIRS, settings(log_beta=2.5), seed=0).epoch()
    large = miniature()
    large.unet.register_to_config(sample_size=64)
    method.Training(large, PAIRS, settings(log_beta=2.5, num_steps=5, batch_size=1), seed=0).epoch()
    assert seen == [20, 1]


def test_the_lora_is_on_the_layers_that_the_settings_name(pipeline):
    layers = ["attn2.to_k", "attn2.to_v"]
    training = method.Training(pipeline, PAIRS, settings(log_beta=2.5, lora_layers=layers), seed=0)
    assert {re.sub(r".*\.(attn\d\.to_\w+)\..*", r"\1", name) for name in training.edit().tensors} == set(layers)


@pytest.mark.parametrize("skip_last", [0, 3])
def test_trajectories_end_with_the_steps_of_the_loss(pipeline, skip_last):
    training = method.Training(pipeline, PAIRS, settings(log_beta=2.5, num_steps=10, skip_last=skip_last), seed=0)
    training.epoch()
    assert len(training.trajectories) == 10 - skip_last + 1


@pytest.mark.parametrize(
    ("bare", "pairs"),
    [
        (True, [("unicorn", "horse"), ("dagger", "saw")]),
        (False, [("unicorn", "horse"), ("a unicorn", "a horse"), ("dagger", "saw"), ("a dagger", "a saw")]),
    ],
)
def test_bare_words_are_the_pairs_of_the_published_training(pipeline, concept, monkeypatch, bare, pairs):
    """Each target with its anchor alone, where the concept has sentences with them."""
    begun = []

    class Began(Exception):
        pass

    def training(_, given, *rest):
        begun.append(given)
        raise Began

    monkeypatch.setattr(method, "Training", training)
    concept = concept.model_copy(update={"also": {"dagger": "saw"}, "contexts": ["{}", "a {}"]})
    settings = method.Settings(
        epochs=1, switch_epoch=0, batch_size=1, num_steps=5, guidance_scale=1.0, eta=1.0, learning_rate=1e-3,
        flow_learning_rate=1e-3, log_beta=0.0, lora_rank=1, bare_words=bare,
    )  # fmt: skip
    with pytest.raises(Began):
        method.erase(pipeline, concept, settings, 0)
    assert begun == [pairs]
