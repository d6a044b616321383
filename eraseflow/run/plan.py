"""`python -m eraseflow plan`: what a run would do, and what it may take, before anything of it is done.

Seconds and memory are those of like stages that were measured (taken.py), disk those of like outputs in dvc.lock. Where
nothing like them was measured, seconds are reckoned from operations (operations.py), on a GPU.
"""

import hashlib
import tempfile
from collections import Counter
from collections.abc import Mapping
from contextlib import chdir, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import networkx as nx
import yaml
from dvc.repo import Repo
from dvc.repo.reproduce import get_active_graph, plan_repro

from eraseflow import rows, work_copy
from eraseflow.outputs import copy_file
from eraseflow.outside import notes
from eraseflow.params import Params, written
from eraseflow.project import dvc
from eraseflow.run import operations, taken
from eraseflow.run.progress import clock
from eraseflow.run.schedule import makespan, tails
from eraseflow.tables import Tables

WORKERS = (1, 2, 8, 64)
COPY = ".work/plan"  # of the project, for what the tables of `claims` and `full` differ in
LISTED = 5  # stages of the longest chain that are named


@dataclass(frozen=True)
class Stage:
    """needs: the stages that it waits for, of those that would run. seconds: None where that cannot be said.

    reckoned: from operations rather than measured. memory, disk: bytes, None where no like stage was measured.
    """

    needs: frozenset[str]
    seconds: float | None
    reckoned: bool = False
    memory: float | None = None
    disk: float | None = None


def of_tables(made: Tables, everything: Params) -> dict[str, Stage]:
    """The stages that `claims` or `full` would run, at most, by table and name; of a published table whose cells would
    stay none. For one after the other dvc.yaml is looked at in a copy of the project, below .work.
    """
    project, copy, found = Path.cwd(), Path(COPY).absolute(), {}
    noted, measured = hashes(everything), taken.known(project)
    for name, table in made.tables.items():
        record, own = made.out / name / work_copy.LOCK, project / made.copies / name / work_copy.LOCK
        (copy / work_copy.LOCK).unlink(missing_ok=True)
        work_copy.prepare(project, copy, record, made.linked)
        work_copy.write_lock(
            copy / work_copy.LOCK, work_copy.read_lock(copy / work_copy.LOCK) | work_copy.read_lock(own)
        )
        copy_file(project / work_copy.PARAMS, copy / work_copy.PARAMS)
        with chdir(copy):
            work_copy.write_table(table, made.purpose)
            stages = plan(written(), copy, noted, measured | taken.known(project / made.copies / name))
        if any("@" in stage and not stage.startswith("concept@") for stage in stages):
            renamed = {stage: f"{name}/{stage}" for stage in stages}
            for stage, entry in stages.items():
                found[renamed[stage]] = replace(entry, needs=frozenset(renamed[other] for other in entry.needs))
    return found


def plan(
    params: Params, project: Path, noted: Mapping[str, str] | None = None, measured: taken.Taken | None = None
) -> dict[str, Stage]:
    """The stages that `repro` would run, at most, each after those that it needs.

    noted: `hashes`, and measured: taken.known, where they are known already.
    """
    graph, sizes = stale(params, project, hashes(params) if noted is None else noted), disk(project)
    measured = taken.known(project) if measured is None else measured
    found = {}
    for name in reversed(list(nx.topological_sort(graph))):
        like = taken.like(name, measured)
        seconds = like[0] if like else operations.seconds(name, params)
        memory = like[1] if like and like[1] else None
        size = taken.like(name, sizes)
        made = size[0] if size else operations.disk(name, params)
        found[name] = Stage(frozenset(graph.successors(name)), seconds, not like, memory, made)
    return found


def stale(params: Params, project: Path, noted: Mapping[str, str]) -> nx.DiGraph:
    """The names of the stages that would run, with an edge from each to those that it waits for.

    That is those that DVC or outside/ finds changed, and all that depend on them; but of `methods`, which runs after
    each edit of the code, those alone whose note would be another.
    """
    dvc.patch()
    again = set()
    with suppress(SystemExit, OSError):  # a file outside is not there yet: then what reads it has not run
        again = set(notes.stale(params))
    found: list[Any] = []
    with Repo(project, config={"core": {"no_scm": True}}) as repo, repo.lock:
        graph = get_active_graph(repo.index.graph)
        for stage in plan_repro(graph, list(repo.stage.collect("dvc.yaml"))):
            waits = any(other in found and other.addressing != "methods" for other in graph.successors(stage))
            others = any(dep.hash_info.value != noted.get(dep.def_path, dep.hash_info.value) for dep in stage.deps)
            if waits or others or stage.addressing in again or stage.changed(allow_missing=True):
                found.append(stage)
        return nx.relabel_nodes(graph.subgraph(found), {stage: stage.addressing for stage in found})


def hashes(params: Params) -> dict[str, str]:
    """Of the notes that the stage `methods` would write now."""
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder, "data")
        rows.write(params, data / "methods")
        rows.write_attacks(params, data / "attacks")
        return {
            path.relative_to(folder).as_posix(): hashlib.md5(path.read_bytes(), usedforsecurity=False).hexdigest()
            for path in data.rglob("*.json")
        }


def disk(project: Path) -> dict[str, tuple[float, float]]:
    """The bytes that each stage of dvc.lock has made, in the form of taken.py."""
    record = yaml.load((project / "dvc.lock").read_text(encoding="utf-8"), yaml.CSafeLoader)
    made = {name: stage.get("outs", []) for name, stage in record["stages"].items()}
    sizes = {name: (float(sum(out.get("size", 0) for out in outs)), 0.0) for name, outs in made.items()}
    return taken.of_testbed(sizes, project)


def text(stages: Mapping[str, Stage]) -> str:
    """For the terminal."""
    if not stages:
        return "nothing to do: every stage is as code, params and dvc.lock say"
    kinds = Counter(map(_kind, stages))
    lines = [f"{'stage':<12}{'to run':>8}{'time':>16}{'memory':>10}{'disk':>10}"]
    for kind, count in kinds.items():
        mine = [stage for name, stage in stages.items() if _kind(name) == kind]
        memory, size = max(stage.memory or 0 for stage in mine), sum(stage.disk or 0 for stage in mine)
        known = [stage.seconds for stage in mine if stage.seconds is not None]
        time = clock(sum(known)) + "*" * any(stage.reckoned for stage in mine) if known else "not known"
        lines.append(f"{kind:<12}{count:>8}{time:>16}{_bytes(memory):>10}{_bytes(size):>10}")
    seconds = {name: stage.seconds or 0.0 for name, stage in stages.items()}
    needs = {name: stage.needs for name, stage in stages.items()}
    longest = tails(seconds, needs)
    at_once = ", ".join(f"{count}: {clock(makespan(seconds, needs, count))}" for count in WORKERS)
    lines += [
        f"{len(stages)} stages, at most: what comes out as it was is not followed up",
        f"workers and time: {at_once}",
        f"the longest chain takes {clock(max(longest.values()))}: {_chain(longest, needs)}",
    ]
    if reckoned := [stage for stage in stages.values() if stage.reckoned and stage.seconds is not None]:
        said = "operations of the U-Net at 125 TFLOP/s, 40 % of an A100's bf16 peak, without loading and judging"
        lines.append(f"* {len(reckoned)} stages like which none was measured: {said}")
    if unknown := [name for name, stage in stages.items() if stage.seconds is None]:
        shown = ", ".join(unknown[:LISTED]) + (f" and {len(unknown) - LISTED} more" if len(unknown) > LISTED else "")
        lines.append(f"not known, and left out of all times: {shown}")
    return "\n".join(lines)


def _chain(longest: Mapping[str, float], needs: Mapping[str, frozenset[str]]) -> str:
    """The stages of the longest chain in their order."""
    chain = [max(longest, key=lambda name: longest[name])]
    while users := [name for name, before in needs.items() if chain[-1] in before]:
        chain.append(max(users, key=lambda name: longest[name]))
    return ", ".join(chain)


def _kind(name: str) -> str:
    """Of a stage, be it one of a table."""
    return name.rpartition("/")[2].partition("@")[0]


def _bytes(count: float) -> str:
    return f"{count / 1e9:.1f} GB" if count >= 1e8 else f"{count / 1e6:.1f} MB" if count else ""
