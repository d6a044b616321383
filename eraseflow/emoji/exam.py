"""What the base model is asked, to see whether it reads English: prompts like its captions and others."""

from collections.abc import Callable

import numpy as np
import pandas as pd

from eraseflow.emoji import captions
from eraseflow.emoji.vocabulary import HELD_OUT_PAIRS, HELD_OUT_SYNONYMS, NAMES, STYLES

QUESTIONS = 512  # of each kind
SEED = 77

Pair = tuple[str, str]  # a name and a style
TRAINED = [(name, style) for name in NAMES for style in STYLES if (name, style) not in HELD_OUT_PAIRS]


def questions(count: int = QUESTIONS) -> pd.DataFrame:
    """`count` prompts of each kind: columns kind, prompt and expect ("object/horse;style/flat")."""
    kinds: dict[str, tuple[list[Pair], Callable[[Pair, np.random.Generator], str]]] = {
        "trained patterns": (TRAINED, trained_pattern),
        "held-out patterns": (TRAINED, held_out_pattern),
        "held-out adjectives and numbers": (TRAINED, held_out_adjective),
        "held-out synonyms": (
            [(name, style) for name, style in TRAINED if name in {held for held, _ in HELD_OUT_SYNONYMS}],
            held_out_synonym,
        ),
        "held-out pairs": (sorted(HELD_OUT_PAIRS), trained_pattern),
    }
    rows = []
    for place, (kind, (pairs, ask)) in enumerate(kinds.items()):
        rng = np.random.default_rng((SEED, place))
        order = [int(row) for _ in range(-(-count // len(pairs))) for row in rng.permutation(len(pairs))][:count]
        rows += [(kind, ask(pairs[row], rng), "object/{};style/{}".format(*pairs[row])) for row in order]
    return pd.DataFrame(rows, columns=["kind", "prompt", "expect"])


def _style(style: str, rng: np.random.Generator) -> str:
    return str(rng.choice(captions.STYLE_PHRASES[style][:-1]))


def trained_pattern(pair: Pair, rng: np.random.Generator) -> str:
    """A name in a trained sentence, with or without a trained adjective."""
    adjective = f"{rng.choice(captions.ADJECTIVES)} " if rng.random() < captions.WITH_ADJECTIVE else ""
    return captions.write(str(rng.choice(captions.FORMS)), adjective + pair[0], _style(pair[1], rng))


def held_out_pattern(pair: Pair, rng: np.random.Generator) -> str:
    """A name in a sentence that no caption has."""
    return captions.write(str(rng.choice(captions.HELD_OUT_FORMS)), pair[0], _style(pair[1], rng))


def held_out_adjective(pair: Pair, rng: np.random.Generator) -> str:
    """A name with an adjective or a number that no caption has, a third of them in the style's held-out phrase."""
    if rng.random() < 0.3:
        noun = f"{rng.choice(captions.HELD_OUT_NUMBERS)} {captions.plural(pair[0])}"
    else:
        noun = f"{rng.choice(captions.HELD_OUT_ADJECTIVES)} {pair[0]}"
    phrase = captions.STYLE_PHRASES[pair[1]][-1] if rng.random() < 1 / 3 else _style(pair[1], rng)
    return captions.write(str(rng.choice(captions.FORMS)), noun, phrase)


def held_out_synonym(pair: Pair, rng: np.random.Generator) -> str:
    """A word for the name that no caption has."""
    words = sorted(word for name, word in HELD_OUT_SYNONYMS if name == pair[0])
    return captions.write(str(rng.choice(captions.FORMS)), str(rng.choice(words)), _style(pair[1], rng))
