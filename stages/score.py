"""Stage `score`: one cell's scores."""

import argparse
from pathlib import Path

from eraseflow import stage


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--concept", required=True)
    parser.add_argument("--samples", type=Path, required=True)
    parser.add_argument("--reference", type=Path, required=True)
    parser.add_argument("--judged", type=Path, required=True)
    parser.add_argument("--scores", type=Path, required=True)
    options = parser.parse_args()

    from eraseflow import params
    from eraseflow.cells.score import score
    from eraseflow.outside.notes import as_noted, of_judges, of_networks

    everything = params.load()
    testbed = everything.concepts[options.concept].testbed
    as_noted(of_judges(everything, options.concept), of_networks(everything, testbed))
    score(everything, options.concept, options.samples, options.reference, options.judged, options.scores)


if __name__ == "__main__":
    stage.run(main)
