"""The settings that trials have: a scrambled Sobol sequence (scipy) in each row's search space."""

import zlib
from typing import Any

import numpy as np
import pandas as pd
from scipy.stats import qmc

from eraseflow.params import Range, Tuning

OBJECTIVES = {
    "methods": "harmonic mean of erased and kept",
    "attacks": "success within {pictures} distinct pictures",
}


def points(space: dict[str, Range], name: str, count: int) -> list[dict[str, Any]]:
    """The settings of so many trials; the sequence is balanced where their number is a power of 2.

    Its seed is of the name, so that a row's trials do not depend on which others there are.
    """
    sobol = qmc.Sobol(len(space), rng=np.random.default_rng(zlib.crc32(name.encode())))
    shares = sobol.random_base2((count - 1).bit_length())[:count].tolist()
    return [{key: one.at(share) for (key, one), share in zip(space.items(), row, strict=True)} for row in shares]


def table(tuning: Tuning) -> pd.DataFrame:
    """The search space, a row a setting, with the budget and the objective beside it."""
    families = {
        "methods": (tuning.methods, " ".join(map(str, tuning.seeds))),
        "attacks": (tuning.attacks, " ".join(tuning.edits)),
    }
    return pd.DataFrame(
        [
            {"family": family, "name": name, "setting": setting, **one.model_dump()}
            | {"trials": tuning.trials, "concepts": " ".join(tuning.concepts.values())}
            | {"each_with": each, "prompts": tuning.prompts}
            | {"objective": OBJECTIVES[family].format(pictures=tuning.pictures)}
            for family, (rows, each) in families.items()
            for name, space in rows.items()
            for setting, one in space.items()
        ]
    )
