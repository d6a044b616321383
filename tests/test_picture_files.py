"""Pictures as museums and cameras save them: what a viewer shows, or one line that names the file."""

import struct
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageCms, ImageDraw

from eraseflow import picture_files
from eraseflow.picture_files import listed, read, read_plainly

RNG = np.random.default_rng(0)
COLOURS = RNG.integers(0, 256, (6, 9, 3), np.uint8)
GREYS = RNG.integers(0, 2**16, (6, 9), np.uint16)
ALPHA = RNG.integers(0, 256, (6, 9), np.uint8)


def on_white(colours: np.ndarray, alpha: np.ndarray) -> np.ndarray:
    share = alpha[..., None] / 255
    return colours * share + 255 * (1 - share)


def near(ours: np.ndarray, wanted: np.ndarray, by: float = 1) -> None:
    assert ours.dtype == np.uint8 and ours.shape == wanted.shape
    assert np.abs(ours.astype(float) - wanted).max() <= by


@pytest.mark.parametrize("suffix", ["png", "tif", "bmp", "ppm", "webp", "JPG", "jp2"])
def test_ordinary_pictures_are_as_pillow_reads_them(tmp_path, suffix):
    for colours in (COLOURS, COLOURS[..., 0]):
        if suffix == "ppm" and colours.ndim == 2:
            continue
        path = tmp_path / f"a.{suffix}"
        Image.fromarray(colours).save(path, lossless=True) if suffix == "webp" else Image.fromarray(colours).save(path)
        wanted = np.asarray(Image.open(path).convert("RGB"))
        for reading in (read, read_plainly):
            np.testing.assert_array_equal(reading(path), wanted)


@pytest.mark.parametrize("suffix", ["png", "tif", "pgm"])
def test_grey_of_16_bits_is_scaled(tmp_path, suffix):
    path = tmp_path / f"a.{suffix}"
    Image.fromarray(GREYS).save(path)
    near(read(path), np.repeat(GREYS[..., None] / 257, 3, 2), by=0.51)
    assert read(path).min() < 30 and read(path).max() > 225


def tiff(path: Path, values: np.ndarray, bits: int, white_is_zero: bool = False) -> None:
    """An uncompressed grey TIFF, written by hand."""
    height, width = values.shape
    if bits == 12:
        pairs = values.astype(int).reshape(height, -1, 2)
        data = bytes(
            byte
            for row in pairs
            for a, b in row
            for byte in (a >> 4, (a & 15) << 4 | b >> 8, b & 255)
        )  # fmt: skip
    else:
        data = values.astype("<u2").tobytes()
    tags = [(256, width), (257, height), (258, bits), (259, 1), (262, int(not white_is_zero)), (273, 8), (277, 1)]
    tags += [(278, height), (279, len(data))]
    directory = struct.pack("<H", len(tags)) + b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags)
    path.write_bytes(b"II*\0" + struct.pack("<I", 8 + len(data)) + data + directory + bytes(4))


def test_tiffs_of_12_bits_and_with_white_as_zero(tmp_path):
    path, values = tmp_path / "a.tif", RNG.integers(0, 4096, (4, 6))
    tiff(path, values, 12)
    near(read(path), np.repeat(values[..., None] * 255 / 4095, 3, 2), by=0.51)
    tiff(path, GREYS, 16, white_is_zero=True)
    near(read(path), np.repeat(255 - GREYS[..., None] / 257, 3, 2), by=0.51)


def test_what_is_transparent_is_white(tmp_path):
    path = tmp_path / "a.png"
    Image.fromarray(np.dstack([COLOURS, ALPHA])).save(path)
    near(read(path), on_white(COLOURS, ALPHA))
    grey = COLOURS[..., 0]
    Image.fromarray(np.dstack([grey, ALPHA]), "LA").save(path)
    near(read(path), on_white(np.repeat(grey[..., None], 3, 2), ALPHA))
    Image.fromarray(np.dstack([COLOURS, ALPHA])).save(tmp_path / "a.webp", lossless=True, exact=True)
    near(read(tmp_path / "a.webp"), on_white(COLOURS, ALPHA))

    palette = Image.new("P", (2, 1))
    palette.putpalette([0, 0, 0, 200, 10, 20])
    palette.putpixel((1, 0), 1)
    for suffix in ("png", "gif"):
        palette.save(tmp_path / f"p.{suffix}", transparency=0)
        assert read(tmp_path / f"p.{suffix}").tolist() == [[[255, 255, 255], [200, 10, 20]]]
    colours = Image.fromarray(np.array([[[0, 0, 0], [200, 10, 20]]], np.uint8))
    colours.save(path, transparency=(0, 0, 0))
    assert read(path).tolist() == [[[255, 255, 255], [200, 10, 20]]]
    colours.convert("L").save(path, transparency=0)
    assert read(path)[0, 0].tolist() == [255, 255, 255]


def test_other_modes(tmp_path):
    path = tmp_path / "a.tif"
    bits = COLOURS[..., 0] > 128
    Image.fromarray(bits).save(path)
    assert (read(path)[..., 0] == 255 * bits).all()
    smooth = Image.linear_gradient("L").resize((32, 32))
    picture = Image.merge("RGB", [smooth, smooth.rotate(90), smooth.rotate(180)])
    lab = ImageCms.createProfile("LAB")
    muted = picture.point(lambda value: 96 + value // 4)  # 8 bits of Lab are coarse at the edge of sRGB
    for changed, wanted in (
        (picture.convert("CMYK"), picture),
        (picture.convert("YCbCr"), picture),
        (ImageCms.profileToProfile(muted, ImageCms.createProfile("sRGB"), lab, outputMode="LAB"), muted),
    ):
        changed.save(path)
        assert Image.open(path).mode == changed.mode
        near(read(path), np.asarray(wanted), by=3)
    for suffix in ("jpg", "jpeg"):  # Pillow writes Adobe's marker, and inverts as Adobe does
        picture.convert("CMYK").save(tmp_path / f"a.{suffix}", quality=100, subsampling=0)
        near(read(tmp_path / f"a.{suffix}"), np.asarray(picture), by=6)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("suffix", ["jpg", "png", "tif"])
def test_exif_turns_a_reference_but_not_a_picture_of_coco(tmp_path, orientation, suffix):
    """Marks in the corners tell the eight ways apart."""
    stored = Image.new("RGB", (48, 32))
    for place, colour in (((0, 0), "red"), ((40, 0), "green"), ((0, 24), "blue")):
        ImageDraw.Draw(stored).rectangle([*place, place[0] + 7, place[1] + 7], fill=colour)
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = tmp_path / f"a.{suffix}"
    stored.save(path, exif=exif, **({"quality": 100, "subsampling": 0} if suffix == "jpg" else {}))
    array = np.asarray(stored)
    turned = array.transpose(1, 0, 2)
    ways = [array, array[:, ::-1], array[::-1, ::-1], array[::-1]]
    upright = [*ways, turned, turned[:, ::-1], turned[::-1, ::-1], turned[::-1]]
    near(read(path), upright[orientation - 1], by=12)
    if suffix == "jpg":
        near(read_plainly(path), array, by=12)


def test_16_bits_are_turned_too(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(GREYS).save(tmp_path / "a.png", exif=exif)
    near(read(tmp_path / "a.png")[..., 0], np.rot90(GREYS / 257, -1), by=0.51)


def test_a_colour_profile_is_applied(tmp_path):
    """Lab's own numbers of a colour as the reference: a profile with red and blue exchanged shows as exchanged."""
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB"))
    smooth = Image.linear_gradient("L").resize((32, 32))
    picture = Image.merge("RGB", [smooth, smooth.rotate(90), smooth.rotate(180)])
    path = tmp_path / "a.png"
    picture.save(path, icc_profile=srgb.tobytes())
    near(read(path), np.asarray(picture))
    data = bytearray(srgb.tobytes())
    count = struct.unpack(">I", data[128:132])[0]
    places = {bytes(data[132 + 12 * n : 136 + 12 * n]): 136 + 12 * n for n in range(count)}
    red, blue = places[b"rXYZ"], places[b"bXYZ"]
    data[red : red + 8], data[blue : blue + 8] = data[blue : blue + 8], data[red : red + 8]
    picture.save(path, icc_profile=bytes(data))
    near(read(path), np.asarray(picture)[..., ::-1], by=2)
    np.testing.assert_array_equal(read_plainly(path), np.asarray(picture))
    for wrong in (b"no profile", srgb.tobytes()):
        picture.convert("L").save(path, icc_profile=wrong)
        np.testing.assert_array_equal(read(path), np.asarray(picture.convert("L").convert("RGB")))


def broken(folder: Path) -> dict[str, str]:
    """Files that are no picture, and what is said of each."""
    noise = RNG.integers(0, 256, (64, 64, 3), np.uint8)
    for name in ("cut.jpg", "cut.png", "cut.tif", "cut.webp"):
        Image.fromarray(noise).save(folder / name)
        data = (folder / name).read_bytes()
        (folder / name).write_bytes(data[: len(data) // 2])
    (folder / "empty.jpg").touch()
    (folder / "page.jpg").write_text("<html>404</html>")
    frames = [Image.fromarray(noise), Image.fromarray(255 - noise)]
    for name in ("moves.gif", "moves.webp", "moves.png", "pages.tif"):
        frames[0].save(folder / name, save_all=True, append_images=frames[1:])
    Image.fromarray(RNG.random((4, 4), np.float32)).save(folder / "float.tif")
    Image.fromarray(RNG.integers(0, 2**31, (4, 4), np.int32)).save(folder / "int.tif")
    (folder / "link.png").symlink_to("nowhere.png")
    return {
        "cut.jpg": "truncated", "cut.png": "", "cut.tif": "", "cut.webp": "", "empty.jpg": "empty",
        "page.jpg": "in no format that Pillow reads", "moves.gif": r"it moves \(2 frames\)", "moves.webp": "it moves",
        "moves.png": "it moves", "pages.tif": "it has 2 pages", "float.tif": "fractions", "int.tif": "whole numbers",
        "link.png": "No such file",
    }  # fmt: skip


def test_what_is_no_picture_is_one_line(tmp_path):
    for name, says in broken(tmp_path).items():
        with pytest.raises(SystemExit, match=rf"{name}: cannot be read as a picture: .*{says}") as error:
            read(tmp_path / name)
        assert "\n" not in str(error.value)
    for name in ("cut.jpg", "empty.jpg", "page.jpg"):
        with pytest.raises(SystemExit, match=rf"{name}: cannot be read as a picture"):
            read_plainly(tmp_path / name)


def test_a_pyramid_is_its_largest_page(tmp_path):
    large = Image.fromarray(COLOURS)
    large.save(tmp_path / "a.tif", save_all=True, append_images=[large.resize((4, 3)), large.resize((2, 1))])
    np.testing.assert_array_equal(read(tmp_path / "a.tif"), COLOURS)


def test_a_picture_above_pillows_limit(tmp_path, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10)
    Image.fromarray(COLOURS).save(tmp_path / "a.png")
    with pytest.raises(Image.DecompressionBombError):
        Image.open(tmp_path / "a.png")
    np.testing.assert_array_equal(read(tmp_path / "a.png"), COLOURS)
    np.testing.assert_array_equal(read_plainly(tmp_path / "a.png"), COLOURS)
    assert Image.MAX_IMAGE_PIXELS == 10, "and the limit stands for whoever reads other files"


def test_the_pictures_of_a_folder(tmp_path):
    names = ["B.JPG", "a.tiff", "c.PNG"]
    for name in [*names, "._B.JPG", ".DS_Store", "Thumbs.db", "desktop.ini", "licence.txt", "sources.csv"]:
        (tmp_path / name).touch()
    (tmp_path / "rejected").mkdir()
    (tmp_path / "rejected" / "x.heic").touch()
    assert [file.name for file in listed(tmp_path)] == names
    for name in ("x.heic", "x.psd", "x"):
        (tmp_path / name).touch()
        with pytest.raises(SystemExit, match=rf"/{name}: is no picture that can be read; expected files \.png, "):
            listed(tmp_path)
        (tmp_path / name).unlink()
    assert set(picture_files.SUFFIXES) <= set(Image.registered_extensions())
