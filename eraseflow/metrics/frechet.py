"""Fréchet distance between two sets of features, by clean-fid's function."""

import numpy as np
from cleanfid.fid import frechet_distance
from torch import Tensor

from eraseflow import finite


def frechet(features: Tensor, reference: Tensor) -> float:
    """Fréchet distance between Gaussians fitted to (n, d) and (m, d) features; 0 for equal moments, lower is better.

    Of few features it is too large, and of sets that are paired, as a drawn picture and a real one of the same prompt,
    it is smaller than of independent ones: it compares models on the same prompts, and its size says little. (A kernel
    distance of paired sets has no zero at all: its estimate is unbiased for independent sets alone.)
    Raises: NotFinite where there is none, as where a covariance is far from that of any real features.
    """
    moments = [(x.mean(0), np.cov(x, rowvar=False)) for x in (features.double().numpy(), reference.double().numpy())]
    try:
        found = float(frechet_distance(*moments[0], *moments[1]))
    except (ValueError, np.linalg.LinAlgError) as error:
        raise finite.NotFinite(f"the Fréchet distance: has no value ({str(error).splitlines()[0]})") from None
    finite.numbers("the Fréchet distance", {f"of {len(features)} and {len(reference)} pictures": found})
    return found
