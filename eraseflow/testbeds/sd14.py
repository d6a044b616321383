"""The paper's testbed: Stable Diffusion 1.4 from the Hub, or any local folder with such a pipeline."""

import torch
from diffusers import DDIMScheduler, StableDiffusionPipeline

from eraseflow import cells, hub

BATCH = 8  # pictures drawn at once; an attack, which needs gradients, then stays below 24 GB
WEIGHTS = [
    "text_encoder/model.safetensors",
    "unet/diffusion_pytorch_model.safetensors",
    "vae/diffusion_pytorch_model.safetensors",
]
FILES = ["model_index.json", "scheduler/*.json", "tokenizer/*", "*/config.json", *WEIGHTS]


def load_pipeline(model: str, device: str) -> StableDiffusionPipeline:
    """The base pipeline in evaluation mode with DDIM of the model's own schedule, without safety checker.

    model: a local folder or "owner/name@commit", see hub.py. The networks are in ERASEFLOW_PRECISION, with
    channels last; attention is PyTorch's fused one, diffusers' default.
    Raises: SystemExit with one line where something of it is missing.
    """
    folder = hub.snapshot(model, FILES)
    for name in ["model_index.json", *WEIGHTS]:
        if not (folder / name).is_file():
            raise SystemExit(f"{model}: has no {name}; expected a Stable Diffusion pipeline in diffusers' format")
    pipeline = StableDiffusionPipeline.from_pretrained(
        folder,
        dtype=cells.DTYPES[cells.PRECISION],
        use_safetensors=True,
        safety_checker=None,  # it would black out what is to be measured; the judges see every picture
        feature_extractor=None,
        requires_safety_checker=False,
        local_files_only=True,
    )
    pipeline.scheduler = DDIMScheduler.from_config(pipeline.scheduler.config)
    pipeline.unet.to(memory_format=torch.channels_last)
    pipeline.vae.to(memory_format=torch.channels_last)
    pipeline.vae.enable_slicing()  # at 512 pixels a whole batch of decoded pictures takes more memory than the U-Net
    pipeline.set_progress_bar_config(disable=True)
    return pipeline.to(device)
