"""Fréchet and kernel distance between two sets of features, by clean-fid's functions."""

import numpy as np
from cleanfid.fid import frechet_distance, kernel_distance
from torch import Tensor

from eraseflow import finite

KERNEL_SUBSETS = 100


def frechet(features: Tensor, reference: Tensor) -> float:
    """Fréchet distance between Gaussians fitted to (n, d) and (m, d) features; 0 for equal moments, lower is better.

    Raises: NotFinite where there is none, as where a covariance is far from that of any real features.
    """
    moments = [(x.mean(0), np.cov(x, rowvar=False)) for x in (features.double().numpy(), reference.double().numpy())]
    try:
        found = float(frechet_distance(*moments[0], *moments[1]))
    except (ValueError, np.linalg.LinAlgError) as error:
        raise finite.NotFinite(f"the Fréchet distance: has no value ({str(error).splitlines()[0]})") from None
    finite.numbers("the Fréchet distance", {f"of {len(features)} and {len(reference)} pictures": found})
    return found


def kernel(features: Tensor, reference: Tensor, seed: int) -> float:
    """Unbiased kernel distance (KID, cubic kernel) over random subsets of at most 1000; lower is better.

    clean-fid draws the subsets from numpy's global generator: it is seeded here and put back.
    """
    state = np.random.get_state()
    np.random.seed(seed)
    try:
        return kernel_distance(features.double().numpy(), reference.double().numpy(), num_subsets=KERNEL_SUBSETS)
    finally:
        np.random.set_state(state)
