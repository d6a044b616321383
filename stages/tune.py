"""Stage `tune`: trials of every method's and attack's settings on the validation concepts."""

import argparse
from pathlib import Path

from eraseflow import stage


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="folder for trials.csv, space.csv and chosen.csv")
    options = parser.parse_args()

    from eraseflow import params
    from eraseflow.ready import ready
    from eraseflow.tuning import tune

    everything = params.load()
    if everything.tuning is None:
        raise SystemExit("params.yaml: tuning: missing; it says on which concepts and where settings are looked for")
    ready(everything, list(everything.tuning.concepts.values()))
    tune(everything, everything.tuning, options.out)


if __name__ == "__main__":
    stage.run(main)
