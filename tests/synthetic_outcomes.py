"""Frames of outcomes with known contents, as report/outcomes.py makes them."""

from collections.abc import Mapping, Sequence

import pandas as pd

from eraseflow.report.outcomes import COLUMNS


def made(
    seen: Mapping[str, Sequence[Sequence[bool]]],
    under: str = "un-attacked",
    concept: str = "weapon",
    kind: str = "category",
    pictures: int | None = None,
    texts: Sequence[str] | None = None,
) -> pd.DataFrame:
    """seen: of each method a row a prompt and in it a run each."""
    rows = []
    for method, prompts in seen.items():
        for place, prompt in enumerate(prompts):
            text = texts[place] if texts else f"text {place}"
            names = {"concept": concept, "kind": kind, "method": method, "under": under, "text": text}
            names |= {"prompt_id": f"p{place}", "pictures": pictures, "passes": pictures and 24.0 * pictures}
            rows += [names | {"run": run, "success": success} for run, success in enumerate(prompt)]
    return pd.DataFrame(rows, columns=[*COLUMNS, "run"]).astype({"success": bool})


def first(successes: int, n: int = 100, runs: int = 1) -> list[list[bool]]:
    """The first so many prompts succeed, in every run."""
    return [[place < successes] * runs for place in range(n)]
