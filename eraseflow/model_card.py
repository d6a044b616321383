"""The model card of an exported pipeline: what was erased, how, what was measured, limits and licence."""

import inspect
import json
from pathlib import Path

import yaml

from eraseflow import verdict
from eraseflow.cells import module
from eraseflow.edits import SAMPLER_FOLDER
from eraseflow.metrics.rates import Rate
from eraseflow.params import Params, SamplingSettings, of_kind
from eraseflow.report.cells import Cell, read_counts
from eraseflow.report.table import SCORES

UNEDITED = "original"
LIMITS = """\
- The concept may come back. The numbers above are of the prompts and attacks named there; another attack, another seed
  or a longer search can do more, and whoever has the weights can train the concept into them again.
- A judge is a network and errs; another judge or threshold gives other numbers.
- An erasure changes other pictures as well; the kept prompts sample what it may have cost.
- Intervals are of the prompts. They say nothing of how another training would have turned out.
- No safety checker is included. This is made for research on erasure and is no safeguard by itself."""


def card(params: Params, concept: str, method: str, cells: Path, concepts: Path, sampler: str = "") -> str:
    """The text of README.md, front matter first, from params and the files that the cell has so far.

    sampler: the method that works at sampling time, if there is one, which plain diffusers leaves out.
    Raises: CellError (one line) where one of these files is damaged.
    """
    entry = params.concepts[concept]
    testbed, world = params.testbeds[entry.testbed], module("testbeds", entry.testbed)
    licence, licence_text = world.LICENCE
    sampling, base = testbed.sampling, testbed.model.partition("@")[0]
    tags = ["concept-erasure", "machine-unlearning", "stable-diffusion", "text-to-image", f"erased-{concept}"]
    about = {"license": licence, "base_model": base, "library_name": "diffusers", "pipeline_tag": "text-to-image"}
    costs = json.loads((cells / concept / method / "costs.json").read_text(encoding="utf-8"))
    papers = [_paper(params.module(part)) for part in params.parts(method)]
    anchors = {entry.target: entry.anchor} | entry.also
    settings = {part: of_kind(params.methods[part].on[entry.testbed], entry.kind) for part in params.parts(method)}
    if not params.methods[method].compose:
        settings = settings[method]
    parts = [
        f"---\n{yaml.safe_dump({**about, 'tags': tags}, sort_keys=False)}---",
        f"# {base}, {concept} erased with {method}",
        "## What was erased",
        "\n".join(f"- “{target}”, with “{anchor}” in its place" for target, anchor in anchors.items()),
        f"A concept of the kind {entry.kind}." + _contexts(entry.contexts),
        "## How",
        "\n\n".join(papers),
        f"Base model: `{testbed.model}`. Seed: {params.table.seed}. {costs['optimiser_steps']} optimiser steps "
        f"({costs['device']}, {costs['precision']}). Settings:",
        f"```yaml\n{yaml.safe_dump(settings, sort_keys=False)}```" if settings else "None.",
        "## Measured",
        _measured(params, concept, method, cells, concepts),
        "## Use",
        *([_beside(sampler, sampling)] if sampler else []),
        "```python\nfrom diffusers import StableDiffusionPipeline\n\n"
        'pipeline = StableDiffusionPipeline.from_pretrained("path/to/this/folder")\n'
        f'picture = pipeline("a prompt", num_inference_steps={sampling.steps}, '
        f"guidance_scale={sampling.guidance_scale}).images[0]\n```",
        f"The scheduler is the solver with which it was measured, {sampling.solver}.",
        "## Limits",
        LIMITS,
        "## Licence",
        licence_text,
    ]
    return "\n\n".join(parts) + "\n"


def _paper(module_name: str) -> str:
    return (inspect.getdoc(module("methods", module_name)) or module_name).splitlines()[0]


def _beside(sampler: str, sampling: SamplingSettings) -> str:
    """How to draw with what diffusers' format has no place for."""
    scale = sampling.guidance_scale
    return f"""**Plain diffusers loads this folder without {sampler}, so it draws un-erased, or less erased.** That \
works while a picture is drawn; it is in `{SAMPLER_FOLDER}/` and is loaded with the package eraseflow, which drew what \
was measured:

```python
from pathlib import Path

from diffusers import StableDiffusionPipeline
from eraseflow.edits import Edit
from eraseflow.params import SamplingSettings
from eraseflow.sampling import sample

folder = "path/to/this/folder"
pipeline = StableDiffusionPipeline.from_pretrained(folder)
pipeline = Edit.load(Path(folder, "{SAMPLER_FOLDER}")).apply(pipeline)
settings = SamplingSettings(
    solver="{sampling.solver}", spacing="{sampling.spacing}", steps={sampling.steps}, guidance_scale={scale}
)
pictures = next(sample(pipeline, ["a prompt"], [0], [{scale}], settings, 1))  # (1, 3, H, W), uint8
```

Without it:"""


def _contexts(contexts: list[str]) -> str:
    return "" if contexts == ["{}"] else f" Trained in {len(contexts)} contexts, such as “{contexts[-1]}”."


def _measured(params: Params, concept: str, method: str, cells: Path, concepts: Path) -> str:
    """A table of what this cell has been measured to do, the unedited model's numbers beside it where there are any."""
    ours = numbers(params, Cell.of(cells, concept, method))
    if not ours:
        return "Not yet."
    theirs = {} if method == UNEDITED else numbers(params, Cell.of(cells, concept, UNEDITED))
    lines = ["| | this model |" + " unedited |" * bool(theirs), "| --- | --- |" + " --- |" * bool(theirs)]
    lines += [f"| {what} | {value} |" + f" {theirs.get(what, '')} |" * bool(theirs) for what, value in ours.items()]
    counts = read_counts(concepts, concept)
    used, official, left_out = (counts[name] for name in ("used", "official", "excluded_by_safety_gate"))
    said = (
        f"Rates are successes/prompts with the 95 % Wilson interval in percent, of all {used} target prompts used "
        f"({official} in the file, {left_out} left out by the safety gate). The network that judged and its threshold "
        "stand in brackets; distances and CLIP scores are named after their network and compare with no other's. "
        "↓: lower is better, ↑: higher is better."
    )
    return "\n".join(lines) + "\n\n" + said


def numbers(params: Params, cell: Cell) -> dict[str, str]:
    """What the cell's files say, by the name of each number; nothing where it is not scored."""
    if not (cell.folder / "scores.json").is_file():
        return {}
    entry = params.concepts[cell.concept]
    testbed, judge = params.testbeds[entry.testbed], verdict.rule(entry.judge).name
    scores = cell.scores([*SCORES, "target_seen", "target_n", "kept_right", "kept_n", "clip_scores", "summary"])
    said = {f"Target prompts that show the concept ↓ ({judge})": str(Rate(scores["target_seen"], scores["target_n"]))}
    for attack in params.attacks:
        if params.applies(attack, cell.method) and (cell.folder / f"attack-{attack}.parquet").is_file():
            success = cell.attack(attack)["success"]
            said[f"The same, un-attacked or under {attack} ↓ ({judge})"] = str(Rate(int(success.sum()), len(success)))
    for role in ("target", "kept"):
        if count := scores.get(f"{role}_empty", 0):
            said[f"Empty pictures of {role} prompts ↓"] = str(Rate(count, scores[f"{role}_n"]))
    if testbed.kept_judge:
        right = Rate(scores["kept_right"], scores["kept_n"])
        said[f"Kept prompts drawn right ↑ ({verdict.first_choice_name(testbed.kept_judge)})"] = str(right)
    said[f"{scores['fd_name']} ↓ (of {scores['fd_n']} pictures)"] = f"{scores['fd']:.4g}"
    said |= {f"{name} ↑": f"{value:.4g}" for name, value in scores["clip_scores"].items()}
    return said | {f"{name} (target prompts)": f"{value:.4g}" for name, value in scores["summary"].items()}
