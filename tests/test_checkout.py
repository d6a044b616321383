"""A checkout on another machine: whatever its git converts, and where its disk knows no locks."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


@pytest.mark.parametrize("name", ["params.yaml", "losses.csv", "README.md"])
def test_git_converts_no_ends_of_lines(tmp_path, name):
    """DVC hashes files as they lie there: with other ends of lines the base model would be trained anew."""

    def git(*arguments: str) -> None:
        own = ["-c", "user.name=a", "-c", "user.email=a@b", "-c", "core.autocrlf=true"]
        subprocess.run(["git", *own, *arguments], cwd=tmp_path, check=True, capture_output=True)

    shutil.copy(ROOT / ".gitattributes", tmp_path)
    (tmp_path / name).write_bytes(b"a,b\n1,2\n")
    git("init", "-q")
    git("add", "-A")
    git("commit", "-qm", "a")
    (tmp_path / name).unlink()
    git("checkout", "--", name)
    assert (tmp_path / name).read_bytes() == b"a,b\n1,2\n"


@pytest.mark.parametrize("locks", [True, False])
def test_setup_works_on_a_disk_that_knows_no_locks(tmp_path, locks):
    makefile = (ROOT / "Makefile").read_text().replace("\\\n", " ")
    [code] = re.findall(r"^LOCKED := (.+)$", makefile, re.MULTILINE)
    without = (
        "import errno, fcntl\ndef none(*_): raise OSError(errno.ENOLCK, 'No locks available')\nfcntl.flock = none\n"
    )
    command = [sys.executable, "-c", without * (not locks) + code, sys.executable, "-c", "raise SystemExit(7)"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (7, "")
