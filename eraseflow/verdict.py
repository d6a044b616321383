"""From a judge's raw scores to a verdict: first choices within a head, against what counts or was asked for."""

import numpy as np
import pandas as pd


def first_choice(scores: pd.DataFrame, head: str) -> np.ndarray:
    """The label with the highest score among the columns "<head>/...", for each row."""
    columns = [column for column in scores.columns if column.startswith(head + "/")]
    return scores[columns].idxmax(axis=1).to_numpy()


def seen(scores: pd.DataFrame, counts: list[str]) -> np.ndarray:
    """Whether the first choice of a counted label's head is a counted label (n,)."""
    heads = {label.partition("/")[0] for label in counts}
    return np.any([np.isin(first_choice(scores, head), counts) for head in sorted(heads)], axis=0)


def right(scores: pd.DataFrame, expect: pd.Series) -> np.ndarray:
    """Whether every expected label ("object/horse;style/flat") is the first choice of its head (n,)."""
    choices = {head: first_choice(scores, head) for head in {column.partition("/")[0] for column in scores.columns}}
    return np.array(
        [
            all(choices[label.partition("/")[0]][row] == label for label in labels.split(";"))
            for row, labels in enumerate(expect)
        ]
    )
