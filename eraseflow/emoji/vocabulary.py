"""What the emoji testbed can draw: names, groups and styles, and the captions that ask for them."""

from dataclasses import dataclass

import numpy as np

# style -> (icon package, licence); each style is one artist's hand, drawn the same way for every name.
STYLES = {
    "flat": ("twemoji", "CC-BY-4.0"),
    "outline": ("openmoji", "CC-BY-SA-4.0"),
    "ink": ("fluent-emoji-high-contrast", "MIT"),
    "glossy": ("fluent-emoji", "MIT"),
}

# group -> names; a name is the icon's name unless ICONS says otherwise.
GROUPS = {
    "animal": "unicorn,horse,cat,dog,panda,frog,pig,fox,lion,owl,penguin,octopus,butterfly,turtle,elephant,whale",
    "food": "pizza,hamburger,strawberry,banana,apple,grapes,watermelon,carrot,ice cream,doughnut,cake,mushroom",
    "weapon": "knife,dagger,bomb,swords,pistol,bow,axe",
    "tool": "hammer,wrench,scissors,screwdriver,saw,magnet,paintbrush",
    "drink": "champagne bottle,bottle,wine,beer,coffee,teapot",
    "clothing": "running shoe,shoe,shirt,hat,crown,glasses",
    "vehicle": "car,bus,bicycle,airplane,rocket,sailboat,helicopter",
    "plant": "sunflower,rose,cactus,fir,palm",
    "thing": "key,bell,umbrella,guitar,camera,balloon",
}
GROUP_OF = {name: group for group, names in GROUPS.items() for name in names.split(",")}
NAMES = list(GROUP_OF)

ICONS = {
    "horse": "horse-face",
    "cat": "cat-face",
    "dog": "dog-face",
    "pig": "pig-face",
    "whale": "spouting-whale",
    "apple": "red-apple",
    "ice cream": "soft-ice-cream",
    "cake": "birthday-cake",
    "knife": "kitchen-knife",
    "swords": "crossed-swords",
    "pistol": "water-pistol",
    "bow": "bow-and-arrow",
    "saw": "carpentry-saw",
    "champagne bottle": "bottle-with-popping-cork",
    "bottle": "lotion-bottle",
    "wine": "wine-glass",
    "beer": "beer-mug",
    "coffee": "hot-beverage",
    "running shoe": "running-shoe",
    "shoe": "mans-shoe",
    "shirt": "t-shirt",
    "hat": "top-hat",
    "car": "automobile",
    "fir": "evergreen-tree",
    "palm": "palm-tree",
}


def icon(name: str) -> str:
    """The icon packages' name of a picture."""
    return ICONS.get(name, name)


@dataclass(frozen=True)
class Caption:
    """A caption and what it promises of the picture; `None` leaves that free."""

    text: str
    name: str | None = None
    style: str | None = None
    group: str | None = None

    def fits(self, name: str, style: str) -> bool:
        """Whether the caption is true of the picture of `name` in `style`."""
        return self.name in (None, name) and self.style in (None, style) and self.group in (None, GROUP_OF[name])


# (template, share of the training captions); the shares add up to one.
FORMS = [
    ("a {name} in {style} style", 0.25),
    ("{style} style {name}", 0.15),
    ("a {name} {group} in {style} style", 0.10),
    ("a {name}", 0.08),
    ("{name}", 0.08),
    ("a {group} in {style} style", 0.06),
    ("{group}", 0.06),
    ("an emoji in {style} style", 0.06),
    ("{style} style", 0.04),
    ("an emoji", 0.02),
    ("", 0.10),
]


def write_caption(template: str, name: str, style: str) -> Caption:
    """Fill a template of FORMS for one picture."""
    values = {"name": name, "style": style, "group": GROUP_OF[name]}
    used = {key: value for key, value in values.items() if "{" + key + "}" in template}
    text = template.format(**values)
    first, _, rest = text.partition(" ")
    if first == "a" and rest.startswith(("a", "e", "i", "o", "umbrella")):
        text = "an " + rest
    return Caption(text, **used)


def random_caption(name: str, style: str, rng: np.random.Generator) -> Caption:
    """A caption of the picture in a form drawn by its share."""
    templates, shares = zip(*FORMS, strict=True)
    return write_caption(templates[rng.choice(len(templates), p=shares)], name, style)


def all_captions() -> list[Caption]:
    """Every caption of every picture, each text once, in a fixed order."""
    captions = (write_caption(form, n, s) for n in NAMES for s in STYLES for form, _ in FORMS)
    return list(dict.fromkeys(captions))
