"""CLIP ViT-B/32 of OpenAI (Radford et al., ICML 2021), the weights in open_clip's format from the Hub."""

from eraseflow import hub
from eraseflow.metrics.image_text import ImageText, build, similarity

__all__ = ["load", "ready", "similarity"]

SOURCE = "timm/vit_base_patch32_clip_224.openai@a6f597a30f7b82c51704746581f9a4e41421e878"
WEIGHTS = "open_clip_model.safetensors"
CONFIG = "ViT-B-32-quickgelu"  # OpenAI's networks have this activation
NAME = "ViT-B/32"


def ready() -> None:
    """Fetch the weights. Raises: SystemExit as hub.file does."""
    hub.file(SOURCE, WEIGHTS)


def load(device: str) -> ImageText:
    """The network. Raises: SystemExit as hub.file does."""
    return build(CONFIG, hub.file(SOURCE, WEIGHTS), device, NAME)
