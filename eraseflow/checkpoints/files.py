"""One file of weights: what it is by its first bytes, its tensors' types and shapes, and the tensors themselves.

A safetensors file says types and shapes in its header, which is read without torch. Everything else is torch's own
format, read with `weights_only=True`, which makes tensors and runs no code.
"""

import json
import re
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from math import prod
from pathlib import Path
from typing import Any

DTYPES = {
    "F64": "float64",
    "F32": "float32",
    "F16": "float16",
    "BF16": "bfloat16",
    "I64": "int64",
    "I32": "int32",
    "I8": "int8",
}
# First bytes of what is mistaken for weights, and what to do about it.
MISTAKEN = {
    b"version https://git-lfs": "is a Git LFS pointer of some hundred bytes and not the weights; `git lfs pull` in its "
    "repository fetches them",
    b"\x1f\x8b": "is compressed by gzip; unpack it (gunzip)",
    b"BZh": "is compressed by bzip2; unpack it",
    b"\xfd7zXZ": "is compressed by xz; unpack it",
    b"7z\xbc\xaf": "is a 7z archive; unpack it",
    b"Rar!": "is a RAR archive; unpack it",
    b"GGUF": "is a GGUF file of quantised weights; expected those it was made of",
    b"\x89HDF": "is an HDF5 file; expected safetensors or a torch state dict",
}
SIZES = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2, "I64": 8, "I32": 4, "I8": 1}  # bytes
LARGEST_HEADER = 100_000_000  # bytes, safetensors' own limit
UNSAFE = re.compile(r"Unsupported global: GLOBAL ([\w.]+)|Unsupported class ([\w.]+)")


@dataclass(frozen=True)
class Header:
    """What is known of a tensor without its values. dtype: as torch spells it."""

    dtype: str
    shape: tuple[int, ...]


@dataclass
class File:
    """A file's tensors by their flat names ("unet.conv_in.weight" for {"unet": {"conv_in.weight": ...}}).

    metadata: of a safetensors file. other: the names of what is no tensor, such as "epoch". loaded: a pickle's tensors.
    """

    path: Path
    headers: dict[str, Header]
    metadata: dict[str, str] = field(default_factory=dict)
    other: list[str] = field(default_factory=list)
    loaded: dict[str, Any] = field(default_factory=dict)

    def tensors(self, names: list[str]) -> dict[str, Any]:
        """The tensors of these names. Raises: SystemExit with one line where the file cannot be read."""
        if self.loaded:
            return {name: self.loaded[name] for name in names}
        from safetensors import SafetensorError, safe_open

        try:
            with safe_open(self.path, "pt") as file:
                return {name: file.get_tensor(name) for name in names}
        except (OSError, SafetensorError) as error:
            raise SystemExit(f"{self.path}: cannot be read ({_first_line(error)})") from None


def read(path: Path) -> File:
    """The file's names, types and shapes. Raises: SystemExit with one line that says what it is instead of weights."""
    try:
        with path.open("rb") as stream:
            start = stream.read(512)
    except OSError as error:
        raise SystemExit(f"{path}: cannot be read ({error.strerror})") from None
    if not start:
        raise SystemExit(f"{path}: is empty")
    # First of all, for its first bytes are a length, which may look like another format's mark.
    if start[8:9] == b"{" and int.from_bytes(start[:8], "little") <= LARGEST_HEADER:
        return _safetensors(path)
    for magic, what in MISTAKEN.items():
        if start.startswith(magic):
            raise SystemExit(f"{path}: {what}")
    if start[:2] == b"PK" or start[:1] == b"\x80" or start[257:262] == b"ustar":
        return _pickle(path, start)
    if start.lstrip()[:1] == b"<":
        raise SystemExit(f"{path}: is a web page and not the weights; the download has failed or wanted a login")
    if all(byte >= 32 or byte in b"\t\r\n" for byte in start):
        raise SystemExit(f"{path}: is a text file, beginning {start[:40].decode(errors='replace')!r}, and no weights")
    raise SystemExit(f"{path}: is neither a safetensors file nor a state dict that torch has saved")


def _safetensors(path: Path) -> File:
    """By the format's rules: eight bytes for the header's length, the header in JSON, the tensors without gaps."""
    size = path.stat().st_size
    with path.open("rb") as stream:
        length = int.from_bytes(stream.read(8), "little")
        if 8 + length > size:
            raise SystemExit(f"{path}: is cut off: its header alone has {8 + length} bytes, the file {size}")
        try:
            header = json.loads(stream.read(length))
            metadata = header.pop("__metadata__", {})
            headers = {
                name: Header(DTYPES.get(about["dtype"], about["dtype"].lower()), tuple(about["shape"]))
                for name, about in header.items()
            }
            for about in header.values():
                if size_of := SIZES.get(about["dtype"]):
                    begin, after = about["data_offsets"]
                    if after - begin != size_of * prod(about["shape"]):
                        raise ValueError
            end = 8 + length + max((about["data_offsets"][1] for about in header.values()), default=0)
        except (ValueError, KeyError, TypeError, AttributeError):
            raise SystemExit(f"{path}: is damaged: its safetensors header cannot be read") from None
    if end != size:
        what = "is cut off" if end > size else "is damaged"
        raise SystemExit(f"{path}: {what}: its header speaks of {end} bytes, the file has {size}")
    return File(path, headers, metadata)


def _pickle(path: Path, start: bytes) -> File:
    """What torch.save wrote, today's format (a ZIP archive) or the former one."""
    archive = start[:2] == b"PK"
    if archive:
        try:
            members = zipfile.ZipFile(path).namelist()
        except (zipfile.BadZipFile, OSError):
            raise SystemExit(f"{path}: is cut off or damaged: its ZIP directory cannot be read") from None
        if any(name.endswith("constants.pkl") for name in members):
            raise SystemExit(f"{path}: is a TorchScript program; expected its state dict, of safetensors or torch.save")
        if not any(name.endswith("data.pkl") for name in members):
            raise SystemExit(f"{path}: is an archive of {members[0] if members else 'nothing'} and more; unpack it")
    import pickle

    import torch

    try:
        content = torch.load(path, map_location="cpu", weights_only=True, mmap=archive)
    except pickle.UnpicklingError as error:
        raise SystemExit(f"{path}: {_refused(str(error))}") from None
    except (RuntimeError, OSError, EOFError, ValueError, KeyError, AttributeError) as error:
        raise SystemExit(f"{path}: cannot be read by torch ({_first_line(error)})") from None
    if not isinstance(content, Mapping):
        kind = type(content).__name__
        raise SystemExit(f"{path}: holds a {kind}, which says not where its tensors belong; expected them by name")
    found = File(path, {})
    _flatten("", content, found)
    return found


def _flatten(lead: str, content: Mapping, found: File) -> None:
    """Nested dicts as dotted names: {"state_dict": {"a": t}} is state_dict.a."""
    import torch

    for key, value in content.items():
        name = f"{lead}{key}"
        if isinstance(value, Mapping):
            _flatten(f"{name}.", value, found)
        elif isinstance(value, torch.Tensor) or (isinstance(value, int | float) and name.endswith(".alpha")):
            value = torch.as_tensor(value)
            dtype = str(value.dtype).removeprefix("torch.")
            sparse = "" if value.layout == torch.strided else "sparse "
            found.headers[name] = Header(sparse + dtype, tuple(value.shape))
            found.loaded[name] = value.detach()
        else:
            found.other.append(name)


def _refused(said: str) -> str:
    if not (match := UNSAFE.search(said)):
        return "is a pickle that is damaged or was not made by torch.save"
    return (
        f"is a pickle that needs code to be read, {match[1] or match[2]}, and could run any; if you trust it, load it "
        "yourself with torch.load(..., weights_only=False) and save its tensors by safetensors.torch.save_file"
    )


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
