"""Changes of pictures on white, with which the testbed's networks are trained: moved, turned, recoloured, inked."""

import numpy as np
import torch
from torch import Tensor


def augment(images: Tensor, rng: np.random.Generator, strength: float = 1.0) -> Tensor:
    """Transform each of (n, 3, h, w) images in [0, 1] on its own.

    At strength 1: turned by at most 8 degrees, scaled by 0.88 to 1.1, shifted by at most 6 % of the side
    and changed in brightness and contrast by at most 6 %. What comes in at the edges is white.
    """
    n = len(images)
    turn = rng.uniform(-1, 1, n) * np.deg2rad(8) * strength
    scale = np.exp(rng.uniform(-0.10, 0.13, n) * strength)  # of the sampling grid: > 1 shrinks the picture
    cos, sin = np.cos(turn) * scale, np.sin(turn) * scale
    shift = rng.uniform(-0.12, 0.12, (n, 2)) * strength  # the side is 2 in grid units
    theta = np.stack([np.stack([cos, -sin, shift[:, 0]], 1), np.stack([sin, cos, shift[:, 1]], 1)], 1)
    grid = torch.nn.functional.affine_grid(torch.from_numpy(theta).float(), list(images.shape), align_corners=False)
    moved = 1 + torch.nn.functional.grid_sample(images - 1, grid, align_corners=False)
    gain = torch.from_numpy(rng.uniform(-0.06, 0.06, (2, n, 1, 1, 1)) * strength).float()
    return (1 + (moved - 1) * (1 + gain[0]) + gain[1].clamp(max=0)).clamp(0, 1)


def recolour(images: Tensor, rng: np.random.Generator) -> Tensor:
    """Turn the hue of each of (n, 3, h, w) images by some 20 degrees and change its saturation by at most 30 %.

    In the YIQ colour space; grey stays grey, so that ink stays ink.
    """
    to_yiq = torch.tensor([[0.299, 0.587, 0.114], [0.5959, -0.2746, -0.3213], [0.2115, -0.5227, 0.3112]])
    n = len(images)
    turn, gain = rng.normal(0, np.deg2rad(20), n), rng.uniform(0.7, 1.3, n)
    matrix = np.zeros((n, 3, 3))
    matrix[:, 0, 0] = 1
    matrix[:, 1, 1] = matrix[:, 2, 2] = gain * np.cos(turn)
    matrix[:, 1, 2], matrix[:, 2, 1] = -gain * np.sin(turn), gain * np.sin(turn)
    change = torch.linalg.inv(to_yiq) @ torch.from_numpy(matrix).float() @ to_yiq
    return torch.einsum("nij,njhw->nihw", change, images).clamp(0, 1)


def ink(images: Tensor, rng: np.random.Generator) -> Tensor:
    """Black and white versions of (n, 3, h, w) images, half of them filled shapes and half outlines.

    As an artist with a pen might draw the same thing: what is dark, or where brightness changes, is black.
    """
    grey = (images * torch.tensor([0.299, 0.587, 0.114]).view(1, 3, 1, 1)).sum(1, keepdim=True)
    padded = torch.nn.functional.pad(grey, (1, 1, 1, 1), mode="replicate")
    across, down = padded[..., 1:-1, 2:] - padded[..., 1:-1, :-2], padded[..., 2:, 1:-1] - padded[..., :-2, 1:-1]
    edges = (across.square() + down.square()).sqrt()
    n = (len(images), 1, 1, 1)
    level, edge = (torch.from_numpy(rng.uniform(low, high, n)).float() for low, high in ((0.35, 0.9), (0.08, 0.3)))
    filled, outlined = torch.sigmoid(25 * (grey - level)), torch.sigmoid(40 * (edge - edges))
    return torch.where(torch.from_numpy(rng.random(n) < 0.5), filled, outlined).expand(-1, 3, -1, -1)
