"""Stage `report`: tables, figures, grids and the page from the cells of params.yaml's table."""

import argparse
from pathlib import Path

from eraseflow import stage


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cells", type=Path, required=True, help="folder with <concept>/<method>/ of each cell")
    parser.add_argument(
        "--concepts", type=Path, required=True, help="folder with <concept>/prompts.csv and counts.json"
    )
    parser.add_argument("--judges", type=Path, required=True, help="judges.json with the judges' cards")
    parser.add_argument("--base", type=Path, required=True, help="folder with losses.png and samples.png")
    parser.add_argument("--reference", type=Path, required=True, help="reference.json of the real pictures")
    parser.add_argument(
        "--out", type=Path, required=True, help="folder of the report, with timings.csv; its other files stay"
    )
    options = parser.parse_args()

    from eraseflow import params
    from eraseflow.report import build

    paths = options.cells, options.concepts, options.judges, options.base, options.reference, options.out
    build(params.load(), *paths)


if __name__ == "__main__":
    stage.run(main)
