"""Stage `concept`: one concept's prompts."""

import argparse
from pathlib import Path

from eraseflow import stage


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--concept", required=True)
    parser.add_argument("--out", type=Path, required=True, help="folder for prompts.csv and the notes beside it")
    options = parser.parse_args()

    from eraseflow import params
    from eraseflow.cells.concept import concept
    from eraseflow.ready import ready

    everything = params.load()
    ready(everything, [options.concept])  # a plain `dvc repro` asks nobody before
    concept(everything, options.concept, options.out)


if __name__ == "__main__":
    stage.run(main)
