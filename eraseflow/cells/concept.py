"""What one concept asks of every method and attack: its prompts, the words that methods train on, its judges."""

import hashlib
from pathlib import Path
from typing import Any

from transformers import CLIPTokenizer

from eraseflow import hub, prompt_files, prompts, rows
from eraseflow.cells import setting
from eraseflow.outputs import write_json
from eraseflow.outside import notes
from eraseflow.outside.content import digests
from eraseflow.params import Concept, Params, Testbed

JUDGES = Path(__file__).parent.parent / "judges"


def concept(params: Params, concept: str, out: Path) -> None:
    """Write `out`/prompts.csv, all prompts that may be used, with their texts, and counts.json; see prompts.resolve.

    And words.json, judges.json, model.json and texts.json: by these the cells' stages see whether they are out of date,
    since a concept may leave keys out, and dvc.yaml can look up neither which judges it names nor what lies outside.
    """
    entry, testbed, _ = setting(params, concept)
    noted: dict[str, Any] = {"judges": judges(entry, testbed)}  # before anything is read, so that no change is missed
    noted["model"] = {"outside": notes.model(entry.testbed, testbed)}
    noted["texts"] = {"outside": notes.texts(entry, testbed)}
    tokenizer = CLIPTokenizer.from_pretrained(hub.snapshot(testbed.model, ["tokenizer/*"]) / "tokenizer")
    check_lengths(tokenizer, [*sum(entry.pairs, ()), *entry.preserve], f"concepts.{concept}")
    used = params.table
    table, counts = prompts.resolve(entry, testbed, used.seed, tokenizer, used.prompts, used.kept)
    prompts.write(table, out / "prompts.csv")
    words = entry.model_dump(include={"kind", "target", "anchor", "also", "preserve"}) | {"pairs": entry.pairs}
    for name, content in {"counts": counts, "words": words, **noted}.items():
        write_json(content, out / f"{name}.json")
    notices = [prompt_files.said(Path(), path) for path in (entry.prompts, testbed.kept)]
    print(f"{concept}: {said(counts)}", *filter(None, [*notices, prompts.drawn_twice(table, tokenizer)]), sep="\n")


def check_lengths(tokenizer: CLIPTokenizer, texts: list[str], where: str) -> None:
    """Methods train on these, and the text encoder would read the beginning alone.

    Raises: SystemExit with one line that names the first text that is longer than the tokenizer's length.
    """
    most = tokenizer.model_max_length
    for text in texts:
        if (tokens := len(tokenizer(text).input_ids)) > most:
            raise SystemExit(f"{where}: {text[:40]!r}... has {tokens} tokens, the text encoder reads {most}")


def judges(concept: Concept, testbed: Testbed) -> list[dict[str, Any]]:
    """Every judge of the concept's pictures: its block of params, its code, and the files that it reads."""
    with_block = [concept.judge, *([testbed.safety_judge] if testbed.safety_judge else [])]
    blocks = [block.model_dump() for block in with_block]
    names = notes.judges(concept, testbed)  # those with a block first
    return [_judge(name, concept, blocks[at] if at < len(blocks) else None) for at, name in enumerate(names)]


def _judge(name: str, concept: Concept, block: dict | None) -> dict[str, Any]:
    beside = sorted(
        file for file in JUDGES.glob(f"{name}.*") if file.suffix != ".py"
    )  # such as the names of its labels
    sha256 = rows.code(name, "judges") | {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in beside}
    found = {"name": name, "block": block, "sha256": sha256}
    return found | {"outside": digests(notes.judge(name, concept))}


def said(counts: dict) -> str:
    """The counts in words."""
    parts = [f"{counts['used']} of {counts['official']} prompts used", f"{counts['attackable']} of them attackable"]
    parts.append(f"{counts['kept']['used']} kept prompts")
    left_out = counts["excluded_by_safety_gate"], counts["kept"]["excluded_by_safety_gate"]
    if any(left_out):
        parts.append(f"the safety gate left out {left_out[0]} and {left_out[1]}")
    return ", ".join(parts)
