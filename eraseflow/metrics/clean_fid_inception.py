"""Inception-V3 features as clean-fid takes them (Parmar et al., CVPR 2022): the network of the usual FID.

Each picture is resized to 299 x 299 by clean-fid's own "clean" resizing (PIL, bicubic, antialiased, not rounded to
whole numbers after it), which is what makes its FID differ from others.

The network is the file that clean-fid itself downloads, a TorchScript archive. Its code is interpreted by PyTorch
and its constants are read by PyTorch's own reader: no Python is run or unpickled. It is a program all the same,
so it is opened only if its SHA-256 is the one below, whatever the folder it lies in.
"""

import hashlib
import urllib.error
from collections.abc import Iterable
from pathlib import Path

import torch
from cleanfid.downloads_helper import inception_url
from cleanfid.inception_torchscript import InceptionV3W
from cleanfid.resize import build_resizer
from torch import Tensor

from eraseflow.metrics.image_text import batches

FILE = "inception-2015-12-05.pt"
SHA256 = "f58cb9b6ec323ed63459aa4fb441fe750cfe39fafad6da5cb504a16f19e958f4"
NAME = "clean-fid Inception-V3"
BATCH = 64


class Inception:
    """`network` takes (n, 3, 299, 299) float in 0..255 and gives (n, 2048) features."""

    name = NAME

    def __init__(self, network: torch.nn.Module, device: str) -> None:
        self.network, self.device = network.to(device).eval(), device
        self.resize = build_resizer("clean")

    @torch.no_grad()
    def of_images(self, pictures: Iterable[Tensor]) -> Tensor:
        """Features (n, 2048) of pictures (3, h, w) uint8, which may differ in size."""
        resized = (torch.from_numpy(self.resize(picture.permute(1, 2, 0).numpy())) for picture in pictures)
        stacks = (torch.stack(part).permute(0, 3, 1, 2) for part in batches(resized, BATCH))
        return torch.cat([self.network(stack.to(self.device)).cpu() for stack in stacks])


def ready() -> Path:
    """The network's file in PyTorch's own folder of downloads (TORCH_HOME), fetched if it is not there, and checked.

    Raises: SystemExit with one line where it cannot be fetched or is another file.
    """
    path = Path(torch.hub.get_dir()) / "checkpoints" / FILE
    if not path.is_file():
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            torch.hub.download_url_to_file(inception_url, str(path), hash_prefix=SHA256)
        except (OSError, RuntimeError, urllib.error.URLError) as error:
            raise SystemExit(f"{inception_url}: cannot be fetched ({error}); put this file at {path}") from None
    with path.open("rb") as stream:
        found = hashlib.file_digest(stream, "sha256").hexdigest()
    if found != SHA256:
        raise SystemExit(f"{path}: has the SHA-256 {found}, expected {SHA256}; delete it")
    return path


def load(device: str) -> Inception:
    """The network. Raises: SystemExit as `ready` does."""
    return Inception(InceptionV3W(str(ready().parent), download=False), device)
