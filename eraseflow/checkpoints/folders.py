"""What a folder holds, by its files' names alone, so that of a repository on the Hub only what is read is fetched."""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

SUFFIXES = (".safetensors", ".bin", ".pt", ".pth", ".ckpt")
COMPONENTS = ("unet", "text_encoder", "vae")
# diffusers' and transformers' names: stem, precision, shard. What an accelerate checkpoint has besides is no weight.
WEIGHTS = re.compile(
    r"(?P<stem>.+?)(\.(?P<variant>fp32|bf16|fp16|non_ema))?(-(?P<shard>\d{5})-of-(?P<shards>\d{5}))?"
    r"(\.(?P<old_variant>fp32|bf16|fp16|non_ema))?(?P<suffix>\.safetensors|\.bin|\.pt|\.pth|\.ckpt)"
)
INDEX = re.compile(r".+\.(safetensors|bin)\.index(\.\w+)?\.json")
TRAINING = re.compile(
    r"(optimizer|scheduler|scaler|training_args|random_states|rng_state|trainer_state|sampler)[\w.-]*"
)
VARIANTS = (None, "fp32", "bf16", "fp16", "non_ema")  # the best first
EDIT_FILES = ("pytorch_lora_weights.safetensors", "weights.safetensors")  # see eraseflow/edits.py
BESIDE = ("model_index.json", "scheduler/scheduler_config.json", "sampler/edit.json")


@dataclass(frozen=True)
class Part:
    """Weights that lie together. component: of the folder's name; None where the keys have to say it.

    files: one, or all shards. config: config.json or adapter_config.json beside it, if there. whole: whether every
    weight of the component is expected.
    """

    files: tuple[str, ...]
    component: str | None = None
    config: str | None = None
    index: str | None = None
    whole: bool = False

    @property
    def adapter(self) -> bool:
        return bool(self.config and self.config.endswith("adapter_config.json"))


@dataclass(frozen=True)
class Contents:
    """The parts of a folder, or that it is an edit of this project.

    other: further files that are read. unread: folders beside the components' that hold weights, such as unet_ema.
    """

    parts: tuple[Part, ...] = ()
    edit: bool = False
    other: tuple[str, ...] = ()
    unread: tuple[str, ...] = ()

    def files(self) -> list[str]:
        """Every file that is read."""
        beside = [name for part in self.parts for name in (part.config, part.index) if name]
        return sorted({*(name for part in self.parts for name in part.files), *beside, *self.other})


def of_folder(names: Sequence[str], where: str) -> Contents:
    """What the files of these names, relative to the folder `where`, are. Raises: SystemExit with one line."""
    top = [name for name in names if "/" not in name]
    if "edit.json" in top:
        if tensors := [name for name in top if name in EDIT_FILES]:
            return Contents((Part((tensors[0],)),), other=("edit.json",))
        return Contents(edit=True, other=tuple(name for name in names if name.endswith((".json", ".safetensors"))))
    pipeline = "model_index.json" in top
    inside = {component: _below(names, component) for component in COMPONENTS}
    for component, below in inside.items():
        if below and not _groups(below):
            raise SystemExit(f"{where}/{component}: holds no weights{_hint(below)}")
    parts = [
        _part(below, f"{where}/{component}", component, component, pipeline)
        for component, below in inside.items()
        if below
    ]
    loose = _groups(top)
    if bool(parts or pipeline) + len(loose) > 1:
        what = [*(["a pipeline (model_index.json)"] if pipeline else [f"{part.component}/" for part in parts])]
        raise SystemExit(f"{where}: holds several candidates, {_list([*what, *loose.values()])}; name one of them")
    if pipeline or parts:
        unread = {name.partition("/")[0] for name in names if name.endswith(SUFFIXES)} - {*COMPONENTS, *top}
        other = tuple(name for name in BESIDE if name in names)
        return Contents(tuple(parts), other=other, unread=tuple(sorted(unread)))
    if loose:
        return Contents((_part(top, where, "", None, False),))
    raise SystemExit(f"{where}: holds no weights{_hint(names)}")


def of_file(name: str, beside: Sequence[str], where: str) -> Contents:
    """What one file is, given the names that lie beside and below it. Raises: SystemExit with one line."""
    if name == "model_index.json":
        return of_folder([other for other in beside if "/" in other or other == name], where)
    match = WEIGHTS.fullmatch(name)
    if INDEX.fullmatch(name):
        stem = name.partition(".")[0]
        chosen = [other for other in beside if other == name or (other.startswith(stem) and "-of-" in other)]
        return Contents((_part(chosen, where, "", None, False),))
    if match and match["shard"]:
        raise SystemExit(f"{where}/{name}: is one of {int(match['shards'])} shards; name their folder")
    config = "adapter_config.json" if name.startswith("adapter_model.") and "adapter_config.json" in beside else None
    return Contents((Part((name,), config=config),))


def _below(names: Iterable[str], folder: str) -> list[str]:
    return [name.removeprefix(f"{folder}/") for name in names if name.startswith(f"{folder}/") and name.count("/") == 1]


def _groups(names: Iterable[str]) -> dict[str, str]:
    """The weight files: one entry for what is the same weights in several precisions, formats or shards."""
    found: dict[str, str] = {}
    for name in sorted(names):
        if (match := WEIGHTS.fullmatch(name)) and not TRAINING.fullmatch(name):
            found.setdefault(_stem(match), name)
    return found


def _stem(match: re.Match) -> str:
    return {"pytorch_model": "model"}.get(match["stem"], match["stem"])  # transformers' names of one thing


def _part(names: Sequence[str], where: str, folder: str, component: str | None, pipeline: bool) -> Part:
    """The part of a folder whose weight files are of one sort."""
    groups = _groups(names)
    if len(groups) > 1:
        raise SystemExit(f"{where}: holds several candidates, {_list(groups.values())}; name one of them")
    [stem] = groups
    sets: dict[tuple[int, int], list[re.Match]] = {}
    for name in sorted(names):
        if (match := WEIGHTS.fullmatch(name)) and not TRAINING.fullmatch(name) and _stem(match) == stem:
            variant = match["variant"] or match["old_variant"]
            sets.setdefault((VARIANTS.index(variant), SUFFIXES.index(match["suffix"])), []).append(match)
    chosen = sets[min(sets)]
    if shards := {match["shard"]: int(match["shards"]) for match in chosen if match["shard"]}:
        chosen = [match for match in chosen if match["shard"]]
        [count] = set(shards.values()) if len(set(shards.values())) == 1 else [0]
        if count != len(shards):
            expected = f"{count} shards" if count else "shards of one set"
            raise SystemExit(f"{where}: expected {expected} of {stem}, found {_list(m[0] for m in chosen)}")
    elif len(chosen) > 1:
        raise SystemExit(f"{where}: holds several candidates, {_list(m[0] for m in chosen)}; name one of them")
    lead = f"{folder}/" if folder else ""
    config = next((name for name in ("adapter_config.json", "config.json") if name in names), None)
    if config == "adapter_config.json" and not stem.startswith("adapter_model"):
        raise SystemExit(f"{where}: has an adapter_config.json, and {chosen[0][0]} where adapter_model.* is expected")
    index = next((name for name in sorted(names) if shards and INDEX.fullmatch(name) and _of(name, chosen[0])), None)
    return Part(
        tuple(lead + match[0] for match in chosen),
        component,
        config and lead + config,
        index and lead + index,
        whole=pipeline or (config == "config.json" and stem in ("model", "diffusion_pytorch_model")),
    )


def _of(index: str, shard: re.Match) -> bool:
    """Whether an index is that of a shard's precision and format."""
    variant = shard["variant"] or shard["old_variant"]
    right = f"{shard['suffix']}.index" in index
    return (
        right and index.startswith(shard["stem"]) and (f".{variant}." in index if variant else ".index.json" in index)
    )


def _list(names: Iterable[str]) -> str:
    names = list(names)
    return ", ".join(names[:6] + ["..."] * (len(names) > 6))


def _hint(names: Sequence[str]) -> str:
    """Where below there are some, or what there is instead."""
    deeper = sorted({name.rpartition("/")[0] for name in names if "/" in name and name.endswith(SUFFIXES)})
    if deeper:
        return f" itself; name one of its folders, {_list(deeper)}"
    top = sorted({name.partition("/")[0] for name in names})
    found = f", only {_list(top)}" if top else "; it is empty"
    return f" that are read here ({', '.join(SUFFIXES)}){found}"
