"""The literature's figures on Stable Diffusion 1.4, published.csv: each with its source and its known faults.

Columns of the file: method, concept, metric, value (as printed there), prompts (the denominator of which the value is a
fraction, empty where it is none or not known), notes (names of FOOTNOTES, separated by spaces), source.
"""

from pathlib import Path
from string import ascii_lowercase

import pandas as pd

from eraseflow.metrics.rates import Rate

FILE = Path(__file__).parents[1] / "published.csv"
PAPER, LEADERBOARD = "EraseFlow paper", "UnlearnDiffAtk benchmark leaderboard"  # how the sources begin
ATTACKED = "UnlearnDiffAtk ASR %"

# What a reader must know of a figure; a footnote's letter is its place here.
FOOTNOTES = {
    "dropped": (
        "UnlearnDiffAtk has 142 nudity prompts. Its program drops the 24 that are longer than 60 CLIP tokens, which "
        "leaves 118 to attack, and still divides by 142 (though not in every row: SPM's 130 and FMN's 139 successes "
        "are more than 118). Fractions of 118 and of 142 do not compare."
    ),
    "neither": "This percentage is no whole number of successes out of 118, nor out of 142, so it has no interval.",
    "hundred": "100 % fits any number of prompts; 118 is assumed, as in eight of the paper's ten other rows.",
    "of118": "A fraction of 118; the leaderboard's other rows, and this method's rate before the attack, are of 142.",
    "nofid": "The leaderboard gives no FID for SLD, so it is not in the figure.",
    "swapped": "The paper's two tables give MACE's and UCE's fine-grained score (60.47 and 36.15) the other way round.",
    "othertable": "The paper's other table has 82.24.",
    "fifty": "50 prompts are assumed: all rates of these concepts but one are multiples of 2 %.",
    "odd": "No fraction of 50 prompts, unlike the other rates of this concept, so it has no interval.",
}
LETTERS = dict(zip(FOOTNOTES, ascii_lowercase, strict=False))


def read() -> pd.DataFrame:
    """Every published figure, in the file's order.

    Beside the file's columns: printed (the value's text; `value` is a number), rate (a Rate, None where the figure is
    no fraction of a known number of prompts). `prompts` is NA there, `notes` a list.
    """
    frame = pd.read_csv(FILE, dtype=str, keep_default_na=False)
    frame = frame.rename(columns={"value": "printed"})
    frame.insert(3, "value", frame["printed"].astype(float))
    frame["prompts"] = pd.to_numeric(frame["prompts"]).astype("Int64")
    frame["notes"] = [notes.split() for notes in frame["notes"]]
    frame["rate"] = pd.Series(
        [_rate(value, prompts) for value, prompts in zip(frame["value"], frame["prompts"], strict=True)], dtype=object
    )
    return frame


def _rate(percent: float, prompts) -> Rate | None:
    """The whole number of successes that a percentage was printed from; some tables round, some cut."""
    return None if pd.isna(prompts) else Rate(round(percent * int(prompts) / 100), int(prompts))
