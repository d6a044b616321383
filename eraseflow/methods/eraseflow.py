"""EraseFlow: erasure by trajectory balance with a constant reward (arXiv 2511.00804, NeurIPS 2025, eq. 8).

Trajectories are drawn under the anchor prompt with the present weights; a LoRA is then moved so that the
target prompt makes them as likely: see eraseflow/trajectory_balance.py for the loss. As in the authors'
program guidance enters the loss too (their --cfg). Unlike it, a batch may hold several pairs of target and
anchor, the cleanest steps may be left out of the loss, and with them of the trajectories, and the LoRA may be on some
of the attentions' layers alone. `bare_words`: the pairs are the targets and anchors alone, as published, not the
concept's sentences with them.

For a consistent diffusion prod p / prod q = p(x_0) / p(x_T) is not constant, so zero loss on every
trajectory cannot be reached: in practice this is a regression of the target's denoising means onto the
anchor's trajectories, each step weighted by 1 / (2 sigma^2).
"""

import importlib.util
import time
from collections.abc import Callable
from typing import Annotated, Literal

import torch
from pydantic import Field, model_validator
from torch import Tensor
from tqdm import tqdm

from eraseflow import finite
from eraseflow.ddim import Schedule, trajectory
from eraseflow.edits import ATTENTIONS, Edit, add_lora, lora_of, weights_of
from eraseflow.params import Block, Concept, Count, Guidance, LearningRate, Rank, Scale, Seed, Steps
from eraseflow.sampling import embed, fresh_noise, guided
from eraseflow.trajectory_balance import loss_steps, matched_value, streamed_gradient

START_LOG_Z = -0.1953
CALIBRATION_TRAJECTORIES = 16
CARRIED = ("deck", "pairs", "trajectories", "history", "log_beta", "seconds")  # of a training's state
POSITIONS = 1280  # of the latents of the steps in memory at once: 20 steps of 8 x 8, one of 64 x 64 (2 GB in bf16)
LogBeta = Annotated[float, Field(ge=-100, le=100)]
Layer = Annotated[str, Field(pattern=r"^(attn[12]\.)?to_(q|k|v|out\.0)$")]


class Settings(Block):
    epochs: Count
    switch_epoch: int = Field(ge=0, le=1_000_000)
    batch_size: Count
    num_steps: Annotated[Steps, Field(ge=5)]
    skip_last: int = Field(default=0, ge=0)
    guidance_scale: Guidance
    cfg: bool = True
    eta: float = Field(ge=0.01, le=1)
    learning_rate: LearningRate
    flow_learning_rate: LearningRate
    max_grad_norm: Scale = 1.0
    log_beta: LogBeta | Literal["auto"]
    log_beta_margin: LogBeta = 0.0
    lora_rank: Rank | None
    lora_layers: list[Layer] | None = Field(default=None, min_length=1)  # None: all attentions'
    bare_words: bool = False
    use_8bit_adam: bool = False
    seed: Seed = 0

    @model_validator(mode="after")
    def _enough_steps(self) -> "Settings":
        if self.skip_last > self.num_steps - 2 * (self.num_steps // 5):
            raise ValueError(f"skip_last {self.skip_last} leaves too few of {self.num_steps} steps for the loss")
        return self


class Training:
    """A training that is taken epoch by epoch, and that can be stopped and gone on with.

    pairs: target and anchor sentences. Everything random comes from `rng`, so a resumed training gives the
    same weights as an uninterrupted one.
    """

    def __init__(self, pipeline, pairs: list[tuple[str, str]], settings: Settings, seed: int) -> None:
        self.pipeline, self.settings, self.sentences, self.seed = pipeline, settings, pairs, seed
        self.seconds = 0.0
        self.rng = torch.Generator().manual_seed(seed)
        torch.manual_seed(seed)  # the LoRA's start
        self.targets, self.anchors = (embed(pipeline, sentences) for sentences in zip(*pairs, strict=True))
        self.empty = embed(pipeline, [""])
        self.schedule = Schedule.of(pipeline.scheduler, settings.num_steps, pipeline.device)
        self.weights = self._trained()
        self.log_z = torch.nn.Parameter(torch.tensor(START_LOG_Z, device=pipeline.device))
        groups: list[dict] = [{"params": self.weights}, {"params": [self.log_z], "lr": settings.flow_learning_rate}]
        adam = _adam_8bit() if settings.use_8bit_adam else torch.optim.AdamW
        self.optimiser = adam(groups, lr=settings.learning_rate, betas=(0.9, 0.999), weight_decay=0.01, eps=1e-8)
        self.deck: list[int] = []
        self.pairs: list[int] = []
        self.trajectories = torch.empty(0)
        self.history: list[dict] = []
        self.log_beta = self._matched() if settings.log_beta == "auto" else settings.log_beta
        self.log_beta += settings.log_beta_margin

    def _trained(self) -> list[Tensor]:
        if self.settings.lora_rank:
            return add_lora(self.pipeline.unet, self.settings.lora_rank, self.settings.lora_layers or ATTENTIONS)
        self.pipeline.unet.float().requires_grad_(True)
        self.targets, self.anchors, self.empty = self.targets.float(), self.anchors.float(), self.empty.float()
        return list(self.pipeline.unet.parameters())

    def _predict(self, prompts: Tensor, with_guidance: bool) -> Callable:
        unet, scale = self.pipeline.unet, self.settings.guidance_scale

        def predict(x: Tensor, t: Tensor) -> Tensor:
            prompt = prompts.expand(len(x), -1, -1)
            if with_guidance and scale > 1:
                return guided(unet, x, t, prompt, self.empty, scale)
            return unet(x.to(prompt.dtype), t, prompt).sample.to(x.dtype)

        return predict

    def _next_pairs(self, count: int) -> list[int]:
        """Each pair once, in random order, before any comes again."""
        while len(self.deck) < count:
            self.deck += torch.randperm(len(self.targets), generator=self.rng).tolist()
        taken, self.deck = self.deck[:count], self.deck[count:]
        return taken

    def _draw(self, pairs: list[int]) -> Tensor:
        """Trajectories (steps + 1, n, c, h, w) under the anchors, with guidance, by the present weights."""
        settings, start = self.settings, fresh_noise(self.pipeline, len(pairs), self.rng)
        predict, steps = self._predict(self.anchors[pairs], True), settings.num_steps - settings.skip_last
        states, watch = trajectory(self.schedule, predict, start, settings.eta, self.rng, steps), finite.Watch()
        for state in states:
            watch.see(state)
        if wrong := watch.first():
            prompt = self.sentences[pairs[wrong[1]]][1]
            what = f"the trajectory of {prompt!r} is not finite from solver step {wrong[0]} of {steps} on"
            raise finite.NotFinite(f"eraseflow: epoch {len(self.history)}: {what}")
        return states

    def _loss_steps(self) -> Tensor:
        steps = loss_steps(self.settings.num_steps, self.settings.skip_last, self.rng)
        return steps.to(self.pipeline.device)

    def _matched(self) -> float:
        """The log beta at which a policy that already matches the anchors has no loss."""
        pairs = self._next_pairs(CALIBRATION_TRAJECTORIES)
        same = [self._predict(self.anchors[[pair]], self.settings.cfg) for pair in pairs]
        subsets = [self._loss_steps() for _ in pairs]
        value = matched_value(self.schedule, same, self._draw(pairs), self.settings.eta, subsets) + START_LOG_Z
        finite.numbers("eraseflow: before the first epoch", {"log_beta": value})
        return value

    def epoch(self) -> dict:
        """One optimiser step; its row of the history: loss, residual and its sign, log Z, gradient norms, seconds.

        Raises: NotFinite that says what is not finite first: a trajectory, a number of the row, or a trained weight.
        """
        started, settings = time.perf_counter(), self.settings
        if len(self.history) <= settings.switch_epoch:
            self.pairs = self._next_pairs(settings.batch_size)
            self.trajectories = self._draw(self.pairs)
        predicts = [self._predict(self.targets[[pair]], settings.cfg) for pair in self.pairs]
        offset = self.log_z - self.log_beta
        chunk = max(POSITIONS // self.trajectories[0, 0, 0].numel(), 1)  # does not change the gradient
        self.optimiser.zero_grad()
        residuals = streamed_gradient(
            self.schedule, predicts, self.trajectories, self._loss_steps(), settings.eta, offset, self.weights, chunk
        )
        groups = [group["params"] for group in self.optimiser.param_groups]
        norms = [torch.nn.utils.clip_grad_norm_(group, settings.max_grad_norm).item() for group in groups]
        finite.step(f"eraseflow: epoch {len(self.history)}", self.optimiser)
        self.seconds += time.perf_counter() - started
        row = {
            "step": len(self.history),
            "loss": residuals.square().mean().item(),
            "residual": residuals.mean().item(),
            "sign": 1 if residuals.mean() > 0 else -1,
            "log_z": self.log_z.item(),
            "log_beta": self.log_beta,
            "grad_norm_lora": norms[0],
            "grad_norm_log_z": norms[1],
            "seconds": self.seconds,
        }
        finite.numbers(f"eraseflow: epoch {row['step']}", row)
        trained = [(name, weight) for name, weight in self.pipeline.unet.named_parameters() if weight.requires_grad]
        finite.check(f"eraseflow: after epoch {row['step']}", trained)
        self.history.append(row)
        return row

    def edit(self) -> Edit:
        """What has been trained so far."""
        unet = self.pipeline.unet
        if self.settings.lora_rank:
            return lora_of(unet, self.history)
        return weights_of("unet", unet, [name for name, _ in unet.named_parameters()], self.history)

    def identity(self) -> dict:
        """What a training that goes on must have in common with its beginning."""
        return self.settings.model_dump(exclude={"epochs"}) | {"prompts": self.sentences, "seed": self.seed}

    def state(self) -> dict:
        """Everything that `go_on` needs, in types that torch loads with weights_only."""
        return {name: getattr(self, name) for name in CARRIED} | {
            "identity": self.identity(),
            "weights": [weight.detach() for weight in (*self.weights, self.log_z)],
            "optimiser": self.optimiser.state_dict(),
            "rng": self.rng.get_state(),
        }

    def go_on(self, state: dict) -> None:
        """Take up a training with the same settings where `state` left it."""
        for name in CARRIED:
            setattr(self, name, state[name])
        self.trajectories = self.trajectories.to(self.pipeline.device)
        with torch.no_grad():
            for weight, value in zip((*self.weights, self.log_z), state["weights"], strict=True):
                weight.copy_(value)
        self.optimiser.load_state_dict(state["optimiser"])
        self.rng.set_state(state["rng"])


def ready(settings: Settings, concept: str, model: str) -> None:
    """Raises: SystemExit with one line where the optimiser's package is not installed."""
    if settings.use_8bit_adam and not importlib.util.find_spec("bitsandbytes"):
        what = "needs the package bitsandbytes, which is not here: `pip install bitsandbytes`, or leave it out"
        raise SystemExit(f"methods.eraseflow: use_8bit_adam {what}")


def _adam_8bit() -> type[torch.optim.AdamW]:
    try:
        from bitsandbytes.optim import AdamW8bit
    except ImportError as error:
        what = "needs the package bitsandbytes, which is not here: `pip install bitsandbytes`, or leave it out"
        raise SystemExit(f"use_8bit_adam: {what}") from error
    return AdamW8bit


def erase(pipeline, concept: Concept, settings: Settings, seed: int) -> Edit:
    """Train a LoRA on the U-Net's attentions; history: one row an epoch, see Training.epoch."""
    pairs = list(concept.anchors.items()) if settings.bare_words else concept.pairs
    training = Training(pipeline, pairs, settings, seed + settings.seed)
    with tqdm(range(settings.epochs), desc="eraseflow", unit="epoch") as bar:
        for _ in bar:
            row = training.epoch()
            bar.set_postfix({key: f"{row[key]:.3g}" for key in ("loss", "residual", "log_z")}, refresh=False)
    return training.edit()
