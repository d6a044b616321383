"""The cross-attention of a U-Net: its key and value projections, and the maps that it computes."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from diffusers.models.attention_processor import Attention
from torch import Tensor

from eraseflow import finite

RIDGE = 1e-4  # keeps the system regular when there are fewer token states than channels
KEYS_VALUES = ("attn2.to_k", "attn2.to_v")  # attn2 is the cross-attention of every block


def projections(unet) -> list[str]:
    """The names of the key and value projections' weights, which have no bias."""
    return [name for name, _ in unet.named_parameters() if name.removesuffix(".weight").endswith(KEYS_VALUES)]


def closed_form(
    weight: Tensor, inputs: Tensor, outputs: Tensor, preserved: Tensor, scale: float, name: str = "a weight"
) -> Tensor:
    """The minimiser of sum |W x - y|^2 + scale (sum_preserved |W p - W_0 p|^2 + RIDGE |W - W_0|^2), in float64.

    weight W_0 (out, in); inputs x (n, in) and outputs y (n, out); preserved p (m, in). name: of the weight.
    Raises: NotFinite where the system is singular or its solution is not finite.
    """
    weight, inputs, outputs, preserved = (side.double() for side in (weight, inputs, outputs, preserved))
    ridge = RIDGE**0.5 * torch.eye(weight.shape[1], dtype=torch.float64, device=weight.device)
    kept = torch.cat([preserved, ridge])
    right = inputs.T @ inputs + scale * kept.T @ kept
    return solve(right, outputs.T @ inputs + scale * weight @ kept.T @ kept, name, left=False)


def solve(system: Tensor, constants: Tensor, name: str, left: bool = True) -> Tensor:
    """torch.linalg.solve. Raises: NotFinite where the system is singular or its solution is not finite."""
    try:
        found = torch.linalg.solve(system, constants, left=left)
    except torch.linalg.LinAlgError:
        raise finite.NotFinite(f"{name}: the closed form's linear system is singular") from None
    finite.check(name, [("the closed form's solution", found)])
    return found


@contextmanager
def attention_maps(unet) -> Iterator[list[Tensor]]:
    """A list to which every pass of the U-Net appends its cross-attentions' maps, as they come; gradients pass.

    A map (n, heads, positions, tokens) is softmax(Q K^T / sqrt(d)), computed beside the pass, which stays fused.
    """
    maps: list[Tensor] = []
    hooks = []
    for name, layer in unet.named_modules():
        if name.endswith("attn2"):
            hooks += _record(layer, maps)
    try:
        yield maps
    finally:
        for hook in hooks:
            hook.remove()


def _record(layer: Attention, maps: list[Tensor]) -> list:
    queries: list[Tensor] = []

    def on_keys(module, inputs, keys: Tensor) -> None:
        query, key = (layer.head_to_batch_dim(side) for side in (queries.pop(), keys))
        maps.append(layer.get_attention_scores(query, key).unflatten(0, (-1, layer.heads)))

    return [
        layer.to_q.register_forward_hook(lambda module, inputs, found: queries.append(found)),
        layer.to_k.register_forward_hook(on_keys),
    ]
