"""The kinds of values in params.yaml and their ranges, which end where something would later fail or do nothing."""

import re
from enum import Enum
from typing import Annotated

from pydantic import AfterValidator, BeforeValidator, Field

TIMESTEPS = 1000  # of every supported base model, see testbeds/base_model.py
LEAST_REACH = 900  # the timesteps of 1,000 that a solver's equal steps must reach at least
LONGEST_NAME = 60  # signs; names of two or three blocks become one file's
LONGEST_PATH, LONGEST_FILE_NAME = 1000, 255  # bytes


class Bound(Enum):
    """A mark in a field's annotation: its largest value is known only with the base model; see limits.py."""

    PREFIX = "tokens beside a prompt"
    ALONE = "tokens that are a prompt"
    RANK = "rank of a LoRA"
    DRAWING = "solver steps of the testbed's pictures, of which something must be left"
    BLOCKS = "a number for each block of the U-Net's decoder"
    SCHEDULE = "solver steps of DDIM, for which the model's scheduler must have timesteps; see schedules.py"


def _name(name: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9_]+", name):  # it becomes a folder and part of a stage's name
        raise ValueError(f"a name may have only letters, digits and underscores, found {name!r}")
    return _short(name)


def _row(name: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9_]+(\+[A-Za-z0-9_]+)*", name):
        raise ValueError(f"a method's name may have only letters, digits, underscores and a + between, found {name!r}")
    return _short(name)


def _short(name: str) -> str:
    if len(name) > LONGEST_NAME:
        raise ValueError(f"a name may have {LONGEST_NAME} signs, found {len(name)}")
    return name


def _printable(text: str) -> str:
    if hidden := next((sign for sign in text if not sign.isprintable()), None):
        raise ValueError(f"has the invisible character {hidden!a}, found {text!r}")
    return text


def _text(text: str) -> str:
    if not text.strip():
        raise ValueError("is blank")
    return _printable(text)


def _spaced(text: str) -> str:
    """One space for every gap, as the tokenizer reads them."""
    return _printable(" ".join(text.split()))


def _words(text: str) -> str:
    text = _spaced(text)
    if not any(sign.isalnum() for sign in text):
        raise ValueError(f"has no letter or digit, found {text!r}" if text else "is blank")
    return text


def _context(text: str) -> str:
    text = _spaced(text)
    if text.count("{}") != 1 or re.search("[{}]", text.replace("{}", "")):
        raise ValueError(f"expected a sentence with one {{}}, where the target stands, and no other braces: {text!r}")
    return text


def _distinct(also: object) -> object:
    if isinstance(also, dict):
        known: dict[str, object] = {}
        for words in also:
            plain = " ".join(str(words).split()).casefold()
            if plain in known:
                raise ValueError(f"{known[plain]!r} and {words!r} are the same words")
            known[plain] = words
    return also


def _place(text: str) -> str:
    _text(text)
    parts = [part.encode() for part in text.split("/")]
    if max(map(len, parts)) > LONGEST_FILE_NAME or len(text.encode()) > LONGEST_PATH:
        raise ValueError(f"is too long for a path, found {text[:40]!r}...")
    return text


def check_steps(steps: int, last: int = 0) -> None:
    """Whether a solver's steps, each as many whole timesteps long, reach from the picture to nearly pure noise.

    last: how many more parts the solver cuts the timesteps into than it takes steps.
    Raises: ValueError.
    """
    reached = {other: other * (TIMESTEPS // other) for other in range(1, TIMESTEPS)}
    parts = steps + last
    if reached.get(parts, 0) < LEAST_REACH:
        fits = [other - last for other in reached if reached[other] >= LEAST_REACH]
        near = sorted(sorted(fits, key=lambda other: abs(other - steps))[:2])
        what = f"would start at timestep {reached[parts]}" if parts in reached else "are too many"
        nearest = f"the nearest that can be done are {near[0]} and {near[1]}"
        raise ValueError(f"{steps} solver steps {what} of {TIMESTEPS:,} timesteps; {nearest}")


def _steps(steps: int) -> int:
    check_steps(steps)
    return steps


Name = Annotated[str, AfterValidator(_name)]
Row = Annotated[str, AfterValidator(_row)]
Text = Annotated[str, AfterValidator(_text)]
Place = Annotated[str, AfterValidator(_place)]
Words = Annotated[str, AfterValidator(_words)]
Anchor = Annotated[str, AfterValidator(_spaced)]  # may be blank: the empty prompt
Also = Annotated[dict[Words, Anchor], BeforeValidator(_distinct)]
Context = Annotated[str, AfterValidator(_context)]

Seed = Annotated[int, Field(ge=0, lt=2**32)]  # with table.seed added, see table.py
Count = Annotated[int, Field(ge=1, le=1_000_000)]
Steps = Annotated[int, Field(ge=1, lt=TIMESTEPS), AfterValidator(_steps), Bound.SCHEDULE]  # of DDIM
PrefixTokens = Annotated[Count, Bound.PREFIX]
FreeTokens = Annotated[Count, Bound.ALONE]
Rank = Annotated[Count, Bound.RANK]
Guidance = Annotated[float, Field(ge=1, le=100)]
LearningRate = Annotated[float, Field(ge=1e-9, le=1)]
Scale = Annotated[float, Field(ge=1e-6, le=1e6)]  # of a term without which its method is not defined
LossScale = Annotated[float, Field(ge=0, le=1e6)]  # of a term that may be left out
