"""The emoji pictures: fetched from pinned, integrity-checked icon packages and rendered into one parquet."""

import hashlib
import tempfile
from pathlib import Path

import pandas as pd
import resvg_py
import torch
from tqdm import tqdm

from eraseflow.emoji.packages import NPM, npm, read_json
from eraseflow.emoji.vocabulary import FURTHER, GROUP_OF, ICON_OF, OTHERS, STYLES, UNSEEN
from eraseflow.images import from_png
from eraseflow.outputs import replacing

SIZE = 64  # stored side in pixels; the model draws at half of it, the judges augment from it


def render(icons: dict, name: str, size: int = SIZE) -> bytes:
    """One icon as PNG bytes, `size` pixels square on white."""
    body = icons["icons"].get(name) or icons["icons"][icons["aliases"][name]["parent"]]
    width, height = (body.get(side, icons.get(side, 16)) for side in ("width", "height"))
    side = max(width, height)  # a few icons are not square: centred
    left = body.get("left", 0) - (side - width) / 2
    top = body.get("top", 0) - (side - height) / 2
    svg = (
        '<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" '
        f'viewBox="{left} {top} {side} {side}">{body["body"]}</svg>'
    )
    return bytes(resvg_py.svg_to_bytes(svg_string=svg, width=size, height=size, background="white"))


def build(folder: Path) -> None:
    """Render the pictures into `pictures`, `others`, `further` and `unseen.parquet`, and the licence texts.

    `pictures` has every name in every style; `others` what is none of them, in every style, its group empty; `further`
    both kinds as more artists have drawn them, as far as they have, whose style is their package; `unseen` those names
    that an artist whom no network sees has drawn. Columns of all: name, group, style, package (with version), licence,
    sha256 (of the PNG), png.
    """
    tables: dict[str, list[pd.DataFrame]] = {"pictures": [], "others": [], "further": [], "unseen": []}
    others = {icon: icon for icon in OTHERS}
    further = [(package, (package, licence)) for package, licence in FURTHER.items()]
    with tempfile.TemporaryDirectory() as temporary, replacing(folder / "licences") as unfinished:
        unfinished.mkdir()
        texts = npm("spdx-license-list", Path(temporary))
        for style, (source, licence) in tqdm([*STYLES.items(), *further, UNSEEN], desc="rendering", unit="style"):
            package = npm(f"@iconify-json/{source}", Path(temporary))
            icons, info = read_json(package, "icons.json"), read_json(package, "info.json")
            if style == UNSEEN[0]:
                tables["unseen"].append(_render_all(style, source, licence, icons, ICON_OF))
            elif style in FURTHER:
                tables["further"].append(_render_all(style, source, licence, icons, ICON_OF | others))
            else:
                tables["pictures"].append(_render_all(style, source, licence, icons, ICON_OF))
                tables["others"].append(_render_all(style, source, licence, icons, others))
            notice = (
                f"Style `{style}`: {info['name']} by {info['author']['name']} ({info['author']['url']}),\n"
                f"licence {licence}; rendered from SVG to {SIZE}-pixel PNG without other changes.\n\n"
            )
            text = read_json(texts, f"licenses/{licence}.json")["licenseText"]
            text = text.replace("<year> <copyright holders>", info["author"]["name"])
            (unfinished / f"{source}.txt").write_text(notice + text.strip() + "\n", encoding="utf-8")
    for name, parts in tables.items():
        with replacing(folder / f"{name}.parquet") as unfinished:
            pd.concat(parts, ignore_index=True).to_parquet(unfinished, index=False)


def _render_all(style: str, source: str, licence: str, icons: dict, icon_of: dict[str, str]) -> pd.DataFrame:
    """The pictures of those names that this package has."""
    version = f"@iconify-json/{source}@{NPM[f'@iconify-json/{source}'][0]}"
    rows = []
    for name, icon in icon_of.items():
        if icon in icons["icons"] or icon in icons.get("aliases", {}):
            png = render(icons, icon)
            group = GROUP_OF.get(name, "")
            rows.append((name, group, style, version, licence, hashlib.sha256(png).hexdigest(), png))
    return pd.DataFrame(rows, columns=["name", "group", "style", "package", "licence", "sha256", "png"])


def load(parquet: Path, size: int = 32) -> tuple[pd.DataFrame, torch.Tensor]:
    """The table without its bytes, and the pictures as float32 (n, 3, size, size) in [0, 1].

    Reduced by averaging whole blocks of pixels, so `size` must divide 64.
    """
    table = pd.read_parquet(parquet)
    images = from_png(table.png).float() / 255
    return table.drop(columns="png"), torch.nn.functional.avg_pool2d(images, SIZE // size)
