"""What decides pictures and is not in the tensors: a component's configuration, a scheduler's, an adapter's."""

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from eraseflow.testbeds.base_model import signal

# A text encoder's keys that decide what it computes; of the others all do but these, of pictures' sizes and rounding.
TEXT = ("hidden_act", "layer_norm_eps", "num_attention_heads", "num_hidden_layers", "hidden_size")
INDIFFERENT = ("sample_size", "upcast_attention", "force_upcast", "dropout")
# PEFT's options that change nothing but the training, or are read; any other must have its default.
READ = {"peft_type", "r", "lora_alpha", "rank_pattern", "alpha_pattern", "use_rslora"}
TRAINING = {
    "auto_mapping", "base_model_name_or_path", "ephemeral_gpu_offload", "exclude_modules", "inference_mode",
    "layers_pattern", "layers_to_transform", "lora_dropout", "megatron_core", "parent_library", "peft_version",
    "qalora_group_size", "revision", "runtime_config", "target_modules", "task_type",
}  # fmt: skip
MERGE = "expected a plain LoRA; merge it into its model where it was made, save the model, and name that"
STARTS = (True, False, "gaussian", "orthogonal", "eva", "true", "false")  # those that leave the base's weights alone


def read(path: Path) -> dict[str, Any]:
    """A JSON file. Raises: SystemExit with one line where it is none."""
    try:
        return parse(path.read_text(encoding="utf-8"), str(path))
    except (OSError, UnicodeDecodeError) as error:
        raise SystemExit(f"{path}: cannot be read ({str(error).splitlines()[0]})") from None


def parse(text: str, where: str) -> dict[str, Any]:
    """A JSON object. Raises: SystemExit with one line where it is none."""
    try:
        content = json.loads(text)
    except ValueError as error:
        raise SystemExit(f"{where}: is no JSON ({str(error).splitlines()[0]})") from None
    if not isinstance(content, dict):
        raise SystemExit(f"{where}: expected a JSON object")
    return content


def check_component(component: str, theirs: Mapping[str, Any], ours: Mapping[str, Any], where: str) -> None:
    """Raises: SystemExit where a key that both have decides what is computed and differs."""
    wanted = ours.get("_class_name") or next(iter(ours.get("architectures") or []), None)
    found = theirs.get("_class_name") or next(iter(theirs.get("architectures") or []), None)
    if wanted and found and found != wanted and component != "text_encoder":
        raise SystemExit(f"{where}: is of a {found}, the base model's {component} is a {wanted}")
    for key in sorted(ours.keys() & theirs.keys()):
        decides = key in TEXT if component == "text_encoder" else not key.startswith("_") and key not in INDIFFERENT
        if decides and (mine := _plain(ours[key])) != (other := _plain(theirs[key])):
            raise SystemExit(f"{where}: has {key} {other!r}, the base model's {component} {mine!r}")


def check_pipeline(theirs: Mapping[str, Any], there: Iterable[str | None], where: str) -> None:
    """there: the components whose weights are there.

    Raises: SystemExit where the pipeline has components that Stable Diffusion has not, or lacks one that it names.
    """
    for name in ("unet", "text_encoder", "vae"):
        if any(theirs.get(name) or []) and name not in there:
            raise SystemExit(
                f"{where}: names a {name}, whose folder is not there; the base model's would stand in for it"
            )
    for name in ("text_encoder_2", "text_encoder_3", "transformer", "image_encoder", "controlnet"):
        if any(theirs.get(name) or []):
            kind = theirs.get("_class_name", "pipeline")
            raise SystemExit(f"{where}: is a {kind} with the component {name!r}, which this base model has not")


def check_schedule(theirs: Mapping[str, Any], ours: Mapping[str, Any], where: str) -> None:
    """Raises: SystemExit where the weights were trained for another prediction or another noise schedule."""
    wanted, found = (config.get("prediction_type", "epsilon") for config in (ours, theirs))
    if found != wanted:
        raise SystemExit(f"{where}: prediction_type is {found!r}, the base model's {wanted!r}")
    try:
        same = max(abs(a - b) for a, b in zip(signal(theirs), signal(ours), strict=True)) < 1e-6
    except (KeyError, TypeError, ValueError):
        same = False
    if not same or theirs.get("rescale_betas_zero_snr"):
        raise SystemExit(f"{where}: its noise schedule (betas) is not the base model's, with which every row is drawn")


def check_adapter(config: Mapping[str, Any], where: str) -> None:
    """Raises: SystemExit where an adapter's configuration asks for more than two matrices a layer with a factor."""
    from peft import LoraConfig

    kind = config.get("peft_type", "LORA")
    if kind != "LORA":
        raise SystemExit(
            f"{where}: peft_type is {kind}; expected LORA: merge it with PEFT, save the model, and name that"
        )
    defaults = asdict(LoraConfig())
    for key, value in config.items():
        if key == "init_lora_weights":
            right = isinstance(value, bool) or str(value).lower() in STARTS
        else:
            right = key in READ or key in TRAINING or not value or value == defaults.get(key)
        if not right:
            raise SystemExit(f"{where}: {key} is {value!r}; {MERGE}")


def by_component(flat: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """diffusers' record of an adapter, {"unet.r": 4}, as {"unet": {"r": 4}}."""
    found: dict[str, dict[str, Any]] = {}
    for name, value in flat.items():
        component, _, key = name.partition(".")
        found.setdefault(component, {})[key] = value
    return found


def _plain(value: Any) -> Any:
    """Lists for tuples, as JSON has them."""
    return [_plain(each) for each in value] if isinstance(value, list | tuple) else value
