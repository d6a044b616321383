"""The real pictures' features, made once, and scores that compare with the right ones of them."""

import json

import numpy as np
import pandas as pd
import pytest
import torch

from eraseflow import images, params
from eraseflow.cells import reference, score
from eraseflow.definitions import definition
from eraseflow.judges import emoji_classifier
from eraseflow.metrics import emoji_clip
from eraseflow.metrics.frechet import frechet
from eraseflow.testbeds import emoji

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def project() -> params.Params:
    """The project's own file, with the emoji table whatever table it has at the moment."""
    everything = params.load()
    table = everything.table.model_copy(update={"testbed": "emoji"})
    return everything.model_copy(update={"table": table})


@pytest.fixture(scope="module")
def made(project, tmp_path_factory):
    folder = tmp_path_factory.mktemp("reference") / "emoji"
    reference.reference(project, "emoji", folder)
    return folder


def test_the_reference_says_what_it_is(project, made, tmp_path, monkeypatch):
    about = json.loads((made / "reference.json").read_text())
    assert about["network"] == "emoji-clip" and about["pictures"] == len(about["names"]) == 1070
    reference.reference(project, "emoji", tmp_path / "again")
    for name in ("reference.json", "features.safetensors"):
        assert (tmp_path / "again" / name).read_bytes() == (made / name).read_bytes()
    real = emoji.real_pictures
    monkeypatch.setattr(emoji, "real_pictures", lambda testbed, names: real(testbed, names) ^ 1)
    reference.reference(project, "emoji", tmp_path / "other")
    assert json.loads((tmp_path / "other" / "reference.json").read_text())["sha256"] != about["sha256"]


def test_another_networks_reference_is_refused(made, tmp_path):
    with pytest.raises(SystemExit, match="is of the network 'emoji-clip', expected 'clean-fid"):
        reference.Reference.load(made, "clean-fid Inception-V3")
    with pytest.raises(SystemExit, match="no reference here"):
        reference.Reference.load(tmp_path, "emoji-clip")


@pytest.fixture(scope="module")
def samples(project, tmp_path_factory):
    """ "Drawn" pictures: real ones with noise, of 40 kept prompts in an order of their own and 6 target prompts."""
    rng = np.random.default_rng(0)
    kept = pd.read_csv(project.testbeds["emoji"].kept).sample(40, random_state=0)
    kept = pd.concat([kept, kept.head(5)]).assign(role="kept")  # a prompt may be drawn more than once
    target = kept.head(6).assign(role="target", prompt="a unicorn")
    rows = pd.concat([target, kept], ignore_index=True)
    rows["prompt_id"] = [f"{role}-{row:04d}" for row, role in enumerate(rows.role)]
    real = emoji.real_pictures(project.testbeds["emoji"], list(rows.expect)).numpy().astype(int)
    noisy = (real + rng.integers(-40, 40, real.shape)).clip(0, 255).astype(np.uint8)
    rows["png"] = [images.to_png(torch.from_numpy(picture)) for picture in noisy]
    path = tmp_path_factory.mktemp("samples") / "samples.parquet"
    rows.to_parquet(path)
    return path


def test_distances_are_to_the_pictures_that_the_prompts_stand_for(project, made, samples, tmp_path):
    score.score(project, "unicorn", samples, made, tmp_path / "judged.parquet", tmp_path / "scores.json")
    scores = json.loads((tmp_path / "scores.json").read_text())
    kept = pd.read_parquet(samples).query("role == 'kept'").reset_index(drop=True)
    network = emoji_clip.load()
    drawn = network.of_images(images.from_png(kept.png))
    real = network.of_images(emoji.real_pictures(project.testbeds["emoji"], list(kept.expect)))
    assert scores["fd"] == pytest.approx(frechet(drawn, real), rel=1e-4)
    assert scores["fd_n"] == len(kept) and scores["fd_reference_n"] == len(kept)
    assert scores["fd_name"] == "FD emoji-clip" and scores["clip_name"] == "CLIP score emoji-clip"


def test_pictures_are_in_memory_a_part_at_a_time(project, made, samples, tmp_path, monkeypatch):
    """Whatever the parts, every picture is judged once, in its own row, and the numbers are the same."""
    frames, numbers, sizes = [], [], []
    read = images.from_png
    monkeypatch.setattr(images, "from_png", lambda pngs: (sizes.append(len(pngs)), read(pngs))[1])
    for part in (256, 16):
        monkeypatch.setattr(images, "PART", part)
        score.score(project, "unicorn", samples, made, tmp_path / "judged.parquet", tmp_path / "scores.json")
        frames.append(pd.read_parquet(tmp_path / "judged.parquet"))
        numbers.append(json.loads((tmp_path / "scores.json").read_text()))
    assert sizes == [6, 45, 6, 16, 16, 13]
    pd.testing.assert_frame_equal(*frames, rtol=1e-4, atol=1e-6)
    for name, value in numbers[0].items():
        assert numbers[1][name] == (pytest.approx(value, rel=1e-3) if name in ("fd", "clip_scores") else value)


class Constant:
    """A second image-text network, for whose score the answer is known."""

    name = "constant"

    def load(self, device):
        return self

    def similarity(self, network, pictures, texts):
        return torch.linspace(0, 1, len(texts))

    def truncated(self, texts):
        return len(texts) - 1


def test_every_clip_network_scores_and_kept_prompts_need_no_judge(project, made, samples, tmp_path, monkeypatch):
    own = score.module
    monkeypatch.setattr(score, "module", lambda family, name: Constant() if name == "constant" else own(family, name))
    change = {"clip": ["constant", "emoji_clip"], "kept_judge": None}
    testbed = project.testbeds["emoji"].model_copy(update=change)
    changed = project.model_copy(update={"testbeds": project.testbeds | {"emoji": testbed}})
    score.score(changed, "unicorn", samples, made, tmp_path / "judged.parquet", tmp_path / "scores.json")
    scores = json.loads((tmp_path / "scores.json").read_text())
    assert list(scores["clip_scores"]) == ["CLIP score constant", "CLIP score emoji-clip"]
    assert scores["clip_score"] == scores["clip_scores"]["CLIP score constant"] == 0.5
    assert scores["clip_cut"] == {"CLIP score constant": scores["kept_n"] - 1, "CLIP score emoji-clip": 0}
    assert scores["kept_right"] is None and scores["kept_accuracy"] is None
    judged = pd.read_parquet(tmp_path / "judged.parquet")
    assert judged.right[judged.role == "kept"].isna().all() and judged.right[judged.role == "target"].notna().all()


def test_the_emoji_testbed_needs_nothing(project):
    assert definition("testbeds", "emoji", "ready")(project.testbeds["emoji"], "") is None


@pytest.mark.parametrize(
    ("place", "spoil", "message"),
    [
        (
            "judge",
            lambda scores: scores.where(np.arange(len(scores))[:, None] != np.ones(scores.shape[1])),
            "emoji_classifier: target-0001: object/",
        ),
        ("judge", lambda scores: scores.iloc[:-1], "has 5 rows for 6 pictures, expected one for each"),
        ("features", lambda found: found * float("nan"), "features of emoji-clip: kept-0006: 0 is not finite (nan)"),
        ("features", lambda found: found * float("inf"), "features of emoji-clip: kept-0006: "),
        (
            "similarity",
            lambda found: found.where(found.cumsum(0) > 100, np.nan),
            "similarity by emoji_clip: kept-0006: 0 ",
        ),
    ],
)
def test_a_score_that_is_no_number_stops_in_one_line(
    project, made, samples, tmp_path, monkeypatch, place, spoil, message
):
    if place == "judge":
        load = emoji_classifier.load
        monkeypatch.setattr(emoji_classifier, "load", lambda *_: lambda pictures: spoil(load()(pictures)))
    elif place == "features":
        of_images = emoji_clip.Features.of_images
        monkeypatch.setattr(emoji_clip.Features, "of_images", lambda self, pictures: spoil(of_images(self, pictures)))
    else:
        own = emoji_clip.similarity
        monkeypatch.setattr(emoji_clip, "similarity", lambda *arguments: spoil(own(*arguments)))
    with pytest.raises(SystemExit) as stop:
        score.score(project, "unicorn", samples, made, tmp_path / "judged.parquet", tmp_path / "scores.json")
    assert message in str(stop.value) and "\n" not in str(stop.value)
    assert list(tmp_path.iterdir()) == []


def test_a_judge_that_finds_all_pictures_alike_is_refused(project, monkeypatch):
    load = emoji_classifier.load
    monkeypatch.setattr(emoji_classifier, "load", lambda *_: lambda pictures: load()(pictures * 0))
    pictures = torch.randint(256, (8, 3, 32, 32), dtype=torch.uint8)
    names, flag = [f"target-{row}" for row in range(8)], lambda part: pd.DataFrame(index=range(len(part)))
    message = "emoji_classifier: gives the same scores to 8 different pictures"
    with pytest.raises(SystemExit, match=message):
        score.judge(project.concepts["unicorn"], flag, [pictures], names)
    score.judge(project.concepts["unicorn"], flag, [pictures[:1].expand(8, -1, -1, -1)], names)  # these are alike


def test_features_without_a_distance_are_one_line():
    """A single picture has no covariance."""
    features = torch.randn(9, 4)
    with pytest.raises(SystemExit, match=r"^the Fréchet distance: "):
        frechet(features[:1], features)


def test_empty_pictures_are_counted(project, made, samples, tmp_path):
    rows = pd.read_parquet(samples)
    black = images.to_png(torch.zeros(3, 32, 32, dtype=torch.uint8))
    rows.loc[[0, 6, 7], "png"] = pd.Series([black] * 3, [0, 6, 7], dtype=object)
    rows.to_parquet(tmp_path / "samples.parquet")
    paths = tmp_path / "samples.parquet", made, tmp_path / "judged.parquet", tmp_path / "scores.json"
    score.score(project, "unicorn", *paths)
    scores = json.loads((tmp_path / "scores.json").read_text())
    assert (scores["target_empty"], scores["kept_empty"], scores["judge"]) == (1, 2, "emoji_classifier top-1")
