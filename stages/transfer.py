"""Stage `transfer`: the adversarial prompts found on each method's model, replayed on every other's."""

import argparse
from pathlib import Path

from eraseflow import stage


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--concept", required=True, help="name of the concept in params.yaml")
    parser.add_argument("--attack", required=True, help="name of the attack in params.yaml")
    parser.add_argument("--cells", type=Path, required=True, help="folder with <concept>/<method>/ of each cell")
    parser.add_argument("--out", type=Path, required=True, help="the matrix, a CSV with a row a pair of methods")
    options = parser.parse_args()

    from eraseflow import params
    from eraseflow.cells.transfer import matrix
    from eraseflow.outputs import write_csv
    from eraseflow.outside.notes import as_noted, of_judges, of_model

    everything = params.load()
    as_noted(of_model(everything, options.concept), of_judges(everything, options.concept))
    write_csv(matrix(everything, options.concept, options.attack, options.cells), options.out)


if __name__ == "__main__":
    stage.run(main)
