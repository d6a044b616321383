"""Where a source's files are: a local path, or a repository of the Hub at a commit and perhaps something inside it."""

import glob
import re
from dataclasses import dataclass
from pathlib import Path

from eraseflow import hub
from eraseflow.checkpoints.folders import Contents, of_file, of_folder
from eraseflow.mistakes import nearest
from eraseflow.outside.content import is_hidden

PINNED = re.compile(r"(?P<repository>(datasets/)?[\w.-]+/[\w.-]+@[0-9a-f]{40})(/(?P<inside>.+?))?/?")
UNPINNED = re.compile(r"(?P<repository>(datasets/)?[\w.-]+/[\w.-]+)(@(?P<revision>[^/]*))?(?P<inside>/.+)?")
PAGE = re.compile(
    r"https?://(www\.)?(huggingface\.co|hf\.co)/(?P<repository>(datasets/)?[^/]+/[^/]+)"
    r"(/(tree|blob|resolve|commit)/(?P<revision>[^/?]+))?(?P<inside>/[^?]*)?(\?.*)?"
)
DEPTH = 3  # of the folders that are looked into


@dataclass(frozen=True)
class Found:
    """The folder with a source's files, on this machine, and what of it is meant."""

    folder: Path
    contents: Contents

    def paths(self) -> list[Path]:
        """Every file that is read."""
        return [self.folder / name for name in self.contents.files()]


def find(place: str) -> Found:
    """The source's files, fetched if need be; nothing of the Hub but those that will be read.

    place: "owner/name@commit" (a data set's: "datasets/owner/name@commit"), the same with "/folder" or "/file" behind
    it, or a local path, which may begin with "~". Raises: SystemExit with one line that says what to do; see hub.py.
    """
    path = _local(place)
    if path.exists() or not (match := PINNED.fullmatch(place)):
        return _here(place, path)
    names = hub.names(match["repository"])
    inside = match["inside"] or ""
    folder, contents = _contents(names, inside, place)
    wanted = [f"{folder}/{name}" if folder else name for name in contents.files()]
    root = hub.snapshot(match["repository"], [glob.escape(name) for name in wanted])
    return Found(root / folder, contents)


def files(place: str) -> list[Path]:
    """All local files that decide what a source is; none of one on the Hub, whose commit never changes.

    Raises: SystemExit as `find` does.
    """
    path = _local(place)
    return _here(place, path).paths() if path.exists() or not PINNED.fullmatch(place) else []


def _local(place: str) -> Path:
    try:
        return Path(place).expanduser()
    except RuntimeError:
        raise SystemExit(f"{place}: there is no such user, whose home `~` could be") from None


def _here(place: str, path: Path) -> Found:
    """A local source. Raises: SystemExit where it is not there."""
    if not path.exists():
        raise SystemExit(_missing(place, path))
    root, inside = (path, "") if path.is_dir() else (path.parent, path.name)
    depth = 1 if inside and inside != "model_index.json" else DEPTH
    found = (each for level in range(1, depth + 1) for each in root.glob("/".join("*" * level)) if each.is_file())
    paths = [each.relative_to(root) for each in found]
    names = sorted(path.as_posix() for path in paths if path.name == inside or not is_hidden(path))
    folder, contents = _contents(names, inside, str(root))
    return Found(root / folder, contents)


def _contents(names: list[str], inside: str, place: str) -> tuple[str, Contents]:
    """The folder of `names` that is meant, and what it holds; `inside` is a folder, a file, or empty for all."""
    folder, name = (inside, "") if inside not in names else ("/".join(inside.split("/")[:-1]), inside.split("/")[-1])
    lead = f"{folder}/" if folder else ""
    below = [each.removeprefix(lead) for each in names if each.startswith(lead)]
    if not below and inside:
        known = [*names, *{each.rpartition("/")[0] for each in names if "/" in each}]
        raise SystemExit(f"{place}: there is no {inside}{nearest(inside, known)}")
    return folder, of_file(name, below, place.removesuffix(f"/{name}")) if name else of_folder(below, place)


def _missing(place: str, path: Path) -> str:
    """Why a source is none."""
    if path.is_symlink():
        return f"{place!r}: is a link to {path.readlink()}, which is not there"
    if page := PAGE.fullmatch(place):
        commit = page["revision"] or ""
        commit = commit if re.fullmatch("[0-9a-f]{40}", commit) else "<its 40 hexadecimal digits>"
        return f"{place!r} is an address; write {page['repository']}@{commit}{(page['inside'] or '').rstrip('/')}"
    if "://" in place:
        return f"{place!r} is an address; download what it names and write the local path"
    match = UNPINNED.fullmatch(place)
    if match and not path.is_absolute() and not path.parent.is_dir():
        repository = match["repository"]
        return (
            f"{place!r} is no path here and names no commit of the Hub; choose one at https://huggingface.co/"
            f"{repository}/commits/main and write {repository}@<its 40 hexadecimal digits>{match['inside'] or ''}"
        )
    among = [each.name for each in path.parent.iterdir()] if path.parent.is_dir() else []
    where = "" if path.is_absolute() else f" in {Path.cwd()}"
    return f"{place!r}: there is no such file or folder{where}{nearest(path.name, among)}"
