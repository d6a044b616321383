"""How good the emoji testbed's own networks are: judges on real pictures they have not seen, the base on its exam."""

from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import torch
from torch.nn.functional import normalize
from torchvision.utils import make_grid, save_image

from eraseflow import sampling, verdict
from eraseflow.cells import DEVICE, world_of
from eraseflow.emoji import exam, judges, pictures
from eraseflow.emoji.vocabulary import GROUP_OF, HELD_OUT_OTHERS, HELD_OUT_PAIRS, NAMES, STYLES
from eraseflow.judges import emoji_classifier
from eraseflow.metrics import emoji_clip
from eraseflow.outputs import replacing, write_json
from eraseflow.params import Params

FIRST_SEED = 900_000
GRID_COLUMNS = 36


def _rate(what: str, right: np.ndarray) -> dict:
    return {"what": what, "right": int(right.sum()), "n": len(right)}


def _rates(scores: pd.DataFrame, expect: pd.Series, on: str) -> list[dict]:
    """How often object, style and both are right."""
    labels = expect.str.split(";")
    asked = {"object": labels.str[0], "style": labels.str[1], "object and style": expect}
    return [_rate(f"{what}, {on}", verdict.right(scores, part)) for what, part in asked.items()]


def _pairing(features: emoji_clip.Features, pictures_: torch.Tensor, prompts: pd.Series, on: str) -> dict:
    """How often the image-text network prefers a picture's own prompt among all the prompts."""
    texts = list(dict.fromkeys(prompts))
    images, words = normalize(features.of_images(pictures_), dim=-1), normalize(features.of_texts(texts), dim=-1)
    best = [texts[index] for index in (images @ words.T).argmax(1)]
    return _rate(f"own prompt among {len(texts)}, {on}", np.array(best) == np.array(prompts))


def write(params: Params, out: Path, folder: Path) -> None:
    """Examine the judges and the base model; write the cards, a grid of samples and the training curves."""
    testbed, emoji = params.testbeds["emoji"], world_of("emoji")
    judge, features = emoji_classifier.load(DEVICE), emoji_clip.load(DEVICE)
    pipeline = emoji.load_pipeline(testbed.model, DEVICE)

    def draw(prompts: pd.Series) -> torch.Tensor:
        seeds = [FIRST_SEED + row for row in range(len(prompts))]
        guidance = [testbed.sampling.guidance_scale] * len(prompts)
        drawn = sampling.sample(pipeline, list(prompts), seeds, guidance, testbed.sampling, emoji.BATCH)
        return torch.cat(list(drawn))

    asked = exam.questions()
    drawn = draw(asked.prompt)
    of_exam = judge(drawn)
    trained = (asked.kind == "trained patterns").to_numpy()
    cards = {
        "emoji_classifier": {
            "card": "A convolutional network with an object and a style head, trained on augmented real pictures only, "
            "among them other things and blends, which are something else.",
            **_of_classifier(judge),
        },
        "emoji_clip": {
            "card": "An open_clip image-text network, trained on augmented real pictures and their captions; "
            "its image features give the Fréchet distance.",
            "accuracies": [
                _pairing(features, drawn[trained], asked.prompt[trained], "samples of the base model, trained patterns")
            ],
        },
        "base": {
            "card": "The base model on prompts that it was trained like, and on four kinds that it was not; the "
            "classifier judges. A kind of thing is right where the judge's object is of the group asked for.",
            "accuracies": _of_base(of_exam, asked),
        },
    }
    table = pd.DataFrame([(name, style) for name in NAMES for style in STYLES], columns=["name", "style"])
    prompts = table["name"] + ", " + table["style"] + " style"
    with replacing(folder) as unfinished:
        unfinished.mkdir()
        _grid(draw(prompts), unfinished / "samples.png")
        _curve(Path(testbed.model) / "losses.csv", unfinished / "losses.png")
    write_json(cards, out)


def _of_base(scores: pd.DataFrame, asked: pd.DataFrame) -> list[dict]:
    """Object, style, both, and the object's group, for each kind of question."""
    rates = []
    chosen = pd.Series(verdict.first_choice(scores, "object"), index=asked.index).str.removeprefix("object/")
    group = asked.expect.str.split(";").str[0].str.removeprefix("object/").map(GROUP_OF)
    for kind, rows in asked.groupby(asked["kind"].astype(str), sort=False):
        rates += _rates(scores.loc[rows.index].reset_index(drop=True), rows.expect.reset_index(drop=True), kind)
        rates.append(
            _rate(f"kind of thing, {kind}", (chosen[rows.index].map(GROUP_OF) == group[rows.index]).to_numpy())
        )
    return rates


def _of_classifier(judge) -> dict:
    """Accuracies on pictures that it has not seen, and how often it takes what is no X for X, for each name X."""
    parts = {name: pictures.load(judges_path(name), pictures.SIZE) for name in ("pictures", "others", "unseen")}
    table, images = parts["pictures"]
    pairs = [pair in HELD_OUT_PAIRS for pair in zip(table["name"], table["style"], strict=True)]
    others, other_images = parts["others"]
    other = others["name"].isin(HELD_OUT_OTHERS).to_numpy()
    rng = np.random.default_rng(judges.HELD_OUT_SEED)
    sets = {
        "trained pictures, other augmentations": (table[~np.array(pairs)], judges.view(images[~np.array(pairs)], rng)),
        "held-out pairs": (table[pairs], _small(images[pairs])),
        "another artist's drawings": (parts["unseen"][0], _small(parts["unseen"][1])),
        "held-out other things": (others[other], _small(other_images[other])),
    }
    accuracies, seen = [], []
    for what, (rows, views) in sets.items():
        scores, rows = judge((views * 255).round().to(torch.uint8)), rows.reset_index(drop=True)
        if what == "held-out other things":
            is_object = pd.Series(f"object/{emoji_classifier.SOMETHING_ELSE}", index=rows.index)
        else:
            is_object = "object/" + rows["name"]
        accuracies.append(_rate(f"object, {what}", verdict.right(scores, is_object)))
        if what != "another artist's drawings":
            accuracies.append(_rate(f"style, {what}", verdict.right(scores, "style/" + rows["style"])))
        if not what.startswith("trained"):
            seen.append(pd.DataFrame({"is": is_object, "seen": verdict.first_choice(scores, "object")}))
    all_seen = pd.concat(seen)
    wrong = all_seen[all_seen["is"] != all_seen["seen"]]
    n = len(all_seen) - all_seen["is"].value_counts()
    false = {
        name: {
            "false": int((wrong["seen"] == f"object/{name}").sum()),
            "n": int(n.get(f"object/{name}", len(all_seen))),
        }
        for name in NAMES
    }
    return {"accuracies": accuracies, "false_positives": false}


def judges_path(name: str) -> Path:
    """Where a table of real pictures is."""
    return world_of("emoji").PICTURES.with_name(f"{name}.parquet")


def _small(images: torch.Tensor) -> torch.Tensor:
    """Stored pictures (n, 3, 64, 64) at the model's size."""
    return torch.nn.functional.avg_pool2d(images, 2)


def _grid(drawn: torch.Tensor, unfinished: Path) -> None:
    """Every name in every style, the styles of a name below each other."""
    of_name = drawn.view(len(NAMES), len(STYLES), *drawn.shape[1:])
    white = torch.full_like(of_name[0], 255)
    bands = [of_name[start : start + GRID_COLUMNS] for start in range(0, len(NAMES), GRID_COLUMNS)]
    rows = [
        picture
        for band in bands
        for style in range(len(STYLES))
        for picture in [*band[:, style], *[white[style]] * (GRID_COLUMNS - len(band))]
    ]
    save_image(make_grid(torch.stack(rows).float() / 255, nrow=GRID_COLUMNS, padding=2, pad_value=1), unfinished)


def _curve(losses: Path, unfinished: Path) -> None:
    """The three trainings' losses, each smoothed over a hundredth of its steps."""
    titles = {
        "text_encoder": "text encoder (1 - cosine)",
        "vae": "autoencoder (L1 + edges)",
        "unet": "U-Net (noise MSE)",
    }
    table = pd.read_csv(losses, index_col="step")
    figure, axes = plt.subplots(1, 3, figsize=(10, 3), layout="constrained")
    for axis, (part, title) in zip(axes, titles.items(), strict=True):
        curve = table[part].dropna()
        axis.plot(curve.rolling(max(len(curve) // 100, 1)).mean())
        axis.set(title=title, xlabel="step", ylabel="loss")
        axis.grid(alpha=0.3)
    figure.savefig(unfinished, dpi=120, metadata={"Software": None})
    plt.close(figure)
