"""The networks of the sd14 testbed with random weights, where the suite looks for the published ones.

Each has the published architecture and lies in the layout of huggingface_hub's cache or of PyTorch's downloads, so that
the suite's own loading finds it, checks its hash and reads it. Each is built, saved and dropped before the next.
"""

import hashlib
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import open_clip
import torch
from diffusers import AutoencoderKL, PNDMScheduler, StableDiffusionPipeline, UNet2DConditionModel
from open_clip.tokenizer import SimpleTokenizer
from safetensors.torch import save_file
from sd14_shape import UNET
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from torch import nn
from torchvision.models import inception_v3, resnet50
from transformers import (
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTokenizer,
    PreTrainedTokenizerFast,
    Qwen2VLConfig,
    Qwen2VLForConditionalGeneration,
    Qwen2VLImageProcessor,
    Qwen2VLProcessor,
    Qwen2VLVideoProcessor,
    ViTConfig,
    ViTForImageClassification,
)
from transformers import ViTImageProcessor as Prepare

from eraseflow.hub import ADDRESS
from eraseflow.judges import artist, csd, imagenet_objects, vqa
from eraseflow.metrics import clean_fid_inception, clip_vit_b32, clip_vit_l14
from eraseflow.testbeds import sd14

# The published text_encoder/config.json and vae/config.json of Stable Diffusion 1.4; sd14_shape.py has the U-Net's.
TEXT = {
    "hidden_size": 768,
    "intermediate_size": 3072,
    "projection_dim": 768,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
}
VAE = {"block_out_channels": (128, 256, 512, 512), "layers_per_block": 2, "norm_num_groups": 32, "sample_size": 512}
SCHEDULE = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear", "steps_offset": 1}
# The published config.json of Qwen2-VL-2B-Instruct and, of its tokenizer and chat template, what one picture needs.
QWEN = {
    "text_config": {
        "vocab_size": 151_936,
        "hidden_size": 1536,
        "intermediate_size": 8960,
        "num_hidden_layers": 28,
        "num_attention_heads": 12,
        "num_key_value_heads": 2,
        "rope_parameters": {"rope_type": "default", "mrope_section": [16, 24, 24], "rope_theta": 1_000_000.0},
    },
    "vision_config": {"depth": 32, "embed_dim": 1280, "hidden_size": 1536, "num_heads": 16, "mlp_ratio": 4},
    "tie_word_embeddings": True,
}
SPECIAL = [f"<|{name}|>" for name in ("endoftext", "im_start", "im_end")]
PLACES = {f"{name}_token_id": f"<|{name}|>" for name in ("vision_start", "vision_end")}
PLACES |= {f"{name}_token_id": f"<|{name}_pad|>" for name in ("image", "video")}
CHAT = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{% for c in m.content %}{% if c.type == 'image' %}"
    "<|vision_start|><|image_pad|><|vision_end|>{% else %}{{ c.text }}{% endif %}{% endfor %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
Shape = dict[str, dict[str, Any]]


def shape(pixels: int) -> Shape:
    """Stable Diffusion 1.4's, for pictures of this side, a multiple of 64: it says how large its pictures are."""
    return {"unet": UNET | {"sample_size": pixels // 8}, "text": TEXT, "vae": VAE}


def pipeline(folder: Path, shape: Shape) -> None:
    """Save a StableDiffusionPipeline of these shapes, with CLIP's own tokenizer of 49,408 tokens."""
    words = tokenizer()
    ends = {f"{name}_token_id": getattr(words, f"{name}_token_id") for name in ("bos", "eos", "pad")}
    text = CLIPTextConfig(vocab_size=len(words), hidden_act="quick_gelu", **ends, **shape["text"])
    whole = StableDiffusionPipeline(
        vae=AutoencoderKL(**autoencoder(shape)),
        text_encoder=CLIPTextModel(text),
        tokenizer=words,
        unet=UNet2DConditionModel(**shape["unet"]),
        scheduler=PNDMScheduler(skip_prk_steps=True, set_alpha_to_one=False, **SCHEDULE),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    whole.save_pretrained(folder)


def autoencoder(shape: Shape) -> dict[str, Any]:
    """The arguments of an AutoencoderKL."""
    blocks = len(shape["vae"]["block_out_channels"])
    sides = {"down_block_types": ("DownEncoderBlock2D",) * blocks, "up_block_types": ("UpDecoderBlock2D",) * blocks}
    return sides | shape["vae"]


def tokenizer() -> CLIPTokenizer:
    """CLIP's, from the vocabulary that open_clip brings along."""
    words = SimpleTokenizer()
    names = {"<start_of_text>": "<|startoftext|>", "<end_of_text>": "<|endoftext|>"}
    vocabulary = {names.get(token, token): index for token, index in words.encoder.items()}
    return CLIPTokenizer(vocab=vocabulary, merges=list(words.bpe_ranks), model_max_length=77)


def clip(config: str) -> Callable[[Path], None]:
    """Saves a network of one of open_clip's configurations."""

    def save(folder: Path) -> None:
        state = open_clip.create_model(config).state_dict()
        save_file({name: value.contiguous() for name, value in state.items()}, folder / clip_vit_l14.WEIGHTS)

    return save


def style(folder: Path) -> None:
    """Save a checkpoint of CSD ViT-L."""
    network = csd.StyleNetwork()
    nn.init.normal_(network.last_layer_style, std=0.02)
    state = {f"module.{name}": value for name, value in network.state_dict().items()}
    torch.save({"model_state_dict": state}, folder / csd.FILE)


def questions(folder: Path) -> None:
    """Save a vision-language model of Qwen2-VL-2B-Instruct's shape, whose tokenizer has learned one instruction alone.

    In bf16 as the published one where there is a GPU; with it a processor without bf16 took seven times as long.
    """
    byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False)
    words = Tokenizer(models.BPE())
    words.pre_tokenizer, words.decoder = byte_level, decoders.ByteLevel()
    special = [*SPECIAL, *PLACES.values()]
    trainer = trainers.BpeTrainer(special_tokens=special, initial_alphabet=byte_level.alphabet())
    words.train_from_iterator([f"{vqa.INSTRUCTION} yes no Yes No"] * 9, trainer)
    tokens = PreTrainedTokenizerFast(tokenizer_object=words, pad_token=special[0], extra_special_tokens=special[1:])
    ids = {name: tokens.convert_tokens_to_ids(token) for name, token in PLACES.items()}
    dtype = torch.bfloat16 if torch.cuda.is_available() else torch.float32
    network = Qwen2VLForConditionalGeneration._from_config(Qwen2VLConfig(**QWEN, **ids), dtype=dtype)
    network.save_pretrained(folder)
    Qwen2VLProcessor(Qwen2VLImageProcessor(), tokens, Qwen2VLVideoProcessor(), chat_template=CHAT).save_pretrained(
        folder
    )


def artists(folder: Path) -> None:
    """Save UnlearnDiffAtk's classifier, a ViT-B, as transformers does, if it is not there yet."""
    if (folder / "config.json").exists():
        return
    ViTForImageClassification(ViTConfig(num_labels=len(artist.LABELS))).save_pretrained(folder)
    Prepare().save_pretrained(folder)


class Archive(nn.Module):
    """As the published archive of Inception-V3: its `layers` give the 2,048 features."""

    def __init__(self) -> None:
        super().__init__()
        network = inception_v3(weights=None, aux_logits=False, transform_input=False, init_weights=False).eval()
        network.fc = nn.Identity()
        self.layers = torch.jit.trace(network, torch.rand(2, 3, 299, 299))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layers(x)


def build(home: Path, shape: Shape, judging: list[str]) -> dict[str, str]:
    """Save what is not there yet below `home`, the testbed's pipeline and the networks of these metrics and judges.

    Returns the environment variables by which the suite finds them.
    """
    torch.manual_seed(0)
    cache, downloads = home / "hub", home / "torch"
    hub = {
        "sd14": (sd14.MODEL, lambda folder: pipeline(folder, shape)),
        "csd": (csd.SOURCE, style),
        "vqa": (vqa.SOURCE, questions),
    }
    for module in (clip_vit_l14, clip_vit_b32):
        hub[module.__name__.rpartition(".")[2]] = (module.SOURCE, clip(module.CONFIG))
    for name in ["sd14", *(name for name in judging if name in hub)]:
        _cache(cache, *hub[name])
    checkpoints = downloads / "hub" / "checkpoints"
    checkpoints.mkdir(parents=True, exist_ok=True)
    if "clean_fid_inception" in judging and not (path := checkpoints / clean_fid_inception.FILE).exists():
        torch.jit.script(Archive()).save(str(path))
    name = imagenet_objects.WEIGHTS.url.rpartition("/")[2]
    if "imagenet_objects" in judging and not (path := checkpoints / name).exists():
        torch.save(resnet50().state_dict(), path)
    return {"HF_HUB_CACHE": str(cache), "HF_HUB_OFFLINE": "1", "TORCH_HOME": str(downloads)}


def hashes(home: Path) -> dict[str, str]:
    """The SHA-256 of each file in PyTorch's downloads."""
    return {path.name: sha256(path) for path in sorted((home / "torch" / "hub" / "checkpoints").glob("*.pt*"))}


def _cache(cache: Path, source: str, save: Callable[[Path], None]) -> None:
    """Save a network as a commit of huggingface_hub's cache: files named by their hash, and links to them."""
    match = ADDRESS.fullmatch(source)
    assert match, source
    repository = cache / f"models--{match['repo'].replace('/', '--')}"
    commit = repository / "snapshots" / match["revision"]
    if commit.exists():
        return
    made, linked = repository / "unfinished", repository / "links"
    for folder in (made, linked):
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
    save(made)
    (repository / "blobs").mkdir(exist_ok=True)
    for file in [path for path in made.rglob("*") if path.is_file()]:
        blob, link = repository / "blobs" / sha256(file), linked / file.relative_to(made)
        file.replace(blob)
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(os.path.relpath(blob, commit / file.relative_to(made).parent))
    commit.parent.mkdir(exist_ok=True)
    linked.rename(commit)
    shutil.rmtree(made)


def sha256(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
