"""Stage `sample`: one cell's pictures."""

import argparse
from pathlib import Path

from eraseflow import stage


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--concept", required=True)
    parser.add_argument("--prompts", type=Path, required=True, help="the concept's prompts.csv")
    parser.add_argument("--edit", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()

    from eraseflow import params
    from eraseflow.cells.sample import sample
    from eraseflow.outside.notes import as_noted, of_model

    everything = params.load()
    as_noted(of_model(everything, options.concept))
    sample(everything, options.concept, options.prompts, options.edit, options.out)


if __name__ == "__main__":
    stage.run(main)
