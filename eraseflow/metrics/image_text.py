"""CLIP networks of open_clip as a score: cosine of a picture with its prompt, and features of pictures."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import open_clip
import torch
from PIL import Image
from torch import Tensor
from torch.nn.functional import normalize

BATCH = 64


@dataclass
class ImageText:
    """An image-text network with its own preparation of pictures and texts; `name` goes into the score's name."""

    model: open_clip.CLIP
    prepare: Callable[[Image.Image], Tensor]
    tokenizer: open_clip.SimpleTokenizer
    device: str
    name: str

    @torch.no_grad()
    def of_images(self, pictures: Iterable[Tensor]) -> Tensor:
        """Unnormalised features (n, d) of pictures (3, h, w) uint8, which may differ in size."""
        prepared = (self.prepare(Image.fromarray(picture.permute(1, 2, 0).numpy())) for picture in pictures)
        parts = [self.model.encode_image(torch.stack(part).to(self.device)).cpu() for part in batches(prepared, BATCH)]
        return torch.cat(parts)

    @torch.no_grad()
    def of_texts(self, texts: Sequence[str]) -> Tensor:
        """Unnormalised features (n, d) of prompts, cut to the network's length."""
        ids = self.tokenizer(list(texts))
        return torch.cat([self.model.encode_text(part.to(self.device)).cpu() for part in ids.split(BATCH)])

    def truncated(self, texts: Iterable[str]) -> int:
        """How many prompts are longer than the network's 77 tokens, start and end included."""
        return sum(len(self.tokenizer.encode(text)) + 2 > self.tokenizer.context_length for text in texts)


def build(config: str, weights: Path, device: str, name: str) -> ImageText:
    """The network of one of open_clip's configurations with weights of a safetensors file, in float32."""
    model, _, prepare = open_clip.create_model_and_transforms(config, pretrained=str(weights), device=device)
    return ImageText(model.eval(), prepare, open_clip.get_tokenizer(config), device, name)


def similarity(network: ImageText, pictures: Iterable[Tensor], texts: Sequence[str]) -> Tensor:
    """100 times the cosine (n,) of each picture with its own text (CLIP score without its cut at 0; -100..100)."""
    images, words = normalize(network.of_images(pictures), dim=-1), normalize(network.of_texts(texts), dim=-1)
    return 100 * (images * words).sum(-1)


def batches(items: Iterable[Tensor], size: int) -> Iterator[list[Tensor]]:
    """The items in lists of `size`, the last one shorter."""
    iterator = iter(items)
    while part := list(islice(iterator, size)):
        yield part
