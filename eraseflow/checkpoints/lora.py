"""LoRA as diffusers (today's and its first format), PEFT and kohya's scripts save it: the two matrices of every layer.

W + alpha / rank * up @ down is what each of them means. An edit's LoRA has alpha = rank, so that the factor goes into
`up`. kohya's name of a layer has underscores for its dots; it is looked up among the base's layers, each spelled so.

An adapter in kohya's format (LECO's, SPM's) is read as the plain LoRA that it is, at full strength for every prompt:
SPM's authors weaken theirs where a prompt is far from the concept.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from math import sqrt
from typing import Any

from eraseflow.checkpoints.configs import MERGE
from eraseflow.checkpoints.families import family
from eraseflow.checkpoints.files import Header
from eraseflow.checkpoints.names import FLOATS, Shapes, modern, unwrapped
from eraseflow.mistakes import nearest

KOHYA = re.compile(r"lora_(?P<component>unet|te1?)_(?P<layer>[^.]+)\.(?P<part>lora_down\.weight|lora_up\.weight|alpha)")
PEFT = re.compile(r"(?P<layer>.+)\.(?P<part>lora_A|lora_B|lora\.down|lora\.up|lora_down|lora_up)(\.default)?\.weight")
ALPHA = re.compile(r"(?P<layer>.+)\.alpha")
PARTS = {"lora_A": "down", "lora.down": "down", "lora_down.weight": "down", "lora_down": "down", "alpha": "alpha"}
ADAPTER = re.compile(r"lora|hada_w|lokr_|oft_|boft_|vera_|ia3_|dora_scale|glora|\.diff(_b)?$|[wb]_norm$")
# What is in some adapters beside or instead of two matrices.
OTHERS = {
    r"dora_scale|lora_magnitude_vector": "is DoRA, which also scales every row of the weight",
    r"hada_w|hada_t": "is LoHa, a product of two LoRAs element by element",
    r"lokr_": "is LoKr, a Kronecker product",
    r"oft_|boft_": "is OFT, a rotation of the weight",
    r"vera_|lora_xs": "is VeRA, whose matrices are random and shared",
    r"ia3_|on_input": "is IA3, which scales activations",
    r"lora_mid|lora_T|\.lora_t[12]": "is LoCon with a core tensor (Tucker decomposition)",
    r"\.diff(_b)?$|[wb]_norm$|glora": "holds whole differences of LyCORIS beside matrices",
    r"lora_embedding": "is a LoRA of a token embedding",
    r"lora.*\.bias$|\.bias$": "has biases",
}


COUNTERS = re.compile(r"(^|\.)(epoch|step|global_step|iteration)s?$")
DOWN = re.compile(r"lora_A|lora\.down|lora_down|_lora\.down|lora_linear_layer\.down")


@dataclass
class Pair:
    """The keys of one layer's matrices: down (rank, in), up (out, rank); alpha: its key, if the file has one."""

    down: str = ""
    up: str = ""
    alpha: str = ""
    factor: float = 1.0  # alpha / rank where a configuration says it

    def keys(self) -> list[str]:
        return [key for key in (self.down, self.up, self.alpha) if key]


def is_adapter(headers: Mapping[str, Header]) -> bool:
    """Whether any of the keys is one of a LoRA or its kin."""
    return any(ADAPTER.search(key) for key in headers)


def place(
    headers: Mapping[str, Header], base: Shapes, component: str | None, configs: Mapping[str, dict], where: str
) -> dict[str, Pair]:
    """The matrices of every layer, "<component>.<layer>".

    component: of the file's folder, if it says one. configs: PEFT's, by component, "" for all; see `factor`.
    Raises: SystemExit where the file is another sort of adapter, a key is of no layer or a shape does not fit.
    """
    pairs: dict[str, Pair] = {}
    layers = [name[: -len(".weight")] for name, shape in base.items() if name.endswith(".weight") and len(shape) > 1]
    kohya = {_kohya(layer): layer for layer in layers}
    for key, header in headers.items():
        match = KOHYA.fullmatch(unwrapped(key))
        if match:
            inside = "unet" if match["component"] == "unet" else "text_encoder"
            layer = kohya.get(f"{inside}_{match['layer'].removeprefix('text_model_' * (inside != 'unet'))}")
            part = match["part"]
        else:
            layer, part = _dotted(key, component, set(layers))
        if layer is None or not part:
            other = next((what for pattern, what in OTHERS.items() if re.search(pattern, key)), None)
            raise SystemExit(f"{where}: {_refused(key, other, family(headers, base), layers)}")
        side = PARTS.get(part, "up")
        pair = pairs.setdefault(layer, Pair())
        if twin := getattr(pair, side):
            raise SystemExit(f"{where}: the keys {twin!r} and {key!r} are the same matrix of {layer}")
        setattr(pair, side, key)
        if header.dtype not in FLOATS and side != "alpha":
            raise SystemExit(f"{where}: {key} is {header.dtype}; expected floating-point numbers")
    for layer, pair in pairs.items():
        rank = _rank(layer, pair, headers, base[f"{layer}.weight"], where)
        inside, _, inner = layer.partition(".")
        if unwrapped(pair.down).startswith("base_model.") and not configs:
            what = "is an adapter of PEFT, whose adapter_config.json says how strong it is"
            raise SystemExit(f"{where}: {what}; expected it in the same folder, beside adapter_model.safetensors")
        if config := configs.get(inside, configs.get("")):
            if pair.alpha:
                raise SystemExit(f"{where}: says alpha twice, in the key {pair.alpha!r} and in its configuration")
            pair.factor = factor(config, inner, rank, where)
    return pairs


def check_other(other: list[str], headers: Mapping[str, Header], about: Mapping[str, str], where: str) -> None:
    """other: names of what is no tensor; about: a safetensors file's metadata.

    Raises: SystemExit where one of these may say a strength that no format here has there.
    """
    if strange := [name for name in other if not COUNTERS.search(name)]:
        what = f"has {strange[0]!r} beside the matrices, which no format of LoRA that is read here has"
        raise SystemExit(f"{where}: {what}; expected matrices and their alpha as tensors")
    if not any(key.endswith(".alpha") for key in headers):
        for key in ("alpha", "lora_alpha", "network_alpha", "ss_network_alpha"):
            ranks = {header.shape[0] for name, header in headers.items() if DOWN.search(name) and header.shape}
            if key in about and (not _number(about[key]) or {float(about[key])} != ranks):
                raise SystemExit(
                    f"{where}: says {key} {about[key]} in its metadata, and no layer has an alpha of its own"
                )


def _number(text: str) -> bool:
    return bool(re.fullmatch(r"\d+(\.\d+)?", text))


def factor(config: Mapping[str, Any], layer: str, rank: int, where: str) -> float:
    """alpha / rank (or its root, if rank-stabilised) by PEFT's configuration, whose patterns name some layers."""
    from peft.utils.other import get_pattern_key

    ranks: dict[str, int] = config.get("rank_pattern") or {}
    alphas: dict[str, float] = config.get("alpha_pattern") or {}
    said = ranks.get(get_pattern_key(list(ranks), layer), config.get("r", rank))
    if said != rank:
        raise SystemExit(f"{where}: {layer} has rank {rank}, its configuration says {said}")
    alpha = alphas.get(get_pattern_key(list(alphas), layer), config.get("lora_alpha", rank))
    return float(alpha) / (sqrt(rank) if config.get("use_rslora") else rank)


def _kohya(layer: str) -> str:
    return layer.replace(".", "_")


def _dotted(key: str, component: str | None, layers: set[str]) -> tuple[str | None, str]:
    """Layer and part of a key of diffusers or PEFT; a layer of None where the base has none of this name."""
    plain = unwrapped(unwrapped(key).removeprefix("base_model.model."))
    said = next((each for each in ("unet", "text_encoder") if plain.startswith(f"{each}.")), None)
    inner = plain.removeprefix(f"{said}.").replace(".processor.", ".")
    chosen = said or component
    for inside in [chosen] if chosen else ["unet", "text_encoder"]:
        match = PEFT.fullmatch(inner) or ALPHA.fullmatch(inner) or PEFT.fullmatch(_first_format(inner, inside))
        if match and (layer := modern(inside, match["layer"])) in layers:
            return layer, match.groupdict().get("part") or "alpha"
    return None, ""


def _first_format(key: str, component: str) -> str:
    """A key of diffusers' first format (to_q_lora.down) by today's name, by diffusers' own converters."""
    from diffusers.utils import state_dict_utils

    convert = state_dict_utils.convert_unet_state_dict_to_peft
    if component == "text_encoder":
        old = any(f".to_{each}_lora." in key for each in ("q", "k", "v", "out"))
        kind = state_dict_utils.StateDictType.DIFFUSERS_OLD if old else state_dict_utils.StateDictType.DIFFUSERS
        return next(iter(state_dict_utils.convert_state_dict_to_peft({key: None}, kind)))
    return next(iter(convert({key: None})))


def _rank(layer: str, pair: Pair, headers: Mapping[str, Header], wanted: tuple[int, ...], where: str) -> int:
    """The rank of a layer's matrices, whose shapes are checked against the base's weight."""
    if not pair.down or not pair.up:
        raise SystemExit(f"{where}: the layer {layer} needs two matrices, of the file's {', '.join(pair.keys())}")
    down, up = headers[pair.down].shape, headers[pair.up].shape
    rank = down[0] if down else 0
    kernel = wanted[2:]
    expected = ((rank, wanted[1], *kernel), (wanted[0], rank, *(1 for _ in kernel)))
    for key, shape, right in zip((pair.down, pair.up), (down, up), expected, strict=True):
        if _squeezed(shape) != _squeezed(right):
            raise SystemExit(f"{where}: {key} has the shape {shape}, expected {right}")
    return rank


def _squeezed(shape: tuple[int, ...]) -> tuple[int, ...]:
    """A linear layer's shape for that of a 1 x 1 convolution."""
    return shape[:2] if all(side == 1 for side in shape[2:]) else shape


def _refused(key: str, other: str | None, said: str, layers: list[str]) -> str:
    if other:
        return f"{other} (the key {key!r}); {MERGE}"
    if said:
        return said
    if not ADAPTER.search(key) and not key.endswith(".alpha"):
        return f"the key {key!r} is of no LoRA, though others are; {MERGE}"
    match = KOHYA.fullmatch(unwrapped(key))
    inner = match["layer"] if match else key
    known = [_kohya(layer).removeprefix("unet_") if match else layer for layer in layers]
    what = "is of no layer of this base model in diffusers', PEFT's or kohya's LoRA format"
    return f"the key {key!r} {what}{nearest(inner, known)}"
