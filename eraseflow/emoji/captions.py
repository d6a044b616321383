"""English for a picture: captions that the testbed's networks learn from, and turns of phrase that none of them sees.

A caption is a subject (a name, a synonym, its group) with or without an adjective, a phrase for the style, and a
sentence around both. A fifth of the adjectives, one phrase in six for each style and whole sentences are held out:
prompts and tests use them to see whether the model reads English or has learnt its captions by heart.
"""

import re
from dataclasses import dataclass

import numpy as np

from eraseflow.emoji.vocabulary import HELD_OUT_PAIRS, NAMES, STYLES, group_of, trained_synonyms

# style -> phrases; the first is the style's name, the last is held out.
STYLE_PHRASES = {
    style: phrases.split(", ")
    for style, phrases in {
        "flat": "flat style, flat design, simple flat colours, plain flat colours, a flat look, flat vector art",
        "outline": "outline style, thick black outlines, a comic look, coloured line art, bold outlines, "
        "cartoon outlines",
        "ink": "ink style, black and white, monochrome ink, a black ink look, monochrome line art, pen and ink",
        "glossy": "glossy style, shiny 3d style, glossy 3d, a shiny plastic look, glossy gradients, a polished 3d look",
        "soft": "soft style, soft shading, gentle shading, a softly painted look, soft realistic colours, soft shades",
    }.items()
}
ADJECTIVES = [
    *("red", "blue", "green", "yellow", "small", "big", "tiny", "huge", "old", "new", "nice", "lovely", "simple"),
    *("plain", "beautiful", "funny", "cute", "bright", "dark", "single", "happy", "cool", "famous", "ordinary"),
    *("little", "modern"),
]
HELD_OUT_ADJECTIVES = ["purple", "pink", "giant", "ancient", "pretty", "strange", "elegant"]
NUMBERS, HELD_OUT_NUMBERS = ["two", "three", "several", "some", "many"], ["four", "a pair of"]

# {x} is the subject with its article, {n} without, {s} the phrase for the style.
FORMS = [
    "{x} in {s}", "{x} in {s}", "{x}, {s}", "{s} {n}", "{n}, {s}", "{n} in {s}", "a picture of {x} in {s}",
    "a drawing of {x}, {s}", "an emoji of {x} in {s}", "an icon of {x}, {s}", "{s}: {x}", "a sticker of {x}, {s}",
    "{x} on a white background, {s}", "i want to see {x} in {s}", "{n} emoji, {s}", "{x} drawn in {s}", "the {n}, {s}",
    "show me {x} with {s}", "{x} with {s}", "this is {x} in {s}", "{s} picture of {x}", "a symbol for {x}, in {s}",
]  # fmt: skip
FREE_FORMS = [
    "{x}", "{x}", "{n}", "{n}", "a picture of {x}", "the {n}", "an emoji of {x}", "a drawing of {x}", "a photo of {x}",
    "{n} icon", "i like {x}", "this is {x}",
]  # fmt: skip
STYLE_FORMS = ["{s}", "an emoji in {s}", "something in {s}", "a picture with {s}"]
HELD_OUT_FORMS = [
    "my favourite {n} drawn in {s}", "a small picture of one {n}, {s}", "please draw me {x} in {s}",
    "here is {x}, done in {s}", "{s} artwork showing {x}", "there is {x} in this image, {s}",
    "look at this {n}, {s}", "an illustration with {x}, rendered in {s}", "could you paint {x} using {s}?",
    "a postcard that shows {x}, {s}", "{x} for my presentation, {s} please", "just {x}. {s}.",
]  # fmt: skip

# What a caption's subject is, and how often; a style that no caption names is left free.
SUBJECTS = {"name": 0.45, "synonym": 0.25, "name and group": 0.07, "group": 0.10, "none": 0.03, "empty": 0.10}
CAPTIONS_A_PICTURE = 30
WITHOUT_STYLE, WITH_ADJECTIVE, WITH_NUMBER = 0.15, 0.20, 0.08


@dataclass(frozen=True)
class Caption:
    """A caption and what it promises of the picture; `None` leaves that free."""

    text: str
    name: str | None = None
    style: str | None = None
    group: str | None = None

    def fits(self, name: str, style: str) -> bool:
        """Whether the caption is true of the picture of `name` in `style`."""
        return self.name in (None, name) and self.style in (None, style) and self.group in (None, group_of(name))


def with_article(noun: str) -> str:
    """ "a horse", "an apple"; a noun that seems to be a plural or has an article stays alone."""
    first, last = noun.split()[0], noun.split()[-1]
    if first in {"a", "an", "the", *NUMBERS, *HELD_OUT_NUMBERS} or (last.endswith("s") and last[-2] not in "us"):
        return noun
    return f"an {noun}" if noun.startswith(("a", "e", "i", "o", "umbrella")) else f"a {noun}"


def plural(noun: str) -> str:
    """The plural by English's regular rules; a noun that ends in s stays."""
    if noun.endswith("s"):
        return noun
    if noun.endswith("y") and noun[-2] not in "aeo":
        return noun[:-1] + "ies"
    return noun + ("es" if noun.endswith(("ch", "sh", "x", "z")) else "s")


def write(form: str, noun: str, style_phrase: str = "") -> str:
    """Fill a form: `noun` is the subject without its article."""
    text = form.format(x=with_article(noun), n=noun, s=style_phrase)
    return re.sub(r"\bin (?=thick|bold|cartoon|coloured|gentle|a |soft shad)", "with ", text)


def random_caption(name: str, style: str, rng: np.random.Generator) -> Caption:
    """A caption of the picture, of trained words and forms alone."""
    subject = rng.choice(list(SUBJECTS), p=list(SUBJECTS.values()))
    phrase = str(rng.choice(STYLE_PHRASES[style][:1] * 4 + STYLE_PHRASES[style][1:-1]))
    synonyms = trained_synonyms(name)
    if subject == "empty":
        return Caption("")
    if subject == "none":
        return Caption(write(str(rng.choice(STYLE_FORMS)), "picture", phrase), style=style)
    noun = {
        "synonym": str(rng.choice(synonyms)) if synonyms else name,
        "name and group": f"{name} {group_of(name)}",
        "group": group_of(name),
    }.get(subject, name)
    noun = counted(noun, rng)
    promised = {"group": group_of(name)} if subject == "group" else {"name": name}
    if rng.random() < WITHOUT_STYLE:
        return Caption(write(str(rng.choice(FREE_FORMS)), noun), **promised)
    return Caption(write(str(rng.choice(FORMS)), noun, phrase), style=style, **promised)


def counted(noun: str, rng: np.random.Generator) -> str:
    """The noun alone, with an adjective or with a number."""
    if rng.random() < WITH_ADJECTIVE:
        return f"{rng.choice(ADJECTIVES)} {noun}"
    if rng.random() < WITH_NUMBER:
        return f"{rng.choice(NUMBERS)} {plural(noun)}"
    return noun


def say(noun: str, style: str, rng: np.random.Generator) -> str:
    """A sentence about any noun in a trained form, every other with the style."""
    if rng.random() < 0.5:
        return write(str(rng.choice(FREE_FORMS)), counted(noun, rng))
    return write(str(rng.choice(FORMS)), counted(noun, rng), str(rng.choice(STYLE_PHRASES[style][:-1])))


def pool() -> dict[tuple[str, str], list[Caption]]:
    """The captions that each picture of the training is shown with, drawn by a fixed seed; none is held out."""
    rng = np.random.default_rng(0)
    pairs = [(name, style) for name in NAMES for style in STYLES if (name, style) not in HELD_OUT_PAIRS]
    return {pair: [random_caption(*pair, rng) for _ in range(CAPTIONS_A_PICTURE)] for pair in pairs}
