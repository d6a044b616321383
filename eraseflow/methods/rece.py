"""RECE: Reliable and Efficient Concept Erasure of Text-to-Image Diffusion Models (Gong et al., ECCV 2024).

All in closed form, on the keys and values W_i of every cross-attention. UCE (its eq. 7) erases the target's token
states c; then, round by round, the states c' that best bring the concept back from the erased W_i,

    c' = argmin sum_i |W_i c' - W_i^0 c|^2 + lambda |c'|^2 = (lambda I + sum_i W_i^T W_i)^-1 (sum_i W_i^T W_i^0) c,

W_i^0 being the unedited weights, are derived and erased too: UCE maps them to the anchor's, from the present W_i on.
The regularisation bounds c', and with it what its erasure changes for other states. Unlike the authors' program: the
number of rounds is fixed and not chosen by judged pictures, and what UCE has erased is preserved in the rounds after.
"""

import time

import torch
from torch import Tensor

from eraseflow import finite
from eraseflow.cross_attention import projections, solve
from eraseflow.edits import Edit, weights_of
from eraseflow.methods import uce
from eraseflow.params import Block, Concept, Count, Scale


class Settings(Block):
    preserve_scale: Scale
    rounds: Count
    regularisation: Scale


def derived(present: list[Tensor], unedited: list[Tensor], states: Tensor, regularisation: float) -> Tensor:
    """The states (n, width) that, read by the present weights, come nearest to these read by the unedited ones.

    present, unedited: weights (out, width) of the same layers; states (n, width). Computed in float64.
    """
    new, old = (torch.cat(weights).double() for weights in (present, unedited))  # a sum over layers is one product
    ridge = regularisation * torch.eye(states.shape[1], dtype=torch.float64, device=states.device)
    return solve(ridge + new.T @ new, new.T @ old @ states.double().T, "rece: the derived states").T


def erase(pipeline, concept: Concept, settings: Settings, seed: int) -> Edit:
    """Solve round by round. history: a row a round, from 0, UCE's own; no optimiser takes part.

    loss: |W c' - W^0 c|^2 over |W^0 c* - W^0 c|^2 with the weights after a round, c* being the anchor's states and
    squares being summed over layers and states. 0: the concept can be brought back wholly; 1: its anchor is as near.
    """
    started = time.perf_counter()
    edited, anchors, preserved = uce.states(pipeline, concept)
    names = projections(pipeline.unet)
    unedited = [pipeline.unet.get_parameter(name).data.double() for name in names]
    present, found, history = unedited, edited, []
    for step in range(settings.rounds + 1):
        system = (found, anchors, preserved, settings.preserve_scale)
        present = [
            uce.closed_form(weight, *system, f"rece: round {step}: unet.{name}")
            for name, weight in zip(names, present, strict=True)
        ]
        preserved = torch.cat([preserved, edited]) if step == 0 else preserved
        found = derived(present, unedited, edited, settings.regularisation)
        row = {"step": step, "loss": distance(present, unedited, found, edited, anchors)}
        finite.numbers(f"rece: round {step}", row)
        history.append(row | {"seconds": time.perf_counter() - started})
    for name, weight in zip(names, present, strict=True):
        pipeline.unet.get_parameter(name).data.copy_(weight)
    return weights_of("unet", pipeline.unet, names, history)


def distance(present: list[Tensor], unedited: list[Tensor], found: Tensor, edited: Tensor, anchors: Tensor) -> float:
    """What is left between the concept and its best way back, relative to what is between it and its anchor."""
    new, old = (torch.cat(weights).double() for weights in (present, unedited))
    left = found @ new.T - edited.double() @ old.T
    return float(left.square().sum() / ((anchors - edited).double() @ old.T).square().sum())
