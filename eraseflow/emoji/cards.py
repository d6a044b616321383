"""How good the emoji testbed's own networks are: judges on held-out views, the base model on its own samples."""

from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import torch
from torch.nn.functional import normalize
from torchvision.utils import make_grid, save_image

from eraseflow import sampling, verdict
from eraseflow.cells import DEVICE, world_of
from eraseflow.emoji import judges, pictures
from eraseflow.emoji.vocabulary import STYLES
from eraseflow.judges import emoji_classifier
from eraseflow.metrics import emoji_clip
from eraseflow.outputs import replacing, write_json
from eraseflow.params import Params
from eraseflow.prompts import every_kept

ROUNDS = 2  # samples of every kept prompt
HELD_OUT_VIEWS = 4  # of every real picture
FIRST_SEED = 900_000
GRID_COLUMNS = 24


def _rates(scores: pd.DataFrame, expect: pd.Series, on: str) -> list[dict]:
    """How often object, style and both are right."""
    labels = expect.str.split(";")
    asked = {"object": labels.str[0], "style": labels.str[1], "object and style": expect}
    return [
        {"what": f"{what}, {on}", "right": int(verdict.right(scores, part).sum()), "n": len(part)}
        for what, part in asked.items()
    ]


def _pairing(features: emoji_clip.Features, pictures_: torch.Tensor, prompts: pd.Series, on: str) -> dict:
    """How often the image-text network prefers a picture's own prompt among all the prompts."""
    texts = list(dict.fromkeys(prompts))
    images, words = normalize(features.of_images(pictures_), dim=-1), normalize(features.of_texts(texts), dim=-1)
    best = [texts[index] for index in (images @ words.T).argmax(1)]
    right = sum(a == b for a, b in zip(best, prompts, strict=True))
    return {"what": f"own prompt among {len(texts)}, {on}", "right": right, "n": len(prompts)}


def write(params: Params, out: Path, folder: Path) -> None:
    """Draw every kept prompt twice and judge it; write the judges' cards, the sample grid and the training curve."""
    testbed, emoji = params.testbeds["emoji"], world_of("emoji")
    prompts = every_kept(testbed).reset_index(drop=True)
    judge, features = emoji_classifier.load(DEVICE), emoji_clip.load(DEVICE)

    table, images = pictures.load(emoji.PICTURES, pictures.SIZE)
    rng = np.random.default_rng(judges.HELD_OUT_SEED)
    views = torch.cat([judges.view(images, rng) for _ in range(HELD_OUT_VIEWS)])
    views = (views * 255).round().to(torch.uint8)
    shown = pd.concat(["object/" + table.name + ";style/" + table["style"]] * HELD_OUT_VIEWS, ignore_index=True)
    captions = shown.map(prompts.set_index("expect").prompt)

    pipeline = emoji.load_pipeline(testbed.model, DEVICE)
    asked = pd.concat([prompts] * ROUNDS, ignore_index=True)
    seeds = [FIRST_SEED + row for row in range(len(asked))]
    guidance = [testbed.sampling.guidance_scale] * len(asked)
    drawn = torch.cat(
        list(sampling.sample(pipeline, list(asked.prompt), seeds, guidance, testbed.sampling, emoji.BATCH))
    )

    real, ours = "held-out views of real pictures", "samples of the base model"
    cards = {
        "emoji_classifier": {
            "card": "A convolutional network with an object and a style head, trained on augmented real pictures only.",
            "accuracies": _rates(judge(views), shown, real) + _rates(judge(drawn), asked.expect, ours),
        },
        "emoji_clip": {
            "card": "An open_clip image-text network, trained on augmented real pictures and their captions; "
            "its image features give the Fréchet and kernel distances.",
            "accuracies": [
                _pairing(features, views, captions, real),
                _pairing(features, drawn, asked.prompt, ours),
            ],
        },
    }
    with replacing(folder) as unfinished:
        unfinished.mkdir()
        _grid(drawn[: len(prompts)], prompts, unfinished / "samples.png")
        _curve(Path(testbed.model) / "losses.csv", unfinished / "losses.png")
    write_json(cards, out)


def _grid(drawn: torch.Tensor, prompts: pd.DataFrame, unfinished: Path) -> None:
    """Every name in every style, the styles of a name below each other, 24 names a band."""
    row_of = {label: row for row, label in enumerate(prompts.expect)}
    names = list(dict.fromkeys(prompts.expect.str.split(";").str[0]))
    bands = [names[start : start + GRID_COLUMNS] for start in range(0, len(names), GRID_COLUMNS)]
    rows = [row_of[f"{name};style/{style}"] for band in bands for style in STYLES for name in band]
    large = torch.nn.functional.interpolate(drawn[rows].float() / 255, scale_factor=2)
    save_image(make_grid(large, nrow=GRID_COLUMNS, padding=2, pad_value=1), unfinished)


def _curve(losses: Path, unfinished: Path) -> None:
    """The three trainings' losses, each smoothed over a hundredth of its steps."""
    titles = {"text_encoder": "text encoder (InfoNCE)", "vae": "autoencoder (L1 + edges)", "unet": "U-Net (noise MSE)"}
    table = pd.read_csv(losses, index_col="step")
    figure, axes = plt.subplots(1, 3, figsize=(10, 3), layout="constrained")
    for axis, (part, title) in zip(axes, titles.items(), strict=True):
        curve = table[part].dropna()
        axis.plot(curve.rolling(max(len(curve) // 100, 1)).mean())
        axis.set(title=title, xlabel="step", ylabel="loss")
        axis.grid(alpha=0.3)
    figure.savefig(unfinished, dpi=120, metadata={"Software": None})
    plt.close(figure)
