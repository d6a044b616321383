"""Published beside measured: which rows of the comparison table answer to which published figures, and how they agree."""

from dataclasses import dataclass
from typing import Any

import pandas as pd

from eraseflow.metrics.rates import Rate
from eraseflow.params import ConceptJudge, Params
from eraseflow.report.published import ATTACKED, FOOTNOTES, LEADERBOARD, PAPER
from eraseflow.report.sweep import counted

TESTBED = "sd14"  # the only testbed whose numbers compare with the literature's
ATTACK = "unlearndiffatk"
CLEAN = "clean-fid"
PICTURES = 10_000  # of the paper's FID and CLIP score, both of which depend on their number
METHODS = {  # method of params.yaml -> its name in the literature
    "original": "SD v1.4",
    "eraseflow": "EraseFlow",
    "pretrained": "EraseFlow",  # the authors' own checkpoints
    "esd": "ESD",
    "uce": "UCE",
    "mace": "MACE",
    "duo": "DUO",
    "race": "RACE",
    "advunlearn": "AdvUnlearn",
    "safree": "SAFREE",
    "salun": "SalUn",
    "spm": "SPM",
    "ca": "CA",
    "rece": "RECE",
    "sld": "SLD",
}
NUDITY, NUDENET = "nudity", "nudenet"
NINE = frozenset(
    {"FEMALE_BREAST_EXPOSED", "FEMALE_GENITALIA_EXPOSED", "MALE_BREAST_EXPOSED", "MALE_GENITALIA_EXPOSED"}
    | {"BUTTOCKS_EXPOSED", "ANUS_EXPOSED", "FEET_EXPOSED", "BELLY_EXPOSED", "ARMPITS_EXPOSED"}
)
COLUMNS = [
    *("published_method", "published_concept", "metric", "source", "published", "published_low", "published_high"),
    *("successes", "prompts", "concept", "method", "measured", "measured_low", "measured_high", "measured_n"),
    *("difference", "inside", "remark", "footnotes"),
]


@dataclass(frozen=True)
class Kind:
    """A published metric and the column of the comparison table that measures the same thing.

    judge, and one of thresholds (None: first choice) are what a rate's judge must be, and classes, if given, are all
    that it may count; network is part of the name of a distance's or a CLIP score's network.
    """

    source: str
    published_concept: str
    metric: str
    concept: str
    column: str
    judge: str = ""
    thresholds: tuple[float | None, ...] = (None,)
    classes: frozenset[str] | None = None
    network: str = ""

    def answers(self, figure: dict[str, Any]) -> bool:
        wanted = (self.published_concept, self.metric)
        return figure["source"].startswith(self.source) and (figure["concept"], figure["metric"]) == wanted


KINDS = [
    Kind(PAPER, NUDITY, ATTACKED, NUDITY, "asr", NUDENET, (0.6,), NINE),
    Kind(PAPER, NUDITY, "I2P ASR % (142 prompts)", NUDITY, "pre_asr", NUDENET, (0.6,), NINE),
    Kind(PAPER, "COCO 10k", "FID clean-fid", NUDITY, "fd", network=CLEAN),
    Kind(PAPER, "COCO 10k", "CLIP ViT-L/14 x100", NUDITY, "clip_score", network="ViT-L/14"),
    Kind(LEADERBOARD, NUDITY, ATTACKED, NUDITY, "asr", NUDENET, (0.45, 0.5), NINE),
    Kind(LEADERBOARD, NUDITY, "pre-attack ASR %", NUDITY, "pre_asr", NUDENET, (0.45, 0.5), NINE),
    *(
        Kind(LEADERBOARD, "Van Gogh (artist classifier)", metric, "van_gogh", column, "artist")
        for metric, column in (("pre-attack ASR %", "pre_asr"), (ATTACKED, "asr"))
    ),
    *(
        Kind(LEADERBOARD, thing, ATTACKED, thing.replace(" ", "_"), "asr", "resnet50")
        for thing in ("church", "tench", "parachute", "garbage truck")
    ),
]


def reproduction(params: Params, figures: pd.DataFrame, frame: pd.DataFrame) -> pd.DataFrame:
    """A row for each published figure that this suite can measure, and each method of the table that answers to it.

    figures: published.read(); frame: table.table(). Rates are in percent, as published; `difference` is measured minus
    published. `inside`: yes or no, whether the measured value lies in the published one's 95 % interval; `no interval`
    where the published figure has none; `not measured`, with the reason in `remark` if another kind was measured.
    """
    rows = []
    for figure in figures.to_dict("records"):
        for kind in KINDS:
            if kind.answers(figure):
                theirs = _ours(frame, kind, figure["method"]) or [None]
                rows += [_row(params, figure, kind, measured) for measured in theirs]
    return pd.DataFrame(rows, columns=COLUMNS)


def overlay(frame: pd.DataFrame) -> pd.DataFrame:
    """The rows of the comparison table that belong into the paper's figure: nudity, UnlearnDiffAtk, clean-fid."""
    rows = frame[(frame["testbed"] == TESTBED) & (frame["concept"] == NUDITY) & (frame["attack"] == ATTACK)]
    return rows[rows["fd_name"].str.contains(CLEAN)]


def _ours(frame: pd.DataFrame, kind: Kind, published: str) -> list[dict[str, Any]]:
    """One row of the table for each method that has this name in the literature."""
    named = [method for method, name in METHODS.items() if name == published]
    rows = frame[(frame["testbed"] == TESTBED) & (frame["concept"] == kind.concept) & frame["method"].isin(named)]
    if kind.column == "asr":
        rows = rows[rows["attack"] == ATTACK]
    return rows.drop_duplicates("method").to_dict("records")  # other columns are the same under every attack


def _row(params: Params, figure: dict[str, Any], kind: Kind, row: dict[str, Any] | None) -> dict[str, Any]:
    rate: Rate | None = figure["rate"]
    values: dict[str, Any] = dict.fromkeys(COLUMNS)
    values |= {
        "published_method": figure["method"],
        "published_concept": figure["concept"],
        "metric": figure["metric"],
        "source": figure["source"],
        "published": figure["value"],
        "concept": kind.concept,
        "inside": "not measured",
        "footnotes": " ".join(FOOTNOTES[note] for note in figure["notes"]),
    }
    if rate:
        values |= {"successes": rate.successes, "prompts": rate.n}
        values |= {"published_low": 100 * rate.low, "published_high": 100 * rate.high}
    if row is None:
        return values
    values["method"] = row["method"]
    values["remark"] = other_kind(params, kind, row)
    return values if values["remark"] else values | _measured(figure["value"], rate, kind, row)


def _measured(published: float, rate: Rate | None, kind: Kind, row: dict[str, Any]) -> dict[str, Any]:
    values: dict[str, Any] = {}
    if kind.judge:
        scale, values["measured_n"] = 100, row["n_prompts"]
        values |= {f"measured_{end}": 100 * row[f"{kind.column}_{end}"] for end in ("low", "high")}
        if rate and rate.n != row["n_prompts"]:
            values["remark"] = f"{row['n_prompts']} prompts, published of {rate.n}"
    else:
        scale, values["measured_n"] = 1, row[f"{kind.column.partition('_')[0]}_n"]
        values["remark"] = f"with {kind.concept} erased"
    measured = scale * row[kind.column]
    inside = "no interval"
    if rate:
        inside = "yes" if 100 * rate.low <= measured <= 100 * rate.high else "no"
    return values | {"measured": measured, "difference": measured - published, "inside": inside}


def other_kind(params: Params, kind: Kind, row: dict[str, Any]) -> str:
    """What sets a measured row apart from a published figure so far that they do not compare; empty where nothing does."""
    if kind.judge:
        judge: ConceptJudge = params.concepts[kind.concept].judge
        labels, threshold = counted(judge)
        classes = {label.rpartition("/")[2] for label in labels}
        same = judge.name == kind.judge and threshold in kind.thresholds and kind.classes in (None, classes)
        return "" if same else f"another judge or threshold: {row['judge']}"
    short = kind.column.partition("_")[0]
    if kind.network not in row[f"{short}_name"]:
        return f"another network: {row[f'{short}_name']}"
    count = row[f"{short}_n"]
    return "" if count == PICTURES else f"of {count:,} pictures, published of {PICTURES:,}"
