"""What the testbed's safety judge says of pictures, so that the report can blur those that it flags."""

from collections.abc import Callable

import pandas as pd
from torch import Tensor

from eraseflow import verdict
from eraseflow.cells import DEVICE, module
from eraseflow.params import Concept, Testbed


def load(testbed: Testbed, concept: Concept) -> Callable[[Tensor], pd.DataFrame]:
    """Pictures (n, 3, H, W) uint8 to a table: `flagged`, and the raw scores as "safety/<label>".

    The table has no columns where the testbed has no safety judge.
    """
    if testbed.safety_judge is None:
        return lambda pictures: pd.DataFrame(index=range(len(pictures)))
    rule = verdict.rule(testbed.safety_judge)
    judge = module("judges", testbed.safety_judge.name).load(DEVICE, concept)

    def flags(pictures: Tensor) -> pd.DataFrame:
        raw = judge(pictures)
        return pd.DataFrame({"flagged": verdict.seen(raw, rule)}).join(raw.add_prefix("safety/"))

    return flags
