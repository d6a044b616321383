"""The chain itself, miniature, in a temporary clone: what runs, what does not run again, and what survives a kill."""

import csv
import json
import os
import re
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

ROOT = Path(__file__).parent.parent
ENVIRONMENT = os.environ | {"OMP_NUM_THREADS": "1", "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
ENVIRONMENT |= {"ERASEFLOW_DEVICE": "cpu"}

pytestmark = pytest.mark.slow


def call(folder: Path, *command: str, check: bool = True) -> subprocess.CompletedProcess:
    done = subprocess.run(command, cwd=folder, env=ENVIRONMENT, capture_output=True, text=True)
    assert done.returncode == 0 or not check, done.stdout[-2000:] + done.stderr[-3000:]
    return done


def repro(folder: Path) -> set[str]:
    """Run the chain; the stages that it ran."""
    done = call(folder, sys.executable, "-m", "eraseflow", "repro")
    return set(re.findall(r"^Running stage '(.+)'", done.stdout, re.MULTILINE))


def edit_params(folder: Path, change) -> None:
    path = folder / "params.yaml"
    raw = yaml.safe_load(path.read_text())
    change(raw)
    path.write_text(yaml.safe_dump(raw, sort_keys=False))


def shorten(raw: dict) -> None:
    """Two concepts, two methods, one attack, few prompts, few steps."""
    raw["table"] |= {"concepts": ["unicorn"], "methods": ["original", "uce"], "attacks": ["random_prefix"]}
    raw["testbeds"]["emoji"]["sampling"]["steps"] = 2
    raw["attacks"]["random_prefix"]["emoji"]["rounds"] = 1
    raw["attacks"]["unlearndiffatk"]["emoji"] |= {"rounds": 1, "iterations": 1}
    for name in ("esd", "esd_u"):
        raw["methods"][name]["emoji"] |= {"iterations": 1, "num_steps": 2}
    raw["methods"]["eraseflow"]["emoji"] |= {"epochs": 1, "num_steps": 5, "skip_last": 0, "batch_size": 1}
    for concept in raw["concepts"].values():
        concept["kept"]["count"] = 8  # as many as champagne has neighbours


def clone(folder: Path) -> Path:
    """Copy the working tree, without what git ignores."""
    listed = call(ROOT, "git", "ls-files", "-co", "--exclude-standard", "-z").stdout.split("\0")
    for name in filter(None, listed):
        if (ROOT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, folder / name)
    call(folder, "git", "init", "-q")
    return folder


@pytest.fixture(scope="module")
def chain(tmp_path_factory) -> Path:
    """A clone in which the miniature table has been made once."""
    folder = clone(tmp_path_factory.mktemp("clone"))
    for prompts in (folder / "prompts" / "emoji").glob("*.csv"):
        if prompts.stem != "kept":
            prompts.write_text("\n".join(prompts.read_text().splitlines()[:4]) + "\n")
    edit_params(folder, shorten)
    ran = repro(folder)
    assert {f"{stage}@unicorn-{method}" for stage in ("train", "sample", "score") for method in ("original", "uce")} | {
        "concept@unicorn",
        "methods",
    } <= ran
    assert not ran & {"pictures", "base", "judges"}, "their results are in git"
    return folder


def cells(concepts, methods, attacks) -> set[str]:
    """The stages of these cells, without those of the concepts and the report."""
    pairs = [f"{concept}-{method}" for concept in concepts for method in methods]
    return {f"{stage}@{pair}" for stage in ("train", "sample", "score") for pair in pairs} | {
        f"attack@{attack}-{pair}" for attack in attacks for pair in pairs
    }


def test_report_is_made_from_the_cells(chain):
    table = pd.read_csv(chain / "reports" / "table.csv")
    assert table.method.tolist() == ["original", "uce"] and table.n_prompts.eq(3).all()
    for name in ("table.md", "table.tex", "index.html", "fid_vs_attack.png", "fid_vs_attack.svg", "metrics.json"):
        assert (chain / "reports" / name).stat().st_size > 100
    scores = json.loads((chain / "data/cells/unicorn/uce/scores.json").read_text())
    assert scores["kept_n"] == 8 and table.fd.iloc[1] == pytest.approx(scores["fd"], abs=1e-3)


def test_nothing_to_do_runs_nothing(chain):
    assert repro(chain) == set()


def test_a_new_concept_adds_exactly_its_cells_and_a_removed_one_leaves_the_report(chain):
    edit_params(chain, lambda raw: raw["table"]["concepts"].append("champagne"))
    new = cells(["champagne"], ["original", "uce"], ["random_prefix"]) | {"concept@champagne", "report"}
    assert repro(chain) == new
    table = (chain / "reports" / "table.csv").read_text()
    assert "champagne" in table
    edit_params(chain, lambda raw: raw["table"]["concepts"].remove("champagne"))
    assert repro(chain) == {"report"}
    assert "champagne" not in (chain / "reports" / "table.csv").read_text()
    assert not (chain / "reports" / "grids" / "champagne.png").exists()


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
        raw["table"]["concepts"] = ["unicorn", "rose"]

    edit_params(chain, add)
    # The folder of prompts is watched as a whole, for the questions in it; `methods` notes the rows of each concept.
    of_prompts = {"concept@rose", "concept@unicorn", "methods"}
    assert repro(chain) == cells(["rose"], ["original", "uce"], ["random_prefix"]) | of_prompts | {"report"}
    edit_params(chain, lambda raw: raw["table"].update(concepts=["unicorn"]))
    repro(chain)


def test_a_new_attack_adds_exactly_its_cells(chain):
    edit_params(chain, lambda raw: raw["table"]["attacks"].append("unlearndiffatk"))
    assert repro(chain) == {f"attack@unlearndiffatk-unicorn-{method}" for method in ("original", "uce")} | {"report"}


def test_new_methods_add_exactly_their_cells_and_editing_one_reruns_only_it(chain):
    added = ["esd", "eraseflow", "esd_u+safree"]
    edit_params(chain, lambda raw: raw["methods"].update({"esd_u+safree": {"compose": ["esd_u", "safree"]}}))
    edit_params(chain, lambda raw: raw["table"]["methods"].extend(added))
    attacks = ["random_prefix", "unlearndiffatk"]
    assert repro(chain) == cells(["unicorn"], added, attacks) | {"methods", "report"}

    module = chain / "eraseflow" / "methods" / "esd.py"
    module.write_text(module.read_text() + "\n# edited\n")
    ran = repro(chain)  # the edit comes out the same, so what depends on it does not run again
    trained = {"methods", "train@unicorn-esd", "train@unicorn-esd_u+safree"}
    assert trained <= ran <= trained | {"report"}

    edit_params(chain, lambda raw: raw["methods"]["esd"]["emoji"].update(learning_rate=2.0e-3))
    assert repro(chain) == cells(["unicorn"], ["esd"], attacks) | {"methods", "report"}

    module = chain / "eraseflow" / "methods" / "safree.py"
    module.write_text(module.read_text() + "\n# edited\n")
    ran = repro(chain)  # it works while pictures are drawn, so these are drawn again; they come out the same
    drawn = cells(["unicorn"], ["esd_u+safree"], attacks) - {"score@unicorn-esd_u+safree"}
    assert drawn | {"methods"} <= ran <= drawn | {"methods", "report"}


def test_the_same_table_to_the_byte(chain):
    """Everything but the seconds: the cells made again give the same numbers."""
    columns = lambda: pd.read_csv(chain / "reports" / "table.csv", dtype=str).filter(regex="^(?!.*seconds)")  # noqa: E731
    before = columns()
    call(
        chain,
        sys.executable,
        "-m",
        "eraseflow",
        "repro",
        "--",
        "-f",
        "-s",
        "sample@unicorn-uce",
        "train@unicorn-eraseflow",
    )
    repro(chain)
    pd.testing.assert_frame_equal(before, columns())


def test_a_killed_stage_leaves_no_half_output_and_resumes(chain):
    out = chain / "data/cells/unicorn/original/killed.parquet"
    command = [sys.executable, "stages/sample.py", "--concept", "unicorn"]
    command += ["--prompts", "data/concepts/unicorn/prompts.csv"]
    command += ["--edit", "data/cells/unicorn/original/edit", "--out", str(out)]
    environment = ENVIRONMENT | {"ERASEFLOW_BATCH": "1"}
    process = subprocess.Popen(command, cwd=chain, env=environment, stderr=subprocess.DEVNULL)
    while not (shards := list((chain / ".work").glob("sample-*/*.parquet"))) and process.poll() is None:
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert shards and not out.exists()
    times = {shard: shard.stat().st_mtime_ns for shard in (chain / ".work").glob("sample-*/*.parquet")}
    resumed = subprocess.Popen(command, cwd=chain, env=environment, stderr=subprocess.DEVNULL)
    drawn_again = set()
    while resumed.poll() is None:
        for shard, written in times.items():
            with suppress(FileNotFoundError):  # at its end the stage removes them
                if shard.stat().st_mtime_ns != written:
                    drawn_again.add(shard)
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
    trained = {"pictures", "base", "judges"}  # for hours; test_outputs.py looks at their code
    present = {name for name, stage in lock.items() if all((chain / out["path"]).exists() for out in stage["outs"])}
    names = [name for name in lock if name in present - trained]
    assert {"cards", "methods", "report"} <= set(names) and {name.partition("@")[0] for name in names} >= {
        "concept", "reference", "train", "sample", "attack", "score",
    }  # fmt: skip
    for name in names:
        for out in lock[name]["outs"]:
            linked(chain / out["path"], tmp_path, link)
    before = contents(tmp_path)
    script = "\n".join(["set -e", *(lock[name]["cmd"] for name in names)])
    code = "import sys; from eraseflow import launcher as it; sys.exit(it.run(['sh', '-c', sys.argv[1]], it.PRELOAD))"
    call(chain, sys.executable, "-c", code, script)
    assert contents(tmp_path) == before
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
