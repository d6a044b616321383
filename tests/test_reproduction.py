"""The proof of reproduction: what is made again in a fresh clone is what the commit has, to the byte."""

import re
import shutil
import sys
from pathlib import Path

import pytest
import yaml
from project_clone import call, clone, edit_params, few_prompts, only, repro

from eraseflow import timings
from eraseflow.project import left_over

ROOT = Path(__file__).parent.parent
GIT = ("git", "-c", "user.name=a", "-c", "user.email=a@b", "-c", "commit.gpgsign=false")


def few(raw: dict) -> None:
    """A training and a closed form under one attack; the testbed as it is, so that its judges' cards stay."""
    only(raw, ["unicorn"], ["uce", "eraseflow"], ["random_prefix"])
    raw["table"] |= {"concepts": ["unicorn"], "methods": ["uce", "eraseflow"], "attacks": ["random_prefix"]}
    raw["methods"]["eraseflow"]["emoji"] |= {"epochs": 1, "num_steps": 5, "skip_last": 0, "batch_size": 1}
    raw["methods"]["eraseflow"]["emoji"]["kinds"] = {}
    raw["attacks"]["random_prefix"]["emoji"]["rounds"] = 1
    raw["concepts"]["unicorn"]["kept"] |= {"count": 4, "neighbours": []}


@pytest.mark.slow
def test_a_fresh_clone_ends_with_a_clean_git_status(tmp_path):
    """Also where cells of another table lay about when the commit was made, seconds have been taken down, and one stage
    runs after another that ran two at once.
    """
    first, fresh = clone(tmp_path / "first"), tmp_path / "elsewhere" / "fresh"
    few_prompts(first, 2)
    edit_params(first, few)
    stray = first / "data/cells/champagne/uce/costs.json"
    stray.parent.mkdir(parents=True)
    stray.write_text("{}")
    stages = {
        f"{stage}unicorn-{method}" for method in ("uce", "eraseflow") for stage in ("train@", "sample@", "score@")
    }
    stages |= {f"attack@random_prefix-unicorn-{method}" for method in ("uce", "eraseflow")}
    assert stages | {"report"} <= repro(first)
    call(first, sys.executable, "-m", "eraseflow", "timings")
    assert len(timings.read(first / "reports" / timings.FILE)) == 4
    assert repro(first) == {"report"}
    call(first, *GIT, "add", "-A")
    call(first, *GIT, "commit", "-q", "-m", "results")

    call(tmp_path, "git", "clone", "-q", str(first), str(fresh))
    shutil.rmtree(fresh / "reports/grids")  # so that the report is made again, too
    assert stages | {"report"} <= repro(fresh, jobs=1)
    assert call(fresh, "git", "status", "--porcelain").stdout == ""
    assert (fresh / "dvc.lock").read_bytes() == (first / "dvc.lock").read_bytes()
    assert repro(fresh) == set()
    for one in (first, fresh):  # no machine, no place and no time in what is hashed
        made = [path for path in (one / "data").rglob("*") if path.is_file() and not path.name.startswith("timing-")]
        assert not [path for path in made if str(tmp_path).encode() in path.read_bytes()]
        for path in (one / "data").rglob("timing-*.json"):
            assert re.search(r'"date": "20\d\d-', path.read_text())


TABLE = {"concepts": ["rose", "lily"], "methods": ["uce"], "attacks": ["p4d"], "transfer": ["p4d"], "testbed": "emoji"}


def files(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def test_the_tables_outputs_are_those_of_dvc_yaml():
    found = left_over.outputs(yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"], TABLE)
    assert {
        Path(f"data/cells/{name}/uce/{file}") for name in ("rose", "lily") for file in ("edit", "judged.parquet")
    } <= found
    assert {Path("data/cells/rose/uce/attack-p4d.json"), Path("data/concepts/lily/transfer-p4d.csv")} <= found
    assert {Path("models/emoji"), Path("data/reference/emoji"), Path("reports/metrics.json")} <= found
    assert not [path for path in found if "$" in str(path)]


def test_what_is_not_of_the_table_waits_aside_and_comes_back(tmp_path, monkeypatch, capsys):
    (tmp_path / "dvc.yaml").symlink_to(ROOT / "dvc.yaml")
    monkeypatch.chdir(tmp_path)
    mine = {"rose/uce/edit/edit.json", "rose/uce/costs.json", "rose/uce/timing-training.json", "rose/uce/.unfinished-a"}
    theirs = {"rose/uce/attack-mma.json", "rose/esd/edit/edit.json", "daisy/uce/costs.json", "a.txt"}
    theirs |= {"rose/esd/timing-training.json"}
    for name in mine | theirs:
        (left_over.FOLDERS[0] / name).parent.mkdir(parents=True, exist_ok=True)
        (left_over.FOLDERS[0] / name).write_text(name)
    left_over.put_aside(TABLE)
    assert files(left_over.FOLDERS[0]) == mine
    assert files(left_over.ASIDE / left_over.FOLDERS[0]) == theirs
    assert capsys.readouterr().out.count("is not of this table") == 4

    left_over.put_aside(TABLE | {"methods": ["uce", "esd"], "attacks": ["p4d", "mma"]})
    back = {"rose/uce/attack-mma.json", "rose/esd/edit/edit.json", "rose/esd/timing-training.json"}
    assert files(left_over.FOLDERS[0]) == mine | back
    for name in back:
        assert (left_over.FOLDERS[0] / name).read_text() == name
    left_over.put_aside(TABLE)
    assert files(left_over.FOLDERS[0]) == mine, "an older one aside gives way"
