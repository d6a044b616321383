"""RECE against its equations."""

import pytest
import torch

from eraseflow.cross_attention import RIDGE, projections
from eraseflow.methods import rece, uce

pytestmark = pytest.mark.slow


def weights(count: int = 3, width: int = 6) -> list[torch.Tensor]:
    return list(torch.randn(count, 5, width, dtype=torch.float64))


def test_derived_states_minimise_their_objective():
    """Autograd of the written-out objective vanishes there."""
    torch.manual_seed(0)
    present, unedited = weights(), weights()
    states = torch.randn(4, 6, dtype=torch.float64)
    found = rece.derived(present, unedited, states, 0.3).requires_grad_(True)
    objective = 0.3 * found.square().sum()
    for new, old in zip(present, unedited, strict=True):
        for theirs, state in zip(found, states, strict=True):
            objective = objective + (new @ theirs - old @ state).square().sum()
    objective.backward()
    assert found.grad.abs().max() < 1e-10 and (found - states).abs().max() > 1e-2


def test_where_nothing_is_erased_the_concept_itself_is_derived():
    torch.manual_seed(0)
    unedited, states = weights(), torch.randn(4, 6)
    torch.testing.assert_close(rece.derived(unedited, unedited, states, 1e-9), states.double())


def test_regularisation_shortens_the_derived_states():
    torch.manual_seed(0)
    present, unedited, states = weights(), weights(), torch.randn(4, 6)
    lengths = [rece.derived(present, unedited, states, scale).norm().item() for scale in (0.01, 1.0, 100.0)]
    assert lengths[0] > lengths[1] > lengths[2] > 0


def test_a_round_erases_the_way_back(pipeline, concept):
    """Layer by layer, from the paper's formulas written out with explicit inverses."""
    settings = rece.Settings(preserve_scale=0.5, rounds=1, regularisation=0.01)
    edited, anchors, preserved = (side.double() for side in uce.states(pipeline, concept))
    names = projections(pipeline.unet)
    old = {name: pipeline.unet.get_parameter(name).detach().double().clone() for name in names}

    def erased(weight, states, kept):
        ridge = RIDGE * torch.eye(32, dtype=torch.float64)
        kept = 0.5 * (kept.T @ kept + ridge)
        values = (weight @ anchors.T) @ states
        return (values + weight @ kept) @ torch.inverse(states.T @ states + kept)

    first = {name: erased(weight, edited, preserved) for name, weight in old.items()}
    system = 0.01 * torch.eye(32, dtype=torch.float64) + sum(first[n].T @ first[n] for n in names)
    back = edited @ (torch.inverse(system) @ sum(first[n].T @ old[n] for n in names)).T
    edit = rece.erase(pipeline, concept, settings, 0)
    assert edit.tensors.keys() == {f"unet.{name}" for name in names}
    to_concept = to_anchor = 0.0
    for name in names:
        wanted = erased(first[name], back, torch.cat([preserved, edited]))
        torch.testing.assert_close(edit.tensors[f"unet.{name}"], wanted.float(), rtol=1e-3, atol=1e-4)
        to_concept += (back @ first[name].T - edited @ old[name].T).square().sum()
        to_anchor += (back @ first[name].T - anchors @ old[name].T).square().sum()
    assert to_concept < to_anchor, "after UCE alone, what is derived is nearer to the concept"
    after = [torch.as_tensor(edit.tensors[f"unet.{name}"]).double() for name in names]
    to_concept = sum((back @ new.T - edited @ old[n].T).square().sum() for new, n in zip(after, names, strict=True))
    to_anchor = sum((back @ new.T - anchors @ old[n].T).square().sum() for new, n in zip(after, names, strict=True))
    assert to_anchor < to_concept, "and after the round to the anchor"


def test_the_history_says_how_near_the_way_back_comes(pipeline, concept):
    settings = rece.Settings(preserve_scale=1.0, rounds=2, regularisation=0.1)
    history = rece.erase(pipeline, concept, settings, 0).history
    assert [row["step"] for row in history] == [0, 1, 2]
    assert all(0 < row["loss"] < 1 for row in history)
    unedited, states = weights(), torch.randn(2, 4, 6)
    assert rece.distance(unedited, unedited, states[0].double(), states[0], states[1]) == pytest.approx(0)
    assert rece.distance(unedited, unedited, states[1].double(), states[0], states[1]) == pytest.approx(1)
