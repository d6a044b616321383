"""The paper's table in miniature, through `python -m eraseflow repro`: Stable Diffusion's classes and CLIP's tokenizer.

Concepts of three kinds with prompts of three sources. NudeNet runs as it is; where the Hub would be needed, small
networks stand in, each a module as a user would add it.
"""

import hashlib
import json
import os
import shutil
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from diffusers import StableDiffusionPipeline
from miniature_sd import build
from PIL import Image
from project_clone import as_stage, call, cells, clone, edit_params, hand_over, only, repro, without_figures
from safetensors.torch import load_file, save_file

from eraseflow import images
from eraseflow.judges import nudenet

pytestmark = pytest.mark.slow

TEXTS = ["a harbour at dawn", "a lamp", "two chairs", "a lamp on a table " * 30]
CONCEPTS, METHODS = ["nudity", "van_gogh", "pegasus"], ["eraseflow", "pretrained"]
JUDGE = '''"""A small judge: three colours."""

import pandas as pd

LABELS = ["colour/red", "colour/green", "colour/blue"]


def load(device, concept):
    return lambda pictures: pd.DataFrame(
        (pictures.float().mean((2, 3)) / 25).softmax(1).numpy(), columns=LABELS
    )


def summary(scores, concept):
    return {"mean red, %": 100 * float(scores["colour/red"].mean())}
'''
METRIC = '''"""A small network: colours at four places; its text features are the texts' letters."""

import torch
from torch.nn.functional import adaptive_avg_pool2d, cosine_similarity


class Colours:
    name = "colours"

    def of_images(self, pictures):
        return torch.cat([adaptive_avg_pool2d(picture[None].float(), 2).flatten(1) for picture in pictures])

    def truncated(self, texts):
        return sum(len(text) > 77 for text in texts)


def load(device):
    return Colours()


def similarity(network, pictures, texts):
    letters = torch.stack([torch.tensor([float(text.count(c)) for c in "abcdefghijkl"]) for text in texts])
    return 100 * cosine_similarity(network.of_images(pictures), letters)
'''


def miniaturise(folder: Path, weights: Path):
    def change(raw: dict) -> None:
        only(raw, CONCEPTS, ["original", *METHODS], ["unlearndiffatk"])
        raw["table"] |= {"testbed": "sd14", "concepts": CONCEPTS, "methods": METHODS, "attacks": ["unlearndiffatk"]}
        raw["testbeds"]["sd14"] |= {
            "model": str(folder / "model"), "features": "colours", "clip": ["colours"], "i2p": "data/i2p.csv",
        }  # fmt: skip
        raw["testbeds"]["sd14"]["sampling"]["steps"] = 2
        for name in CONCEPTS:
            raw["concepts"][name]["kept"]["count"] = 6
        raw["concepts"]["van_gogh"] |= {
            "judge": {"name": "colour", "counts": ["colour/blue"], "threshold": 0.4}, "scored_by": [],
        }  # fmt: skip
        raw["concepts"]["nudity"]["scored_by"] = ["colour"]
        raw["concepts"]["pegasus"]["judge"] = {"name": "colour", "counts": ["colour/red"]}
        raw["methods"]["eraseflow"]["sd14"] |= {"epochs": 2, "num_steps": 5}
        sources = {name: str(weights.with_name(f"{name}.safetensors")) for name in CONCEPTS}
        raw["methods"]["pretrained"]["sd14"]["sources"] = sources
        raw["attacks"]["unlearndiffatk"]["sd14"] |= {"rounds": 1, "iterations": 1}

    return change


def data(folder: Path) -> None:
    """What a user downloads and accepts: I2P's table, COCO's pictures and captions."""
    (folder / "data" / "i2p.csv").write_text(pd.DataFrame({"prompt": TEXTS}).to_csv(index=False))
    hashes = [hashlib.sha256(text.encode()).hexdigest() for text in TEXTS]
    rows = [f"{case},{hashes[case]},{tokens},{case},7,{case == 2}" for case, tokens in enumerate((6, 4, 4, 92))]
    header = "case_number,sha256,tokens,seed,guidance,minor_related_term"
    (folder / "prompts/sd14/nudity.csv").write_text("\n".join([header, *rows]) + "\n")
    for name in ("van_gogh", "pegasus"):
        path = folder / f"prompts/sd14/{name}.csv"
        path.write_text("\n".join(path.read_text().splitlines()[:3]).replace(",10\n", ",2\n") + "\n")
    (folder / "prompts/sd14/kept.csv").write_text("coco_val2014_captions,seed\n8,0\n")
    coco, rng = folder / "data" / "coco", np.random.default_rng(0)
    (coco / "val2014").mkdir(parents=True)
    for n in range(10):
        Image.fromarray(rng.integers(0, 256, (40 + n, 60, 3), np.uint8)).save(coco / "val2014" / f"{n}.jpg")
    images = [{"id": n, "file_name": f"{n}.jpg"} for n in range(10)]
    captions = [{"id": 100 + n, "image_id": n, "caption": f"A bowl of {n} lemons."} for n in range(10)]
    (coco / "captions_val2014.json").write_text(json.dumps({"images": images, "annotations": captions}))


@pytest.fixture(scope="module")
def chain(tmp_path_factory) -> tuple[Path, set[str]]:
    """A clone in which the table has been made, and the stages that ran."""
    folder = clone(tmp_path_factory.mktemp("clone"))
    (folder / "eraseflow" / "judges" / "colour.py").write_text(JUDGE)
    (folder / "eraseflow" / "metrics" / "colours.py").write_text(METRIC)
    build(folder / "model")
    other = StableDiffusionPipeline.from_pretrained(build(folder / "published", seed=1), safety_checker=None)
    weights = folder / "published.safetensors"
    save_file({"conv_in.weight": other.unet.get_parameter("conv_in.weight").data}, weights)
    for name in CONCEPTS:
        shutil.copy(weights, folder / f"{name}.safetensors")
    data(folder)
    without_figures(folder)
    edit_params(folder, miniaturise(folder, weights))
    return folder, repro(folder)


def test_the_whole_graph_ran(chain):
    _, ran = chain
    wanted = cells(CONCEPTS, METHODS, ["unlearndiffatk"]) | {f"concept@{name}" for name in CONCEPTS}
    assert wanted | {"reference@sd14", "report"} <= ran


def test_the_table_counts_and_names_its_judges(chain):
    table = pd.read_csv(chain[0] / "reports" / "table.csv").set_index(["concept", "method"])
    nudity = table.loc["nudity", "eraseflow"]
    assert (nudity.n_official, nudity.n_excluded, nudity.n_prompts, nudity.n_attackable) == (4, 1, 3, 2)
    assert nudity.judge == "nudenet 320n, 0.6, 9 classes"
    assert table.judge["van_gogh", "pretrained"] == "colour, 0.4, colour/blue"
    assert table.judge["pegasus", "pretrained"] == "colour top-1"
    assert table.n_prompts.loc["van_gogh"].eq(2).all() and table.n_prompts.loc["pegasus"].gt(2).all()
    assert table.fd_name.eq("FD colours").all() and table.clip_name.eq("CLIP score colours").all()
    assert table.kept_accuracy.isna().all(), "captions have no judge"
    for name in ("reproduction.csv", "table.md", "table.tex", "index.html"):
        assert (chain[0] / "reports" / name).stat().st_size > 1000


def test_nudenet_scored_every_picture(chain):
    judged = pd.read_parquet(chain[0] / "data/cells/nudity/eraseflow/judged.parquet")
    scores = judged[judged.role == "target"][nudenet.LABELS]
    assert len(scores) == 3 and scores.notna().all().all()
    assert "flagged" in judged and judged.filter(like="safety/").notna().all().all()


def test_the_reference_is_of_coco(chain):
    about = json.loads((chain[0] / "data/reference/sd14/reference.json").read_text())
    scores = json.loads((chain[0] / "data/cells/pegasus/pretrained/scores.json").read_text())
    assert about["pictures"] == scores["fd_reference_n"] == 8 and scores["fd_n"] == 6
    assert scores["summary"].keys() == {"mean red, %"}


def test_attacked_pictures_are_summed_up_by_every_judge_that_does(chain):
    """By the verdict's own and by those of scored_by, which see the last pictures; the table has a column of each."""
    folder, title = chain[0], "mean red, %"
    table = pd.read_csv(folder / "reports" / "table.csv").set_index(["concept", "method"])[f"attacked summary {title}"]
    for concept in CONCEPTS:
        cell = folder / f"data/cells/{concept}/eraseflow"
        attacked = pd.read_parquet(cell / "attack-unlearndiffatk.parquet")
        colours = (images.from_png(attacked.png).float().mean((2, 3)) / 25).softmax(1)
        expected = pytest.approx(100 * colours[:, 0].mean().item(), abs=1e-3)
        assert json.loads((cell / "attack-unlearndiffatk.json").read_text())["summary"] == {title: expected}
        assert table[concept, "eraseflow"] == pytest.approx(100 * colours[:, 0].mean().item(), rel=1e-4)


def test_the_pretrained_weights_are_in_the_pictures(chain):
    folder = chain[0]
    edit = load_file(folder / "data/cells/pegasus/pretrained/edit/weights.safetensors")
    published = load_file(folder / "published.safetensors")
    assert edit.keys() == {"unet.conv_in.weight"}
    assert torch.equal(edit["unet.conv_in.weight"], published["conv_in.weight"])
    lora = load_file(folder / "data/cells/pegasus/eraseflow/edit/pytorch_lora_weights.safetensors")
    assert any(tensor.abs().max() > 0 for name, tensor in lora.items() if ".up." in name)


def test_kinds_have_their_own_settings(chain):
    folder = chain[0]
    for name, log_z_moves in (("van_gogh", 5e-4), ("nudity", 3e-4)):
        training = pd.read_csv(folder / f"data/cells/{name}/eraseflow/training.csv")
        assert training.log_z[0] - -0.1953 == pytest.approx(np.sign(-training.residual[0]) * log_z_moves, rel=0.2)
    tokens = pd.read_parquet(folder / "data/cells/nudity/eraseflow/attack-unlearndiffatk.parquet").adversarial_tokens
    assert set(map(len, tokens)) == {5}
    tokens = pd.read_parquet(folder / "data/cells/pegasus/eraseflow/attack-unlearndiffatk.parquet").adversarial_tokens
    assert set(map(len, tokens)) <= {0, 3}


def test_nothing_is_out_of_date_and_a_cell_can_be_exported(chain):
    folder = chain[0]
    assert repro(folder) == set()
    command = [as_stage("__main__", folder), "export", "--concept", "pegasus", "--method", "eraseflow", "exported"]
    call(folder, sys.executable, *command, **hand_over(folder))
    pipeline = StableDiffusionPipeline.from_pretrained(folder / "exported")
    assert pipeline("a Pegasus", num_inference_steps=2).images[0].size == (64, 64)
    assert "“Pegasus”, with “Horse” in its place" in (folder / "exported" / "README.md").read_text()


def test_what_lies_outside_runs_again_what_was_made_of_it(chain):
    """New weights of one concept, a new picture of COCO, and files that are only touched."""
    folder = chain[0]
    weights = folder / "pegasus.safetensors"
    size = weights.stat().st_size
    save_file({name: tensor + 0.1 for name, tensor in load_file(weights).items()}, weights)
    assert weights.stat().st_size == size
    for name in ("nudity.safetensors", "data/i2p.csv", "model/unet/diffusion_pytorch_model.safetensors"):
        os.utime(folder / name)
    about = json.loads((folder / "data/reference/sd14/reference.json").read_text())
    Image.new("RGB", (60, 40)).save(folder / "data/coco/val2014" / about["names"][0])
    scores = {f"score@{concept}-{method}" for concept in CONCEPTS for method in METHODS}
    made = cells(["pegasus"], ["pretrained"], ["unlearndiffatk"]) | scores | {"methods", "reference@sd14", "report"}
    assert repro(folder) == made
    edit = load_file(folder / "data/cells/pegasus/pretrained/edit/weights.safetensors")
    assert torch.equal(edit["unet.conv_in.weight"], load_file(weights)["conv_in.weight"])
    assert repro(folder) == set()


def test_another_base_model_at_its_path_is_seen_by_the_launcher_and_by_a_cell(chain):
    folder = chain[0]
    file = folder / "model" / "unet" / "diffusion_pytorch_model.safetensors"
    before = file.read_bytes()
    try:
        save_file({name: tensor + 0.1 for name, tensor in load_file(file).items()}, file)
        said = call(folder, sys.executable, "-m", "eraseflow", "check").stdout
        for concept in CONCEPTS:
            assert f"{file} is new or has changed; `python -m eraseflow repro` runs concept@{concept}," in said
        command = ["-m", "stages.sample", "--concept", "nudity", "--prompts", "data/concepts/nudity/prompts.csv"]
        command += ["--edit", "data/cells/nudity/eraseflow/edit", "--out", "new.parquet"]
        done = call(folder, sys.executable, *command, check=False, **hand_over(folder))
        assert done.returncode == 1 and not (folder / "new.parquet").exists()
        assert f"{file}: is not what data/concepts/nudity/model.json has noted" in done.stderr
    finally:
        file.write_bytes(before)
