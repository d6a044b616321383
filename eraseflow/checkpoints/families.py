"""Which other model a checkpoint is of, where its keys do not fit the base: better said than the first wrong key."""

import re
from collections.abc import Mapping

from eraseflow.checkpoints.files import Header

KEYS = {
    r"(^|\.)(v_pred|ztsnr)$": "a model with v-prediction or zero terminal signal",
    r"(^|\.)(conditioner\.embedders|add_embedding|label_emb|text_encoder_2|lora_te2_)": "Stable Diffusion XL",
    r"(^|\.)cond_stage_model\.model\.": "Stable Diffusion 2, with its OpenCLIP text encoder",
    r"(^|\.)joint_blocks\.|(^|[._])joint_transformer_blocks": "Stable Diffusion 3",
    r"(^|[._])(double_blocks|single_blocks|single_transformer_blocks)": "FLUX",
    r"(^|\.)(control_model|controlnet_|input_hint_block|zero_convs)": "a ControlNet",
    r"(^|\.)(image_proj|ip_adapter|to_k_ip|to_v_ip)": "an IP-Adapter",
    r"(^|\.)motion_modules": "AnimateDiff",
    r"^(string_to_param|string_to_token|emb_params|<.+>$)": "an embedding of textual inversion",
}
WIDTHS = {1024: "Stable Diffusion 2", 2048: "Stable Diffusion XL"}  # of the text states
CHANNELS = {8: "InstructPix2Pix", 9: "an inpainting model"}  # of the U-Net's input
WIDTH = re.compile(r"attn2[._]to_k\.(weight|lora_(A|down)\.weight)$")
INPUT = re.compile(r"(^|\.)(conv_in|input_blocks\.0\.0)\.weight$")


def family(headers: Mapping[str, Header], base: Mapping[str, tuple[int, ...]]) -> str:
    """What the checkpoint seems to be instead, as a sentence's end; empty where nothing says so.

    base: the shapes of the base's weights, which may be one of these itself.
    """
    for pattern, name in KEYS.items():
        if key := next((key for key in headers if re.search(pattern, key)), None):
            return f"the key {key!r} is one of {name}, which is not read here"
    for place, known, what in ((WIDTH, WIDTHS, "text states of {} numbers"), (INPUT, CHANNELS, "{} input channels")):
        ours = {shape[1] for name, shape in base.items() if name.startswith("unet.") and place.search(name)}
        for key, header in headers.items():
            size = header.shape[1] if len(header.shape) > 1 else 0
            if place.search(key) and size in known and size not in ours:
                return f"{what.format(size)} ({key}) are those of {known[size]}, not of the base model"
    return ""
