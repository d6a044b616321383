"""The training loop that the methods share: weights, their optimiser, and the history of the steps."""

import time
from collections.abc import Iterator
from math import inf

import torch
from torch import Tensor
from tqdm import trange

from eraseflow import finite
from eraseflow.edits import Edit


class FineTuning:
    """Weights in training, in float32 whatever the network's precision.

    A small step would be rounded away in half precision, so the optimiser has float32 copies as its parameters (in
    float32 these are the weights themselves). A step of a training is

        for step in tuning.steps(settings.iterations, "esd"):
            tuning.backward(loss, elements)
            tuning.step(loss=loss)

    history: a row a step with step, what `step` was given, grad_norm, and seconds since the beginning.
    names: what a message calls the weights.
    """

    def __init__(
        self,
        weights: list[Tensor],
        optimiser: type[torch.optim.Optimizer],
        learning_rate: float,
        names: list[str] | None = None,
    ) -> None:
        self.started, self.method = time.perf_counter(), "training"
        self.names = names or [f"trained tensor {place} of {len(weights)}" for place in range(1, len(weights) + 1)]
        self.weights = [weight.requires_grad_(True) for weight in weights]
        self.copies = [weight.detach().float() for weight in weights]
        self.optimiser = optimiser(self.copies, lr=learning_rate)  # type: ignore[call-arg]
        self.history: list[dict] = []

    @classmethod
    def of(cls, module, names: list[str], optimiser: type[torch.optim.Optimizer], learning_rate: float) -> "FineTuning":
        """Of some parameters of a network; the others stay as they are."""
        module.requires_grad_(False)
        return cls([module.get_parameter(name) for name in names], optimiser, learning_rate, names)

    def steps(self, count: int, name: str) -> Iterator[int]:
        """0 to count - 1, with a progress bar that shows the loss; `name` is the method's."""
        self.method = name
        for step in (bar := trange(count, desc=name, unit="step")):
            yield step
            bar.set_postfix(loss=f"{self.history[-1]['loss']:.4g}", refresh=False)

    def backward(self, loss: Tensor, elements: int = 1) -> None:
        """The loss's gradients; `elements` is over how many it is a mean, which half precision would underflow."""
        gradients = torch.autograd.grad(loss * elements, self.weights, allow_unused=True)
        for copy, gradient in zip(self.copies, gradients, strict=True):
            copy.grad = None if gradient is None else gradient.float() / elements

    def step(self, max_norm: float = inf, **terms: Tensor) -> None:
        """Clip the gradients to a norm, take the optimiser's step, and note the loss and its terms.

        Raises: NotFinite that says which of loss, terms, gradient or weights is not finite, and at which step.
        """
        norm = torch.nn.utils.clip_grad_norm_(self.copies, max_norm)
        where = f"{self.method}: step {len(self.history)}"
        finite.step(where, self.optimiser)
        for weight, copy in zip(self.weights, self.copies, strict=True):
            weight.data.copy_(copy)
        row = {"step": len(self.history)} | {name: term.item() for name, term in terms.items()}
        row |= {"grad_norm": norm.item()}
        finite.numbers(where, row)
        finite.check(f"{self.method}: after step {row['step']}", zip(self.names, self.copies, strict=True))
        self.history.append(row | {"seconds": time.perf_counter() - self.started})

    def edit(self, component: str, names: list[str]) -> Edit:
        """The trained values, of these parameters of a pipeline's component, as an Edit.

        Raises: SystemExit where no step had a gradient, so that they are those of before.
        """
        if not any(row["grad_norm"] for row in self.history):
            raise SystemExit(f"{self.method}: the gradient was 0 in all {len(self.history)} steps; nothing is trained")
        tensors = {f"{component}.{name}": copy for name, copy in zip(names, self.copies, strict=True)}
        return Edit("weights", tensors, self.history)
