"""Writes the prompt files of this folder: `python prompts/emoji/write.py`. They are in git; add your own freely.

Every text stands once. Two thirds are of the sentences that captions of the training have, one third is of sentences
that no caption has. Prompts of a style or a fine-grained concept name it; those of a category name its members, by
their names and synonyms (of which the training has not seen all), and never the category.
"""

from collections.abc import Callable, Collection, Iterator
from pathlib import Path

import numpy as np
import pandas as pd

from eraseflow.emoji import captions
from eraseflow.emoji.exam import TRAINED
from eraseflow.emoji.vocabulary import GROUP_OF, STYLES, SYNONYMS

HERE = Path(__file__).parent
COUNT = 102  # of a concept
STYLE_CONCEPTS = ["ink", "outline", "glossy", "soft", "flat"]
FINE_GRAINED = ["unicorn", "penguin", "champagne bottle", "running shoe", "tiger"]
# In these the styles' erasure is trained (params.yaml, contexts), so that nothing is measured on them.
TRAINED_ON = {
    *("horse", "frog", "turtle", "hamburger", "grapes", "doughnut", "hammer", "bottle", "shoe", "bus", "dog", "fox"),
    *("whale", "banana", "carrot", "mushroom", "hat", "guitar", "sunflower", "balloon"),
}
CATEGORIES = ["weapon", "vehicle", "fruit", "insect", "instrument"]


def phrase(style: str, rng: np.random.Generator) -> str:
    """The style's name, or by half one of the phrases that the training has."""
    return str(rng.choice([captions.STYLE_PHRASES[style][0]] * 4 + captions.STYLE_PHRASES[style][1:-1]))


def described(noun: str, rng: np.random.Generator) -> str:
    """Every third with an adjective, every third of these with one that no caption has."""
    if rng.random() < 1 / 3:
        adjectives = captions.HELD_OUT_ADJECTIVES if rng.random() < 1 / 3 else captions.ADJECTIVES
        return f"{rng.choice(adjectives)} {noun}"
    return noun


def distinct(
    count: int, seed: int, write: Callable[[int, str, np.random.Generator], str], without: Collection[str] = ()
) -> Iterator[str]:
    """`count` different texts, none of them in `without`; every third is written with a held-out form."""
    rng, texts = np.random.default_rng(seed), dict[str, None]()
    while len(texts) < count:
        forms = captions.HELD_OUT_FORMS if len(texts) % 3 == 2 else captions.FORMS
        if (text := write(len(texts), str(rng.choice(forms)), rng)) not in without:
            texts[text] = None
    return iter(texts)


def of_style(style: str) -> Iterator[str]:
    """Names drawn from all groups, each at most once; the style by its name."""
    names = [name for name, other in TRAINED if other == style and name not in TRAINED_ON]
    names = [str(name) for name in np.random.default_rng(1).permutation(names)]
    word = captions.STYLE_PHRASES[style][0]

    def write(place: int, form: str, rng: np.random.Generator) -> str:
        return captions.write(form, described(names[place % len(names)], rng), word)

    return distinct(COUNT, 10 + STYLE_CONCEPTS.index(style), write)


def of_name(name: str) -> Iterator[str]:
    """The name in all styles in turn."""
    styles = [style for other, style in TRAINED if other == name]

    def write(place: int, form: str, rng: np.random.Generator) -> str:
        return captions.write(form, described(name, rng), phrase(styles[place % len(styles)], rng))

    return distinct(COUNT, 30 + FINE_GRAINED.index(name), write)


def of_category(group: str) -> Iterator[str]:
    """Members by name or synonym, in all styles in turn; never the category's own word."""
    members = [name for name, other in GROUP_OF.items() if other == group]

    def write(place: int, form: str, rng: np.random.Generator) -> str:
        name = members[place % len(members)]
        styles = [style for other, style in TRAINED if other == name]
        words = [name, *(word for word in SYNONYMS[name] if group not in word)]
        style = styles[place // len(members) % len(styles)]
        return captions.write(form, described(str(rng.choice(words)), rng), phrase(style, rng))

    return distinct(COUNT, 50 + CATEGORIES.index(group), write)


def kept(order_seed: int, seed: int, without: Collection[str] = ()) -> pd.DataFrame:
    """A prompt for every picture that a caption names, in a shuffled order, and what must be drawn."""
    order = [TRAINED[row] for row in np.random.default_rng(order_seed).permutation(len(TRAINED))]

    def write(place: int, form: str, rng: np.random.Generator) -> str:
        name, style = order[place]
        return captions.write(form, described(name, rng), phrase(style, rng))

    return pd.DataFrame(
        {
            "prompt": list(distinct(len(order), seed, write, without)),
            "expect": ["object/{};style/{}".format(*pair) for pair in order],
        }
    )


def files() -> dict[str, pd.DataFrame]:
    """Name of each file and what stands in it."""
    tables = {f"{style}_style": of_style(style) for style in STYLE_CONCEPTS}
    tables |= {name.replace(" ", "_"): of_name(name) for name in FINE_GRAINED}
    tables |= {group.replace(" ", "_"): of_category(group) for group in CATEGORIES}
    tables["weapon_named"] = of_category("weapon")  # the same, for a concept with its members listed
    found = {name: pd.DataFrame({"prompt": list(texts)}) for name, texts in tables.items()}
    found["kept"] = kept(2, 3)
    # What `make tune` keeps: other texts and seeds, so that no setting is chosen on what the tables report.
    found["kept_validation"] = kept(4, 5, without=set(found["kept"]["prompt"]))
    return found


if __name__ == "__main__":
    assert set(STYLES) == set(STYLE_CONCEPTS)
    for name, table in files().items():
        table.to_csv(HERE / f"{name}.csv", index=False)
