"""Stable Diffusion's weights by the names of CompVis' program, told independently of diffusers' converters."""

import re

import torch
from torch import Tensor

RESNET = {
    "norm1": "in_layers.0",
    "conv1": "in_layers.2",
    "time_emb_proj": "emb_layers.1",
    "norm2": "out_layers.0",
    "conv2": "out_layers.3",
    "conv_shortcut": "skip_connection",
}
UNET = {
    "conv_in": "input_blocks.0.0",
    "time_embedding.linear_1": "time_embed.0",
    "time_embedding.linear_2": "time_embed.2",
    "conv_norm_out": "out.0",
    "conv_out": "out.2",
    "mid_block.resnets.0": "middle_block.0",
    "mid_block.attentions.0": "middle_block.1",
    "mid_block.resnets.1": "middle_block.2",
}
ATTENTION = {"group_norm": "norm", "to_q": "q", "to_k": "k", "to_v": "v", "to_out.0": "proj_out"}


def replaced(name: str, names: dict[str, str]) -> str:
    """The name with its beginning, or any whole part of it, by another name."""
    for old, new in names.items():
        name = re.sub(rf"(^|\.){re.escape(old)}(?=\.)", rf"\g<1>{new}", name)
    return name


def unet_names(unet) -> dict[str, str]:
    """Of each block and layer in it."""
    names = dict(UNET)
    per = unet.config.layers_per_block
    for block in range(len(unet.down_blocks)):
        first = 1 + block * (per + 1)
        for layer in range(per):
            names[f"down_blocks.{block}.resnets.{layer}"] = f"input_blocks.{first + layer}.0"
            names[f"down_blocks.{block}.attentions.{layer}"] = f"input_blocks.{first + layer}.1"
        names[f"down_blocks.{block}.downsamplers.0.conv"] = f"input_blocks.{first + per}.0.op"
    for block, module in enumerate(unet.up_blocks):
        first = block * (per + 1)
        for layer in range(per + 1):
            names[f"up_blocks.{block}.resnets.{layer}"] = f"output_blocks.{first + layer}.0"
            names[f"up_blocks.{block}.attentions.{layer}"] = f"output_blocks.{first + layer}.1"
        place = 2 if hasattr(module, "attentions") else 1
        names[f"up_blocks.{block}.upsamplers.0.conv"] = f"output_blocks.{first + per}.{place}.conv"
    return names


def of_unet(unet) -> dict[str, Tensor]:
    """The U-Net's weights as input_blocks, middle_block and output_blocks."""
    blocks = unet_names(unet)
    found = {}
    for name, weight in unet.state_dict().items():
        renamed = replaced(name, blocks)
        found[replaced(renamed, RESNET) if "resnets" in name else renamed] = weight
    return found


def of_vae(vae) -> dict[str, Tensor]:
    """The autoencoder's, whose attention's projections are 1 x 1 convolutions there."""
    last = len(vae.decoder.up_blocks) - 1
    found = {}
    for name, weight in vae.state_dict().items():
        new = re.sub(r"encoder\.down_blocks\.(\d)\.resnets\.(\d)", r"encoder.down.\1.block.\2", name)
        new = re.sub(r"encoder\.down_blocks\.(\d)\.downsamplers\.0", r"encoder.down.\1.downsample", new)
        new = re.sub(
            r"decoder\.up_blocks\.(\d)\.resnets\.(\d)", lambda m: f"decoder.up.{last - int(m[1])}.block.{m[2]}", new
        )
        new = re.sub(
            r"decoder\.up_blocks\.(\d)\.upsamplers\.0", lambda m: f"decoder.up.{last - int(m[1])}.upsample", new
        )
        new = re.sub(r"mid_block\.resnets\.(\d)", lambda m: f"mid.block_{int(m[1]) + 1}", new)
        new = new.replace("conv_norm_out", "norm_out").replace("conv_shortcut", "nin_shortcut")
        if "mid_block.attentions.0" in new:
            new = replaced(new, {"mid_block.attentions.0": "mid.attn_1", **ATTENTION})
            weight = weight[:, :, None, None] if weight.ndim == 2 else weight
        found[new] = weight
    return found


def whole(pipeline) -> dict[str, Tensor]:
    """A pipeline as one file has it, with what a training leaves in it."""
    text = {f"text_model.{name}": weight for name, weight in pipeline.text_encoder.state_dict().items()}
    ema = {f"model_ema.diffusion_model{n.replace('.', '')}": w + 1 for n, w in of_unet(pipeline.unet).items()}
    return {
        **{f"model.diffusion_model.{name}": weight for name, weight in of_unet(pipeline.unet).items()},
        **{f"first_stage_model.{name}": weight for name, weight in of_vae(pipeline.vae).items()},
        **{f"cond_stage_model.transformer.{name}": weight for name, weight in text.items()},
        **ema,
        "cond_stage_model.transformer.text_model.embeddings.position_ids": torch.arange(24)[None],
        "first_stage_model.loss.logvar": torch.zeros(()),
        "model_ema.decay": torch.tensor(0.9999),
        "betas": torch.zeros(1000),
        "alphas_cumprod": torch.zeros(1000),
        "alphas_cumprod_prev": torch.zeros(1000),
        "sqrt_alphas_cumprod": torch.zeros(1000),
        "sqrt_one_minus_alphas_cumprod": torch.zeros(1000),
        "log_one_minus_alphas_cumprod": torch.zeros(1000),
        "sqrt_recip_alphas_cumprod": torch.zeros(1000),
        "sqrt_recipm1_alphas_cumprod": torch.zeros(1000),
        "posterior_mean_coef1": torch.zeros(1000),
        "logvar": torch.zeros(1000),
    }
