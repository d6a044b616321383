"""CLIP ViT-L/14 of OpenAI (Radford et al., ICML 2021), the weights in open_clip's format from the Hub."""

from eraseflow import hub
from eraseflow.metrics.image_text import ImageText, build, similarity

__all__ = ["load", "ready", "similarity"]

SOURCE = "timm/vit_large_patch14_clip_224.openai@18d0535469bb561bf468d76c1d73aa35156c922b"
WEIGHTS = "open_clip_model.safetensors"
CONFIG = "ViT-L-14-quickgelu"  # OpenAI's networks have this activation
NAME = "ViT-L/14"


def ready() -> None:
    """Fetch the weights. Raises: SystemExit as hub.file does."""
    hub.file(SOURCE, WEIGHTS)


def load(device: str) -> ImageText:
    """The network. Raises: SystemExit as hub.file does."""
    return build(CONFIG, hub.file(SOURCE, WEIGHTS), device, NAME)
