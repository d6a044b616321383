"""The models of params.yaml and its only reader; see `checks` for what one block says about another."""

import importlib
import math
import re
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from eraseflow.checks import check_names, check_table, check_tuning
from eraseflow.checks.fields import (
    TIMESTEPS,
    Also,
    Anchor,
    Bound,
    Context,
    Count,
    FreeTokens,
    Guidance,
    LearningRate,
    LossScale,
    Name,
    Place,
    PrefixTokens,
    Rank,
    Row,
    Scale,
    Seed,
    Steps,
    Text,
    Words,
    check_steps,
)
from eraseflow.checks.words import check_wording
from eraseflow.definitions import defines, definition
from eraseflow.emoji.vocabulary import HELD_OUT_PAIRS, NAMES, STYLES
from eraseflow.mistakes import ParamsError, read, read_yaml
from eraseflow.prompt_files import I2P_PLACES

__all__ = [
    "Block", "Bound", "Concept", "Count", "ErasingSettings", "FreeTokens", "Guidance", "LearningRate", "LossScale",
    "Method", "Params", "ParamsError", "PrefixTokens", "Rank", "Scale", "Seed", "Steps", "Testbed", "load",
]  # fmt: skip


THROUGH = "through_sampler"  # the setting of attacks with gradients that can see a sampler-time method


class Block(BaseModel):
    """A block of params.yaml: no unknown keys, no silent conversion from text, no change after reading."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)


def _i2p(text: str) -> str:
    if not text.endswith(".csv") and not re.fullmatch(r"datasets/[\w.-]+/[\w.-]+@[0-9a-f]{40}", text):
        raise ValueError(f"expected {I2P_PLACES}, found {text!r}")
    return text


I2P = Annotated[Place, AfterValidator(_i2p)]


class Table(Block):
    testbed: Name
    concepts: list[Name] = Field(min_length=1)
    methods: list[Row] = Field(min_length=1)
    attacks: list[Name] = Field(min_length=1)
    transfer: list[Name] = []
    prompts: Annotated[int, Field(ge=1)] | None = None
    kept: Annotated[int, Field(ge=2)] | None = None
    seed: Seed


class Claims(Block):
    """The table that `make claims` makes: tables of the default one's testbed, a concept and a seed each."""

    concepts: list[Name] = Field(min_length=1)
    methods: list[Row] = Field(min_length=1)
    attacks: list[Name] = Field(min_length=1)
    seeds: list[Seed] = Field(min_length=1)


class SamplingSettings(Block):
    solver: Literal["ddim", "dpmsolver++"]
    spacing: Literal["model", "linspace"] = "model"
    steps: int = Field(ge=1)
    guidance_scale: Guidance

    @model_validator(mode="after")
    def _can_be_done(self) -> "SamplingSettings":
        if self.spacing == "linspace" and self.solver == "ddim":
            raise ValueError("spacing linspace is not for ddim, whose steps are all as long; expected model")
        if self.spacing == "model" or self.steps >= TIMESTEPS:  # the others begin at the noisiest, however many
            check_steps(self.steps, last=int(self.solver == "dpmsolver++"))
        return self


class ErasingSettings(Block):
    """What ESD and the methods that train at its latents have in common; see erasing_goal.py."""

    iterations: Count
    batch_size: Count
    learning_rate: LearningRate
    negative_guidance: float = Field(ge=0.01, le=100)
    num_steps: Steps
    guidance_scale: Guidance


class Testbed(Block):
    model: Place
    kept: Place
    kept_judge: Name | None = None
    features: Name
    clip: list[Name] = Field(min_length=1)
    coco: Place | None = None
    i2p: I2P | None = None
    sampling: SamplingSettings
    safety_judge: "ConceptJudge | None" = None


# Pictures are drawn without replacement.
PictureBatch = Annotated[int, Field(ge=2, le=len(NAMES) * len(STYLES) - len(HELD_OUT_PAIRS))]


def _rises(steps: int) -> int:
    """PyTorch's OneCycleLR divides by the steps in which the rate rises, a tenth of all, less one."""
    if steps == 10:
        raise ValueError("a learning rate cannot rise in a tenth of 10 steps; expected 9 or 11")
    return steps


class BaseTraining(Block):
    seed: Seed
    latent_channels: int = Field(ge=1, le=64)
    text_encoder_steps: Count
    text_encoder_batch: PictureBatch
    autoencoder_steps: Count
    autoencoder_batch: PictureBatch
    unet_steps: Annotated[Count, AfterValidator(_rises)]
    unet_batch: PictureBatch


class JudgeTraining(Block):
    seed: Seed
    classifier_steps: Count
    image_text_steps: Count
    batch: PictureBatch


class EmojiTraining(Block):
    base: BaseTraining
    judges: JudgeTraining


Kind = Literal["style", "fine_grained", "category"]


class ConceptJudge(Block):
    """Which judge decides whether a picture shows the concept, and what it must say for that.

    Either `counts`, labels of the judge, or `protocol`, a name in its PROTOCOLS. A counted label is a success if it
    scores at least `threshold`, or without threshold if it is the first choice of its head. `questions` (a CSV),
    `references` (a folder of pictures) and `source` (a model) are for judges that need them, those of `scored_by` too.
    """

    name: Name
    counts: list[str] = Field(default=[], min_length=1)
    threshold: float | None = Field(default=None, gt=0, le=1)
    protocol: Text | None = None
    questions: Place | None = None
    references: Place | None = None
    source: Place | None = None

    @model_validator(mode="after")
    def _one_rule(self) -> "ConceptJudge":
        if self.counts and self.protocol:
            raise ValueError("has both counts and protocol; expected one of them")
        if not self.counts and not self.protocol:
            raise ValueError("has neither counts nor protocol; expected one of them")
        if self.protocol and self.threshold is not None:
            raise ValueError(f"has a threshold beside the protocol {self.protocol!r}, which brings its own")
        return self


Testbed.model_rebuild()  # now that its safety judge's class is known


class Kept(Block):
    without: list[str]
    neighbours: list[str]
    count: int = Field(ge=2, le=1_000_000)  # of one picture there is no Fréchet distance


class Concept(Block):
    testbed: Name
    kind: Kind
    target: Words
    anchor: Anchor
    also: Also = {}
    contexts: list[Context] = Field(default=["{}"], min_length=1)
    prompts: Place
    preserve: list[Words]
    judge: ConceptJudge
    kept: Kept
    scored_by: list[Name] = []

    @model_validator(mode="after")
    def _differ(self) -> "Concept":
        check_wording(self)
        return self

    @property
    def name(self) -> str:
        """That of its prompt file, which must be its key in params.yaml (`checks` sees to it)."""
        return Path(self.prompts).stem

    @property
    def anchors(self) -> dict[str, str]:
        """Each target and its anchor, the concept's own first."""
        return {self.target: self.anchor} | self.also

    @property
    def pairs(self) -> list[tuple[str, str]]:
        """What methods train on: each target and its anchor, in each context."""
        return [
            (c.format(word).strip(), c.format(anchor).strip())
            for word, anchor in self.anchors.items()
            for c in self.contexts
        ]


class Report(Block):
    purpose: Text = "A table of params.yaml."
    blur: bool = True
    embed: bool = True


class Attack(Block):
    """An attack: a module, that of its own name unless `module` names another, with its settings for each testbed."""

    model_config = ConfigDict(extra="allow")
    __pydantic_extra__: dict[str, dict[str, Any]]

    module: Name | None = None

    @property
    def on(self) -> dict[str, dict[str, Any]]:
        """The settings of each testbed, as they are written; empty for a composition of methods."""
        return self.__pydantic_extra__


class Method(Attack):
    """A row of the table: a module as an attack has it, or a composition of other rows.

    `compose` names the rows whose edits, each trained on the base on its own, are applied in this order.
    """

    compose: list[Row] = Field(default=[], min_length=2)


class Range(Block):
    """Where a setting is looked for, both ends included."""

    low: float
    high: float
    log: bool = False  # evenly in its logarithm
    whole: bool = False  # whole numbers alone

    @model_validator(mode="after")
    def _is_one(self) -> "Range":
        if not self.low < self.high:
            raise ValueError(f"expected low below high, found {self.low:g} and {self.high:g}")
        if self.log and self.low <= 0:
            raise ValueError(f"a logarithm needs low above 0, found {self.low:g}")
        if self.whole and (self.low % 1 or self.high % 1):
            raise ValueError(f"expected whole numbers, found {self.low:g} and {self.high:g}")
        return self

    def at(self, share: float) -> float:
        """The value at a share, 0 to 1, of the way; four digits are enough."""
        low, high = (self.low - self.whole / 2, self.high + self.whole / 2)  # so that whole ends have a whole share
        if self.log:
            value = math.exp(math.log(low) + share * (math.log(high) - math.log(low)))
        else:
            value = low + share * (high - low)
        if self.whole:
            return min(max(round(value), int(self.low)), int(self.high))
        return min(max(float(f"{value:.4g}"), self.low), self.high)


class Tuning(Block):
    """What `make tune` does: see eraseflow/tuning."""

    concepts: dict[Kind, Name] = Field(min_length=1)
    trials: int = Field(ge=1, le=1024)
    seeds: list[Seed] = Field(min_length=1)
    prompts: Count
    kept: Place
    edits: list[Row] = Field(min_length=1)
    pictures: Count
    methods: dict[Row, Annotated[dict[str, Range], Field(min_length=1)]]
    attacks: dict[Name, Annotated[dict[str, Range], Field(min_length=1)]]


def of_kind(raw: dict[str, Any], kind: str | None) -> dict[str, Any]:
    """A method's block with the settings for one kind of concept in place."""
    plain = {key: value for key, value in raw.items() if key != "kinds"}
    return plain | (raw.get("kinds") or {}).get(kind, {})


class Params(Block):
    table: Table
    claims: Claims | None = None
    report: Report = Report()
    testbeds: dict[Name, Testbed]
    emoji: EmojiTraining
    concepts: dict[Name, Concept]
    methods: dict[Row, Method]
    attacks: dict[Name, Attack]
    tuning: Tuning | None = None

    def parts(self, method: str) -> list[str]:
        """The rows that a method is composed of: itself, unless it is a composition."""
        return self.methods[method].compose or [method]

    def module(self, method: str) -> str:
        """The module of eraseflow/methods of a row that is no composition."""
        return self.methods[method].module or method

    def attack_module(self, attack: str) -> str:
        """The module of eraseflow/attacks of an attack."""
        return self.attacks[attack].module or attack

    def draws(self, method: str) -> bool:
        """Whether a part of a row works while a picture is drawn, as its sampler."""
        return any(defines("methods", self.module(part), "Sampler") for part in self.parts(method))

    def attacks_on(self, method: str) -> list[str]:
        """The table's attacks on a row."""
        return [attack for attack in self.table.attacks if self.applies(attack, method)]

    def applies(self, attack: str, method: str) -> bool:
        """Whether there is such a cell: an attack through a sampler is only on rows that have one of their own."""
        return self.draws(method) or not self.through_sampler(attack)

    def through_sampler(self, attack: str) -> bool:
        """Whether an attack on the table's testbed looks through the sampler."""
        return bool(self.attacks[attack].on.get(self.table.testbed, {}).get(THROUGH))

    def blind(self, attack: str, method: str) -> bool:
        """Whether an attack that could look through a row's own sampler does not."""
        model = definition("attacks", self.attack_module(attack), "Settings")
        return self.draws(method) and THROUGH in model.model_fields and not self.through_sampler(attack)

    def raw_settings(self, method: str, testbed: str) -> dict[str, Any]:
        """The settings of a row on a testbed, as they are written; of a composition, those of each part by its name."""
        entry = self.methods[method]
        return {part: self.raw_settings(part, testbed) for part in entry.compose} or entry.on[testbed]

    def lacking(self, method: str, testbed: str) -> list[str]:
        """The parts of a row that have no settings for a testbed."""
        return [part for part in self.parts(method) if testbed not in self.methods[part].on]

    def settings(self, family: Literal["methods", "attacks"], name: str, testbed: str, kind: str | None = None) -> Any:
        """The settings of a method's row or an attack on a testbed, an instance of the `Settings` of its module.

        A composition has none of its own: ask for those of its `parts`. kind: of the concept; what the block's `kinds`
        says of it goes before the rest.
        """
        methods = family == "methods"
        module = self.module(name) if methods else self.attack_module(name)
        raw = (self.methods if methods else self.attacks)[name].on
        model = importlib.import_module(f"eraseflow.{family}.{module}").Settings
        return read(model, of_kind(raw[testbed], kind), f"{family}.{name}.{testbed}")


def load(path: Path = Path("params.yaml")) -> Params:
    """Read and check params.yaml and the prompt files of its table.

    Raises: ParamsError, whose text is one line: file, path of the field, what was found and expected,
    and the nearest right name.
    """
    params = written(path)
    check_tuning(params)
    check_table(params, path.parent)
    return params


def written(path: Path = Path("params.yaml")) -> Params:
    """The same without a look at the files that it names, which may still have to be fetched."""
    params = read(Params, read_yaml(path))
    check_names(params)
    return params
