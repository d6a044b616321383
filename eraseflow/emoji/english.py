"""The text that tokenizer and text encoder learn English from: captions, and WordNet's nouns and glosses.

Captions are of trained words and forms alone. Further sentences of the same forms are of any other noun, so that the
encoder knows what place a word has that no picture shows; held-out synonyms are not among them. As in any dictionary,
nouns and glosses have these words as well: that a mare is a horse is knowledge, which picture to draw for it is what
must be found without having been shown.
"""

import re
from collections import Counter
from dataclasses import dataclass

import numpy as np

from eraseflow.emoji import wordnet
from eraseflow.emoji.captions import pool, say
from eraseflow.emoji.vocabulary import HELD_OUT_SYNONYMS, STYLES

MOST_WORDS = 14  # of a gloss; longer ones would not fit into a prompt
# WordNet's files of things that can be seen: animals, artifacts, bodies, food, objects, phenomena, plants, shapes,
# substances; of these the words that WordNet uses more often than once are common. Capital letters mean a name.
CONCRETE = {"05", "06", "08", "13", "17", "19", "20", "25", "27"}
COMMON = 2
SENTENCES_A_NOUN = 2


@dataclass(frozen=True)
class English:
    """Texts in lower case, each once: captions, common nouns ("mare", "water gun"), sentences with these, glosses."""

    captions: list[str]
    nouns: list[str]
    sentences: list[str]
    glosses: list[str]


def read() -> English:
    """Fetch WordNet and write the captions. Raises: SystemExit with one line where it cannot be fetched."""
    concrete: dict[str, None] = {}
    glosses: dict[str, None] = {}
    seen: Counter[str] = Counter()
    for line in wordnet.lines(("noun", "verb", "adj", "adv"), "data"):
        head, _, gloss = line.partition("|")
        fields = head.split()
        lemmas = [lemma.replace("_", " ") for lemma in fields[4 : 4 + 2 * int(fields[3], 16) : 2]]
        if fields[2] == "n" and fields[1] in CONCRETE:
            concrete |= dict.fromkeys(lemma for lemma in lemmas if re.fullmatch(r"[a-z][a-z' -]+", lemma))
        seen.update(re.findall(r"[a-z'-]+", f"{' '.join(lemmas)} {gloss}".lower()))
        for piece in gloss.lower().split(";"):
            piece = re.sub(r"[^a-z0-9 ,'-]", "", piece).strip()
            if 3 <= len(piece.split()) <= MOST_WORDS:
                glosses[piece] = None
    nouns = [noun for noun in concrete if min(seen[word] for word in noun.split()) >= COMMON]
    captions = dict.fromkeys(caption.text for shown in pool().values() for caption in shown if caption.text)
    return English(list(captions), nouns, sentences(nouns), list(glosses))


def sentences(nouns: list[str]) -> list[str]:
    """Sentences in the captions' forms about nouns of the dictionary, drawn by a fixed seed."""
    rng, held_out = np.random.default_rng(1), {word for _, word in HELD_OUT_SYNONYMS}
    others = [noun for noun in nouns if noun not in held_out]
    drawn = (say(noun, str(rng.choice(list(STYLES))), rng) for noun in others for _ in range(SENTENCES_A_NOUN))
    return list(dict.fromkeys(drawn))
