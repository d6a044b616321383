"""The command line: `python -m eraseflow COMMAND`."""

import argparse
import sys
from pathlib import Path

from eraseflow import launcher, params
from eraseflow.ready import ready


def main() -> int | None:
    parser = argparse.ArgumentParser(prog="python -m eraseflow", description="A benchmark of concept erasure.")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    commands.add_parser("check", help="check params.yaml and the files it names, and fetch what the table needs")
    commands.add_parser("repro", add_help=False, help="check, then `dvc repro`, whose arguments it takes")
    export = commands.add_parser("export", help="write a cell's edited model as a diffusers pipeline with a model card")
    export.add_argument("--concept", required=True, help="as params.yaml names it")
    export.add_argument("--method", required=True, help="as params.yaml names it")
    export.add_argument("folder", type=Path, metavar="DIR", help="a new folder")
    arguments, others = parser.parse_known_args()
    if others and arguments.command != "repro":
        parser.error(f"unrecognized arguments: {' '.join(others)}")

    everything = params.load()
    if arguments.command == "export":
        from eraseflow.export import export as write  # the others start faster without it

        write(everything, arguments.concept, arguments.method, arguments.folder)
        print(f"{arguments.folder}: {arguments.concept} erased with {arguments.method}")
        return None
    ready(everything)
    table = everything.table
    if arguments.command == "repro":
        return launcher.repro(others)
    print(
        f"params.yaml is right: {len(table.concepts)} concepts x {len(table.methods)} methods "
        f"x {len(table.attacks)} attacks on {table.testbed}"
    )
    return None


if __name__ == "__main__":
    sys.exit(main())
