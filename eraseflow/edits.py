"""An Edit is what an erasure changes in a pipeline: a LoRA of the U-Net, or new values of some weights."""

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import torch
from diffusers import StableDiffusionPipeline
from peft import LoraConfig
from peft.utils import get_peft_model_state_dict
from safetensors.torch import load_file, save_file
from torch import Tensor

LORA_FILE = "pytorch_lora_weights.safetensors"  # the name that `load_lora_weights` looks for
WEIGHTS_FILE = "weights.safetensors"


@dataclass
class Edit:
    """Tensors by name, and how they were made.

    kind: "lora" (U-Net LoRA in diffusers' format, alpha = rank) or "weights" (replacements, keyed
    "<component>.<parameter>" such as "unet.conv_in.weight"; none of them is the unedited model).
    history: one dict an optimiser step, with at least step and loss.
    """

    kind: str
    tensors: dict[str, Tensor]
    history: list[dict] = field(default_factory=list)

    def save(self, folder: Path) -> None:
        """Write one safetensors file and edit.json, each whole or not at all."""
        folder.mkdir(parents=True, exist_ok=True)
        tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in self.tensors.items()}
        unfinished = folder / "unfinished.part"
        save_file(tensors, unfinished)
        unfinished.replace(folder / (LORA_FILE if self.kind == "lora" else WEIGHTS_FILE))
        (folder / "edit.json").write_text(json.dumps({"kind": self.kind}) + "\n")

    @classmethod
    def load(cls, folder: Path) -> "Edit":
        """Read what `save` wrote."""
        kind = json.loads((folder / "edit.json").read_text())["kind"]
        return cls(kind, load_file(folder / (LORA_FILE if kind == "lora" else WEIGHTS_FILE)))

    def apply(self, pipeline: StableDiffusionPipeline) -> StableDiffusionPipeline:
        """Edit the pipeline in memory; a LoRA is merged into the weights, so that nothing runs slower."""
        if self.kind == "lora":
            pipeline.load_lora_into_unet(dict(self.tensors), network_alphas=None, unet=pipeline.unet)
            pipeline.fuse_lora()
            pipeline.unload_lora_weights()
            return pipeline
        for name, tensor in self.tensors.items():
            component, _, parameter = name.partition(".")
            getattr(pipeline, component).get_parameter(parameter).data.copy_(tensor)
        return pipeline

    def export(self, pipeline: StableDiffusionPipeline, folder: Path) -> None:
        """Save the edited pipeline whole, for plain `StableDiffusionPipeline.from_pretrained(folder)`."""
        self.apply(pipeline).save_pretrained(folder)


class Masters:
    """Float32 copies of weights in training, whatever the network's precision.

    A small step would be rounded away in half precision: the optimiser has `copies` as its parameters, `backward`
    gives them their gradients, and `write` puts them into the network after a step.
    """

    def __init__(self, weights: list[Tensor]) -> None:
        self.weights = [weight.requires_grad_(True) for weight in weights]
        self.copies = [weight.detach().float() for weight in weights]  # in float32 these are the weights themselves

    def backward(self, loss: Tensor, elements: int = 1) -> None:
        """The loss's gradients; `elements` is over how many it is a mean, which half precision would underflow."""
        gradients = torch.autograd.grad(loss * elements, self.weights, allow_unused=True)
        for copy, gradient in zip(self.copies, gradients, strict=True):
            copy.grad = None if gradient is None else gradient.float() / elements

    def write(self) -> None:
        for weight, copy in zip(self.weights, self.copies, strict=True):
            weight.data.copy_(copy)


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
