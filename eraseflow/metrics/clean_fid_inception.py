"""Inception-V3 features as clean-fid takes them (Parmar et al., CVPR 2022): the network of the usual FID.

Each picture is resized to 299 x 299 by clean-fid's own "clean" resizing (PIL, bicubic, antialiased, not rounded to
whole numbers after it), which is what makes its FID differ from others.

The network is the file that clean-fid itself downloads, a TorchScript archive. Its code is interpreted by PyTorch
and its constants are read by PyTorch's own reader: no Python is run or unpickled. It is a program all the same,
so it is opened only if its SHA-256 is the one below, whatever the folder it lies in.
"""

from collections.abc import Iterable
from pathlib import Path

import torch
from cleanfid.downloads_helper import inception_url
from cleanfid.inception_torchscript import InceptionV3W
from cleanfid.resize import build_resizer
from torch import Tensor

from eraseflow.hub import torch_home
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
    """The network's file, fetched if it is not there. Raises: SystemExit as torch_home.file does."""
    return torch_home.file(inception_url, FILE, SHA256)


def load(device: str) -> Inception:
    """The network. Raises: SystemExit as `ready` does."""
    return Inception(InceptionV3W(str(ready().parent), download=False), device)
