"""An Edit is what an erasure changes in a pipeline: weights, a LoRA, how it samples, or several of these at once."""

import importlib
import json
import re
import warnings
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch
from diffusers import StableDiffusionPipeline
from peft import LoraConfig
from peft.utils import get_peft_model_state_dict
from safetensors.torch import load_file, save_file
from torch import Tensor

from eraseflow import finite
from eraseflow.inputs import reading
from eraseflow.outputs import must_be_new, replacing, write_text

LORA_FILE = "pytorch_lora_weights.safetensors"  # the name that `load_lora_weights` looks for
WEIGHTS_FILE = "weights.safetensors"
FILES = {"lora": LORA_FILE, "weights": WEIGHTS_FILE}
SAMPLER_FOLDER = "sampler"  # of an exported pipeline: what plain diffusers does not read


@dataclass
class Edit:
    """Tensors by name, and how they were made.

    kind: "lora" (U-Net LoRA in diffusers' format, alpha = rank), "weights" (replacements, keyed
    "<component>.<parameter>" such as "unet.conv_in.weight"; none of them is the unedited model), "sampler" (no tensors:
    `sampler` names the module of eraseflow/methods whose `Sampler` draws, and has its fields), or "parts" (the edits of
    `parts`, applied in their order; see `compose`).
    history: one dict an optimiser step, with at least step and loss.
    """

    kind: str
    tensors: dict[str, Tensor] = field(default_factory=dict)
    history: list[dict] = field(default_factory=list)
    sampler: dict[str, Any] = field(default_factory=dict)
    parts: list["Edit"] = field(default_factory=list)

    def save(self, folder: Path) -> None:
        """Write edit.json and the safetensors file, each whole or not at all; parts into folders of their own.

        Raises: NotFinite that names the first weight that is not finite, before anything is written.
        """
        for leaf in self.leaves():
            finite.check(f"{folder}: the edit cannot be saved", leaf.tensors.items())
        about: dict[str, Any] = {"kind": self.kind}
        if self.kind in FILES:
            tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in self.tensors.items()}
            with replacing(folder / FILES[self.kind]) as unfinished:
                save_file(tensors, unfinished)
        elif self.kind == "sampler":
            about |= {"sampler": self.sampler}
        else:
            about |= {"parts": [f"{place}-{part.kind}" for place, part in enumerate(self.parts)]}
            for name, part in zip(about["parts"], self.parts, strict=True):
                part.save(folder / name)
        write_text(finite.as_json(f"{folder / 'edit.json'}", about), folder / "edit.json")

    @classmethod
    def load(cls, folder: Path) -> "Edit":
        """Read what `save` wrote.

        Raises: SystemExit with one line where a file cannot be read; NotFinite that names file and weight where one is
        not finite.
        """
        with reading(folder / "edit.json"):
            about = json.loads((folder / "edit.json").read_text(encoding="utf-8"))
            kind = about["kind"]
        if kind in FILES:
            with reading(folder / FILES[kind]):
                tensors = load_file(folder / FILES[kind])
            finite.check(f"{folder / FILES[kind]}", tensors.items())
            return cls(kind, tensors)
        parts = [cls.load(folder / name) for name in about.get("parts", [])]
        return cls(kind, sampler=about.get("sampler", {}), parts=parts)

    def apply(self, pipeline: StableDiffusionPipeline) -> StableDiffusionPipeline:
        """Edit the pipeline in memory; a LoRA is merged into the weights, so that nothing runs slower.

        A sampler is hung on the pipeline, where `eraseflow.sampling` finds it; the pipeline's own `__call__` does not.
        Raises: NotFinite that names the first weight which is not finite in the pipeline's precision.
        """
        if self.kind == "lora":
            pipeline.load_lora_into_unet(dict(self.tensors), network_alphas=None, unet=pipeline.unet)
            pipeline.fuse_lora()
            pipeline.unload_lora_weights()
            finite.check("the edited model: unet", pipeline.unet.named_parameters())
        edited = {}
        for name, tensor in self.tensors.items() if self.kind == "weights" else ():
            component, _, parameter = name.partition(".")
            edited[name] = getattr(pipeline, component).get_parameter(parameter).data.copy_(tensor)
        finite.check("the edited model", edited.items())
        if self.kind == "sampler":
            method = importlib.import_module(f"eraseflow.methods.{self.sampler['method']}")
            pipeline.eraseflow_sampler = method.Sampler(**self.sampler["settings"])
        for part in self.parts:
            part.apply(pipeline)
        return pipeline

    def export(self, pipeline: StableDiffusionPipeline, folder: Path) -> None:
        """Save the edited pipeline, for plain `StableDiffusionPipeline.from_pretrained(folder)`; whole or not at all.

        diffusers' format has no place for a sampler: it goes into folder/sampler, an edit to be loaded and applied
        with this package. Plain diffusers draws without it, so a warning says that.
        Raises: SystemExit where the folder is there and not empty.
        """
        must_be_new(folder)
        samplers = [part for part in self.leaves() if part.kind == "sampler"]
        with replacing(folder) as unfinished:
            self.apply(pipeline).save_pretrained(unfinished)
            for part in samplers:
                part.save(unfinished / SAMPLER_FOLDER)
        for part in samplers:
            what = f"plain diffusers draws without {part.sampler['method']}, which works at sampling time"
            warnings.warn(f"{what} and lies beside this pipeline, in {SAMPLER_FOLDER}/", stacklevel=2)

    def leaves(self) -> list["Edit"]:
        """The edit itself, or the parts of its parts."""
        return [leaf for part in self.parts for leaf in part.leaves()] if self.kind == "parts" else [self]

    def changed(self) -> set[str]:
        """The names of what it changes: "<component>.<parameter>", and "sampler"."""
        if self.kind == "parts":
            return {name for part in self.parts for name in part.changed()}
        if self.kind == "lora":
            return {re.sub(r"\.(lora_[AB]|lora\.(down|up))\.weight$", ".weight", name) for name in self.tensors}
        return {"sampler"} if self.kind == "sampler" else set(self.tensors)


def share(edited: StableDiffusionPipeline, original: StableDiffusionPipeline) -> None:
    """Let two pipelines of the same base hold in common the weights that are equal; none may be changed.

    They were loaded one after the other, so that each weight lies where it lay: a product of matrices may round
    otherwise where a weight begins at another multiple of 64 bytes.
    """
    for part in ("unet", "text_encoder", "vae"):
        for name, weight in getattr(edited, part).named_parameters():
            same = getattr(original, part).get_parameter(name)
            if weight.stride() == same.stride() and torch.equal(weight, same):
                weight.data = same.data


def compose(edits: Iterable[tuple[str, Edit]]) -> Edit:
    """Several edits of the same base, each with the name of what made it, as one; histories follow one another.

    Raises: SystemExit with one line where two change the same: then neither would do what it was trained to do.
    """
    parts, history = [], []
    owners: dict[str, str] = {}
    for name, edit in edits:
        if common := sorted(edit.changed() & owners.keys()):
            further = f" and {len(common) - 1} more" if len(common) > 1 else ""
            what = "the sampler" if common[0] == "sampler" else f"the weights {common[0]}{further}"
            raise SystemExit(f"{owners[common[0]]} and {name} both change {what}; they cannot be composed")
        owners |= dict.fromkeys(edit.changed(), name)
        parts.append(edit)
        history += [{"part": name, **row} for row in edit.history]
    return Edit("parts", history=history, parts=parts)


def edit_of(sampler) -> Edit:
    """A method module's `Sampler`, a dataclass of plain values, as an Edit."""
    method = type(sampler).__module__.rpartition(".")[2]
    return Edit("sampler", sampler={"method": method, "settings": asdict(sampler)})


ATTENTIONS = ["to_q", "to_k", "to_v", "to_out.0"]


def add_lora(
    unet, rank: int, layers: list[str] = ATTENTIONS, start: Literal["gaussian", True] = "gaussian"
) -> list[Tensor]:
    """Put a LoRA (alpha = rank, so that the model is unchanged at first) on layers, all attentions' or some.

    layers: the ends of their names. start: of the down matrices, Gaussian of standard deviation 1 / rank, or True, a
    linear layer's usual start. Returns the trained tensors, float32 whatever the base's precision.
    """
    unet.requires_grad_(False)
    unet.add_adapter(LoraConfig(r=rank, lora_alpha=rank, init_lora_weights=start, target_modules=layers))
    trained = [weight for weight in unet.parameters() if weight.requires_grad]
    for weight in trained:
        weight.data = weight.data.float()
    return trained


def lora_of(unet, history: list[dict]) -> Edit:
    """The LoRA of a U-Net as an Edit that diffusers' `load_lora_weights` reads."""
    tensors = {}
    for name, tensor in get_peft_model_state_dict(unet).items():  # diffusers' converter knows attentions' layers only
        name = name.replace(".lora_A.", ".lora.down.").replace(".lora_B.", ".lora.up.")
        tensors[f"unet.{name}"] = tensor
    return Edit("lora", tensors, history)


def weights_of(component: str, module, names: list[str], history: list[dict]) -> Edit:
    """The present values of some parameters of a pipeline's component as an Edit."""
    return Edit("weights", {f"{component}.{name}": module.get_parameter(name).data for name in names}, history)
