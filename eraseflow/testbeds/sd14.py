"""The paper's testbed: Stable Diffusion 1.4 from the Hub, or any local folder with such a pipeline.

Its kept prompts are captions of COCO val2014, its real pictures those of the captions: all of them are compared with,
whichever captions a concept keeps, as the usual FID does.
"""

import os
import shutil
from pathlib import Path

import pandas as pd
import torch
from diffusers import DDIMScheduler, StableDiffusionPipeline
from torch import Tensor

from eraseflow import cells, environment, finite, hub, picture_files, prompts
from eraseflow.mistakes import nearest
from eraseflow.params import Testbed
from eraseflow.testbeds import base_model

MODEL = "CompVis/stable-diffusion-v1-4@133a221b8aa7292a167afc5127cb63fb5005638b"  # as params.yaml names it
BATCH = 8  # pictures drawn at once; an attack, which needs gradients, then stays below 24 GB
# What an edited model is shared under: its name on the Hub, and what to say.
LICENCE = (
    "creativeml-openrail-m",
    "CreativeML OpenRAIL-M, the licence of Stable Diffusion 1.4 (https://huggingface.co/spaces/CompVis/"
    "stable-diffusion-license), whose use-based restrictions (its attachment A) hold for this model too and must be "
    "passed on with it.",
)
WEIGHTS = [
    "text_encoder/model.safetensors",
    "unet/diffusion_pytorch_model.safetensors",
    "vae/diffusion_pytorch_model.safetensors",
]
CONFIGS = [
    "model_index.json",
    "scheduler/scheduler_config.json",
    *(f"{Path(name).parent}/config.json" for name in WEIGHTS),
]
FILES = ["model_index.json", "scheduler/*.json", "tokenizer/*", "*/config.json", *WEIGHTS]


def load_pipeline(model: str, device: str) -> StableDiffusionPipeline:
    """The base pipeline in evaluation mode with DDIM of the model's own schedule, without safety checker.

    model: a local folder or "owner/name@commit", see hub.py. The networks are in ERASEFLOW_PRECISION, with
    channels last; attention is PyTorch's fused one, diffusers' default.
    Raises: SystemExit, see `pipeline_folder`, or where a weight is not finite.
    """
    pipeline = StableDiffusionPipeline.from_pretrained(
        pipeline_folder(model),
        dtype=cells.DTYPES[cells.PRECISION],
        use_safetensors=True,
        safety_checker=None,  # it would black out what is to be measured; the judges see every picture
        feature_extractor=None,
        requires_safety_checker=False,
        local_files_only=True,
    )
    # Latents know no bounds: where the model's own config says nothing, DDIM would cut them to -1..1.
    pipeline.scheduler = DDIMScheduler.from_config(pipeline.scheduler.config, clip_sample=False)
    pipeline.unet.to(memory_format=torch.channels_last)
    pipeline.vae.to(memory_format=torch.channels_last)
    pipeline.vae.enable_slicing()  # at 512 pixels a whole batch of decoded pictures takes more memory than the U-Net
    pipeline.set_progress_bar_config(disable=True)
    if backend := os.environ.get("ERASEFLOW_COMPILE"):  # "inductor": minutes at first, then fewer bytes moved
        pipeline.unet.compile(backend=backend)
    pipeline = pipeline.to(device)
    finite.pipeline(pipeline, model)
    return pipeline


def pipeline_folder(model: str) -> Path:
    """Where the model is, fetched if need be.

    Raises: SystemExit with one line where something of it is missing, or where it is of an unsupported kind.
    """
    folder = hub.snapshot(model, FILES)
    for name in [*CONFIGS, *WEIGHTS]:
        if not (folder / name).is_file():
            what = "expected a Stable Diffusion pipeline in diffusers' format, downloaded whole"
            raise SystemExit(f"{model}: has no {name}; {what}")
    base_model.check(folder, model)
    return folder


def ready(testbed: Testbed, device: str) -> None:
    """Look for a GPU and for COCO, and fetch the model. Raises: SystemExit with one line that says what to do."""
    gpu(device)
    compiler()
    _complete(coco(testbed) / "val2014", real_names(testbed))
    pipeline_folder(testbed.model)


def gpu(device: str) -> None:
    """`device` is ERASEFLOW_DEVICE and asks for a GPU unless it is "cpu". Raises: SystemExit where it is not there."""
    if device == "cpu":
        return
    if not torch.cuda.is_available():
        what = "run where there is one, or with ERASEFLOW_DEVICE=cpu, which takes weeks"
        raise SystemExit(f"sd14: {environment.gpus(0)}; {what}")
    environment.precision(environment.device(device))


def compiler() -> None:
    """Raises: SystemExit where ERASEFLOW_COMPILE names no back end of torch.compile, or one without its C compiler."""
    if not (backend := os.environ.get("ERASEFLOW_COMPILE")):
        return
    known = torch.compiler.list_backends(exclude_tags=("debug", "experimental"))
    if backend not in torch.compiler.list_backends(exclude_tags=()):
        raise SystemExit(f"ERASEFLOW_COMPILE: torch.compile has no back end {backend!r}{nearest(backend, known)}")
    if backend == "inductor" and not any(map(shutil.which, (os.environ.get("CXX", "g++"), "g++", "clang++"))):
        raise SystemExit("ERASEFLOW_COMPILE: inductor needs a C++ compiler (g++ or clang++), and none is on the PATH")


def coco(testbed: Testbed) -> Path:
    """COCO's folder. Raises: SystemExit with one line where val2014/ or its captions are missing."""
    folder = Path(testbed.coco or "")
    for name in ("val2014", "captions_val2014.json"):
        if not testbed.coco or not (folder / name).exists():
            raise SystemExit(
                f"{testbed.coco or 'no folder'}: has no {name}; testbeds.sd14.coco must be a folder with val2014/ and "
                "captions_val2014.json, from val2014.zip and annotations_trainval2014.zip of cocodataset.org"
            )
    return folder


def real_names(testbed: Testbed) -> list[str]:
    """The files in val2014/ whose captions are the kept prompts."""
    return list(prompts.every_kept(testbed).expect)


def outside(testbed: Testbed) -> list[Path]:
    """The real pictures' files."""
    return [coco(testbed) / "val2014" / name for name in real_names(testbed)]


def real_pictures(testbed: Testbed, names: list[str]) -> list[Tensor]:
    """COCO's own pictures (3, h, w) uint8, each of its own size.

    Read as clean-fid reads them for the usual FID: `convert("RGB")`, without turning those few whose EXIF asks for it.
    Raises: SystemExit where one is missing or cannot be read.
    """
    folder = coco(testbed) / "val2014"
    _complete(folder, names)
    return [torch.from_numpy(picture_files.read_plainly(folder / name)).permute(2, 0, 1) for name in names]


def _complete(folder: Path, names: list[str]) -> None:
    """Raises: SystemExit where one of COCO's pictures is missing."""
    for name in names:
        if not (folder / name).is_file():
            raise SystemExit(f"{folder}: has no {name}, the picture of a kept prompt; unpack all of val2014.zip")


def compared(names: list[str], expect: pd.Series) -> list[int]:
    """All of them."""
    return list(range(len(names)))
