"""NaN and infinity stop a stage in one line that says where they first appeared.

A network of NaNs draws black pictures, in which no judge sees any concept, so that the row would be the best of the
table. Everything that passes from one part to the next is looked at: weights when they are loaded, edited and saved,
each step of a training, each solver step, what an attack learns, judges' scores, features and scores, and files.
Nothing is changed, and a GPU is waited for at most once a batch or training step: sums are kept where they are
computed (they are finite where all their terms are; float64 does not overflow) and read together.
"""

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pandas as pd
    from torch import Tensor
    from torch.optim import Optimizer


class NotFinite(SystemExit):
    """Something is NaN or infinite; printed as one line, exit status 1."""


def check(where: str, named: "Iterable[tuple[str, Tensor]]") -> None:
    """Raises: NotFinite that names the first of these tensors, on any devices, that holds NaN or infinity."""
    import torch  # here and below, since much that writes a file does without it

    floats = [(name, tensor.detach()) for name, tensor in named if tensor.is_floating_point()]
    sums = [tensor.sum(dtype=torch.float32) for _, tensor in floats]
    if not sums or torch.stack([one.to(sums[0].device) for one in sums]).isfinite().all():
        return
    for name, tensor in floats:  # a sum in float32 may overflow though its terms are finite
        if not (finite := tensor.isfinite()).all():
            raise NotFinite(f"{where}: {name} is not finite ({tensor[~finite].flatten()[0].item()})")


def pipeline(pipeline: Any, model: str) -> None:
    """Raises: NotFinite that names the first weight of a base model that is not finite in the precision it is in."""
    for part in ("text_encoder", "unet", "vae"):
        check(f"{model}: {part}", getattr(pipeline, part).named_parameters())


def step(where: str, optimiser: "Optimizer") -> None:
    """The optimiser's step. Raises: NotFinite where it is too large for its weights' precision."""
    try:
        optimiser.step()
    except RuntimeError as error:
        if "without overflow" not in str(error):
            raise
        raise NotFinite(f"{where}: the optimiser's step is not finite; its learning rate is too large") from None


def numbers(where: str, values: Any) -> None:
    """Raises: NotFinite that names the first number of nested mappings and sequences that is NaN or infinite."""
    if found := _first(values):
        raise NotFinite(f"{where}: {found[0]} is not finite ({found[1]})")


def table(where: str, frame: "pd.DataFrame", names: Sequence[str] | None = None) -> None:
    """Raises: NotFinite that names the first row (by `names`, else by its place) and column of no finite number."""
    import numpy as np
    import pandas as pd

    values = frame[[name for name in frame.columns if pd.api.types.is_float_dtype(frame[name])]]
    wrong = ~np.isfinite(values.to_numpy(float))
    if wrong.any():
        row, column = next(zip(*wrong.nonzero(), strict=True))
        name = f"row {row + 1}" if names is None else names[row]
        raise NotFinite(f"{where}: {name}: {values.columns[column]} is not finite ({float(values.iloc[row, column])})")


def as_json(where: str, values: Any, **options: Any) -> str:
    """The text of a JSON file, which may hold no NaN. Raises: NotFinite, see `numbers`."""
    numbers(where, values)
    return json.dumps(values, allow_nan=False, **options) + "\n"


class Watch:
    """Whether the rows of a batch stay finite from step to step."""

    def __init__(self) -> None:
        self.sums: list[Tensor] = []

    def see(self, batch: "Tensor") -> None:
        """Note a step's batch (n, ...); a GPU is not waited for."""
        self.sums.append(row_sums(batch))

    def first(self) -> tuple[int, int] | None:
        """The first step, from 0, with a row that is not finite, and the first such row; this waits for a GPU."""
        import torch

        if not self.sums:
            return None
        wrong = ~torch.stack(self.sums).isfinite()
        if not wrong.any():
            return None
        step, row = wrong.nonzero()[0].tolist()
        return step, row


def row_sums(batch: "Tensor") -> "Tensor":
    """Sums (n,) of a batch (n, ...), each finite where all of its row is."""
    import torch

    return batch.detach().flatten(1).sum(1, dtype=torch.float64)


def named(names: Sequence[str], row: int) -> str:
    """A row by its name, such as a prompt's id, or by its place in its batch where there are no names."""
    return names[row] if len(names) else f"picture {row + 1} of a batch"


def _first(values: Any, path: str = "") -> tuple[str, float] | None:
    if isinstance(values, float):  # numpy's float64 is one, too
        return None if math.isfinite(values) else (path or "a number", values)
    pairs: Iterable[tuple[Any, Any]] = ()
    if isinstance(values, Mapping):
        pairs = values.items()
    elif isinstance(values, list | tuple):
        pairs = enumerate(values)
    for key, value in pairs:
        if found := _first(value, f"{path}.{key}" if path else str(key)):
            return found
    return None
