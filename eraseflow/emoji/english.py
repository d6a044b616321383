"""The text that tokenizer and text encoder learn English from: WordNet's words and glosses, and captions.

Captions are of trained words and forms alone; WordNet, as any dictionary, has the held-out words as well: that a mare
is a horse is knowledge, which picture to draw for it is what must be found without having been shown.
"""

import re
from dataclasses import dataclass

from eraseflow.emoji import wordnet
from eraseflow.emoji.captions import pool

MOST_WORDS = 14  # of a gloss; longer ones would not fit into a prompt


@dataclass(frozen=True)
class English:
    """Texts in lower case, each once: captions, words and phrases ("horse", "water gun"), glosses."""

    captions: list[str]
    words: list[str]
    glosses: list[str]


def read() -> English:
    """Fetch WordNet and write the captions. Raises: SystemExit with one line where it cannot be fetched."""
    words: dict[str, None] = {}
    glosses: dict[str, None] = {}
    for line in wordnet.lines(("noun", "verb", "adj", "adv"), "data"):
        head, _, gloss = line.partition("|")
        fields = head.split()
        for word in fields[4 : 4 + 2 * int(fields[3], 16) : 2]:
            word = re.sub(r"\(.*\)", "", word).lower().replace("_", " ")
            if re.fullmatch(r"[a-z][a-z' -]*", word):
                words[word] = None
        for piece in gloss.lower().split(";"):
            piece = re.sub(r"[^a-z0-9 ,'-]", "", piece).strip()
            if 3 <= len(piece.split()) <= MOST_WORDS:
                glosses[piece] = None
    captions = dict.fromkeys(caption.text for shown in pool().values() for caption in shown if caption.text)
    return English(list(captions), list(words), list(glosses))
