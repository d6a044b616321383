"""EraseFlow as published, and with one part changed at a time: what keeps it from erasing, what costs the rest?

    python benchmarks/eraseflow_parts.py     # two hours of a core, into benchmarks/eraseflow_parts.csv

Each variant is trained on the validation concepts; then, on the category alone, five times as long, where the rest is
lost. seen: the share of the target prompts that show the concept; kept: of the kept prompts those that are drawn right,
over the unedited model's. A run that was stopped goes on.
"""

from pathlib import Path
from typing import Any

import pandas as pd
import torch

from eraseflow import params as all_params
from eraseflow.cells import DEVICE, setting
from eraseflow.methods import eraseflow
from eraseflow.outputs import write_csv
from eraseflow.params import Params
from eraseflow.tuning import trials

OUT = Path(__file__).with_suffix(".csv")
ROW = "eraseflow_published"
START = "the start token keeps the unedited keys and values"
VARIANTS: dict[str, dict[str, Any]] = {
    "as published": {},
    "a new trajectory in every step": {"switch_epoch": 1000},
    "the trajectories of the unedited model alone": {"switch_epoch": 0},
    "16 trajectories a step": {"batch_size": 16},
    "the concept's sentences, not the bare words": {"bare_words": False},
    "sentences, and a new trajectory in every step": {"bare_words": False, "switch_epoch": 1000},
    START: {},
    "keys and values of the cross-attention alone": {"lora_layers": ["attn2.to_k", "attn2.to_v"]},
    "no guidance in the loss": {"cfg": False},
    "the cleanest two fifths of the steps left out": {"skip_last": 20},
    "eta 0.1": {"eta": 0.1},
    "log beta + 0.5": {"log_beta_margin": 0.5},
}


def keep_start_token(pipeline, unedited) -> None:
    """Let every cross-attention read the first token, which all prompts share, by the unedited weights."""
    plain = dict(unedited.unet.named_modules())

    def hook(layer: torch.nn.Module):
        def replace(_, inputs: tuple, output: torch.Tensor) -> torch.Tensor:
            return torch.cat([layer(inputs[0][:, :1]), output[:, 1:]], dim=1)

        return replace

    for name, layer in pipeline.unet.named_modules():
        if name.endswith(("attn2.to_k", "attn2.to_v")):
            layer.register_forward_hook(hook(plain[name]))


def without_start(everything: Params, concept: str, change: dict[str, Any]) -> dict[str, Any]:
    """What `trials.of_method` finds, but that the start token is read as the unedited model reads it."""
    tuning = everything.tuning
    assert tuning
    entry, testbed, world = setting(everything, concept)
    pipeline, edited, unedited = (world.load_pipeline(testbed.model, DEVICE) for _ in range(3))
    settings = trials.changed(everything, "methods", ROW, concept, change)
    edited = eraseflow.erase(pipeline, entry, settings, tuning.seeds[0]).apply(edited)
    keep_start_token(edited, unedited)
    return trials.of_pipeline(everything, tuning, concept, edited)


def variants(everything: Params, kind: str, times: int) -> dict[str, dict[str, Any]]:
    """The changes of each, so many times as long as published; without those that change nothing for this kind."""
    published = everything.settings("methods", ROW, "emoji", kind).model_dump()
    longer = {name: times * published[name] for name in ("epochs", "switch_epoch")}
    found: dict[str, dict[str, Any]] = {}
    for variant, change in VARIANTS.items():
        if variant in ("as published", START) or any(published[name] != value for name, value in change.items()):
            found[variant] = longer | change
    return found


def main() -> None:
    torch.set_num_threads(1)
    everything = all_params.load()
    tuning = everything.tuning
    if tuning is None:
        raise SystemExit("params.yaml: tuning: missing; it says on which concepts")
    rows: list[dict[str, Any]] = []
    for kind, concept, times in [
        *((*item, 1) for item in tuning.concepts.items()),
        ("category", tuning.concepts["category"], 5),
    ]:
        unedited = 1.0
        for variant, change in variants(everything, kind, times).items():
            if variant == START:
                found = without_start(everything, concept, change)
            else:
                found = trials.of_method(everything, tuning, concept, ROW, change, tuning.seeds[0])
                unedited = found.pop("kept_unedited") or 1.0
            found["kept"] /= unedited
            rows.append({"concept": concept, "steps": change["epochs"], "variant": variant} | found)
            print(f"{concept}, {change['epochs']} steps, {variant}: {found}", flush=True)
            write_csv(pd.DataFrame(rows), OUT, float_format="%.4g")


if __name__ == "__main__":
    main()
