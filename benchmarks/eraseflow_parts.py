"""EraseFlow as published, and with one part changed at a time: which part costs the rest on this testbed?

    python benchmarks/eraseflow_parts.py     # under half an hour of a core, into benchmarks/eraseflow_parts.csv

Each variant is trained on the validation concepts. seen: the share of the target prompts that show the concept; kept:
of the kept prompts those that are drawn right, over the unedited model's.
"""

from pathlib import Path
from typing import Any

import pandas as pd
import torch

from eraseflow import params as all_params
from eraseflow.cells import DEVICE, module, setting
from eraseflow.finite import NotFinite
from eraseflow.outputs import write_csv
from eraseflow.params import Params
from eraseflow.tuning import trials

OUT = Path(__file__).with_suffix(".csv")
VARIANTS: dict[str, dict[str, Any]] = {
    "as published": {},
    "the start token keeps the unedited keys and values": {},
    "keys and values of the cross-attention alone": {"lora_layers": ["attn2.to_k", "attn2.to_v"]},
    "trajectories of the unedited model alone": {"switch_epoch": 0},
    "no guidance in the loss": {"cfg": False},
    "the cleanest two fifths of the steps left out": {"num_steps": 50, "skip_last": 20},
    "eta 0.1": {"eta": 0.1},
    "log beta + 0.5": {"log_beta_margin": 0.5},
    "16 trajectories a step": {"batch_size": 16},
    "the concept's sentences beside the bare words": {"bare_words": False},
}
START = "the start token keeps the unedited keys and values"


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


def measure(everything: Params, concept: str, variant: str, seed: int) -> dict[str, Any]:
    """Train and judge one variant."""
    tuning = everything.tuning
    assert tuning
    entry, testbed, world = setting(everything, concept)
    settings = trials.changed(everything, "methods", "eraseflow_published", concept, VARIANTS[variant])
    pipeline = world.load_pipeline(testbed.model, DEVICE)
    try:
        edit = module("methods", "eraseflow").erase(pipeline, entry, settings, seed)
    except NotFinite as error:
        return {"seen": 1.0, "kept": 0.0, "failed": str(error)}
    edited = edit.apply(world.load_pipeline(testbed.model, DEVICE))
    if variant == START:
        keep_start_token(edited, world.load_pipeline(testbed.model, DEVICE))
    return trials.of_pipeline(everything, tuning, concept, edited)


def main() -> None:
    torch.set_num_threads(1)
    everything = all_params.load()
    if everything.tuning is None:
        raise SystemExit("params.yaml: tuning: missing; it says on which concepts")
    rows: list[dict[str, Any]] = []
    for kind, concept in everything.tuning.concepts.items():
        plain = trials.judged(everything, everything.tuning, concept)
        for variant in VARIANTS:
            found = measure(everything, concept, variant, everything.tuning.seeds[0])
            kept = found["kept"] / (plain["kept"] or 1.0)
            rows.append({"kind": kind, "concept": concept, "variant": variant} | found | {"kept": kept})
            print(f"{concept}: {variant}: seen {found['seen']:.0%}, kept {kept:.0%}", flush=True)
            write_csv(pd.DataFrame(rows), OUT, float_format="%.4g")


if __name__ == "__main__":
    main()
