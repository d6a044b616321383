"""The features of a testbed's real pictures, computed once for all cells."""

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from tqdm import trange

from eraseflow import finite
from eraseflow.cells import DEVICE, module, world_of
from eraseflow.inputs import reading
from eraseflow.outputs import replacing, write_json
from eraseflow.outside import notes
from eraseflow.params import Params
from eraseflow.shards import PART


def reference(params: Params, testbed: str, out: Path) -> None:
    """Write `out`/features.safetensors, and reference.json, which says of which pictures and network they are.

    reference.json: network, pictures (how many), sha256 (of all their names and pixels, in order) and names. What is
    read outside the repository is noted in pictures.json and networks.json.
    """
    entry, world = params.testbeds[testbed], world_of(testbed)
    noted = {"pictures": notes.pictures(testbed, entry), "networks": notes.networks(entry)}
    network = module("metrics", entry.features).load(DEVICE)
    names = world.real_names(entry)
    digest, parts = hashlib.sha256(), []
    for start in trange(0, len(names), PART, desc="reference", unit="part"):
        part = names[start : start + PART]
        pictures = world.real_pictures(entry, part)
        for name, picture in zip(part, pictures, strict=True):
            digest.update(name.encode() + repr(tuple(picture.shape)).encode() + picture.contiguous().numpy().tobytes())
        parts.append(network.of_images(pictures))
        features = pd.DataFrame(parts[-1].numpy())
        finite.table(f"{testbed}: features of {network.name}", features, part)
    about = {"network": network.name, "pictures": len(names), "sha256": digest.hexdigest(), "names": names}
    with replacing(out) as unfinished:
        unfinished.mkdir()
        save_file({"features": torch.cat(parts)}, unfinished / "features.safetensors")
        write_json(about, unfinished / "reference.json")
        for name, found in noted.items():
            write_json({"outside": found}, unfinished / f"{name}.json")


@dataclass(frozen=True)
class Reference:
    """Features (n, d) of real pictures, their names and the network's."""

    features: Tensor
    names: list[str]
    network: str

    @classmethod
    def load(cls, folder: Path, network: str) -> "Reference":
        """Read what `reference` wrote. Raises: SystemExit where it is missing or of another network."""
        if not (folder / "reference.json").is_file():
            raise SystemExit(f"{folder}: no reference here; `dvc repro reference` makes it")
        with reading(folder / "reference.json"):
            about = json.loads((folder / "reference.json").read_text(encoding="utf-8"))
            names, made_with = about["names"], about["network"]
        if made_with != network:
            raise SystemExit(f"{folder}: is of the network {made_with!r}, expected {network!r}; make it anew")
        with reading(folder / "features.safetensors"):
            features = load_file(folder / "features.safetensors")["features"]
        return cls(features, names, network)
