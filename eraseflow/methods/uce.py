"""UCE: Unified Concept Editing in Diffusion Models (Gandikota et al., WACV 2024, eq. 7).

Closed form on the keys and values of every cross-attention, over edited and preserved token states c:

    W = (sum v* c^T + lambda sum W_0 c c^T) (sum c c^T + lambda sum c c^T)^-1

v* = W_0 c* is what the anchor's token gives. A target and its anchor are aligned in a few sentences from
the first token where they differ to the end of the sequence, so that the end and padding tokens, which
carry most of a short prompt, are edited too. The empty prompt is always preserved, as are the words around.

Unlike the authors' first program: all words from the first that differs on are edited, not the last word and what
follows it; the identity is added to the sums with 1e-4 lambda, not with 0.5; sentences are the concept's contexts; the
system is solved in float64, not float32. Their present program edits and preserves one state a prompt, its last word's,
and preserves the empty prompt only if told to.
"""

import torch
from torch import Tensor

from eraseflow import cross_attention
from eraseflow.cross_attention import projections
from eraseflow.edits import Edit, weights_of
from eraseflow.params import Block, Concept, Scale
from eraseflow.sampling import embed


class Settings(Block):
    preserve_scale: Scale


def closed_form(
    weight: Tensor, edited: Tensor, anchors: Tensor, preserved: Tensor, scale: float, name: str = "a weight"
) -> Tensor:
    """The minimiser of sum_edited |W c - W_0 c*|^2 + scale (sum_preserved |W c - W_0 c|^2 + RIDGE |W - W_0|^2).

    weight (out, in); edited and anchors (n, in), aligned; preserved (m, in). Computed in float64.
    """
    outputs = anchors.double() @ weight.double().T
    return cross_attention.closed_form(weight, edited, outputs, preserved, scale, name)


def aligned(pipeline, target: str, anchor: str) -> tuple[Tensor, Tensor]:
    """Token states (n, width) of two sentences, word for word where they differ and one to one after that.

    A target with more words than its anchor maps the surplus to the anchor's last one.
    """
    states = embed(pipeline, [target, anchor])
    ids = pipeline.tokenizer([target, anchor]).input_ids
    start = next(i for i, (a, b) in enumerate(zip(*ids, strict=False)) if a != b)
    shorter = min(map(len, ids)) - start
    same = next((i for i in range(shorter) if ids[0][-1 - i] != ids[1][-1 - i]), shorter)  # of the end
    ends = [len(row) - same for row in ids]
    words = torch.arange(start, ends[0])
    rest = torch.arange(states.shape[1] - max(ends))
    return (
        states[0, torch.cat([words, ends[0] + rest])],
        states[1, torch.cat([words.clamp(max=max(ends[1] - 1, start)), ends[1] + rest])],
    )


def states(pipeline, concept: Concept) -> tuple[Tensor, Tensor, Tensor]:
    """Token states of a concept: edited and their anchors (n, width), aligned, and preserved ones (m, width)."""
    precision = pipeline.text_encoder.dtype
    pipeline.text_encoder.float()  # the system is nearly singular: it would be solved for the states' rounding
    pairs = [aligned(pipeline, target, anchor) for target, anchor in concept.pairs]
    edited, anchors = (torch.cat(side) for side in zip(*pairs, strict=True))
    preserved = embed(pipeline, ["", *concept.preserve]).flatten(0, 1)
    pipeline.text_encoder.to(precision)
    return edited, anchors, preserved


def erase(pipeline, concept: Concept, settings: Settings, seed: int) -> Edit:
    """Solve for every cross-attention's keys and values; no training, so the history is empty."""
    system = states(pipeline, concept)
    names = projections(pipeline.unet)
    for name in names:
        weight = pipeline.unet.get_parameter(name)
        solved = closed_form(weight.data, *system, settings.preserve_scale, f"uce: unet.{name}")
        weight.data = solved.to(weight.dtype)
    return weights_of("unet", pipeline.unet, names, [])
