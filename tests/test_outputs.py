"""Outputs appear whole or not at all, and nothing is written through a link; no module writes past that."""

import ast
import errno
import os
import resource
import signal
import socket
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import save_file

from eraseflow import outputs
from eraseflow.outputs import replacing

ROOT = Path(__file__).parent.parent


def files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def fill(folder: Path, text: str) -> None:
    folder.mkdir(parents=True)
    (folder / "a.txt").write_text(text)


@pytest.mark.parametrize("earlier", ["none", "file", "hard link", "symbolic link", "dangling link"])
def test_a_file_is_replaced_and_what_it_was_linked_to_is_not(tmp_path, earlier):
    cached, path = tmp_path / "cache" / "0123", tmp_path / "data" / "scores.json"
    cached.parent.mkdir()
    path.parent.mkdir()
    if earlier != "dangling link":
        cached.write_text("cached")
    if earlier == "file":
        path.write_text("earlier")
    elif earlier == "hard link":
        os.link(cached, path)
    elif earlier != "none":
        path.symlink_to(cached)
    outputs.write_json({"name": "Žluťoučký"}, path)
    assert path.read_text(encoding="utf-8") == '{\n "name": "Žluťoučký"\n}\n' and not path.is_symlink()
    assert not cached.exists() if earlier == "dangling link" else cached.read_text() == "cached"
    assert os.listdir(path.parent) == ["scores.json"]


@pytest.mark.parametrize("earlier", ["none", "folder", "link to a folder", "file"])
def test_a_folder_is_replaced_as_a_whole(tmp_path, earlier):
    cached, path = tmp_path / "cache", tmp_path / "data" / "edit"
    fill(cached, "cached")
    path.parent.mkdir()
    if earlier == "folder":
        fill(path, "earlier")
        (path / "gone.txt").write_text("")
    elif earlier == "file":
        path.write_text("earlier")
    elif earlier != "none":
        path.symlink_to(cached)
    with replacing(path) as unfinished:
        unfinished.mkdir()
        outputs.write_text("new", unfinished / "a.txt")
    assert files(path) == {"a.txt": b"new"} and not path.is_symlink()
    assert files(cached) == {"a.txt": b"cached"} and os.listdir(path.parent) == ["edit"]


@pytest.mark.parametrize("kind", ["file", "folder"])
def test_after_an_error_the_earlier_one_is_there_and_nothing_else(tmp_path, kind):
    path = tmp_path / "out"
    fill(path, "earlier") if kind == "folder" else path.write_text("earlier")
    with pytest.raises(ValueError, match="wrong"), replacing(path) as unfinished:
        fill(unfinished, "new") if kind == "folder" else unfinished.write_text("new")
        raise ValueError("wrong")
    assert os.listdir(tmp_path) == ["out"]
    assert "earlier" in ((path / "a.txt") if kind == "folder" else path).read_text()


def test_a_process_killed_while_it_writes_leaves_the_earlier_one_and_the_next_cleans_up(tmp_path):
    path = tmp_path / "out"
    fill(path, "earlier")
    code = (
        "import os; from pathlib import Path; from eraseflow.outputs import replacing\n"
        "with replacing(Path('out')) as unfinished: unfinished.mkdir(); os.kill(os.getpid(), 9)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env=os.environ | {"PYTHONPATH": str(ROOT)})
    assert done.returncode == -signal.SIGKILL and files(path) == {"a.txt": b"earlier"}
    assert len(os.listdir(tmp_path)) == 2
    other = tmp_path / f"{outputs.UNFINISHED}another-host-1-abc"
    running = tmp_path / f"{outputs.UNFINISHED}{socket.gethostname()}-{os.getppid()}-abc"
    for folder in (other, running):  # not ours to remove
        folder.mkdir()
    outputs.write_text("x", tmp_path / "b.txt")
    assert set(os.listdir(tmp_path)) == {"out", "b.txt", other.name, running.name}


@pytest.mark.parametrize("step", range(1, 5))
def test_a_kill_between_any_two_steps_of_the_exchange_loses_nothing(tmp_path, monkeypatch, step):
    """The n-th change of a name or removal does not happen any more; the next start heals."""
    path, made = tmp_path / "reports", tmp_path / "made"
    fill(path, "earlier")
    fill(made, "new")
    left = [step]

    def dying(real):
        def call(*arguments):
            left[0] -= 1
            if not left[0]:
                raise KeyboardInterrupt
            return real(*arguments)

        return call

    with monkeypatch.context() as patch:
        patch.setattr(Path, "rename", dying(Path.rename))
        patch.setattr(outputs, "remove", dying(outputs.remove))
        with pytest.raises(KeyboardInterrupt):
            outputs.move(made, path)
    outputs.heal(path)
    assert files(path) == {"a.txt": b"earlier" if step < 4 else b"new"}
    assert set(os.listdir(tmp_path)) <= {"reports", "made"}


@contextmanager
def no_file_above(size: int):
    """Writing more fails, as on a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


WEIGHTS = {"weight": torch.zeros(50_000)}
WRITERS = {
    "text": lambda path: path.write_text("x" * 100_000),
    "csv": lambda path: pd.DataFrame({"x": range(50_000)}).to_csv(path),
    "parquet": lambda path: pd.DataFrame({"x": np.random.default_rng(0).normal(size=50_000)}).to_parquet(path),
    "safetensors": lambda path: save_file(WEIGHTS, path),
    "checkpoint": lambda path: torch.save(WEIGHTS, path),
}


@pytest.mark.parametrize("writer", WRITERS)
def test_a_full_disk_is_one_line_that_says_which_file_and_the_earlier_one_stays(tmp_path, writer):
    path = tmp_path / "out.file"
    path.write_text("earlier")
    with pytest.raises(SystemExit) as end, no_file_above(10_000), replacing(path) as unfinished:
        WRITERS[writer](unfinished)
    said = str(end.value)
    assert said.startswith(f"{path}: cannot be written: ") and " GB free on the disk of " in said
    assert "\n" not in said and path.read_text() == "earlier" and os.listdir(tmp_path) == ["out.file"]


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EROFS])
def test_quota_and_read_only_disks_are_said(tmp_path, monkeypatch, number):
    def fails(**_):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(outputs.tempfile, "mkdtemp", fails)
    with pytest.raises(SystemExit, match=os.strerror(number)):
        outputs.write_text("x", tmp_path / "new" / "a.txt")


def test_what_cannot_be_read_meanwhile_is_no_full_disk(tmp_path):
    with pytest.raises(PermissionError), replacing(tmp_path / "data" / "out") as _:
        raise PermissionError(errno.EACCES, "Permission denied", str(tmp_path / "elsewhere" / "picture.png"))


# Every write goes to a path named `unfinished`, which `replacing` or `folder_beside` gave.
TO_FIRST = {"to_csv", "to_parquet", "to_json", "savefig", "save", "save_pretrained", "savetxt", "ParquetWriter"}
TO_SECOND = {"save_file", "save_image", "torch.save", "json.dump", "yaml.dump", "yaml.safe_dump"}
TO_SECOND |= {f"shutil.{name}" for name in ("copy", "copy2", "copyfile", "copytree", "move")}
GIVEN = {"replacing", "folder_beside"}
BUFFER = "buffer"  # in memory
EXCEPT = {
    "eraseflow/edits.py": ["part.save("],  # Edit.save writes by the mechanism itself
    "eraseflow/emoji/denoiser.py": ["checkpoint.save("],  # which writes by the mechanism, too
    "eraseflow/emoji/judges.py": ["checkpoint.save("],
    "eraseflow/emoji/packages.py": ["listed.write_text("],  # into a temporary folder
    "eraseflow/emoji/text_encoder.py": ["checkpoint.save("],
    "eraseflow/emoji/tokenizer.py": ["bpe.model.save("],  # into a temporary folder
    "eraseflow/ledger.py": ["CLEAR.write_text("],  # a switch of the kernel's
    "eraseflow/project/locks.py": ["path.open(", "STAGES.open("],
    "eraseflow/run/peak.py": ["path.write_text("],  # of a stage that imports little
    "eraseflow/run/task.py": ["log.open("],  # of what a stage says while it runs
    "eraseflow/run/work.py": ["(copy / TURN).open("],  # a lock
    "eraseflow/train.py": ["training.edit().save("],
    "eraseflow/tuning/trials.py": [".save(folder)"],  # an edit's
    "eraseflow/work_copy.py": ["log.open("],  # grows while the stages run
}


def written(call: ast.Call) -> ast.expr | None:
    """What a call writes to, as far as its name tells; None where it writes nothing."""
    function, first = call.func, next(iter(call.args), None)
    name = function.attr if isinstance(function, ast.Attribute) else getattr(function, "id", "")
    if name == "open":
        of_path = isinstance(function, ast.Attribute) and ast.unparse(function.value) not in ("Image", "tarfile")
        given = [*call.args, *(keyword.value for keyword in call.keywords if keyword.arg == "mode")]
        modes = [one.value for one in given if isinstance(one, ast.Constant) and isinstance(one.value, str)]
        writes = any(set(mode) & set("wax+") and len(mode) < 4 for mode in modes)
        return (function.value if of_path else first) if writes else None
    if name in ("write_text", "write_bytes") and isinstance(function, ast.Attribute):
        return function.value
    if {name, ast.unparse(function)} & TO_SECOND:
        return call.args[1] if len(call.args) > 1 else None
    return first if name in TO_FIRST and isinstance(function, ast.Attribute) else None


def root(target: ast.expr) -> str:
    """The name that a path is made from: `unfinished` of `(unfinished / "a").with_suffix(".b")`."""
    while not isinstance(target, ast.Name):
        if isinstance(target, ast.BinOp):
            target = target.left
        elif isinstance(target, ast.Call):
            target = target.args[0] if isinstance(target.func, ast.Name) and target.args else target.func
        elif isinstance(target, ast.Attribute | ast.Subscript):
            target = target.value
        else:
            return ast.unparse(target)
    return target.id


def past_the_mechanism(source: str) -> list[str]:
    """The writes of a module to something else, and bindings of the name to something else."""
    tree, found = ast.parse(source), []
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and (target := written(node)) and root(target) not in ("unfinished", BUFFER):
            found.append(f"line {node.lineno}: {ast.unparse(node)}")
        if isinstance(node, ast.Assign) and "unfinished" in map(ast.unparse, node.targets):
            found.append(f"line {node.lineno}: {ast.unparse(node)}")
        for item in node.items if isinstance(node, ast.With) else ():
            named = item.optional_vars and ast.unparse(item.optional_vars) == "unfinished"
            if named and ast.unparse(item.context_expr).partition("(")[0] not in GIVEN:
                found.append(f"line {node.lineno}: {ast.unparse(item.context_expr)}")
    return found


@pytest.mark.parametrize(
    "line",
    [
        "(out / 'a.json').write_text(text)", "rows.to_csv(out / 'a.csv')", "open(path, 'w')", "path.open('a')",
        "path.open(mode='wb')", "save_file(tensors, folder / 'a')", "torch.save(state, path)", "picture.save(path)",
        "figure.savefig(path, dpi=100)", "pipeline.save_pretrained(folder)", "shutil.copy2(unfinished, path)",
        "unfinished = path", "Path(name).write_bytes(content)", "rows.to_parquet(f'{name}.parquet')",
        "json.dump(content, stream)",
    ],
)  # fmt: skip
def test_a_write_past_the_mechanism_is_found(line):
    assert past_the_mechanism(line)


@pytest.mark.parametrize(
    "line",
    [
        "(unfinished / 'a.json').write_text(text)", "rows.to_csv()", "open(path)", "path.open('rb')",
        "path.open(newline='', encoding='utf-8-sig')", "write_json(content, path)", "Image.open(path)",
        "with replacing(path) as unfinished: save_file(tensors, unfinished)", "text.replace('a', 'b')",
        "buffer = io.BytesIO()\npicture.save(buffer, 'png')", "copy.copy(settings)", "edit.save_state()",
        "torch.save(state, unfinished / 'a')",
    ],
)  # fmt: skip
def test_what_is_no_write_past_the_mechanism_is_not(line):
    assert past_the_mechanism(line) == []


def test_every_module_writes_by_the_mechanism():
    found = {}
    for path in sorted([*(ROOT / "eraseflow").rglob("*.py"), *(ROOT / "stages").glob("*.py")]):
        name = str(path.relative_to(ROOT))
        lines = past_the_mechanism(path.read_text())
        excused = EXCEPT.get(name, [])
        assert all(any(call in line for line in lines) for call in excused), f"{name}: no longer needed"
        if lines := [line for line in lines if not any(call in line for call in excused)]:
            found[name] = lines
    assert found == {}
