"""Stage `train`: one erasure."""

import argparse
from pathlib import Path

from eraseflow import stage


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--concept", required=True)
    parser.add_argument("--method", required=True)
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()

    from eraseflow import params
    from eraseflow.cells.train import train
    from eraseflow.outside.notes import as_noted, of_model, of_row

    everything = params.load()
    as_noted(of_model(everything, options.concept), of_row(everything, options.concept, options.method))
    train(everything, options.concept, options.method, options.out)


if __name__ == "__main__":
    stage.run(main)
