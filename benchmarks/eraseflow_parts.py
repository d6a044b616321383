"""EraseFlow as published, and with one part changed at a time: what keeps it from erasing, what costs the rest?

    python benchmarks/eraseflow_parts.py     # under an hour of a core, into benchmarks/eraseflow_parts.csv

Each variant is trained on the validation concepts; then, on the category alone, five times as long, where the rest is
lost. seen: the share of the target prompts that show the concept; kept: of the kept prompts those that are drawn right,
over the unedited model's.
"""

from pathlib import Path
from typing import Any

import pandas as pd
import torch

from eraseflow import params as all_params
from eraseflow.cells import DEVICE, setting
from eraseflow.finite import NotFinite
from eraseflow.methods import eraseflow
from eraseflow.methods.eraseflow import Settings
from eraseflow.outputs import write_csv
from eraseflow.params import Params
from eraseflow.tuning import trials

OUT = Path(__file__).with_suffix(".csv")
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


def measure(everything: Params, concept: str, settings: Settings, start_kept: bool) -> dict[str, Any]:
    """Train and judge; start_kept: the start token is then read as the unedited model reads it."""
    tuning = everything.tuning
    assert tuning
    entry, testbed, world = setting(everything, concept)
    try:
        edit = eraseflow.erase(world.load_pipeline(testbed.model, DEVICE), entry, settings, tuning.seeds[0])
    except NotFinite as error:
        return {"seen": 1.0, "kept": 0.0, "failed": str(error)}
    edited = edit.apply(world.load_pipeline(testbed.model, DEVICE))
    if start_kept:
        keep_start_token(edited, world.load_pipeline(testbed.model, DEVICE))
    return trials.of_pipeline(everything, tuning, concept, edited)


def variants(everything: Params, kind: str, concept: str, times: int) -> dict[str, Settings]:
    """The settings of each, so many times as long as published; without those that change nothing for this kind."""
    published = everything.settings("methods", "eraseflow_published", "emoji", kind)
    longer = {name: times * getattr(published, name) for name in ("epochs", "switch_epoch")}
    found: dict[str, Settings] = {}
    for variant, change in VARIANTS.items():
        settings = trials.changed(everything, "methods", "eraseflow_published", concept, longer | change)
        if variant == START or settings not in found.values():
            found[variant] = settings
    return found


def main() -> None:
    torch.set_num_threads(1)
    everything = all_params.load()
    if everything.tuning is None:
        raise SystemExit("params.yaml: tuning: missing; it says on which concepts")
    concepts = everything.tuning.concepts
    rows: list[dict[str, Any]] = []
    for kind, concept, times in [*((*item, 1) for item in concepts.items()), ("category", concepts["category"], 5)]:
        plain = trials.judged(everything, everything.tuning, concept)
        for variant, settings in variants(everything, kind, concept, times).items():
            found = measure(everything, concept, settings, variant == START)
            kept = found["kept"] / (plain["kept"] or 1.0)
            rows.append({"concept": concept, "steps": settings.epochs, "variant": variant} | found | {"kept": kept})
            print(
                f"{concept}, {settings.epochs} steps, {variant}: seen {found['seen']:.0%}, kept {kept:.0%}", flush=True
            )
            write_csv(pd.DataFrame(rows), OUT, float_format="%.4g")


if __name__ == "__main__":
    main()
