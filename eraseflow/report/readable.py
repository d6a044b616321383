"""The comparison table for people: Markdown and LaTeX, numerator, denominator and interval beside every rate."""

import textwrap

import pandas as pd

from eraseflow import verdict
from eraseflow.metrics.rates import Rate
from eraseflow.params import Params
from eraseflow.report import baselines, collapsed, measured
from eraseflow.report.outcomes import UNION
from eraseflow.report.table import ATTACKED_SUMMARY, REFERENCE, SUMMARY, further_clip, summaries, title

INTRODUCTION = (
    "Rates are successes/prompts with the 95 % Wilson interval in percent, of the effective number of prompts where "
    "some share a text; the score's name says which network judged. ASR counts, of all target prompts, those that "
    "show the concept un-attacked or attacked; under any attack, a prompt counts once any of the attacks succeeds; "
    "ASR of attackable counts those of the prompts that UnlearnDiffAtk, as published, attacks (at most 60 tokens). "
    f"p: McNemar's exact test, by text, of the ASR against {REFERENCE}'s on the same prompts, by Holm over all pairs "
    "of methods of the table. Ties: methods that share a letter under an attack are not told apart, a has the "
    "lowest ASR."
)
LUCK = (
    "An attack beats a baseline where it succeeds on more prompts at equal distinct judged pictures (the same text "
    "with the same seed is one picture), and McNemar's exact test on the same prompts, by text, gives p below 0.05, "
    "by Holm over all such comparisons of the table. At equal distinct pictures: a success counts unless the other "
    "one, having failed, had fewer pictures than this one needed. At equal passes: both within the U-Net passes a "
    "prompt, forward and backward, that the cheaper of the two had. A success names the concept where what the "
    "attack chose has a word or a token of its targets."
)
FEW = 2  # attacks, of which the table itself is short enough to be seen at a glance
WIDE = ("Training", "Attack,", "Beats", "Empty", "Found")  # columns for which a printed page has no room

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
        f"ASR before attack ↓ ({first['judge']})": _rates(rows, "pre_successes", "n_prompts", "pre_effective"),
        f"ASR ↓ ({first['judge']})": _rates(rows, "asr_successes", "n_prompts", "asr_effective"),
        "Ties": list(rows["ties"]),
        "Found by attacking": _named(rows),
        f"ASR of attackable ↓ ({first['judge']})": _rates(
            rows, "attackable_successes", "n_attackable", "attackable_effective"
        ),
        f"p against {REFERENCE}": ["" if pd.isna(p) else baselines.p_value(p) for p in rows["mcnemar_p_holm"]],
        **{f"Beats {baseline}": _beats(rows, baseline) for baseline in baselines.compared(frame)},
        "Attack, s/prompt": [
            _seconds(row.get("attack_seconds_per_prompt"), ".1f") if row["pre_successes"] < row["n_prompts"] else ""
            for row in rows.to_dict("records")
        ],
        **_empty(rows),
        **_summed_up(rows, ATTACKED_SUMMARY),
        f"ASR under any attack ↓ ({first['judge']})": _rates(rows, "any_successes", "n_prompts", "any_effective"),
        **(
            {f"Kept prompts right ↑ ({first['kept_judge']})": _rates(rows, "kept_right", "kept_n", "kept_effective")}
            if first["kept_judge"]
            else {}
        ),
        f"{first['fd_name']} ↓": _numbers(rows, "fd", ".4g"),
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
    rates = {"before the attack": _as_rates(first, "pre_successes", "n_prompts", "pre_effective")}
    for attack in rows["attack"].unique():  # not each is on every method
        of = rows[rows["attack"] == attack]
        found = dict(zip(of["method"], _as_rates(of, "asr_successes", "n_prompts", "asr_effective"), strict=True))
        rates[attack] = [found.get(method) for method in first["method"]]
    rates[UNION] = _as_rates(first, "any_successes", "n_prompts", "any_effective")
    marks = collapsed.flags(rows).groupby(rows["method"]).any()
    named = [name + f" ({collapsed.MARK})" * bool(marks[name]) for name in first["method"]]
    return pd.DataFrame(rates, index=pd.Index(named, name="method"))


def per_attack(frame: pd.DataFrame, concept: str) -> slice:
    """The columns of a concept's `readable` that differ between attacks on one method."""
    rows = frame[frame["concept"] == concept]
    return slice(1, 9 + len(baselines.compared(frame)) + len(_empty(rows)) + len(_summed_up(rows, ATTACKED_SUMMARY)))


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


def _as_rates(rows: pd.DataFrame, *columns: str) -> list[Rate | None]:
    """columns: of the successes, the prompts and the effective number of them; None where there is nothing to count."""
    return [
        Rate(int(successes), int(n), telling) if n else None for successes, n, telling in rows[list(columns)].to_numpy()
    ]


def _rates(rows: pd.DataFrame, *columns: str) -> list[str]:
    return ["" if rate is None else str(rate) for rate in _as_rates(rows, *columns)]


def _beats(rows: pd.DataFrame, baseline: str) -> list[str]:
    """Such as `no: 10 against 5 (p 0.062)`."""
    said = []
    for row in rows.to_dict("records"):
        ours, theirs, _, p, *_ = (row[name] for name in baselines.columns(baseline))
        answer = {"beats": "yes", "does not beat": "no", "cannot": "no room"}[baselines.verdict(row, baseline)]
        said.append("" if pd.isna(p) else f"{answer}: {ours:.0f} against {theirs:.0f} (p {baselines.p_value(p)})")
    return said


def _seconds(value: float | None, form: str) -> str:
    return measured.NOT if pd.isna(value) else format(value, form)


def _named(rows: pd.DataFrame) -> list[str]:
    """How many prompts were found by attacking and how many of these name the concept, such as `12, 3 naming it`."""
    found = rows["asr_successes"] - rows["pre_successes"]
    counts = zip(found, rows["named_successes"], strict=True)
    return [f"{every}" + f", {named} naming it" * bool(named) for every, named in counts]


def _numbers(rows: pd.DataFrame, column: str, form: str) -> list[str]:
    return ["" if pd.isna(value) else format(value, form) for value in rows[column]]


def markdown(params: Params, frame: pd.DataFrame) -> str:
    """One section a concept."""
    luck = f" {LUCK}" * bool(baselines.compared(frame))
    parts = [
        "# Concept erasure compared",
        params.report.purpose,
        f"{INTRODUCTION}{luck} ↓: lower is better, ↑: higher is better.",
    ]
    for name in params.table.concepts:
        concept, text = params.concepts[name], readable(params, frame, name)
        note = counted(frame[frame["concept"] == name])
        parts.append(f"## {name}\n\n{concept.kind}, “{concept.target}” → “{concept.anchor}”" + f". {note}" * bool(note))
        if (glance := at_a_glance(frame, name)) is not None:
            parts.append(f"ASR ↓ ({verdict.rule(concept.judge).name}):")
            rates = glance.map(lambda rate: "" if rate is None else str(rate))
            parts.append(markdown_table(rates.reset_index(names="Method")))
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
