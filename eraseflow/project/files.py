"""The project's files: all that its own .gitignore files do not leave out, whatever else a user's git ignores."""

import json
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path

from pathspec import GitIgnoreSpec

MADE_BY = "made_by.json"  # beside a published report: the commit whose code made it, or null


def has_git(project: Path) -> bool:
    """An unpacked ZIP file has none."""
    return (project / ".git").exists()


def names(project: Path) -> list[str]:
    """Their paths below the project: those that git knows, and new ones."""
    if has_git(project) and shutil.which("git"):
        command = ["git", "-c", "safe.directory=*", "ls-files", "-co", "--exclude-per-directory=.gitignore", "-z"]
        done = subprocess.run(command, cwd=project, capture_output=True, text=True, encoding="utf-8")
        if done.returncode:
            raise SystemExit(f"{' '.join(command)}: {(done.stderr.strip().splitlines() or ['failed'])[-1]}")
        return [name for name in done.stdout.split("\0") if name]
    return list(_walk(project, Path(), {}))


def commit(project: Path) -> str | None:
    """The commit that is checked out, in full; None without git, or where more of it than results has been changed."""
    if not has_git(project) or not shutil.which("git"):
        return None
    said = []
    status = ["status", "--porcelain", "--untracked-files=no", "--", ".", ":!reports", ":!dvc.lock"]
    for command in (status, ["rev-parse", "HEAD"]):
        whole = ["git", "-c", "safe.directory=*", *command]
        done = subprocess.run(whole, cwd=project, capture_output=True, text=True, encoding="utf-8")
        said.append(done.stdout.strip() if done.returncode == 0 else None)
    changed, commit = said
    return commit if changed == "" else None


def made_by(published: Path) -> str | None:
    """The commit whose code made a published report; None where that is not known."""
    path = published / MADE_BY
    return json.loads(path.read_text(encoding="utf-8"))["commit"] if path.is_file() else None


def _walk(project: Path, folder: Path, above: Mapping[Path, GitIgnoreSpec]) -> Iterator[str]:
    """Below a folder; above: the rules of the folders that lead to it."""
    rules, own = dict(above), project / folder / ".gitignore"
    if own.is_file():
        rules[folder] = GitIgnoreSpec.from_lines(own.read_text(encoding="utf-8").splitlines())
    for path in sorted((project / folder).iterdir()):
        inside = path.is_dir() and not path.is_symlink()
        name = folder / path.name
        if path.name == ".git" or _ignored(name, inside, rules):
            continue
        if inside:
            yield from _walk(project, name, rules)
        else:
            yield name.as_posix()


def _ignored(name: Path, folder: bool, rules: dict[Path, GitIgnoreSpec]) -> bool:
    """The innermost .gitignore that has a rule for it decides."""
    for place in reversed(rules):
        said = rules[place].check_file(name.relative_to(place).as_posix() + "/" * folder).include
        if said is not None:
            return said
    return False
