"""What people call the things on the pictures: keywords of emoji lists and WordNet, sorted by what they are to a thing.

A synonym or narrower kind can stand for the name ("handgun"), a kind is what the thing is one of ("weapon"), a part is
something it has, a scene is what comes to mind with it ("bar"). Synonyms chosen by hand are in `names.csv`.
"""

import re
import tempfile
from collections import Counter
from pathlib import Path

import pandas as pd
import torch

from eraseflow.emoji import packages, teacher, wordnet
from eraseflow.emoji.vocabulary import GROUP_OF, HELD_OUT_SYNONYMS, ICON_OF, NAMES, STYLES, SYNONYMS
from eraseflow.outputs import replacing

COLUMNS = ["name", "group", "word", "relation", "source", "held_out"]
NEAR, RARE = 0.6, 3  # a keyword of a few emoji alone, whose sentence embedding is this near the name's, means the same
# What everything is a kind of says nothing.
ABSTRACT = {
    *("entity", "physical entity", "object", "physical object", "whole", "unit", "thing", "matter", "artifact"),
    *("artefact", "organism", "being", "living thing", "animate thing", "instrumentality", "instrumentation"),
    *("causal agent", "abstraction", "chordate", "vertebrate", "craniate", "commodity", "trade good", "good", "device"),
    *("conveyance", "structure", "container", "covering", "equipment", "solid", "substance"),
}
MOST_KINDS = 2  # that WordNet adds to a name's keywords


def build(out: Path) -> None:
    """Write a row a name and word (COLUMNS), own synonyms first. Raises: SystemExit where a package cannot be had."""
    keywords = _keywords()
    share = Counter(word for words in keywords.values() for word, _ in words)
    near = _nearness(keywords)
    rows = []
    for name in NAMES:
        rows += [(name, word, "synonym", "own", (name, word) in HELD_OUT_SYNONYMS) for word in SYNONYMS[name]]
        relations = _relations(name, {word for word, _ in keywords[name]})
        given = {name, *SYNONYMS[name]}
        for word, source in keywords[name]:
            meaning = "synonym" if near[name, word] > NEAR and share[word] <= RARE else "scene"
            if word not in given:
                rows.append((name, word, relations.get(word, meaning), source, False))
                given.add(word)
        kinds = [word for word, relation in relations.items() if relation == "kind" and word not in given]
        rows += [(name, word, "kind", "wordnet", False) for word in kinds[:MOST_KINDS]]
    table = pd.DataFrame(rows, columns=["name", "word", "relation", "source", "held_out"])
    with replacing(out) as unfinished:
        table.assign(group=table["name"].map(GROUP_OF))[COLUMNS].to_csv(unfinished, index=False)


def _keywords() -> dict[str, list[tuple[str, str]]]:
    """The emoji lists' words for each name, with the list that has them first."""
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        icons = packages.npm(f"@iconify-json/{STYLES['flat'][0]}", folder)
        characters = {icon: code for code, icon in packages.read_json(icons, "chars.json").items()}
        aliases = {
            alias: entry["parent"] for alias, entry in packages.read_json(icons, "icons.json")["aliases"].items()
        }
        library = packages.read_json(packages.npm("emojilib", folder), "dist/emoji-en-US.json")
        base = packages.read_json(packages.npm("emojibase-data", folder), "en/data.json")
    of_library = {_code(emoji): words for emoji, words in library.items()}
    of_base = {_code(entry["emoji"]): [entry["label"], *entry.get("tags", [])] for entry in base}
    found = {}
    for name in NAMES:
        icon = ICON_OF[name] if ICON_OF[name] in characters else aliases[ICON_OF[name]]
        code = "-".join(part for part in characters[icon].split("-") if part != "fe0f")
        lists = {"emojilib": of_library.get(code, []), "emojibase": of_base.get(code, [])}
        words: dict[str, str] = {}
        for source, listed in lists.items():
            for word in listed:
                plain = word.lower().replace("_", " ").strip()
                if re.fullmatch(r"[a-z][a-z' -]{2,}", plain):
                    words.setdefault(plain, source)
        found[name] = list(words.items())
    return found


def _code(emoji: str) -> str:
    return "-".join(f"{ord(character):x}" for character in emoji if ord(character) != 0xFE0F)


def _nearness(keywords: dict[str, list[tuple[str, str]]]) -> dict[tuple[str, str], float]:
    """The cosine of each name's sentence embedding with its keywords'."""
    texts = list(dict.fromkeys([*keywords, *(word for words in keywords.values() for word, _ in words)]))
    row = {text: place for place, text in enumerate(texts)}
    states = teacher.teach(texts).sentences.float()
    pairs = [(name, word) for name, words in keywords.items() for word, _ in words]
    cosines = torch.stack([states[row[name]] @ states[row[word]] for name, word in pairs])
    return dict(zip(pairs, cosines.tolist(), strict=True))


def _relations(name: str, keywords: set[str]) -> dict[str, str]:
    """WordNet's words for the name's sense, and what they are to it; kinds the nearest first.

    Of a name's senses the one is taken whose gloss and kinds have most words of the keywords and the group.
    """
    nouns = wordnet.nouns()
    candidates = nouns.of_word.get(name) or nouns.of_word.get(name.split()[-1]) or []
    known = {*keywords, GROUP_OF[name], GROUP_OF[name].split()[-1]}

    def fits(sense: str) -> int:
        entry = nouns.senses[sense]
        return len(known & {*re.findall("[a-z]+", entry.gloss), *entry.lemmas, *nouns.lemmas(sense, wordnet.KINDS, 6)})

    relations = {GROUP_OF[name]: "kind"}
    if candidates:
        sense = max(candidates, key=lambda one: (fits(one), -candidates.index(one)))
        relations |= dict.fromkeys(nouns.lemmas(sense, wordnet.PARTS), "part")
        kinds = nouns.lemmas(sense, wordnet.KINDS, 6)
        relations |= {word: "kind" for word in kinds if word not in ABSTRACT}
        relations |= dict.fromkeys(nouns.lemmas(sense, wordnet.NARROWER), "synonym")
        relations |= dict.fromkeys(nouns.senses[sense].lemmas, "synonym")
    return relations
