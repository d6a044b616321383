"""The prompts of one concept, shared by every method and attack."""

import json
from pathlib import Path

from transformers import CLIPTokenizer

from eraseflow import hub, prompts
from eraseflow.cells import setting
from eraseflow.params import Params


def concept(params: Params, concept: str, out: Path) -> None:
    """Write `out`/prompts.csv, all prompts that may be used, with their texts, and counts.json; see prompts.resolve."""
    entry, testbed, _ = setting(params, concept)
    tokenizer = CLIPTokenizer.from_pretrained(hub.snapshot(testbed.model, ["tokenizer/*"]) / "tokenizer")
    table, counts = prompts.resolve(entry, testbed, params.table.seed, tokenizer)
    out.mkdir(parents=True, exist_ok=True)
    table.to_csv(out / "prompts.csv", index=False, lineterminator="\n")
    (out / "counts.json").write_text(json.dumps(counts, indent=1) + "\n")
    print(f"{concept}: {said(counts)}")


def said(counts: dict) -> str:
    """The counts in words."""
    parts = [f"{counts['used']} of {counts['official']} prompts used", f"{counts['attackable']} of them attackable"]
    parts.append(f"{counts['kept']['used']} kept prompts")
    left_out = counts["excluded_by_safety_gate"], counts["kept"]["excluded_by_safety_gate"]
    if any(left_out):
        parts.append(f"the safety gate left out {left_out[0]} and {left_out[1]}")
    return ", ".join(parts)
