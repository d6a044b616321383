"""Stage `reference`: features of the testbed's real pictures."""

import argparse
from pathlib import Path

from eraseflow import stage


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--testbed", required=True)
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()

    from eraseflow import params
    from eraseflow.cells.reference import reference
    from eraseflow.ready import ready

    everything = params.load()
    ready(everything, [])  # a plain `dvc repro` asks nobody before
    reference(everything, options.testbed, options.out)


if __name__ == "__main__":
    stage.run(main)
