"""What will be done with every key of a source, by the files' headers: the same for the check and the training."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from eraseflow import hub
from eraseflow.checkpoints import configs, files, lora, names
from eraseflow.checkpoints.files import File
from eraseflow.checkpoints.folders import COMPONENTS, Part
from eraseflow.checkpoints.lora import Pair
from eraseflow.checkpoints.places import Found

BASE_FILES = [
    "scheduler/scheduler_config.json",
    *(f"{component}/config.json" for component in COMPONENTS),
    *(f"{component}/diffusion_pytorch_model.safetensors" for component in ("unet", "vae")),
    "text_encoder/model.safetensors",
]


@dataclass(frozen=True)
class Base:
    """The base model as far as names go. shapes: of its weights; configs: of its components and its scheduler.

    defaults: what a component's configuration means that leaves a key out, where its class has been asked.
    """

    shapes: Mapping[str, tuple[int, ...]]
    configs: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    defaults: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)


@dataclass
class Plan:
    """Of one part: `weights` (name in the base: key) or `pairs` (layer: its matrices), and the files they lie in."""

    files: list[File]
    where: str
    weights: dict[str, str] = field(default_factory=dict)
    pairs: dict[str, Pair] = field(default_factory=dict)
    ignored: dict[str, list[str]] = field(default_factory=dict)

    def tensors(self) -> dict[str, Any]:
        """All tensors of the plan, by key."""
        wanted = {*self.weights.values(), *(key for pair in self.pairs.values() for key in pair.keys())}  # noqa: SIM118
        return {
            name: tensor
            for file in self.files
            for name, tensor in file.tensors([name for name in file.headers if name in wanted]).items()
        }


def base_of(model: str) -> Base:
    """The base model of a testbed by its files alone. model: a local folder, or "owner/name@commit"."""
    folder = hub.snapshot(model, BASE_FILES)
    shapes: dict[str, tuple[int, ...]] = {}
    about = {"scheduler": configs.read(folder / "scheduler" / "scheduler_config.json")}
    for component in COMPONENTS:
        name = "model" if component == "text_encoder" else "diffusion_pytorch_model"
        path = folder / component / f"{name}.safetensors"
        for name, header in files.read(path).headers.items():
            if not name.endswith("position_ids"):
                shapes[names.modern(component, name)] = header.shape
        about[component] = configs.read(folder / component / "config.json")
    return Base(shapes, about)


def plans(found: Found, base: Base) -> list[Plan]:
    """A plan for every part of the source; none for an edit of this project that has no weights of its own.

    Raises: SystemExit with one line where a file is no weights, or a key, a shape or a configuration does not fit.
    """
    for name in found.contents.other:
        path = found.folder / name
        if name == "model_index.json":
            configs.check_pipeline(configs.read(path), [part.component for part in found.contents.parts], str(path))
        if name == "scheduler/scheduler_config.json":
            configs.check_schedule(configs.read(path), base.configs.get("scheduler", {}), str(path))
    return [_plan(found.folder, part, base) for part in found.contents.parts]


def _plan(folder: Path, part: Part, base: Base) -> Plan:
    read = [files.read(folder / name) for name in part.files]
    where = str(read[0].path if len(read) == 1 else read[0].path.parent)
    headers: dict[str, files.Header] = {}
    for file in read:
        if twice := sorted(headers.keys() & file.headers.keys()):
            raise SystemExit(f"{file.path}: has the key {twice[0]!r}, as another shard has")
        headers |= file.headers
    if part.index:
        _check_index(folder / part.index, headers)
    plan = Plan(read, where)
    other = [name for file in read for name in file.other]
    if other:
        plan.ignored["no tensors"] = other
    if part.adapter or lora.is_adapter(headers):
        lora.check_other(other, headers, read[0].metadata, where)
        plan.pairs = lora.place(headers, base.shapes, part.component, _configs(folder, part, read[0]), where)
        return plan
    names.check_other(other, base.shapes, part.component, where)
    placed = names.place(headers, base.shapes, part.component, where)
    plan.weights, plan.ignored = placed.weights, placed.ignored | plan.ignored
    inside = {name.partition(".")[0] for name in placed.weights}
    if part.whole:
        lacking = [name for name in base.shapes if name.partition(".")[0] in inside and name not in placed.weights]
        if lacking:
            component, _, name = lacking[0].partition(".")
            further = f" and {len(lacking) - 1} more" if len(lacking) > 1 else ""
            raise SystemExit(f"{where}: lacks the {component}'s weights {name}{further}")
    if part.config and len(inside) == 1:
        [component] = inside
        path = folder / part.config
        theirs = {**base.defaults.get(component, {}), **configs.read(path)}
        configs.check_component(component, theirs, base.configs.get(component, {}), str(path))
    return plan


def _configs(folder: Path, part: Part, file: File) -> dict[str, dict]:
    """PEFT's configuration of an adapter, from the file beside it or diffusers' record in it."""
    if part.adapter and part.config:
        path = folder / part.config
        config = configs.read(path)
        configs.check_adapter(config, str(path))
        return {"": config}
    if not (record := file.metadata.get("lora_adapter_metadata")):
        return {}
    where = f"{file.path}: lora_adapter_metadata"
    found = configs.by_component(configs.parse(record, where))
    for config in found.values():
        configs.check_adapter(config, where)
    return found


def _check_index(path: Path, headers: Mapping[str, files.Header]) -> None:
    """Raises: SystemExit where the shards lack a key that their index names."""
    lacking = sorted(configs.read(path).get("weight_map", {}).keys() - headers.keys())
    if lacking:
        raise SystemExit(f"{path}: names the key {lacking[0]!r}, which none of its shards has")
