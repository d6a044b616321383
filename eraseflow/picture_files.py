"""Pictures in files of other people, such as the scans that museums publish; our own PNGs are read by images.py.

`read` gives what a viewer shows. Of very large pictures too, whose size Pillow would refuse.
"""

import warnings
from collections.abc import Callable
from io import BytesIO
from pathlib import Path

import numpy as np
from PIL import Image, ImageCms, ImageOps, UnidentifiedImageError
from PIL import TiffImagePlugin as TIFF
from PIL.ExifTags import Base

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".tif", ".tiff", ".bmp", ".gif", ".jp2", ".avif", ".jfif", ".pgm", ".ppm")
TEXTS = (".txt", ".md", ".csv", ".json", ".html", ".xml", ".yaml")  # what may lie beside pictures
SYSTEMS_OWN = ("thumbs.db", "ehthumbs.db", "desktop.ini")  # and names that begin with a dot
SEVERAL = ("TIFF", "MPO")  # formats whose further pictures are usually smaller copies of the first
WITHOUT_ALPHA = {"LA": "L", "RGBA": "RGB", "PA": "RGB", "P": "RGB", "1": "L"}
ORIENTATION = Base.Orientation
PROFILES = {"L": "GRAY", "RGB": "RGB", "CMYK": "CMYK"}


def listed(folder: Path) -> list[Path]:
    """The folder's pictures in the order of their names; folders, texts and what a system puts there are left out.

    Raises: SystemExit with one line that names what is neither.
    """
    try:
        paths = sorted(folder.iterdir())
    except OSError as error:
        raise SystemExit(f"{folder}: cannot be read: {error.strerror}; put the reference pictures there") from None
    found = []
    for path in paths:
        systems_own = path.name.startswith(".") or path.name.lower() in SYSTEMS_OWN
        if systems_own or path.is_dir() or path.suffix.lower() in TEXTS:
            continue
        if path.suffix.lower() not in SUFFIXES:
            raise SystemExit(f"{path}: is no picture that can be read; expected files {', '.join(SUFFIXES)}")
        found.append(path)
    return found


def read(path: Path) -> np.ndarray:
    """A picture (h, w, 3) uint8 in sRGB, upright.

    Turned as its EXIF says, on white where it is transparent, with 16 bits a pixel scaled to 8. Its colour profile is
    applied, unless it does not fit the picture's pixels.
    Raises: SystemExit with one line where it cannot be read, is cut short, moves, or has pixels without a fixed range.
    """
    return _read(path, _as_shown)


def read_plainly(path: Path) -> np.ndarray:
    """A picture (h, w, 3) uint8 as most programs read pictures, `convert("RGB")`: without EXIF and colour profile.

    Raises: SystemExit with one line where it cannot be read or is cut short.
    """
    return _read(path, lambda picture: picture.convert("RGB"))


def _read(path: Path, reading: Callable[[Image.Image], Image.Image]) -> np.ndarray:
    limit, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None  # its guard against strangers' files
    try:
        with warnings.catch_warnings(action="ignore"), Image.open(path) as picture:
            return np.array(reading(picture))
    except UnidentifiedImageError:
        what = "it is in no format that Pillow reads; save it as PNG, JPEG or TIFF" if path.stat().st_size else "empty"
        raise SystemExit(f"{path}: cannot be read as a picture: {what}") from None
    except Exception as error:  # decoders raise whatever they stumble over
        what = " ".join(str(error).split()) or type(error).__name__
        raise SystemExit(f"{path}: cannot be read as a picture: {what}") from None
    finally:
        Image.MAX_IMAGE_PIXELS = limit


def _as_shown(picture: Image.Image) -> Image.Image:
    _check_frames(picture)
    grey = _of_16_bits(picture)
    profile = picture.info.get("icc_profile")
    if grey is not None:
        grey.getexif()[ORIENTATION] = picture.getexif().get(ORIENTATION, 1)
    picture = grey or picture
    ImageOps.exif_transpose(picture, in_place=True)  # a large picture takes a gigabyte: no copies without need
    if picture.mode in ("La", "RGBa"):  # multiplied by their alpha
        picture = picture.convert(picture.mode.upper())
    alpha = picture.convert("RGBA").getchannel("A") if picture.has_transparency_data else None
    without = WITHOUT_ALPHA.get(picture.mode)
    colour = _in_srgb(picture.convert(without) if without else picture, profile)
    if alpha is None:
        return colour
    white = Image.new("RGB", colour.size, "white")
    white.paste(colour, mask=alpha)
    return white


def _check_frames(picture: Image.Image) -> None:
    """Raises: ValueError where a file holds several pictures of which none is the picture."""
    count, size = getattr(picture, "n_frames", 1), picture.size
    if count > 1 and picture.format not in SEVERAL:
        raise ValueError(f"it moves ({count} frames); expected one picture")
    if count > 1 and picture.format == "TIFF":
        sizes = []
        for page in range(1, count):
            picture.seek(page)
            sizes.append(picture.size)
        picture.seek(0)
        if any(other >= size for other in sizes):
            raise ValueError(f"it has {count} pages; expected one picture")


def _of_16_bits(picture: Image.Image) -> Image.Image | None:
    """A grey picture of more bits with 8, or None of another. Raises: ValueError where its range is not known."""
    if picture.mode == "F":
        raise ValueError("its pixels are fractions, whose range is not known; save it with 8 or 16 bits")
    if not picture.mode.startswith("I"):
        return None
    tags = getattr(picture, "tag_v2", {})  # of a TIFF
    bits = tags.get(TIFF.BITSPERSAMPLE, (16,))[0]
    values = np.asarray(picture).astype(np.int64)
    if bits > 16 or tags.get(TIFF.SAMPLEFORMAT, (1,))[0] != 1 or values.min() < 0 or values.max() >= 2**bits:
        raise ValueError("its pixels are whole numbers whose range is not known; save it with 8 or 16 bits")
    if "transparency" in picture.info:
        raise ValueError("it has 16 bits and transparent pixels; save it with 8 bits")
    most = 2**bits - 1
    values = most - values if tags.get(TIFF.PHOTOMETRIC_INTERPRETATION) == 0 else values  # white is zero
    return Image.fromarray(np.rint(values * (255 / most)).astype(np.uint8))


def _in_srgb(picture: Image.Image, profile: bytes | None) -> Image.Image:
    """The picture (L, RGB, CMYK or another mode) as RGB; a profile is ignored that is broken or of other colours."""
    if profile and picture.mode in PROFILES:
        try:
            source = ImageCms.ImageCmsProfile(BytesIO(profile))
            if source.profile.xcolor_space.strip() == PROFILES[picture.mode]:
                found = ImageCms.profileToProfile(picture, source, ImageCms.createProfile("sRGB"), outputMode="RGB")
                if found is not None:
                    return found
        except (ImageCms.PyCMSError, OSError):
            pass
    return picture if picture.mode == "RGB" else picture.convert("RGB")
