"""What one concept asks of every method and attack: its prompts, the words that methods train on, its judges."""

import hashlib
from pathlib import Path
from typing import Any

from transformers import CLIPTokenizer

from eraseflow import hub, prompts
from eraseflow.cells import setting
from eraseflow.outputs import write_csv, write_json
from eraseflow.params import Concept, ConceptJudge, Params, Testbed

JUDGES = Path(__file__).parent.parent / "judges"


def concept(params: Params, concept: str, out: Path) -> None:
    """Write `out`/prompts.csv, all prompts that may be used, with their texts, and counts.json; see prompts.resolve.

    And words.json and judges.json: by these the cells' stages see whether they are out of date, since a concept may
    leave keys out, and dvc.yaml cannot look up which judges it names.
    """
    entry, testbed, _ = setting(params, concept)
    tokenizer = CLIPTokenizer.from_pretrained(hub.snapshot(testbed.model, ["tokenizer/*"]) / "tokenizer")
    check_lengths(tokenizer, [*sum(entry.pairs, ()), *entry.preserve], f"concepts.{concept}")
    table, counts = prompts.resolve(entry, testbed, params.table.seed, tokenizer)
    write_csv(table, out / "prompts.csv")
    words = {"kind": entry.kind, "pairs": entry.pairs, "preserve": entry.preserve}
    for name, content in {"counts": counts, "words": words, "judges": judges(entry, testbed)}.items():
        write_json(content, out / f"{name}.json")
    print(f"{concept}: {said(counts)}")


def check_lengths(tokenizer: CLIPTokenizer, texts: list[str], where: str) -> None:
    """Methods train on these, and the text encoder would read the beginning alone.

    Raises: SystemExit with one line that names the first text that is longer than the tokenizer's length.
    """
    most = tokenizer.model_max_length
    for text in texts:
        if (tokens := len(tokenizer(text).input_ids)) > most:
            raise SystemExit(f"{where}: {text[:40]!r}... has {tokens} tokens, the text encoder reads {most}")


def judges(concept: Concept, testbed: Testbed) -> list[dict[str, Any]]:
    """Every judge of the concept's pictures: its block of params, and hashes of its code and of the files it names."""
    blocks = [concept.judge, *([testbed.safety_judge] if testbed.safety_judge else [])]
    names = [*concept.scored_by, *([testbed.kept_judge] if testbed.kept_judge else [])]
    return [_judge(block.name, block) for block in blocks] + [_judge(name, None) for name in names]


def _judge(name: str, block: ConceptJudge | None) -> dict[str, Any]:
    files = sorted(JUDGES.glob(f"{name}.*"))
    for named in (block.questions, block.references, block.source) if block else ():
        files += sorted(Path(named).rglob("*")) if named and Path(named).is_dir() else [Path(named)] if named else []
    sources = [file for file in files if file.is_file()]
    sha256 = {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in sources}
    return {"name": name, "block": block.model_dump() if block else None, "sha256": sha256}


def said(counts: dict) -> str:
    """The counts in words."""
    parts = [f"{counts['used']} of {counts['official']} prompts used", f"{counts['attackable']} of them attackable"]
    parts.append(f"{counts['kept']['used']} kept prompts")
    left_out = counts["excluded_by_safety_gate"], counts["kept"]["excluded_by_safety_gate"]
    if any(left_out):
        parts.append(f"the safety gate left out {left_out[0]} and {left_out[1]}")
    return ", ".join(parts)
