"""clean-fid's Inception and open_clip's CLIP with small networks of the same interface; what is fetched is checked."""

import hashlib
import json

import numpy as np
import open_clip
import pytest
import torch
from cleanfid.features import InceptionV3W
from PIL import Image
from safetensors.torch import save_file

from eraseflow import hub
from eraseflow.definitions import definition
from eraseflow.metrics import clean_fid_inception, clip_vit_b32, clip_vit_l14, image_text

SIZES = [(40, 64), (64, 64), (700, 300)]


def pictures(sizes=SIZES) -> list[torch.Tensor]:
    rng = np.random.default_rng(0)
    return [torch.from_numpy(rng.integers(0, 256, (3, *size), np.uint8)) for size in sizes]


class Layers(torch.nn.Module):
    """As the published network's `layers`: 2048 features of (n, 3, 299, 299)."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        pooled = torch.nn.functional.adaptive_avg_pool2d(x, 16).flatten(1)
        return torch.cat([pooled, pooled, pooled], dim=1)[:, :2048]


class Network(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layers = Layers()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layers(x)


@pytest.fixture
def archive(tmp_path, monkeypatch):
    """A small TorchScript archive where the published one would lie."""
    path = tmp_path / "hub" / "checkpoints" / clean_fid_inception.FILE
    path.parent.mkdir(parents=True)
    torch.jit.script(Network()).save(str(path))
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "hub"))
    monkeypatch.setattr(clean_fid_inception, "SHA256", hashlib.sha256(path.read_bytes()).hexdigest())
    return path


def test_inception_features_are_those_of_clean_fids_own_way(archive, monkeypatch):
    """A picture at a time through PIL, as clean-fid's data loader does it; sizes and batches change nothing."""
    monkeypatch.setattr(clean_fid_inception, "BATCH", 2)
    ours = clean_fid_inception.load("cpu").of_images(pictures())
    network = InceptionV3W(str(archive.parent), download=False)
    for picture, row in zip(pictures(), ours, strict=True):
        channels = []
        for channel in picture.numpy().astype(np.float32):
            resized = Image.fromarray(channel).resize((299, 299), Image.Resampling.BICUBIC)
            channels.append(np.asarray(resized).clip(0, 255))
        with torch.no_grad():
            wanted = network(torch.from_numpy(np.stack(channels))[None])
        torch.testing.assert_close(row[None], wanted)
    assert ours.shape == (3, 2048) and ours.dtype == torch.float32
    stacked = torch.stack(pictures([(64, 64)] * 3))
    assert clean_fid_inception.load("cpu").of_images(stacked).shape == (3, 2048)


def test_another_inception_is_not_opened(archive, monkeypatch):
    archive.write_bytes(archive.read_bytes() + b"\0")
    opened = []
    monkeypatch.setattr(torch.jit, "load", lambda *arguments: opened.append(arguments))
    with pytest.raises(SystemExit, match=r"has the SHA-256 .*; delete it$"):
        clean_fid_inception.load("cpu")
    assert not opened


def test_inception_offline_is_one_line(archive, monkeypatch):
    archive.unlink()
    monkeypatch.setattr(clean_fid_inception, "inception_url", "http://127.0.0.1:9/inception-2015-12-05.pt")
    with pytest.raises(SystemExit, match=r"cannot be had .*; put this file at ") as failure:
        clean_fid_inception.load("cpu")
    assert str(archive) in str(failure.value) and len(str(failure.value).splitlines()) == 1


def test_inception_is_fetched_and_checked(archive, tmp_path, monkeypatch):
    served = archive.rename(tmp_path / "served.pt")
    monkeypatch.setattr(clean_fid_inception, "inception_url", served.as_uri())
    assert clean_fid_inception.ready() == archive
    archive.unlink()
    served.write_bytes(b"another file")
    with pytest.raises(SystemExit, match="invalid hash value"):
        clean_fid_inception.ready()
    assert not archive.exists()


TINY = {
    "embed_dim": 16,
    "quick_gelu": True,
    "vision_cfg": {"image_size": 32, "layers": 1, "width": 16, "head_width": 8, "patch_size": 8},
    "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 1},
}


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """A small CLIP's folder, in which the weights have the name that the Hub's have."""
    folder = tmp_path_factory.mktemp("clip")
    (folder / "tiny-clip.json").write_text(json.dumps(TINY))
    open_clip.add_model_config(folder / "tiny-clip.json")
    torch.manual_seed(0)
    model = open_clip.create_model("tiny-clip")
    save_file(model.state_dict(), folder / clip_vit_l14.WEIGHTS)
    return folder


@pytest.mark.parametrize("metric", [clip_vit_l14, clip_vit_b32])
def test_clip_score_is_the_cosine_of_open_clips_own_steps(metric, weights, monkeypatch):
    monkeypatch.setattr(metric, "SOURCE", str(weights))
    monkeypatch.setattr(metric, "CONFIG", "tiny-clip")
    monkeypatch.setattr(image_text, "BATCH", 2)
    texts = ["a horse", "a photo of a cat on a table", "word " * 100]
    network = metric.load("cpu")
    ours = metric.similarity(network, pictures(), texts)
    model, _, prepare = open_clip.create_model_and_transforms("tiny-clip", pretrained=str(weights / metric.WEIGHTS))
    model.eval()
    for picture, text, score in zip(pictures(), texts, ours, strict=True):
        with torch.no_grad():
            image = model.encode_image(prepare(Image.fromarray(picture.permute(1, 2, 0).numpy()))[None])[0]
            words = model.encode_text(open_clip.tokenize([text]))[0]
        wanted = 100 * torch.dot(image, words) / (image.norm() * words.norm())
        assert score.item() == pytest.approx(wanted.item(), abs=1e-3)
    assert network.name == metric.NAME and network.of_images(pictures()).shape == (3, 16)


def test_prompts_over_the_length_are_counted(weights):
    network = image_text.build("tiny-clip", weights / clip_vit_l14.WEIGHTS, "cpu", "tiny")
    assert network.truncated(["word " * 75, "word " * 76, "", "1 2 " * 40]) == 2
    assert torch.equal(network.of_texts(["word " * 90]), network.of_texts(["word " * 75 + "and more"]))


@pytest.mark.parametrize("metric", [clip_vit_l14, clip_vit_b32])
def test_clip_weights_are_pinned_and_fetched_beforehand(metric, monkeypatch):
    """`ready` is found and called without the module, so that `check` need not import it."""
    asked = []
    monkeypatch.setattr(hub, "file", lambda source, name: asked.append((source, name)))
    definition("metrics", metric.__name__.rpartition(".")[2], "ready")()
    assert asked == [(metric.SOURCE, "open_clip_model.safetensors")]
    assert hub.is_hub_id(metric.SOURCE)
    assert metric.CONFIG in open_clip.list_models()
