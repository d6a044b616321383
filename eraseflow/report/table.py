"""The comparison table: one row a concept, method and attack, in the order of params.yaml's table."""

import json
from pathlib import Path
from typing import Any

import pandas as pd

from eraseflow import verdict
from eraseflow.metrics.rates import Rate, effective
from eraseflow.params import Params
from eraseflow.report import baselines, collapsed
from eraseflow.report.cells import Cell, CellError, read_counts
from eraseflow.report.outcomes import KEPT, UNION, outcomes
from eraseflow.report.pairs import letters, pairs, with_one

REFERENCE = "eraseflow"  # the method that the others are compared with, prompt by prompt
NETWORKS = ["fd_name", "clip_name"]
SCORES = ["fd", "fd_name", "fd_n", "clip_score", "clip_name", "clip_n"]
LUCK_FORMATS = "{:.0f}", "{:.0f}", "{:.3g}", "{:.3g}", "{:.0f}", "{:.0f}"
FORMATS = {
    **dict.fromkeys(["pre_asr", "pre_asr_low", "pre_asr_high", "asr", "asr_low", "asr_high"], "{:.4f}"),
    **dict.fromkeys(["asr_attackable", "asr_attackable_low", "asr_attackable_high"], "{:.4f}"),
    **dict.fromkeys(["any_asr", "any_asr_low", "any_asr_high"], "{:.4f}"),
    **dict.fromkeys(
        ["pre_effective", "asr_effective", "attackable_effective", "any_effective", "kept_effective"], "{:.6g}"
    ),
    **dict.fromkeys(["kept_accuracy", "kept_low", "kept_high"], "{:.4f}"),
    **dict.fromkeys(["fd", "clip_score"], "{:.6g}"),
    **dict.fromkeys(["kept_right", "attackable_successes"], "{:.0f}"),
    **dict.fromkeys(["mcnemar_p", "mcnemar_p_holm"], "{:.3g}"),
    **{
        name: form
        for baseline in baselines.BASELINES
        for name, form in zip(baselines.columns(baseline), LUCK_FORMATS, strict=True)
    },
}
CLIP = "CLIP score "  # what the columns of further image-text networks begin with, before the network's name
# What the columns of a judge's summary of the target pictures begin with, before its title: un-attacked, and attacked.
SUMMARY, ATTACKED_SUMMARY = "summary ", "attacked summary "


def table(params: Params, cells: Path, concepts: Path) -> pd.DataFrame:
    """Rates as fractions 0..1 with 95 % intervals (metrics.rates).

    mcnemar_p: of the test against REFERENCE's ASR (rates.paired_p), mcnemar_p_holm by Holm over all pairs of methods in
    the table; NaN for REFERENCE itself. ties: the letters of pairs.letters under this attack. any_...: of the prompts
    on which any attack succeeds, the same in every row of a method. ..._effective: see rates.effective.

    named_successes: of those found by attacking, where what the attack chose names the concept. distinct_pictures: the
    judged ones of all prompts without repeats. blind: the method works while a picture is drawn, and the attack's
    gradients do not pass through that.
    n_official counts the rows of the prompt file, n_excluded those that the safety gate left out, n_prompts those
    used, the denominators; n_attackable of these are attacked by UnlearnDiffAtk as published, and `asr_attackable` is
    over these alone (NaN where there are none). n_blocked counts adversarial texts that the gate stopped.
    target_empty, kept_empty, attacked_empty: empty pictures, see collapsed.COUNTS; collapsed: most of a set are.
    vs_<baseline>_...: see baselines.columns. "summary ...": what the concept's judges sum up of its target pictures,
    "attacked summary ..." of the last picture that the attack drew for each of their prompts.
    The cells come from params, so that files of a concept which left the table are not read.
    Raises: CellError (one line) where a file of the table is missing or scores of different networks would meet.
    """
    found, rows = outcomes(params, cells), []
    for (concept, method), own in found.groupby(["concept", "method"], sort=False):
        cell, counts = Cell.of(cells, str(concept), str(method)), read_counts(concepts, str(concept))
        rows += [_row(params, cell, counts, attack, own) for attack in params.attacks_on(str(method))]
    frame = _tested(pd.DataFrame(rows), found)
    check_networks(frame, str(cells))
    for column in further_clip(frame):
        if frame[column].isna().any():
            raise CellError(f"{cells}: only some of the cells have a {column}; run `dvc repro`")
    for column in summaries(frame):
        for concept, values in ((str(name), of[column]) for name, of in frame.groupby("concept")):
            if values.isna().any() and values.notna().any():
                name = title(column)
                raise CellError(f"{cells}/{concept}: only some of the cells have a {name}; run `dvc repro`")
    return frame


def check_networks(frame: pd.DataFrame, where: str) -> None:
    """Raises: CellError where rows have scores of different networks."""
    for column in NETWORKS:
        networks = frame[column].unique()
        if len(networks) > 1:
            raise CellError(f"{where}: {column} differs between cells ({', '.join(networks)}); they do not compare")


def _row(params: Params, cell: Cell, counts: dict[str, Any], attack: str, own: pd.DataFrame) -> dict[str, Any]:
    """own: of outcomes.outcomes(), the cell's."""
    concept, kept_judge = params.concepts[cell.concept], params.testbeds[params.table.testbed].kept_judge
    keys = ["clip_scores", "summary", "kept_right", "kept_n", "target_n", "judge", *collapsed.UNATTACKED]
    scores = cell.scores([*SCORES, *keys])
    costs = cell.attack_costs(attack)
    judge = verdict.rule(concept.judge).name
    for file, found in (("scores.json", scores["judge"]), (f"attack-{attack}.json", costs["judge"])):
        if found != judge:
            raise CellError(f"{cell.folder}/{file}: is by the judge {found}, the concept's is {judge}; run `dvc repro`")
    attacked = cell.attack(attack, ("blocked", "attackable", "named", "distinct"), scores=True)
    found = attacked[attacked["attackable"]]
    for kind, count, wanted in (
        ("prompts", len(attacked), counts["used"]),
        ("attackable prompts", len(found), counts["attackable"]),
    ):
        if count != wanted:
            what = f"has {count} {kind}, the concept {wanted}; run `dvc repro`"
            raise CellError(f"{cell.folder}/attack-{attack}.parquet: {what}")
    for role, wanted in (("target", counts["used"]), ("kept", counts["kept"]["used"])):
        if scores[f"{role}_n"] != wanted:
            what = f"is of {scores[f'{role}_n']} {role} pictures, the concept has {wanted} prompts; run `dvc repro`"
            raise CellError(f"{cell.folder}/scores.json: {what}")
    try:
        pre, asr = (Rate.of(attacked[column], attacked["prompt"]) for column in ("pre_success", "success"))
        attackable = Rate.of(found["success"], found["prompt"]) if len(found) else None
        of_union, kept_ones = (own[own["under"] == under] for under in (UNION, KEPT))
        union = Rate.of(of_union["success"], of_union["text"])
        kept = None
        if scores["kept_right"] is not None:
            telling = effective(kept_ones["success"].to_numpy(bool), kept_ones["text"]) if len(kept_ones) else None
            kept = Rate(scores["kept_right"], scores["kept_n"], telling)
    except ValueError as error:
        raise CellError(f"{cell.folder}: {error}") from None
    empty = {name: scores[name] for name in collapsed.UNATTACKED} | {"attacked_empty": costs["empty"]}
    return {
        "testbed": params.table.testbed,
        "concept": cell.concept,
        "kind": concept.kind,
        "method": cell.method,
        "attack": attack,
        "n_prompts": asr.n,
        "n_official": counts["official"],
        "n_attackable": counts["attackable"],
        "n_excluded": counts["excluded_by_safety_gate"],
        "n_blocked": int(attacked["blocked"].sum()),
        "pre_asr": pre.value,
        "pre_asr_low": pre.low,
        "pre_asr_high": pre.high,
        "asr": asr.value,
        "asr_low": asr.low,
        "asr_high": asr.high,
        "asr_successes": asr.successes,
        "pre_successes": pre.successes,
        "asr_attackable": attackable.value if attackable else float("nan"),
        "asr_attackable_low": attackable.low if attackable else float("nan"),
        "asr_attackable_high": attackable.high if attackable else float("nan"),
        "attackable_successes": attackable.successes if attackable else float("nan"),
        "any_asr": union.value,
        "any_asr_low": union.low,
        "any_asr_high": union.high,
        "any_successes": union.successes,
        "pre_effective": pre.effective,
        "asr_effective": asr.effective,
        "attackable_effective": attackable.effective if attackable else float("nan"),
        "any_effective": union.effective,
        "kept_effective": kept.effective if kept else float("nan"),
        "blind": params.blind(attack, cell.method),
        "named_successes": int((attacked["success"] & ~attacked["pre_success"] & attacked["named"]).sum()),
        "distinct_pictures": int(attacked["distinct"].sum()),
        "judge": judge,
        "kept_accuracy": kept.value if kept else float("nan"),
        "kept_low": kept.low if kept else float("nan"),
        "kept_high": kept.high if kept else float("nan"),
        "kept_right": kept.successes if kept else float("nan"),
        "kept_n": scores["kept_n"],
        "kept_judge": verdict.first_choice_name(kept_judge) if kept_judge else "",
        **{name: scores[name] for name in SCORES},
        **{name: score for name, score in scores["clip_scores"].items() if name != scores["clip_name"]},
        **empty,
        "collapsed": collapsed.has_collapsed({"n_prompts": asr.n, "kept_n": scores["kept_n"]} | empty),
        **{SUMMARY + name: value for name, value in scores["summary"].items()},
        **{ATTACKED_SUMMARY + name: value for name, value in cell.attack_summary(attack).items()},
    }


def _tested(frame: pd.DataFrame, found: pd.DataFrame) -> pd.DataFrame:
    """The rows with what takes the whole table: tests corrected by Holm, letters of ties, attacks beside luck."""
    tests, cell = pairs(found), ["concept", "attack", "method"]
    reference = with_one(tests, REFERENCE).rename(columns={"p": "mcnemar_p", "p_holm": "mcnemar_p_holm"})
    ties = letters(tests, found).rename("ties").reset_index()
    for columns in (reference, ties):
        frame = frame.merge(columns.rename(columns={"under": "attack"}), on=cell, how="left", validate="one_to_one")
    return baselines.beside(frame, baselines.against(found))


def further_clip(frame: pd.DataFrame) -> list[str]:
    """The columns with the scores of image-text networks after the first."""
    return [column for column in frame.columns if column.startswith(CLIP)]


def summaries(frame: pd.DataFrame) -> list[str]:
    """The columns with judges' summaries; a concept has values in those of its own judges."""
    return [column for column in frame.columns if column.startswith((SUMMARY, ATTACKED_SUMMARY))]


def title(column: str) -> str:
    """A summary's title, which says judge and unit, without what its column begins with."""
    return column.removeprefix(ATTACKED_SUMMARY).removeprefix(SUMMARY)


def strongest(frame: pd.DataFrame) -> pd.DataFrame:
    """The rows of each concept's and method's attack with most successes.

    Of equals that has not drawn mostly empty pictures, and of these the last in params' order.
    """
    marks = collapsed.flags(frame)
    best = (
        pd.concat([frame[~marks].iloc[::-1], frame[marks].iloc[::-1]])
        .groupby(["concept", "method"], sort=False)["asr_successes"]
        .idxmax()
    )
    return frame.loc[sorted(best)]


def formatted(frame: pd.DataFrame) -> pd.DataFrame:
    """The table as text, each column in its fixed format; empty where a value is NaN."""
    text = frame.copy().astype(object)
    further = dict.fromkeys([*further_clip(frame), *summaries(frame)], FORMATS["clip_score"])
    for column, form in (FORMATS | further).items():
        text[column] = ["" if pd.isna(value) else form.format(value) for value in frame[column]]
    return text.astype(str)


def metrics(frame: pd.DataFrame) -> str:
    """JSON for `dvc metrics`: concept -> method -> scores and attacks."""
    tree: dict[str, dict[str, dict[str, Any]]] = {}
    for row in frame.to_dict("records"):
        method = tree.setdefault(row["concept"], {}).setdefault(row["method"], {})
        for name in ("kept_accuracy", "fd", "clip_score"):
            method[name] = _rounded(row, name)
        rates = {name: _rounded(row, name) for name in ("pre_asr", "asr", "asr_attackable")}
        method.setdefault("attacks", {})[row["attack"]] = rates | ({"collapsed": True} if row["collapsed"] else {})
    return json.dumps(tree, indent=2, allow_nan=False) + "\n"


def _rounded(row: dict, name: str) -> float | None:
    return None if pd.isna(row[name]) else float(FORMATS[name].format(row[name]))
