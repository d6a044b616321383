"""The command line: `python -m eraseflow COMMAND`."""

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from eraseflow import claims, full, home, launcher, memory, params, prompt_files, timings, work_copy
from eraseflow.mistakes import nearest
from eraseflow.outside.notes import stale
from eraseflow.project import locks
from eraseflow.ready import ready
from eraseflow.run import taken
from eraseflow.run.slots import places

WORKER = (sys.executable, "-m", "eraseflow.run.worker")
TRANSFER = {
    "concept": "the concept that both methods have erased",
    "attack": "the attack that found the prompts",
    "source": "the method on whose model they were found",
    "victim": "the method on whose model they are replayed",
}


def main() -> int | None:
    if sys.argv[1:2] == ["train"]:  # which has options of its own, those of the authors' command
        from eraseflow.train import main as train

        train(sys.argv[2:])
        return None
    arguments, for_dvc = read(sys.argv[1:])
    if arguments.command == "clean-work":
        locks.clean_work()
        return None
    if arguments.command == "plan":
        from eraseflow.run import plan

        everything = params.written()
        of = {"claims": claims, "full": full}.get(arguments.tables)
        print(plan.text(plan.of_tables(of.made(everything), everything) if of else plan.plan(everything, Path())))
        return None
    everything = params.load()
    if arguments.command == "export":
        from eraseflow.export import export as write  # the others start faster without it

        write(everything, arguments.concept, arguments.method, arguments.folder)
        print(f"{arguments.folder}: {arguments.concept} erased with {arguments.method}")
        return None
    if arguments.command == "timings":
        timings.write(full.reports(everything) | claims.reports(everything))
        taken.publish(work_copy.read_lock(work_copy.LOCK), Path())
        return None
    if arguments.command in ("full", "claims"):
        command = {"full": full, "claims": claims}[arguments.command]
        return command.run(everything, arguments.tables, for_dvc, arguments.engine)
    ready(everything)
    table = everything.table
    if arguments.command == "worker":
        slots = json.dumps(places(table.testbed, arguments.jobs).slots)
        return launcher.run([*WORKER, arguments.address, slots], launcher.PRELOAD)
    if arguments.command == "repro":
        before = places(table.testbed, arguments.jobs, arguments.engine).for_dvc()
        return launcher.take_note(everything, for_dvc) or launcher.repro(for_dvc, before)
    if arguments.command == "transfer":
        transfer(everything, arguments)
        return None
    for stage, file in stale(everything).items():
        print(f"{file} is new or has changed; `python -m eraseflow repro` runs {stage}, and what was made of the file")
    files = [*(everything.concepts[name].prompts for name in table.concepts), everything.testbeds[table.testbed].kept]
    for said in filter(None, (prompt_files.said(Path(), file) for file in files)):
        print(said)
    print(
        f"params.yaml is right: {len(table.concepts)} concepts x {len(table.methods)} methods "
        f"x {len(table.attacks)} attacks on {table.testbed}"
    )
    return None


def read(given: Sequence[str]) -> tuple[argparse.Namespace, list[str]]:
    """The command with its arguments, and what stands after -- for DVC.

    Raises: SystemExit, with one line where an argument for DVC stands elsewhere.
    """
    place = given.index("--") if "--" in given else len(given)
    mine, for_dvc = given[:place], list(given[place + 1 :])
    options = parser()
    arguments, others = options.parse_known_args(mine)
    if arguments.command in ("repro", "full", "claims"):
        if others:
            command = " ".join([arguments.command, *getattr(arguments, "tables", []), "--", *others])
            where = f"`python -m eraseflow {command}`"
            raise SystemExit(f"{others[0]}: arguments for `dvc repro` come after --, as in {where}")
    elif others or for_dvc:
        options.error(f"unrecognized arguments: {' '.join(others or for_dvc)}")
    return arguments, for_dvc


def parser() -> argparse.ArgumentParser:
    options = argparse.ArgumentParser(prog="python -m eraseflow", description="A benchmark of concept erasure.")
    commands = options.add_subparsers(dest="command", required=True, metavar="COMMAND")
    commands.add_parser("check", help="check params.yaml and the files it names, and fetch what the table needs")
    of_plan = "what `repro`, `claims` or `full` would run, and the time, memory and disk that this may take"
    commands.add_parser("plan", help=of_plan).add_argument("tables", nargs="?", choices=["repro", "claims", "full"])
    rule = "Arguments for `dvc repro` come after --, such as -- --pull (`-- --help` lists them)."
    usage, say = "python -m eraseflow {} [-- DVC'S ARGUMENTS]", "check, then `dvc repro`"
    of_engine = "address of a Dask scheduler, on whose workers the stages run instead of on this machine; docs/scale.md"
    run = usage.format("repro [--jobs N | --engine ADDRESS]")
    repro = commands.add_parser("repro", usage=run, help=say, description=f"{say.capitalize()}. {rule}")
    repro.add_argument("--engine", metavar="ADDRESS", default="", help=of_engine)
    how_many = "stages at once; by default one a core where a stage computes on one, as emoji's do, or one a GPU"
    worker = commands.add_parser("worker", help="run stages for another folder's `repro --engine ADDRESS`, until ended")
    worker.add_argument("address", metavar="ADDRESS", help="of the scheduler, such as tcp://10.0.0.1:8786")
    for run_here in (repro, worker):
        run_here.add_argument("--jobs", type=positive, metavar="N", default=0, help=how_many)
    for command, say, example in (
        ("claims", "the table that claims are made from, with several seeds, into reports/claims", "unicorn-seed-1"),
        ("full", "the tables of everything on emoji, into reports/full", "unicorn"),
    ):
        how = usage.format(f"{command} [--engine ADDRESS] [TABLE ...]")
        of_all = commands.add_parser(command, usage=how, help=say, description=f"Make {say}. {rule}")
        of_all.add_argument("tables", nargs="*", metavar="TABLE", help=f"such as {example}; all of them if left out")
        of_all.add_argument("--engine", metavar="ADDRESS", default="", help=of_engine)
    commands.add_parser("train", help="EraseFlow's training on its own, with the options of the authors' command")
    commands.add_parser("timings", help="write seconds measured here into timings.csv, which reports read")
    commands.add_parser("clean-work", help="remove .work: what stopped stages left to go on with, and tables' copies")
    replay = commands.add_parser("transfer", help="replay the adversarial prompts found on one method against another")
    for name, what in TRANSFER.items():
        replay.add_argument(f"--{name}", required=True, help=what)
    replay.add_argument("--out", type=Path, help="a new parquet with a row a prompt: verdict, picture, raw scores")
    export = commands.add_parser("export", help="write a cell's edited model as a diffusers pipeline with a model card")
    export.add_argument("--concept", required=True, help="as params.yaml names it")
    export.add_argument("--method", required=True, help="as params.yaml names it")
    export.add_argument("folder", type=Path, metavar="DIR", help="a new folder")
    return options


def positive(text: str) -> int:
    if not text.isascii() or not text.isdigit() or not int(text):
        raise argparse.ArgumentTypeError(f"expected a whole number from 1 on, found {text!r}")
    return int(text)


def transfer(everything: params.Params, arguments: argparse.Namespace) -> None:
    """Replay, print how often the concept came back, and write the rows where they are asked for."""
    from eraseflow.cells.transfer import transfer
    from eraseflow.metrics.rates import Rate
    from eraseflow.outside.notes import as_noted, of_judges, of_model
    from eraseflow.shards import write_parquet

    named = {name: getattr(arguments, name) for name in TRANSFER}
    blocks = {"concept": list(everything.concepts), "attack": list(everything.attacks)}
    for name, value in named.items():
        known = blocks.get(name, list(everything.methods))
        if value not in known:
            raise SystemExit(f"--{name}: params.yaml has no {value!r}{nearest(value, known)}")
    as_noted(of_model(everything, arguments.concept), of_judges(everything, arguments.concept))
    if arguments.out and arguments.out.exists():
        raise SystemExit(f"--out: {arguments.out} is there already; name a new file")
    found = transfer(everything, **named)
    if arguments.out:
        write_parquet(found, arguments.out)
    if found.empty:
        print(f"{arguments.attack} found no prompt on {arguments.source}, so there is nothing to replay")
        return
    rates = [Rate(int(found[column].sum()), len(found)) for column in ("success", "plain_success")]
    print(f"{arguments.concept}, {arguments.attack}: of the prompts found on {arguments.source}")
    print(f"  bring the concept back on {arguments.victim}: {rates[0]}")
    print(f"  show it there un-attacked: {rates[1]}")


if __name__ == "__main__":
    home.in_utf8()
    with memory.explained("python -m eraseflow"):
        sys.exit(main())
