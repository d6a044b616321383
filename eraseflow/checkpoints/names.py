"""Every key of a state dict gets its place in the base model, or the reason for which it is left out.

Keys are diffusers' ("unet.conv_in.weight"), CompVis' ("model.diffusion_model.input_blocks.0.0.weight") or
transformers', with what trainers wrap them in ("state_dict.", "module.") or without any prefix.
"""

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

from eraseflow.checkpoints.families import family
from eraseflow.checkpoints.files import Header
from eraseflow.mistakes import nearest

Shapes = Mapping[str, tuple[int, ...]]  # of the base's weights, "<component>.<parameter>" by diffusers' present names
WRAPPERS = re.compile(r"^((model_)?state_dict|module|model|_orig_mod|weights|params|net)\.(?=.)")
PREFIXES = {
    "unet.": "unet",
    "diffusion_model.": "unet",
    "text_encoder.": "text_encoder",
    "cond_stage_model.": "text_encoder",
    "vae.": "vae",
    "first_stage_model.": "vae",
}
IGNORED = {
    re.compile(r"(.+\.)?position_ids"): "constants that older versions of transformers saved",
    re.compile(r"(\w*_ema|ema(_\w+)?|state_dict_ema)\..+"): "averages over the training (EMA), beside the weights",
    re.compile(
        r"(betas|alphas_cumprod(_prev)?|sqrt_(one_minus_)?\w*alphas_cumprod|sqrt_recipm1?_\w+|log_one_minus_\w+|"
        r"posterior_\w+|lvlb_weights|logvar|scale_factor)"
    ): "the training's noise schedule; every row is drawn alike",
    re.compile(r"(optimizers?\w*|lr_scheduler\w*|scheduler\w*|grad_scaler|scaler|callbacks|loops)\..+"): (
        "the optimiser's and trainer's state"
    ),
    re.compile(r"(first_stage_model|vae)\.loss\..+"): "the autoencoder's training loss",
    re.compile(r"(.+\.)?(text_projection(\.\w+)?|logit_scale|visual_projection\.\w+|vision_model\..+)"): (
        "parts of CLIP that Stable Diffusion 1 does not use"
    ),
}
FLOATS = ("float64", "float32", "float16", "bfloat16")
OLD_ATTENTION = {".query.": ".to_q.", ".key.": ".to_k.", ".value.": ".to_v.", ".proj_attn.": ".to_out.0."}  # of a VAE


@dataclass
class Placed:
    """Which key is which weight of the base; the keys left out, by reason."""

    weights: dict[str, str] = field(default_factory=dict)
    ignored: dict[str, list[str]] = field(default_factory=dict)


def place(headers: Mapping[str, Header], base: Shapes, component: str | None, where: str) -> Placed:
    """Every key's place. component: of the file's folder, if it says one.

    Raises: SystemExit where a key has none, two have the same, or its type or shape is not the base's.
    """
    found = Placed()
    wanted: dict[str, str] = {}
    for key in headers:
        plain = unwrapped(key)
        if reason := next((reason for pattern, reason in IGNORED.items() if pattern.fullmatch(plain)), None):
            found.ignored.setdefault(reason, []).append(key)
        else:
            wanted[key] = plain
    latent = _CompVis(wanted.values(), base)
    for key, plain in wanted.items():
        name = next((each for each in _candidates(plain, component, latent.names) if each in base), None)
        if name is None:
            raise SystemExit(f"{where}: {family(headers, base) or _unknown(key, plain, component, base)}")
        if name in found.weights:
            raise SystemExit(f"{where}: the keys {found.weights[name]!r} and {key!r} are the same weight, {name}")
        found.weights[name] = key
    for name, key in found.weights.items():
        _check(name, headers[key], base[name], where, lambda: family(headers, base))
    if not found.weights:
        what = f", only {reason_of(found.ignored)}" if found.ignored else ""
        raise SystemExit(f"{where}: holds no weights of this base model{what}")
    return found


def check_other(other: Iterable[str], base: Shapes, component: str | None, where: str) -> None:
    """Raises: SystemExit where one of these, which are no tensors, is named as a weight."""
    for key in other:
        if any(name in base for name in _candidates(unwrapped(key), component, {})):
            raise SystemExit(f"{where}: {key} is no tensor; expected its weight")


def reason_of(ignored: Mapping[str, list[str]]) -> str:
    """The reasons for which keys are left out, with their numbers."""
    return "; ".join(f"{len(keys)} ({keys[0]}{', ...' * (len(keys) > 1)}): {why}" for why, keys in ignored.items())


def unwrapped(key: str) -> str:
    """The key without what trainers and compilers put around a model."""
    for mark in ("_orig_mod.", ".module."):
        key = key.replace(mark, "." if mark.startswith(".") else "")
    while match := WRAPPERS.match(key):
        key = key[match.end() :]
    return key


def modern(component: str, name: str) -> str:
    """A parameter's present name in diffusers and transformers, "<component>.<parameter>"."""
    if component == "text_encoder":
        name = name.removeprefix("transformer.").removeprefix("text_model.")
    if component == "vae":
        for old, new in OLD_ATTENTION.items():
            name = name.replace(old, new)
    return f"{component}.{name}"


def fits(shape: tuple[int, ...], wanted: tuple[int, ...]) -> bool:
    """Whether a tensor is the base's but for a 1 x 1 convolution in place of a linear layer, or the other way round."""
    long, short = sorted((shape, wanted), key=len, reverse=True)
    return (
        long[: len(short)] == short and all(side == 1 for side in long[len(short) :]) and len(short) in (2, len(long))
    )


def _candidates(plain: str, component: str | None, latent: Mapping[str, str]) -> Iterable[str]:
    """What the weight may be called in the base, the likeliest first."""
    prefix = next((prefix for prefix in PREFIXES if plain.startswith(prefix)), "")
    inner = unwrapped(plain.removeprefix(prefix)) if prefix else plain
    said = PREFIXES[prefix] if prefix else component
    for each in [said] if said else ["unet", "text_encoder", "vae"]:
        yield modern(each, inner)
    if inner in latent and latent[inner].partition(".")[0] in (said, said or "unet", said or "vae"):
        yield latent[inner]


class _CompVis:
    """The present names of CompVis' U-Net and autoencoder, by diffusers' own converters.

    A converter counts the blocks that it finds, and would drop the last ones of a state dict in part: so every block up
    to the last gets an entry.
    """

    def __init__(self, plain: Iterable[str], base: Shapes) -> None:
        self.names: dict[str, str] = {}
        inner = [unwrapped(re.sub(r"^(unet|diffusion_model|vae|first_stage_model)\.", "", key)) for key in plain]
        unet = [key for key in inner if re.match(r"(input_blocks|middle_block|output_blocks|time_embed|out)\.\d", key)]
        vae = [key for key in inner if re.match(r"(en|de)coder\.(down|up|mid|norm_out)\.|(post_)?quant_conv\.", key)]
        vae += [key for key in inner if re.match(r"(en|de)coder\.conv_(in|out)\.", key)] if vae else []
        if not unet and not vae:
            return
        from diffusers.loaders.single_file_utils import convert_ldm_unet_checkpoint, convert_ldm_vae_checkpoint

        for kind in ("input_blocks", "middle_block", "output_blocks"):
            last = max((int(key.split(".")[1]) for key in unet if key.startswith(kind)), default=-1)
            unet += [f"{kind}.{block}.0.padding" for block in range(last + 1)]
        keys = {f"model.diffusion_model.{key}": key for key in unet}
        layers = len({name.split(".")[4] for name in base if name.startswith("unet.down_blocks.0.resnets.")})
        renamed = convert_ldm_unet_checkpoint(keys, {"layers_per_block": layers})
        self.names |= {key: f"unet.{name}" for name, key in renamed.items() if not name.endswith("padding")}
        blocks = len({name.split(".")[3] for name in base if name.startswith("vae.encoder.down_blocks.")})
        config = {"down_block_types": [""] * blocks, "up_block_types": [""] * blocks}
        renamed = convert_ldm_vae_checkpoint({f"first_stage_model.{key}": _Key(key) for key in vae}, config)
        self.names |= {str(key): f"vae.{name}" for name, key in renamed.items()}


class _Key(str):
    """A key in a tensor's stead, for a converter that asks for shapes."""

    shape = ()
    ndim = 0


def _check(name: str, header: Header, wanted: tuple[int, ...], where: str, kind: Callable[[], str]) -> None:
    if header.dtype not in FLOATS:
        expected = "float32, float16, bfloat16 or float64, neither quantised nor sparse"
        raise SystemExit(f"{where}: {name} is {header.dtype}; expected {expected}")
    if not fits(header.shape, wanted):
        what = f"; {said}" if (said := kind()) else ""
        raise SystemExit(f"{where}: {name} has the shape {header.shape}, the base model's {tuple(wanted)}{what}")


def _unknown(key: str, plain: str, component: str | None, base: Shapes) -> str:
    prefix = next((prefix for prefix in PREFIXES if plain.startswith(prefix)), "")
    said = PREFIXES.get(prefix, component)
    inner = plain.removeprefix(prefix)
    if said:
        within = [name.partition(".")[2] for name in base if name.startswith(f"{said}.")]
        return f"the key {key!r} is no weight of this base model's {said}{nearest(inner, within)}"
    known = [name.partition(".")[2] for name in base]
    return f"the key {key!r} is no weight of this base model in diffusers' or CompVis' names{nearest(inner, known)}"
