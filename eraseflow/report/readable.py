"""The comparison table for people: Markdown and LaTeX, numerator, denominator and interval beside every rate."""

import textwrap

import pandas as pd

from eraseflow import verdict
from eraseflow.metrics.rates import Rate
from eraseflow.params import Params
from eraseflow.report import baselines, collapsed, measured
from eraseflow.report.table import ATTACKED_SUMMARY, REFERENCE, SUMMARY, further_clip, summaries, title

INTRODUCTION = (
    "Rates are successes/prompts with the 95 % Wilson interval in percent; the score's name says which network "
    "judged. ASR counts, of all target prompts, those that show the concept un-attacked or attacked; ASR of attackable "
    "counts them of the prompts that UnlearnDiffAtk, as published, attacks (at most 60 tokens). "
    f"p: McNemar's exact test of the ASR against {REFERENCE}'s on the same prompts."
)
LUCK = (
    "An attack beats a baseline where it succeeds on more prompts with as many judged images, and McNemar's exact test "
    "on the same prompts gives p below 0.05 (not corrected for the number of comparisons). At equal passes: its "
    "successes within as many U-Net passes, forward and backward, as the baseline had for a prompt."
)
FEW = 2  # attacks, of which the table itself is short enough to be seen at a glance
WIDE = ("KID", "Training", "Attack,", "Beats", "Empty")  # columns for which a printed page has no room

TEX = str.maketrans(
    {"&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_", "{": r"\{", "}": r"\}"}
    | {"~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "\\": r"\textbackslash{}"}
    | {"<": "$<$", ">": "$>$", "|": r"\textbar{}", "“": "``", "”": "''"}
    | {"↓": r"$\downarrow$", "↑": r"$\uparrow$", "→": r"$\to$", "±": r"$\pm$"}
)


def readable(params: Params, frame: pd.DataFrame, concept: str) -> pd.DataFrame:
    """One concept's rows as text; the headers name judge and feature network, arrows show which way is better.

    frame: with the columns of measured.beside, without which nothing is measured.
    """
    rows = frame[frame["concept"] == concept]
    first, (methods, attacks) = rows.iloc[0], collapsed.names(rows)
    columns: dict[str, list[str]] = {
        "Method": methods,
        "Attack": attacks,
        f"ASR before attack ↓ ({first['judge']})": _rates(rows, "pre_successes", "n_prompts"),
        f"ASR ↓ ({first['judge']})": _rates(rows, "asr_successes", "n_prompts"),
        f"ASR of attackable ↓ ({first['judge']})": _rates(rows, "attackable_successes", "n_attackable"),
        f"p against {REFERENCE}": ["" if pd.isna(p) else baselines.p_value(p) for p in rows["mcnemar_p"]],
        **{f"Beats {baseline}": _beats(rows, baseline) for baseline in baselines.compared(frame)},
        "Attack, s/prompt": [
            _seconds(row.get("attack_seconds_per_prompt"), ".1f") if row["pre_successes"] < row["n_prompts"] else ""
            for row in rows.to_dict("records")
        ],
        **_empty(rows),
        **_summed_up(rows, ATTACKED_SUMMARY),
        **(
            {f"Kept prompts right ↑ ({first['kept_judge']})": _rates(rows, "kept_right", "kept_n")}
            if first["kept_judge"]
            else {}
        ),
        f"{first['fd_name']} ↓": _numbers(rows, "fd", ".4g"),
        f"{first['kid_name']} ↓": _numbers(rows, "kid", ".3g"),
        f"{first['clip_name']} ↑": _numbers(rows, "clip_score", ".4g"),
        **{f"{name} ↑": _numbers(rows, name, ".4g") for name in further_clip(rows)},
        **_summed_up(rows, SUMMARY),
        "Training, s": [_seconds(row.get("train_seconds"), ".0f") for row in rows.to_dict("records")],
    }
    return pd.DataFrame(columns)


def _summed_up(rows: pd.DataFrame, prefix: str) -> dict[str, list[str]]:
    """The judges' summaries that one concept's rows have, by their title and which pictures they are of."""
    pictures = {SUMMARY: "target pictures", ATTACKED_SUMMARY: "attacked target pictures"}[prefix]
    names = [name for name in summaries(rows) if name.startswith(prefix) and rows[name].notna().all()]
    return {f"{title(name)} ({pictures})": _numbers(rows, name, ".4g") for name in names}


def _empty(rows: pd.DataFrame) -> dict[str, list[str]]:
    """The numbers of empty pictures, where one concept's rows have any."""
    return {collapsed.TITLE: list(map(collapsed.empty, rows.to_dict("records")))} if collapsed.any_empty(rows) else {}


def at_a_glance(frame: pd.DataFrame, concept: str) -> pd.DataFrame | None:
    """One concept's ASRs (Rate), a row a method: before an attack and under each; None where `readable` is short."""
    rows = frame[frame["concept"] == concept]
    if rows["attack"].nunique() <= FEW:
        return None
    first = rows.drop_duplicates("method")
    rates = {"before the attack": _as_rates(first, "pre_successes", "n_prompts")}
    for attack in rows["attack"].unique():  # each has the methods in the same order
        rates[attack] = _as_rates(rows[rows["attack"] == attack], "asr_successes", "n_prompts")
    marks = collapsed.flags(rows).groupby(rows["method"]).any()
    named = [name + f" ({collapsed.MARK})" * bool(marks[name]) for name in first["method"]]
    return pd.DataFrame(rates, index=pd.Index(named, name="method"))


def per_attack(frame: pd.DataFrame, concept: str) -> slice:
    """The columns of a concept's `readable` that differ between attacks on one method."""
    rows = frame[frame["concept"] == concept]
    return slice(1, 7 + len(baselines.compared(frame)) + len(_empty(rows)) + len(_summed_up(rows, ATTACKED_SUMMARY)))


def counted(rows: pd.DataFrame) -> str:
    """One concept's prompts in a sentence or two, where not all of its file are used and attackable, and the rows that
    have collapsed; else nothing.
    """
    first, stopped = rows.iloc[0], int(rows["n_blocked"].sum())
    said = []
    if not first["n_official"] == first["n_prompts"] == first["n_attackable"]:
        said.append(
            f"{first['n_prompts']} of {first['n_official']} prompts are used ({first['n_excluded']} excluded by the "
            f"safety gate); {first['n_attackable']} of them are attackable as published (at most 60 tokens)."
        )
    if stopped:
        said.append(f"The safety gate stopped {stopped} adversarial text{'s' if stopped > 1 else ''}, not drawn.")
    said += filter(None, [collapsed.said(rows)])
    return " ".join(said)


def _as_rates(rows: pd.DataFrame, successes: str, n: str) -> list[Rate | None]:
    """None where there is nothing to count."""
    return [Rate(int(a), int(b)) if b else None for a, b in zip(rows[successes], rows[n], strict=True)]


def _rates(rows: pd.DataFrame, successes: str, n: str) -> list[str]:
    return ["" if rate is None else str(rate) for rate in _as_rates(rows, successes, n)]


def _beats(rows: pd.DataFrame, baseline: str) -> list[str]:
    """Such as `no: 10 against 5 (p 0.062)`."""
    said = []
    for row in rows.to_dict("records"):
        ours, theirs, p, _ = (row[name] for name in baselines.columns(baseline))
        answer = {"beats": "yes", "does not beat": "no", "cannot": "no room"}[baselines.verdict(row, baseline)]
        said.append("" if pd.isna(p) else f"{answer}: {ours:.0f} against {theirs:.0f} (p {baselines.p_value(p)})")
    return said


def _seconds(value: float | None, form: str) -> str:
    return measured.NOT if pd.isna(value) else format(value, form)


def _numbers(rows: pd.DataFrame, column: str, form: str) -> list[str]:
    return ["" if pd.isna(value) else format(value, form) for value in rows[column]]


def markdown(params: Params, frame: pd.DataFrame) -> str:
    """One section a concept."""
    luck = f" {LUCK}" * bool(baselines.compared(frame))
    parts = ["# Concept erasure compared", f"{INTRODUCTION}{luck} ↓: lower is better, ↑: higher is better."]
    for name in params.table.concepts:
        concept, text = params.concepts[name], readable(params, frame, name)
        note = counted(frame[frame["concept"] == name])
        parts.append(f"## {name}\n\n{concept.kind}, “{concept.target}” → “{concept.anchor}”" + f". {note}" * bool(note))
        if (glance := at_a_glance(frame, name)) is not None:
            parts.append(f"ASR ↓ ({verdict.rule(concept.judge).name}):")
            parts.append(markdown_table(glance.astype(str).reset_index(names="Method")))
        parts.append(markdown_table(text))
        parts += baselines.sentences(frame[frame["concept"] == name])
    return "\n\n".join(parts) + "\n"


def markdown_table(text: pd.DataFrame) -> str:
    """A frame of strings as Markdown."""
    lines = [list(text.columns), ["---"] * len(text.columns), *text.to_numpy().tolist()]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def latex(params: Params, frame: pd.DataFrame) -> str:
    """One table environment a concept, for a document that loads booktabs and graphicx."""
    parts = ["% needs \\usepackage{booktabs,graphicx}"]
    for name in params.table.concepts:
        concept, text = params.concepts[name], readable(params, frame, name)
        text = text.drop(columns=[column for column in text.columns if column.startswith(WIDE)])
        headers, judges = zip(*(column.removesuffix(")").partition(" (")[::2] for column in text.columns), strict=True)
        named = ", ".join(
            f"{header.rstrip(' ↓↑')}: {judge}" for header, judge in zip(headers, judges, strict=True) if judge
        )
        note = counted(frame[frame["concept"] == name])
        caption = f"{name} ({concept.kind}, {concept.target} → {concept.anchor}). {INTRODUCTION} Judges: {named}."
        caption += f" {note}" * bool(note)
        rows = [
            " & ".join(_stacked(cell.split(" = ")) for cell in row) + r" \\ \addlinespace"
            for row in text.to_numpy().tolist()
        ]
        parts.append(
            "\n".join(
                [
                    r"\begin{table}[htbp]",
                    r"\centering\scriptsize\setlength{\tabcolsep}{2.5pt}",
                    rf"\caption{{{caption.translate(TEX)}}}",
                    rf"\label{{tab:{name}}}",
                    rf"\resizebox{{\linewidth}}{{!}}{{\begin{{tabular}}{{{'l' * len(text.columns)}}}",
                    r"\toprule",
                    " & ".join(_stacked(textwrap.wrap(header, 12)) for header in headers) + r" \\",
                    r"\midrule",
                    *rows,
                    r"\bottomrule",
                    r"\end{tabular}}",
                    r"\end{table}",
                ]
            )
        )
    return "\n\n".join(parts) + "\n"


def _stacked(lines: list[str]) -> str:
    """A cell of several lines, so that the columns fit a page."""
    text = r"\\".join(line.translate(TEX) for line in lines)
    return rf"\shortstack[l]{{{text}}}" if len(lines) > 1 else text
