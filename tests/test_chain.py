"""The chain itself, miniature, in a temporary clone: what runs, what does not run again, and what survives a kill."""

import csv
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import pandas as pd
import pytest
import yaml
from project_clone import (
    ENVIRONMENT,
    FROZEN,
    IN_GIT,
    ROOT,
    call,
    cells,
    clone,
    edit_params,
    few_prompts,
    hand_over,
    repro,
    shorten,
    without_figures,
)

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Path:
    """A clone in which the miniature table has been made once; for tests that change nothing in it."""
    folder = clone(tmp_path_factory.mktemp("clone"))
    few_prompts(folder, 3)
    without_figures(folder)
    edit_params(folder, shorten)
    ran = call(folder, sys.executable, "-m", "eraseflow", "repro").stdout
    stages = {f"{stage}@unicorn-{method}" for stage in ("train", "sample", "score") for method in ("original", "uce")}
    assert all(f"Running stage '{stage}'" in ran for stage in stages | {"concept@unicorn", "methods"})
    return folder


@pytest.fixture
def chain(made, tmp_path) -> Path:
    """A copy of it."""
    return Path(shutil.copytree(made, tmp_path / "clone"))


def test_report_is_made_from_the_cells(made):
    table = pd.read_csv(made / "reports" / "table.csv")
    assert table.method.tolist() == ["original", "uce"] and table.n_prompts.eq(3).all()
    for name in ("table.md", "table.tex", "index.html", "metrics.json"):
        assert (made / "reports" / name).stat().st_size > 100
    scores = json.loads((made / "data/cells/unicorn/uce/scores.json").read_text())
    assert scores["kept_n"] == 9 and table.fd.iloc[1] == pytest.approx(scores["fd"], abs=1e-3)


def test_what_is_in_git_was_made_by_this_code(chain):
    shutil.copy(ROOT / "dvc.yaml", chain)
    assert json.loads(call(chain, sys.executable, "-m", "dvc", "status", "--json", *IN_GIT).stdout) == {}


def test_nothing_to_do_runs_nothing(made):
    assert repro(made) == set()


PLAN = "from pathlib import Path; from eraseflow import params; from eraseflow.run import plan; " + (
    "print(*plan.plan(params.written(), Path()), sep='\\n')"
)


def planned(folder: Path) -> set[str]:
    """The names of the stages; what `python -m eraseflow plan` says of them is tested in test_plan.py."""
    return set(call(folder, sys.executable, "-c", PLAN, PYTHONPATH=str(folder)).stdout.split())


def test_the_plan_is_what_runs(chain):
    assert planned(chain) == set()
    module = chain / "eraseflow/methods/uce.py"
    module.write_text(module.read_text() + "\n# An edit that moves no number.\n")
    edit_params(chain, lambda raw: raw["table"].update(methods=["original", "uce", "safree"]))
    will = planned(chain)
    new = cells(["unicorn"], ["safree"], ["random_prefix"])
    assert will == new | cells(["unicorn"], ["uce"], ["random_prefix"]) | {"methods", "report"}
    assert repro(chain) == new | {"methods", "report", "train@unicorn-uce"}, "whose edit came out as it was"


def test_a_new_concept_adds_exactly_its_cells_and_a_removed_one_leaves_the_report(chain):
    edit_params(chain, lambda raw: raw["table"].update(concepts=["unicorn", "champagne_bottle"], methods=["uce"]))
    added = cells(["champagne_bottle"], ["uce"], ["random_prefix"])
    assert repro(chain) == added | {"concept@champagne_bottle", "report"}
    table = (chain / "reports" / "table.csv").read_text()
    assert "champagne_bottle" in table
    edit_params(chain, lambda raw: raw["table"]["concepts"].remove("champagne_bottle"))
    assert repro(chain) == {"report"}
    assert "champagne_bottle" not in (chain / "reports" / "table.csv").read_text()
    assert not (chain / "reports" / "grids" / "champagne_bottle.png").exists()


def test_a_concept_written_by_a_user(chain):
    with (chain / "prompts" / "emoji" / "rose.csv").open("w", newline="") as file:
        csv.writer(file).writerows([["prompt"], ["a rose in flat style"], ["ink style rose"]])

    def add(raw):
        raw["concepts"]["rose"] = raw["concepts"]["unicorn"] | {
            "target": "rose",
            "anchor": "sunflower",
            "prompts": "prompts/emoji/rose.csv",
            "preserve": ["sunflower", "cactus", "cat"],
            "judge": {"name": "emoji_classifier", "counts": ["object/rose"]},
            "kept": {"without": ["object/rose"], "neighbours": ["object/sunflower"], "count": 6},
        }
        raw["table"] |= {"concepts": ["unicorn", "rose"], "methods": ["uce"]}

    edit_params(chain, add)
    # The folder of prompts is watched as a whole, for the questions in it; `methods` notes the rows of each concept.
    of_prompts = {"concept@rose", "concept@unicorn", "methods"}
    assert repro(chain) == cells(["rose"], ["uce"], ["random_prefix"]) | of_prompts | {"report"}


def test_a_new_attack_adds_exactly_its_cells(chain):
    edit_params(chain, lambda raw: raw["table"]["attacks"].append("unlearndiffatk"))
    assert repro(chain) == {f"attack@unlearndiffatk-unicorn-{method}" for method in ("original", "uce")} | {"report"}


def test_new_methods_add_exactly_their_cells_and_editing_one_reruns_only_it(chain):
    added, attacks = ["esd", "esd_u+safree"], ["random_prefix"]
    edit_params(chain, lambda raw: raw["methods"].update({"esd_u+safree": {"compose": ["esd_u", "safree"]}}))
    edit_params(chain, lambda raw: raw["table"]["methods"].extend(added))
    assert repro(chain) == cells(["unicorn"], added, attacks) | {"methods", "report"}

    module = chain / "eraseflow" / "methods" / "esd.py"
    module.write_text(module.read_text() + "\n# edited\n")
    ran = repro(chain)  # the edit comes out the same, so what depends on it does not run again
    trained = {"methods", "train@unicorn-esd", "train@unicorn-esd_u+safree"}
    assert trained <= ran <= trained | {"report"}

    edit_params(chain, lambda raw: raw["methods"]["esd"]["emoji"]["kinds"]["fine_grained"].update(learning_rate=2.0e-3))
    assert repro(chain) == cells(["unicorn"], ["esd"], attacks) | {"methods", "report"}

    module = chain / "eraseflow" / "methods" / "safree.py"
    module.write_text(module.read_text() + "\n# edited\n")
    ran = repro(chain)  # it works while pictures are drawn, so these are drawn again; they come out the same
    drawn = cells(["unicorn"], ["esd_u+safree"], attacks) - {"score@unicorn-esd_u+safree"}
    assert drawn | {"methods"} <= ran <= drawn | {"methods", "report"}


def test_the_same_table_to_the_byte(chain):
    edit_params(chain, lambda raw: raw["table"].update(methods=["uce", "eraseflow"]))
    assert repro(chain) == cells(["unicorn"], ["eraseflow"], ["random_prefix"]) | {"report"}
    before = contents(chain / "reports") | {chain / "dvc.lock": (chain / "dvc.lock").read_bytes()}
    again = {"sample@unicorn-uce", "train@unicorn-eraseflow"}
    assert repro(chain, "-f", "-s", *again) == again
    repro(chain)
    assert contents(chain / "reports") | {chain / "dvc.lock": (chain / "dvc.lock").read_bytes()} == before


def test_a_killed_stage_leaves_no_half_output_and_resumes(chain):
    out = chain / "data/cells/unicorn/original/killed.parquet"
    command = [sys.executable, "stages/sample.py", "--concept", "unicorn"]
    command += ["--prompts", "data/concepts/unicorn/prompts.csv"]
    command += ["--edit", "data/cells/unicorn/original/edit", "--out", str(out)]
    environment = ENVIRONMENT | {"ERASEFLOW_BATCH": "1", "PYTHONPATH": str(chain)}
    process = subprocess.Popen(command, cwd=chain, env=environment, stderr=subprocess.DEVNULL)
    while not (shards := list((chain / ".work").glob("sample-*/*.parquet"))) and process.poll() is None:
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert shards and not out.exists()
    times = {shard: shard.stat().st_mtime_ns for shard in (chain / ".work").glob("sample-*/*.parquet")}
    resumed = subprocess.Popen(command, cwd=chain, env=environment | hand_over(chain), stderr=subprocess.DEVNULL)
    drawn_again = set()
    while resumed.poll() is None:
        for shard, written in times.items():
            with suppress(FileNotFoundError):  # at its end the stage removes them
                if shard.stat().st_mtime_ns != written:
                    drawn_again.add(shard)
        time.sleep(0.001)
    assert resumed.returncode == 0 and not drawn_again
    whole = pd.read_parquet(chain / "data/cells/unicorn/original/samples.parquet")
    pd.testing.assert_frame_equal(pd.read_parquet(out).drop(columns="png"), whole.drop(columns="png"))
    assert not list((chain / ".work").glob("sample-*"))
    out.unlink()


def linked(path: Path, cache: Path, link) -> None:
    """Move a file or folder into a stand-in for DVC's cache and link it; hard links are of files alone."""
    place = cache / f"{len(list(cache.iterdir()))}"
    if path.is_file() or link == os.symlink:
        path.rename(place)
        link(place, path)
        return
    shutil.copytree(path, place)
    for file in [file for file in path.rglob("*") if file.is_file()]:
        file.unlink()
        link(place / file.relative_to(path), file)


def contents(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("link", [os.link, os.symlink], ids=["hard links", "symbolic links"])
def test_no_stage_writes_through_a_link_into_the_cache(chain, tmp_path, link):
    """Each is run by hand, as DVC would not: it takes the outputs away first."""
    lock = yaml.safe_load((chain / "dvc.lock").read_text())["stages"]
    (cache := tmp_path / "cache").mkdir()
    present = {name for name, stage in lock.items() if all((chain / out["path"]).exists() for out in stage["outs"])}
    names = [name for name in lock if name in present - {*FROZEN}]  # test_outputs.py looks at the code of those
    assert {"methods", "report"} <= set(names) and {name.partition("@")[0] for name in names} >= {
        "concept", "reference", "train", "sample", "attack", "score",
    }  # fmt: skip
    for name in names:
        for out in lock[name]["outs"]:
            linked(chain / out["path"], cache, link)
    before = contents(cache)
    script = "\n".join(["set -e", *(lock[name]["cmd"] for name in names)])
    call(chain, "sh", "-c", script, **hand_over(chain))
    assert contents(cache) == before
    outs = [chain / out["path"] for name in names for out in lock[name]["outs"]]
    assert not [out for out in outs if out.is_symlink() or not out.exists()]
    inodes = {path.stat().st_ino for path in before}
    assert not [
        file for out in outs for file in [out, *out.rglob("*")] if file.is_file() and file.stat().st_ino in inodes
    ]


def test_bad_params_stop_before_any_work(chain):
    edit_params(chain, lambda raw: raw["table"].update(methods=["original", "eraseflwo"]))
    done = call(chain, sys.executable, "-m", "eraseflow", "repro", check=False)
    assert done.returncode == 1 and "Running stage" not in done.stdout
    assert done.stderr.strip().count("\n") == 0 and "did you mean 'eraseflow'?" in done.stderr
