"""Published or local weights as a row of the table, without training.

`sources` names for each concept one of these, all in diffusers' format and safetensors: a whole pipeline, whose
scheduler is left aside because the testbed draws every row alike; a LoRA of the U-Net; weights of the U-Net or the
text encoder, all or some, as a file or a folder such as unet/; or an edit of this project. It is a repository on the
Hub at a commit, "owner/name@commit", a file in one, "owner/name@commit/file.safetensors", or a local path.

The edit holds only what differs from the base. Weights are compared in the coarser of the two precisions, so that a
base saved in half precision is no difference.
"""

import json
import re
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from eraseflow import hub
from eraseflow.edits import LORA_FILE, SAMPLER_FOLDER, WEIGHTS_FILE, Edit, compose
from eraseflow.mistakes import nearest
from eraseflow.params import Block, Concept, Name, Text

UNET_FILE = "diffusion_pytorch_model.safetensors"
TEXT_FILE = "model.safetensors"
COMPONENTS = {"unet": UNET_FILE, "text_encoder": TEXT_FILE, "vae": UNET_FILE}
FILES = [
    "model_index.json",
    "config.json",
    UNET_FILE,
    TEXT_FILE,
    "pytorch_lora_weights.safetensors",
    "sampler/edit.json",
    *(f"{component}/{name}" for component, file in COMPONENTS.items() for name in ("config.json", file)),
]
LORA = re.compile(r"unet\.(?P<layer>.+)\.(?:(?P<down>lora_A|lora\.down)|lora_B|lora\.up)\.weight")


class Settings(Block):
    sources: dict[Name, Text]


def ready(settings: Settings, concept: str) -> None:
    """Fetch the concept's weights before any stage. Raises: SystemExit with one line where they cannot be had."""
    fetch(source(settings, concept))


def source(settings: Settings, concept: str) -> str:
    """Where the concept's weights are. Raises: SystemExit where no place, or no commit, is named."""
    if concept not in settings.sources:
        what = f"names no weights for the concept {concept!r}{nearest(concept, settings.sources)}"
        raise SystemExit(f"methods.pretrained: sources {what}")
    place = settings.sources[concept]
    if re.fullmatch(r"[\w.-]+/[\w.-]+", place) and not Path(place).exists():
        raise SystemExit(
            f"methods.pretrained: sources.{concept}: {place!r} is no path here and names no commit of the Hub; choose "
            f"one at https://huggingface.co/{place}/commits/main and write {place}@<its 40 hexadecimal digits>"
        )
    return place


def fetch(place: str) -> Path:
    """A local file or folder with the weights. Raises: SystemExit, see hub.py."""
    if Path(place).is_file():
        return Path(place)
    if inside := re.fullmatch(r"(?P<repository>.+@[0-9a-f]{40})/(?P<file>.+\.safetensors)", place):
        return hub.file(inside["repository"], inside["file"])
    return hub.snapshot(place, FILES)


def erase(pipeline, concept: Concept, settings: Settings, seed: int) -> Edit:
    """Read the weights and compare them; nothing is trained, so the history is empty.

    A sampler that this project has exported beside a pipeline comes with it.
    Raises: SystemExit with one line where a key is unknown, a shape is wrong or a weight is missing.
    """
    path = fetch(source(settings, concept.name))
    about = path / "edit.json"
    if about.is_file() and json.loads(about.read_text())["kind"] in ("sampler", "parts"):
        return Edit.load(path)
    edit, sampler = of_path(pipeline, path), path / SAMPLER_FOLDER
    if not (sampler / "edit.json").is_file():
        return edit
    return compose([("the pipeline", edit), (str(sampler), Edit.load(sampler))])


def of_path(pipeline, path: Path) -> Edit:
    """The edit of a file, a component's folder or a whole pipeline's."""
    if path.is_file():
        return of_file(pipeline, path)
    if (path / "model_index.json").is_file():
        parts = {component: path / component for component in COMPONENTS}
    else:
        for name in (LORA_FILE, WEIGHTS_FILE):
            if (path / name).is_file():
                return of_file(pipeline, path / name)
        found = [component for component, file in COMPONENTS.items() if (path / file).is_file()]
        if not found:
            raise SystemExit(f"{path}: holds neither a pipeline of diffusers nor a LoRA nor weights in safetensors")
        parts = {found[0]: path}
    weights: dict[str, Tensor] = {}
    for component, folder in parts.items():
        weights |= of_folder(type(getattr(pipeline, component)), component, folder)
    return Edit("weights", different(pipeline, weights, path))


def of_file(pipeline, path: Path) -> Edit:
    """The edit of one safetensors file: a LoRA if its keys are one's, else weights."""
    try:
        with safe_open(path, "pt") as file:
            tensors, about = {name: file.get_tensor(name) for name in file.keys()}, file.metadata() or {}  # noqa: SIM118
    except (OSError, SafetensorError) as error:
        raise SystemExit(f"{path}: is no safetensors file ({str(error).splitlines()[0]})") from None
    if any("lora" in name for name in tensors):
        return Edit("lora", lora(pipeline.unet, tensors, json.loads(about.get("lora_adapter_metadata", "{}")), path))
    known = parameters(pipeline)
    weights = {}
    for name, tensor in tensors.items():
        if not name.endswith("position_ids"):  # a constant that older versions of transformers saved
            plain = name.replace("text_model.", "")
            places = (name, plain, f"unet.{name}", f"text_encoder.{plain}")
            weights[next((place for place in places if place in known), name)] = tensor
    return Edit("weights", different(pipeline, weights, path))


def of_folder(kind: Any, component: str, folder: Path) -> dict[str, Tensor]:
    """All weights of a component's folder, in their own precision, by diffusers' present names."""
    try:
        with safe_open(folder / COMPONENTS[component], "pt") as file:
            dtype = file.get_tensor(next(iter(file.keys()))).dtype
        options = {"use_safetensors": True, "local_files_only": True, "output_loading_info": True}
        model, info = kind.from_pretrained(folder, dtype=dtype, **options)
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:
        raise SystemExit(f"{folder}: cannot be read as a {kind.__name__} ({str(error).splitlines()[0]})") from None
    for what in ("missing", "unexpected"):
        if names := sorted(name for name in info[f"{what}_keys"] if not name.endswith("position_ids")):
            raise SystemExit(f"{folder}: the key {names[0]!r} is {what} for a {kind.__name__} of its config.json")
    return {f"{component}.{name}": weight.data for name, weight in model.named_parameters()}


def parameters(pipeline) -> dict[str, Tensor]:
    """Every weight of the pipeline, as edits name it."""
    return {
        f"{component}.{name}": weight.data
        for component in COMPONENTS
        for name, weight in getattr(pipeline, component).named_parameters()
    }


def different(pipeline, weights: dict[str, Tensor], path: Path) -> dict[str, Tensor]:
    """Those of the weights that are not the pipeline's own. Raises: SystemExit where one fits nowhere."""
    known, kept = parameters(pipeline), {}
    for name, theirs in weights.items():
        if name not in known:
            what = f"{name!r} is no weight of this base model in diffusers' names"
            raise SystemExit(f"{path}: the key {what}{nearest(name, known)}")
        ours = known[name].to(theirs.device)
        if ours.shape != theirs.shape:
            raise SystemExit(
                f"{path}: {name} has the shape {tuple(theirs.shape)}, the base model's {tuple(ours.shape)}"
            )
        coarse = min(ours.dtype, theirs.dtype, key=lambda dtype: torch.finfo(dtype).bits)
        if not torch.equal(ours.to(coarse), theirs.to(coarse)):
            kept[name] = theirs
    return kept


def lora(unet, tensors: dict[str, Tensor], about: dict, path: Path) -> dict[str, Tensor]:
    """The LoRA with alpha = rank, as edits have it: another alpha goes into the matrices.

    about: diffusers' record of the adapter, where the file has one.
    """
    layers = dict(unet.named_modules())
    if about.get("unet.use_rslora") or about.get("unet.use_dora") or about.get("unet.alpha_pattern"):
        raise SystemExit(f"{path}: has rank-stabilised, decomposed or several alphas; expected a plain LoRA")
    sides: dict[str, dict[bool, str]] = {}
    for name, tensor in tensors.items():
        if name.endswith(".alpha"):
            continue
        match = LORA.fullmatch(name)
        if not match or match["layer"] not in layers:
            what = f"{name!r} is of no layer of this U-Net in diffusers' LoRA format"
            raise SystemExit(f"{path}: the key {what} (unet.<layer>.lora_A.weight or lora_B, lora.down or lora.up)")
        down = bool(match["down"])
        place = 1 if down else 0  # down (rank, in), up (out, rank)
        expected = layers[match["layer"]].weight.shape[place]
        if tensor.shape[place] != expected:
            what = f"has the shape {tuple(tensor.shape)}, expected {expected} in place of {tensor.shape[place]}"
            raise SystemExit(f"{path}: {name} {what}")
        sides.setdefault(match["layer"], {})[down] = name
    scaled: dict[str, Tensor] = {}
    for layer, names in sides.items():
        if len(names) != 2 or (rank := tensors[names[True]].shape[0]) != tensors[names[False]].shape[1]:
            raise SystemExit(f"{path}: the layer {layer} needs two matrices of the same rank")
        alpha = float(tensors.get(f"unet.{layer}.alpha", about.get("unet.lora_alpha") or rank))
        scaled |= {names[True]: tensors[names[True]], names[False]: tensors[names[False]] * (alpha / rank)}
    return scaled
