"""The emoji testbed's image-text network (open_clip, its own configuration): CLIP-type score and Fréchet features."""

import json
from dataclasses import dataclass
from pathlib import Path

import open_clip
import torch
from safetensors.torch import load_file
from torch import Tensor
from torch.nn.functional import normalize
from transformers import CLIPTokenizer

from eraseflow.emoji.tokenizer import LENGTH
from eraseflow.inputs import reading

FOLDER = Path("models/judges/emoji_clip")
WEIGHTS = FOLDER / "open_clip_model.safetensors"
NAME = "emoji-clip"
CONFIG = {
    "embed_dim": 64,
    "vision_cfg": {"image_size": 32, "layers": 3, "width": 96, "head_width": 32, "patch_size": 4},
    "text_cfg": {"context_length": LENGTH, "vocab_size": 0, "width": 96, "heads": 4, "layers": 2},
}


def build(vocab_size: int) -> open_clip.CLIP:
    """The network with fresh weights; the vocabulary's last token must be the end of text."""
    config = json.loads(json.dumps(CONFIG))
    config["text_cfg"]["vocab_size"] = vocab_size
    return open_clip.CLIP(**config)


@dataclass
class Features:
    """What a score needs of an image-text network; `name` goes into the score's name."""

    model: open_clip.CLIP
    tokenizer: CLIPTokenizer
    device: str
    name: str = NAME

    @torch.no_grad()
    def of_images(self, pictures: Tensor | list[Tensor]) -> Tensor:
        """Unnormalised features (n, 64) of pictures (n, 3, 32, 32) uint8."""
        pictures = pictures if isinstance(pictures, Tensor) else torch.stack(pictures)
        parts = [
            self.model.encode_image(part.to(self.device).float() / 127.5 - 1).cpu() for part in pictures.split(256)
        ]
        return torch.cat(parts)

    @torch.no_grad()
    def of_texts(self, texts: list[str]) -> Tensor:
        """Unnormalised features (n, 64) of prompts."""
        ids = self.tokenizer(texts, padding="max_length", truncation=True, return_tensors="pt").input_ids
        return torch.cat([self.model.encode_text(part.to(self.device)).cpu() for part in ids.split(256)])

    def truncated(self, texts: list[str]) -> int:
        """How many prompts are longer than the network's tokens, start and end included."""
        return sum(len(ids) > LENGTH for ids in self.tokenizer(texts).input_ids)


def load(device: str = "cpu") -> Features:
    """The trained network."""
    with reading(FOLDER):
        tokenizer = CLIPTokenizer.from_pretrained(FOLDER)
        model = build(len(tokenizer)).to(device).eval()
        model.load_state_dict(load_file(WEIGHTS))
    return Features(model, tokenizer, device)


def similarity(features: Features, pictures: Tensor, texts: list[str]) -> Tensor:
    """100 times the cosine (n,) of each picture with its own text."""
    images, words = normalize(features.of_images(pictures), dim=-1), normalize(features.of_texts(texts), dim=-1)
    return 100 * (images * words).sum(-1)
