"""The full table: what is in it, and the miniature of it run beside the default one without touching that."""

import math
import re
import shutil
import signal
import subprocess
from pathlib import Path

import pandas as pd
import pytest
import torch
import yaml
from project_clone import call, cells, clone, edit_params, few_prompts, hand_over, only, shorten, without_figures
from project_clone import repro as run_default
from safetensors.torch import save_file

from eraseflow import full, launcher, outputs, tables, timings, work_copy
from eraseflow.params import Method, load
from eraseflow.project import files
from eraseflow.report import whole
from eraseflow.run.slots import Places

pytestmark = pytest.mark.slow

PARAMS = load()
RECORD = full.REPORT / "rose" / "dvc.lock"


def test_the_table_has_all_that_has_a_block_for_emoji():
    params = load()
    names = full.table(params)
    assert names.methods[0] == "original" and "pretrained" not in names.methods  # of sd14 alone
    assert set(names.methods) == set(params.methods) - {"pretrained"} >= {"esd_u", "eraseflow+safree"}
    assert set(names.attacks) == set(params.attacks) and {"penguin", "weapon"} <= set(names.concepts)
    assert not {"nudity", "church"} & set(names.concepts) and names.transfer == ["unlearndiffatk"]


def test_each_concept_is_a_table_of_its_own_with_all_prompts():
    params = load()
    tables = full.tables(params)
    assert list(tables) == full.table(params).concepts
    assert all(one.concepts == [name] and one.prompts is None for name, one in tables.items())
    assert all(one.attacks == list(params.attacks) for one in tables.values())


def test_a_table_that_there_is_not_is_one_line():
    with pytest.raises(SystemExit, match=r"no table 'unicron'; did you mean 'unicorn'\?"):
        full.run(load(), ["unicron"])


@pytest.fixture
def project(tmp_path) -> Path:
    """A project of a few files, with DVC as this repository has it."""
    files = {"eraseflow/a.py": "1", "eraseflow/b.py": "2", "reports/table.csv": "x", "reports/judges.json": "{}"}
    files |= {"params.yaml": "table: {}", ".dvc/config": "[core]\n    analytics = false\n", ".gitignore": ".work/\n"}
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    mine, theirs = {"base": {"cmd": "new"}, "train@unicorn-esd": {"cmd": "default"}}, {"base": {"cmd": "old"}}
    work_copy.write_lock(tmp_path / "dvc.lock", mine | {"report": {"cmd": "default"}})
    (tmp_path / "reports" / "full" / "rose").mkdir(parents=True)
    work_copy.write_lock(tmp_path / RECORD, theirs | {"train@rose-esd": {"cmd": "full"}})
    subprocess.run(["git", "init", "-q"], cwd=tmp_path, check=True)
    return tmp_path


def test_the_copy_follows_the_project_and_keeps_its_results(project):
    copy = project / full.COPIES / "rose"
    work_copy.prepare(project, copy, project / RECORD)
    copied = {str(path.relative_to(copy)) for path in copy.rglob("*") if path.is_file()}
    assert {"eraseflow/a.py", "eraseflow/b.py", "reports/judges.json"} <= copied and "params.yaml" not in copied
    assert "reports/table.csv" not in copied
    assert (copy / "reports" / timings.FILE).read_text() == ",".join(timings.COLUMNS) + "\n"
    assert work_copy.read_lock(copy / "dvc.lock") == {"base": {"cmd": "new"}, "train@rose-esd": {"cmd": "full"}}
    settings = yaml.safe_dump((copy / ".dvc" / "config.local").read_text())
    assert "no_scm = True" in settings and str(project / ".dvc" / "cache") in settings

    (copy / "reports" / "table.csv").write_text("of the full table")
    work_copy.write_lock(copy / "dvc.lock", {"train@rose-esd": {"cmd": "stopped here"}})
    (project / "eraseflow" / "a.py").write_text("3")
    (project / "eraseflow" / "b.py").unlink()
    work_copy.prepare(project, copy, project / RECORD)
    assert (copy / "eraseflow" / "a.py").read_text() == "3" and not (copy / "eraseflow" / "b.py").exists()
    assert (copy / "reports" / "table.csv").read_text() == "of the full table"
    assert work_copy.read_lock(copy / "dvc.lock")["train@rose-esd"] == {"cmd": "stopped here"}


def test_what_git_ignores_is_linked_into_the_copy(project):
    copy, weights = project / full.COPIES / "rose", project / "models" / "mine" / "unet.safetensors"
    weights.parent.mkdir(parents=True)
    weights.write_bytes(b"large")
    (project / ".gitignore").write_text(".work/\nmodels/\n")
    for _ in range(2):
        work_copy.prepare(project, copy, project / RECORD, ["models/mine/unet.safetensors"])
        link = copy / "models" / "mine" / "unet.safetensors"
        assert link.is_symlink() and link.read_bytes() == b"large"
    work_copy.prepare(project, copy, project / RECORD)
    assert not link.is_symlink() and weights.read_bytes() == b"large"


def test_paths_that_a_copy_would_not_find(tmp_path, monkeypatch):
    """Weights that somebody has trained, in a folder that git ignores, and beside the project."""
    project = tmp_path / "project"
    shutil.copytree(Path("prompts"), project / "prompts")
    (project / "models" / "mine").mkdir(parents=True)
    save_file({"unet.a": torch.zeros(1)}, project / "models" / "mine" / "unet.safetensors")
    shutil.copytree(project / "models" / "mine", tmp_path / "beside")
    (project / ".gitignore").write_text(".work/\nmodels/\n/prompts/emoji/penguin.csv\n")
    monkeypatch.chdir(project)
    monkeypatch.setattr("eraseflow.outside.content.KNOWN", tmp_path / "hashes.json")

    def left_out(place: str) -> list[str]:
        row = Method(module="pretrained", emoji={"sources": {"unicorn": place}})
        changed = PARAMS.model_copy(update={"methods": PARAMS.methods | {"mine": row}})
        return work_copy.left_out(changed.model_copy(update={"table": full.table(changed)}), Path())

    wanted = ["models/mine/unet.safetensors", "prompts/emoji/penguin.csv"]
    assert left_out("models/mine") == left_out("./models/mine/unet.safetensors") == wanted
    assert left_out(str(tmp_path / "beside")) == wanted[1:]
    with pytest.raises(
        SystemExit, match=r"^\.\./beside/unet\.safetensors: leads out of the project, .* an absolute path$"
    ):
        left_out("../beside")
    (project / ".gitignore").write_text(".work/\n")
    assert left_out("models/mine") == []


def test_a_table_without_its_cells_is_unchanged_while_what_they_depend_on_is(project, monkeypatch):
    copy = project / full.COPIES / "rose"
    work_copy.prepare(project, copy, project / RECORD)
    monkeypatch.chdir(copy)
    monkeypatch.setattr(launcher, "PRELOAD", ())
    Path("params.yaml").write_text("table: {transfer: []}\n")
    stages = {
        name: {"cmd": f"cp {read} {name}.txt", "deps": [read], "outs": [f"{name}.txt"]}
        for name, read in {
            "methods": "params.yaml",
            "concept": "eraseflow/a.py",
            "score": "concept.txt",
            "attack": "eraseflow/b.py",
        }.items()
    }
    Path("dvc.yaml").write_text(yaml.safe_dump({"stages": stages}))
    Path("dvc.lock").unlink()
    call(copy, "python", "-m", "dvc", "repro")
    for name in ("score", "attack"):
        Path(f"{name}.txt").unlink()
    shutil.rmtree(project / ".dvc" / "cache")
    assert work_copy.unchanged() and not Path("score.txt").exists()
    for name in ("a", "b"):  # what `score` reads only by way of `concept`, and what `attack` reads itself
        before = Path(f"eraseflow/{name}.py").read_text()
        Path(f"eraseflow/{name}.py").write_text("changed")
        assert not work_copy.unchanged()
        Path(f"eraseflow/{name}.py").write_text(before)
    assert work_copy.unchanged()


def test_a_table_that_fails_ends_the_others_and_says_where_to_look(project, monkeypatch, capfd):
    table = load().table
    monkeypatch.chdir(project)  # whose params.yaml has nothing but a table
    assert (
        work_copy.run_tables(
            {"rose": table, "lily": table}, full.COPIES, full.REPORT, full.PURPOSE, [], ["-f"], Places()
        )
        != 0
    )
    lines = capfd.readouterr().out.splitlines()
    failed = "rose: failed, see .work/full/rose.log (1 of 2)"
    assert lines[1:] == ["rose: params.yaml: testbeds: is missing", failed]
    assert "params.yaml: " in (project / ".work" / "full" / "rose.log").read_text()


def test_publishing_replaces_the_folder_and_leaves_out_what_is_not_the_reports(project):
    out, copy = project / full.REPORT / "rose", project / "made"
    (out / "gone.csv").write_text("")
    for name in ("base/losses.png", "judges.json", "table.csv", "reproduction.csv", "grids/base/a.png"):
        made = copy / "reports" / name
        made.parent.mkdir(parents=True, exist_ok=True)
        made.write_text(name)
    shutil.copy2(project / "dvc.lock", copy / "dvc.lock")

    def found() -> set[str]:
        return {str(path.relative_to(out.parent)) for path in out.parent.rglob("*.*") if path.is_file()}

    work_copy.publish(copy, out, None, "1" * 40)
    assert files.made_by(out) == "1" * 40
    always = {"rose/table.csv", "rose/dvc.lock", "rose/made_by.json"}
    assert found() == always | {"rose/base/losses.png", "rose/grids/base/a.png"}
    work_copy.publish(copy, out, ["table.csv"], "2" * 40)
    assert found() == always and files.made_by(out) == "2" * 40
    for commit in ("3" * 40, None):
        work_copy.publish(copy, out, ["table.csv"], commit)
        assert files.made_by(out) == "2" * 40, "it is the same report"
    (copy / "reports" / "table.csv").write_text("other")
    work_copy.publish(copy, out, ["table.csv"], None)
    assert files.made_by(out) is None
    work_copy.publish(copy, out, ["table.csv"], "4" * 40)
    assert files.made_by(out) == "4" * 40, "the code is in a commit now"


def test_what_all_took_has_each_training_once_and_is_unknown_where_one_is():
    frame = pd.DataFrame({"concept": "rose", "method": ["uce", "uce", "esd"], "attack": ["p4d", "mma", "p4d"]})
    taken = {("uce", ""): 7, ("uce", "p4d"): 12, ("uce", "mma"): 18.5, ("esd", ""): 0, ("esd", "p4d"): 1}
    rows = [dict(zip(timings.CELL, ["rose", *key], strict=True)) | {"seconds": str(n)} for key, n in taken.items()]
    of_another = {"concept": "lily", "method": "uce", "attack": "", "seconds": "99"}
    assert whole.seconds(frame, pd.DataFrame([*rows, of_another])) == 38.5
    assert math.isnan(whole.seconds(frame, pd.DataFrame(rows[:-1])))


def few(raw: dict) -> None:
    """All blocks that there are: two concepts, two methods, two attacks; for the claims the one in the cache."""
    shorten(raw)
    only(raw, ["unicorn", "weapon"], ["original", "uce"], ["random_prefix", "unlearndiffatk"])
    raw["concepts"]["weapon"]["kept"]["count"] = 18  # its neighbours
    raw["claims"] = {family: list(raw[family]) for family in ("methods", "attacks")}
    raw["claims"] |= {"concepts": ["unicorn"], "seeds": [0, 1]}


def test_full_beside_the_default_table(tmp_path):
    folder = clone(tmp_path)
    few_prompts(folder, 3)
    without_figures(folder)
    edit_params(folder, few)
    ran = run_default(folder)
    mine = {name: (folder / name).read_bytes() for name in ("dvc.lock", "params.yaml", "reports/table.csv")}

    def run() -> list[str]:
        """The stages that ran, anywhere in a log's line: a progress bar that shares it may not have ended."""
        printed = call(folder, "python", "-m", "eraseflow", "full", **hand_over(folder)).stdout
        logs = [log.read_text() for log in (folder / ".work" / "full").glob("*.log")]
        said.append(printed)
        return sorted(re.findall(r"Running stage '([^']+)'", "\n".join(logs)))

    said: list[str] = []
    concepts, methods = ["unicorn", "weapon"], ["original", "uce"]
    everything = cells(concepts, methods, ["random_prefix", "unlearndiffatk"])
    everything |= {f"{stage}{name}" for name in concepts for stage in ("concept@", "transfer@unlearndiffatk-")}
    again = ["concept@unicorn", *["report"] * 2]  # all of its prompts, in whatever number the default table has
    assert run() == sorted([*(everything - ran), *again]), "the default table's cells are in the cache"
    assert {name: (folder / name).read_bytes() for name in mine} == mine
    assert "up to date" in call(folder, "python", "-m", "dvc", "status", "dvc.yaml").stdout
    of_full, of_default = (pd.read_csv(folder / "reports" / name / "table.csv") for name in ("full", "."))
    assert list(of_full.columns) == list(of_default.columns) and len(of_full) == 2 * 2 * 2
    shared = of_full[(of_full.concept == "unicorn") & (of_full.attack == "random_prefix")]
    assert shared.asr.tolist() == of_default.asr.tolist() and shared.fd.tolist() == of_default.fd.tolist()
    out = folder / "reports" / "full"
    assert {"index.html", "table.md", "dvc.lock", "transfer"} <= {path.name for path in (out / "unicorn").iterdir()}
    assert "judges.json" not in {path.name for path in (out / "unicorn").iterdir()}
    shown = set(re.findall(r'src(?:set)?="([^"d#][^":]*)"', (out / "unicorn" / "index.html").read_text()))
    assert {"base/samples.png", "grids/unicorn.png"} <= shown and any(name.endswith(".svg") for name in shown)
    assert all((out / "unicorn" / name).is_file() for name in shown)
    assert len(pd.read_csv(out / "transfer.csv")) == 2 * 4
    assert all(name in (out / "index.html").read_text() for name in ("weapon/index.html", "unicorn/index.html"))

    call(folder, "python", "-m", "eraseflow", "claims", **hand_over(folder))
    assert {name: (folder / name).read_bytes() for name in mine} == mine
    claimed = folder / "reports" / "claims"
    bare = {path.name for path in (claimed / "unicorn-seed-1").iterdir()}
    assert bare == {"table.csv", "outcomes.parquet", "dvc.lock", "made_by.json"}
    rates = pd.read_csv(claimed / "rates.csv").query("method == 'uce' and concept == 'unicorn'").set_index("under")
    assert rates.runs.eq(2).all() and rates.texts["any attack"] == 3 and len(rates.loc["kept", "values"].split()) == 2
    assert rates.run_low["FD emoji-clip"] < rates.run_high["FD emoji-clip"]
    first = of_default[of_default.method == "uce"].pre_successes.iloc[0]
    assert rates.loc["un-attacked", "values"].split()[0] == str(first), "the first seed is the default table's"
    assert pd.read_csv(folder / "reports" / "claims.csv").verdict.notna().all()
    linked = set(re.findall(r'href="([^"#:]*)"', (claimed / "index.html").read_text()))
    assert "unicorn-seed-0/index.html" in linked and all((claimed / name).is_file() for name in linked)

    assert "made by code that is in no commit" in (out / "index.html").read_text(), "the params were edited"

    assert run() == [], "nothing to do runs nothing"

    # A machine that has neither copies nor cache: what is published stays.
    published = {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}
    shutil.rmtree(folder / ".work")
    shutil.rmtree(folder / ".dvc" / "cache")
    (folder / "eraseflow" / "full.py").open("a").write("# of no concern to a cell\n")
    run()
    assert said[-1].count("as published") == 2 and published == {path: path.read_bytes() for path in published}


@pytest.fixture
def handlers():
    """Those of Ctrl-C and termination, put back after the test."""
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


def test_only_a_report_that_has_been_made_is_published(project, monkeypatch, handlers):
    """A `dvc repro` that ends well need not have made one."""
    stages = {
        "base": {"cmd": "echo 1 > base.txt", "outs": ["base.txt"]},
        "report": {
            "cmd": "cp base.txt reports/table.csv",
            "deps": ["base.txt"],
            "outs": [{"reports/table.csv": {"cache": False}}],
        },
    }
    (project / "dvc.yaml").write_text(yaml.safe_dump({"stages": stages}))
    root = Path(__file__).parent.parent
    shutil.copy2(root / "params.yaml", project)
    shutil.copytree(root / "prompts", project / "prompts")
    for path in ("dvc.lock", RECORD):
        (project / path).unlink()
    monkeypatch.chdir(project)
    monkeypatch.setattr(launcher, "PRELOAD", ())
    copy, table = project / full.COPIES / "rose", PARAMS.table

    def run(*arguments: str) -> int | None:
        return work_copy._run_table(table, "To look at.", project, copy, project / RECORD.parent, arguments, [], [])

    assert run("--dry") not in (0, None)
    assert run("--single-item", "base") == work_copy.NOTHING_MADE
    assert run() == 0 and run("--dry") == 0, "it is there now"
    (copy / "reports" / "table.csv").write_text("by hand")
    assert run("--dry") == work_copy.NOTHING_MADE


def test_a_report_that_a_killed_run_put_aside_comes_back(project, monkeypatch):
    published = project / full.REPORT / "rose"
    (published / "table.csv").write_text("hours of work")
    published.rename(published.with_name(outputs.ASIDE + "rose"))
    monkeypatch.chdir(project)
    monkeypatch.setattr(full, "tables", lambda _: {"rose": PARAMS.table})
    for name in ("check_table", "ready", "summarise"):
        monkeypatch.setattr(full, name, lambda *_: None)
    monkeypatch.setattr(tables, "run_tables", lambda *_: 0)
    full.run(PARAMS, [])
    assert (published / "table.csv").read_text() == "hours of work"


def test_a_report_of_no_table_any_more_stays_and_is_named(project, capsys):
    out = project / full.REPORT
    (out / "rose" / "table.csv").write_text("hours of work")
    tables.name_strangers(out, ["lily"])
    full.summarise(PARAMS, out)
    assert (out / "rose" / "table.csv").read_text() == "hours of work"
    assert capsys.readouterr().out.startswith(f"{out / 'rose'}: params.yaml has no such table any more")
    assert not (out / "index.html").exists()
