"""Mistakes in params.yaml and in the files it names: one line each, with the nearest right name."""

import difflib
import re
import reprlib
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, get_args, get_origin

import yaml
from pydantic import BaseModel, ValidationError

LONGEST = 500  # signs of a message; what is quoted in it may be longer


class ParamsError(SystemExit):
    """A mistake in params.yaml or in a file it names; printed as one line, exit status 1."""

    def __init__(self, text: str) -> None:
        line = "".join(sign if sign.isprintable() else ascii(sign)[1:-1] for sign in text)
        super().__init__(line if len(line) <= LONGEST else f"{line[: LONGEST // 2]} ... {line[5 - LONGEST // 2 :]}")


def check_known(name: str, known: Iterable[str], where: str, what: str) -> None:
    """Raises: ParamsError unless a name at `where` in params.yaml is one of the known, with the nearest of these."""
    known = list(known)
    if name not in known:
        raise ParamsError(f"params.yaml: {where}: {name!r} is no {what}{nearest(name, known)}")


def check_once(names: Sequence[str], where: str) -> None:
    """Raises: ParamsError where a list at `where` in params.yaml names something twice, but for capitals."""
    for at, name in enumerate(names):
        for other in names[:at]:
            if name.casefold() == other.casefold():
                raise ParamsError(f"params.yaml: {where}: {name!r} appears twice{f', as {other!r}' * (name != other)}")


def nearest(name: str, known: Iterable[str]) -> str:
    """The end of a message: the known name nearest to a wrong one, or the first known ones where none is near."""
    known = list(known)
    close = difflib.get_close_matches(name[:100], known, n=1, cutoff=0.5)
    if close:
        return f"; did you mean {close[0]!r}?"
    return f"; expected one of {', '.join(known[:8] + ['...'] * (len(known) > 8))}" if known else ""


class _Strict(yaml.constructor.SafeConstructor, yaml.resolver.Resolver):
    """YAML's usual reader lets the last of two equal keys win; this one refuses the second, and reads plain numbers."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict:
        seen = set()
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode):
                raise yaml.constructor.ConstructorError(None, None, "expected a name as a key", key.start_mark)
            if key.value in seen:
                raise yaml.constructor.ConstructorError(None, None, f"{key.value!r} appears twice", key.start_mark)
            seen.add(key.value)
        return super().construct_mapping(node, deep)

    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:
        try:
            return super().construct_object(node, deep)
        except (ValueError, OverflowError) as error:  # the 30th of February, an integer of 5,000 digits
            what = f"{reprlib.repr(node.value)} is no value ({error})"
            raise yaml.constructor.ConstructorError(None, None, what, node.start_mark) from None


# YAML 1.1 also knows 0x7, 010 (eight), 1_0, +7 and 1:30 (ninety); here these stay text, which no number may be.
_NUMBERS = {
    "tag:yaml.org,2002:int": re.compile(r"-?(?:0|[1-9][0-9]*)$"),
    "tag:yaml.org,2002:float": re.compile(
        r"(?:[-+]?(?:[0-9]+\.[0-9]*|\.[0-9]+)(?:[eE][-+][0-9]+)?|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN))$"
    ),
}
_Strict.yaml_implicit_resolvers = {
    first: [(tag, _NUMBERS.get(tag, pattern)) for tag, pattern in ways]
    for first, ways in yaml.resolver.Resolver.yaml_implicit_resolvers.items()
}


class _Loader(_Strict, yaml.CSafeLoader):
    """In a tenth of the time: a stage reads params.yaml when it starts."""


class _Explainer(_Strict, yaml.SafeLoader):
    """Says better where a mistake is and what."""


def read_yaml(path: Path) -> dict:
    """The blocks of a YAML file. Raises: ParamsError."""
    try:
        content = path.read_bytes()
        try:
            raw = yaml.load(content, _Loader)
        except (yaml.YAMLError, RecursionError):
            raw = yaml.load(content, _Explainer)
    except OSError as error:
        raise ParamsError(f"{path}: cannot be read: {error.strerror}; run from the project's folder") from None
    except yaml.MarkedYAMLError as error:
        line = f"line {error.problem_mark.line + 1}: " if error.problem_mark else ""
        raise ParamsError(f"{path}: {line}is not YAML: {error.problem}") from None
    except RecursionError:
        raise ParamsError(f"{path}: its blocks are nested too deeply, or in themselves") from None
    except yaml.YAMLError as error:
        raise ParamsError(f"{path}: is not YAML: {' '.join(str(error).split())}") from None
    if not isinstance(raw, dict):
        raise ParamsError(f"{path}: expected blocks such as `table:`, found {type(raw).__name__}")
    return raw


def read(model: type[BaseModel], raw: Any, where: str = "") -> Any:
    """Validate `raw`, the block at `where`, turning pydantic's first error into one line. Raises: ParamsError."""
    try:
        return model.model_validate(raw)
    except ValidationError as error:
        errors = error.errors()
    # A misspelt key is also a missing one: the misspelling says more.
    first = next((error for error in errors if error["type"] == "extra_forbidden"), errors[0])
    keys, block = _place(model, first["loc"])
    place = "params.yaml: " + ".".join([where] * bool(where) + keys)
    if first["type"] == "extra_forbidden":
        raise ParamsError(f"{place}: unknown key{nearest(keys[-1], block.model_fields)}")
    if first["type"] == "missing":
        raise ParamsError(f"{place}: is missing")
    if first["type"] == "value_error":
        raise ParamsError(f"{place}: {first['ctx']['error']}")
    if first["type"] in ("model_type", "dict_type"):
        raise ParamsError(f"{place}: should be a block of keys, found {reprlib.repr(first['input'])}")
    alternatives = [other["msg"] for other in errors if _place(model, other["loc"])[0] == keys]
    wish = " or ".join(message.partition(" ")[2] for message in alternatives).replace(" or should be ", " or ")
    power = isinstance(first["input"], str) and re.fullmatch(r"[-+]?\d+e[-+]?\d+", first["input"], re.IGNORECASE)
    hint = " (YAML reads 1e-5 as text: write 1.0e-5)" if power else ""
    raise ParamsError(f"{place}: {wish}, found {reprlib.repr(first['input'])}{hint}")


def _place(model: type[BaseModel], loc: tuple) -> tuple[list[str], type[BaseModel]]:
    """The keys that lead to pydantic's `loc`, without its marks for alternatives, and the innermost block there."""
    keys: list[str] = []
    here: Any = model
    for part in loc:
        if part == "[key]":
            break
        if type(None) in get_args(here):  # an optional block
            here = get_args(here)[0]
        if isinstance(here, type) and issubclass(here, BaseModel):
            model = here
            here = model.model_fields[part].annotation if part in model.model_fields else None
        elif get_origin(here) in (dict, list):
            here = get_args(here)[-1]
        else:
            break
        keys.append(str(part))
    return keys, model
