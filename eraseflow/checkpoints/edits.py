"""A source's tensors as an Edit: what differs from the base, and a LoRA as a LoRA.

An edit's LoRA is of the U-Net alone. What a LoRA changes in the text encoder is therefore merged into the base's
weights, W + alpha / rank * up @ down in float32, and becomes a second part of the edit, one of weights.
"""

import inspect

import torch
from torch import Tensor

from eraseflow import finite
from eraseflow.checkpoints import names
from eraseflow.checkpoints.folders import COMPONENTS
from eraseflow.checkpoints.places import Found
from eraseflow.checkpoints.plans import Base, Plan, plans
from eraseflow.edits import SAMPLER_FOLDER, Edit, compose


def edit_of(pipeline, found: Found) -> Edit:
    """The edit of a source's files; prints what of them is left out, and why.

    Raises: SystemExit with one line, see `plans`; also where a number is not finite or nothing differs from the base.
    """
    if found.contents.edit:
        return Edit.load(found.folder)
    if found.contents.unread:
        folders = ", ".join(f"{name}/" for name in found.contents.unread)
        print(f"{found.folder}: left out {folders}: no part of what Stable Diffusion draws with")
    weights: dict[str, Tensor] = {}
    edits = []
    known = parameters(pipeline)
    for plan in plans(found, base_of(pipeline)):
        for reason, keys in plan.ignored.items():
            print(f"{plan.where}: left out {names.reason_of({reason: keys})}")
        if plan.pairs:
            matrices, merged = adapters(plan, known)
            edits += [(plan.where, Edit("lora", matrices))] if matrices else []
            weights |= merged
        else:
            weights |= different(plan, known)
    if weights:
        edits.append((str(found.folder), Edit("weights", weights)))
    if not edits:
        what = "holds the base model's own weights, so that its row would be that of `original` once more"
        raise SystemExit(f"{found.folder}: {what}; name the edited ones")
    sampler = found.folder / SAMPLER_FOLDER
    if f"{SAMPLER_FOLDER}/edit.json" in found.contents.other:
        edits.append((str(sampler), Edit.load(sampler)))
    return edits[0][1] if len(edits) == 1 else compose(edits)


def parameters(pipeline) -> dict[str, Tensor]:
    """Every weight of the pipeline, as edits name it."""
    return {
        f"{component}.{name}": weight.data
        for component in COMPONENTS
        for name, weight in getattr(pipeline, component).named_parameters()
    }


def base_of(pipeline) -> Base:
    """The pipeline as far as names go."""
    shapes = {name: tuple(weight.shape) for name, weight in parameters(pipeline).items()}
    about = {component: getattr(pipeline, component).config for component in (*COMPONENTS, "scheduler")}
    defaults = {"text_encoder": type(about["text_encoder"])().to_dict()}
    for component in ("unet", "vae"):
        arguments = inspect.signature(type(getattr(pipeline, component)).__init__).parameters.values()
        defaults[component] = {each.name: each.default for each in arguments if each.default is not each.empty}
    defaults["text_encoder"].pop("architectures", None)
    about["text_encoder"] = about["text_encoder"].to_dict()
    return Base(shapes, {name: dict(config) for name, config in about.items()}, defaults)


def different(plan: Plan, known: dict[str, Tensor]) -> dict[str, Tensor]:
    """Those of the plan's weights that are not the base's own, in the base's shape and their own precision."""
    tensors, kept = plan.tensors(), {}
    finite.check(plan.where, tensors.items())
    for name, key in plan.weights.items():
        theirs, ours = tensors[key], known[name]
        theirs = theirs.reshape(ours.shape)
        if not same(ours, theirs.to(ours.device)):
            kept[name] = theirs
    return kept


def same(ours: Tensor, theirs: Tensor) -> bool:
    """Whether they differ by no more than their precisions: a base saved in half precision is no edit."""
    if {ours.dtype, theirs.dtype} == {torch.float16, torch.bfloat16}:  # neither holds all numbers of the other
        rounding = sum(torch.finfo(dtype).eps for dtype in (ours.dtype, theirs.dtype)) / 2
        return torch.allclose(
            ours.float(), theirs.float(), rtol=rounding, atol=torch.finfo(torch.float16).smallest_normal
        )
    coarse = min(ours.dtype, theirs.dtype, key=lambda dtype: torch.finfo(dtype).bits)
    return torch.equal(ours.to(coarse), theirs.to(coarse))


def adapters(plan: Plan, known: dict[str, Tensor]) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """The U-Net's matrices in diffusers' format with alpha = rank, and the text encoder's weights with theirs merged.

    Layers whose product is zero are left out.
    """
    tensors = plan.tensors()
    finite.check(plan.where, tensors.items())
    matrices: dict[str, Tensor] = {}
    merged: dict[str, Tensor] = {}
    for layer, pair in plan.pairs.items():
        down, up = tensors[pair.down], tensors[pair.up]
        ours = known[f"{layer}.weight"]
        rank, kernel = down.shape[0], ours.shape[2:]
        down = down.reshape(rank, ours.shape[1], *kernel)
        up = up.reshape(ours.shape[0], rank, *(1 for _ in kernel))
        factor = pair.factor
        if pair.alpha:
            factor = float(tensors[pair.alpha].reshape(())) / rank
        if factor != 1:
            up = up.float() * factor
        if not up.any() or not down.any():
            continue
        if layer.startswith("unet."):
            matrices |= {f"{layer}.lora.down.weight": down, f"{layer}.lora.up.weight": up}
        else:
            merged[f"{layer}.weight"] = ours.float().cpu() + up.float() @ down.float()
    return matrices, merged
