"""Which base models can be erased from here, told from a pipeline's config files before any weight is read.

All trainings, samplers and attacks take the U-Net's output for the noise, and its noise for that of a schedule of 1,000
timesteps. A model of another kind would be drawn, trained and attacked without an error, to rows that mean nothing; so
it is refused. Supported are Stable Diffusion 1 and those models of version 2 that predict the noise (512 pixels).
"""

import json
import operator
from collections.abc import Mapping
from itertools import accumulate
from pathlib import Path
from typing import Any, NoReturn

TIMESTEPS = 1000
# Below it the last timestep is noise without any signal, from which no prediction of the noise gives a picture: 0 or
# nearly 0 is zero terminal SNR. Stable Diffusion's ends at 4.7e-3, DDPM's at 4.0e-5.
LEAST_SIGNAL = 1e-5
# Of a schedule of betas, without "Scheduler"; the testbed's solver is put in their place.
SCHEDULERS = "DDIM DDPM DEISMultistep DPMSolverMultistep DPMSolverSDE DPMSolverSinglestep EulerAncestralDiscrete "
SCHEDULERS += "EulerDiscrete HeunDiscrete IPNDM KDPM2AncestralDiscrete KDPM2Discrete LMSDiscrete PNDM SASolver "
SCHEDULERS += "UniPCMultistep"
CLASSES = {
    "unet": ("UNet2DConditionModel",),
    "vae": ("AutoencoderKL",),
    "text_encoder": ("CLIPTextModel",),
    "tokenizer": ("CLIPTokenizer", "CLIPTokenizerFast"),
}
# Inputs of a U-Net beside latents, timestep and hidden states, and what shifts an autoencoder's latents: nothing here
# gives these, and diffusers does without some of them in silence.
UNUSED = {
    "unet": [
        "addition_embed_type",
        "class_embed_type",
        "encoder_hid_dim_type",
        "num_class_embeds",
        "time_cond_proj_dim",
    ],
    "vae": ["latents_mean", "latents_std", "shift_factor"],
}


def check(folder: Path, name: str, like: Mapping[str, Any] | None = None) -> None:
    """Whether a whole pipeline in diffusers' format is a base model of the supported kind; only config files are read.

    name: what a message calls it. like: the config of a scheduler with whose schedule it must have been trained, where
    its weights are to be drawn in that one's place.
    Raises: SystemExit with one line that names the file, the key and what was expected.
    """

    def refuse(file: str, what: str) -> NoReturn:
        raise SystemExit(f"{name}: {file}: {what}")

    def config(file: str) -> dict[str, Any]:
        try:
            values = json.loads((folder / file).read_text(encoding="utf-8"))
        except FileNotFoundError:
            raise SystemExit(f"{name}: has no {file}; expected a Stable Diffusion pipeline of diffusers") from None
        except (OSError, ValueError) as error:
            refuse(file, f"cannot be read ({str(error).splitlines()[0]})")
        return values if isinstance(values, dict) else refuse(file, "expected a JSON object")

    index = config("model_index.json")
    if (kind := index.get("_class_name")) != "StableDiffusionPipeline":
        refuse("model_index.json", f"is a {kind}; only the StableDiffusionPipeline is supported")
    for part, known in CLASSES.items():
        found = index.get(part)
        if not isinstance(found, list) or found[-1] not in known:
            refuse("model_index.json", f"its {part} is {found and found[-1]}, expected {known[0]}")
    parts = {part: config(f"{part}/config.json") for part in ("unet", "vae", "text_encoder")}
    for part, keys in UNUSED.items():
        for key in keys:
            if (value := parts[part].get(key)) is not None:
                refuse(f"{part}/config.json", f"{key} is {value!r}; a model that needs it is not supported")
    if wrong := _shapes(**parts):
        refuse("unet/config.json", wrong)
    file = "scheduler/scheduler_config.json"
    scheduler = config(file)
    if wrong := _schedule(scheduler):
        refuse(file, wrong)
    if like is not None and max(abs(a - b) for a, b in zip(signal(scheduler), signal(like), strict=True)) > 1e-6:
        refuse(file, "its noise schedule is not the base model's, with which every row is drawn")


def signal(config: Mapping[str, Any]) -> list[float]:
    """The cumulative alphas of a scheduler's config, one a timestep: the share of signal that is left, 1 to 0.

    Raises: KeyError where its beta_schedule has no meaning here.
    """
    if config.get("trained_betas") is not None:
        betas = [float(beta) for beta in config["trained_betas"]]
    else:
        low, high = config.get("beta_start", 0.0001), config.get("beta_end", 0.02)  # diffusers' defaults
        power = {"linear": 1, "scaled_linear": 2}[config.get("beta_schedule", "linear")]
        low, high = low ** (1 / power), high ** (1 / power)
        betas = [(low + (high - low) * place / (TIMESTEPS - 1)) ** power for place in range(TIMESTEPS)]
    return list(accumulate((1 - beta for beta in betas), operator.mul))


def _shapes(unet: dict, vae: dict, text_encoder: dict) -> str:
    """What does not fit of the three networks, or nothing."""
    latents, width, side = vae.get("latent_channels", 4), text_encoder.get("hidden_size"), unet.get("sample_size")
    for key in ("in_channels", "out_channels"):
        if (found := unet.get(key, 4)) != latents:
            note = " (a U-Net for inpainting, depth or instructions)" * (key == "in_channels")
            return f"{key} is {found}, expected {latents}, the autoencoder's latent_channels{note}"
    if unet.get("cross_attention_dim", 1280) != width:
        return f"cross_attention_dim is {unet.get('cross_attention_dim', 1280)}, the text encoder's hidden_size {width}"
    if not isinstance(side, int):
        return f"sample_size is {side!r}, expected one number: only square pictures are supported"
    return ""


def _schedule(config: dict) -> str:
    """What is not supported of a scheduler's config, or nothing."""
    if str(config.get("_class_name")).removesuffix("Scheduler") not in SCHEDULERS.split():
        return f"is a {config.get('_class_name')}, whose model has no noise schedule of {TIMESTEPS:,} timesteps"
    wanted: dict[str, tuple] = {
        "prediction_type": ("epsilon",),
        "num_train_timesteps": (TIMESTEPS,),
        "rescale_betas_zero_snr": (False,),
        "clip_sample": (False,),  # latents know no bounds
        "thresholding": (False,),
        "use_flow_sigmas": (False,),
        "timestep_spacing": ("leading", "trailing"),  # in which a DDIM step ends where the next one begins
        "steps_offset": (0, 1),
        "beta_schedule": ("linear", "scaled_linear"),
    }
    for key, values in wanted.items():
        if (found := config.get(key, values[0])) not in values and found is not None:
            return f"{key} is {found!r}; only {' or '.join(map(repr, values))} is supported"
    try:
        left = signal(config)
    except (TypeError, ValueError):
        return "its betas are no numbers"
    if len(left) != TIMESTEPS or not LEAST_SIGNAL <= left[-1] < 1:
        return (
            f"its last alpha_cumprod is {left[-1]:.1e} after {len(left)} timesteps; zero terminal SNR is not supported"
        )
    return ""
