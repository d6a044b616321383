"""What the emoji testbed can draw: names, groups, synonyms and styles, and which of them no training sees.

`names.csv` beside this file is the list: a name, its group, its icon in the packages, and synonyms chosen by hand,
among them kinds of the thing ("stallion") and descriptions ("striped horse").
"""

import csv
from pathlib import Path

import numpy as np

# style -> (icon package, licence); each style is drawn the same way for every name, ink and glossy by the same artist.
STYLES = {
    "flat": ("twemoji", "CC-BY-4.0"),
    "outline": ("openmoji", "CC-BY-SA-4.0"),
    "ink": ("fluent-emoji-high-contrast", "MIT"),
    "glossy": ("fluent-emoji", "MIT"),
    "soft": ("noto", "Apache-2.0"),
}
UNSEEN = ("unseen", ("emojione", "CC-BY-4.0"))  # another artist's drawings, on which judges are measured
# Further artists' drawings, from which judges alone learn what things look like: package -> licence.
FURTHER = {"noto-v1": "Apache-2.0", "streamline-emojis": "CC-BY-4.0", "fxemoji": "CC-BY-4.0"}
EARLIER = {"noto-v1": "soft"}  # packages whose drawings are an earlier version of a style's

with (Path(__file__).parent / "names.csv").open(encoding="utf-8", newline="") as _file:
    _ROWS = list(csv.DictReader(_file))
NAMES = [row["name"] for row in _ROWS]
GROUP_OF = {row["name"]: row["group"] for row in _ROWS}
ICON_OF = {row["name"]: row["icon"] for row in _ROWS}
SYNONYMS = {row["name"]: row["synonyms"].split("; ") for row in _ROWS}

# Pictures of none of the names, by which judges learn to say "something else"; every fifth is kept for their cards.
OTHERS = (Path(__file__).parent / "others.txt").read_text(encoding="utf-8").split()
HELD_OUT_OTHERS = OTHERS[::5]

# A tenth of the pictures and a fifth of the synonyms are held out, by a fixed draw: no network that draws sees them.
_rng = np.random.default_rng(20261127)
_names = _rng.permutation(NAMES)[: len(NAMES) * len(STYLES) // 10]
# At most one style of a name, and as many names for each style.
HELD_OUT_PAIRS = {(str(name), list(STYLES)[place % len(STYLES)]) for place, name in enumerate(_names)}
_pairs = [(name, word) for name, words in SYNONYMS.items() for word in words]
_held = _rng.permutation(len(_pairs))[: len(_pairs) // 5]
HELD_OUT_SYNONYMS = {_pairs[row] for row in sorted(_held)}


def group_of(name: str) -> str:
    """The group of a name, or what stands for one of the others."""
    return GROUP_OF.get(name, "something else")


def trained_synonyms(name: str) -> list[str]:
    """The synonyms of a name that captions of the training use; a name may have none, and the others do."""
    return [word for word in SYNONYMS.get(name, []) if (name, word) not in HELD_OUT_SYNONYMS]
