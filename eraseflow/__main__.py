"""The command line: `python -m eraseflow COMMAND`."""

import argparse
import sys

from eraseflow import launcher, params
from eraseflow.ready import ready


def main() -> int | None:
    parser = argparse.ArgumentParser(prog="python -m eraseflow", description="A benchmark of concept erasure.")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    commands.add_parser("check", help="check params.yaml and the files it names, and fetch what the table needs")
    commands.add_parser("repro", add_help=False, help="check, then `dvc repro`, whose arguments it takes")
    arguments, others = parser.parse_known_args()
    if others and arguments.command != "repro":
        parser.error(f"unrecognized arguments: {' '.join(others)}")

    everything = params.load()
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
