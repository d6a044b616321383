"""Stage `methods`: what each row of the table trains."""

import argparse
from pathlib import Path

from eraseflow import stage


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="folder for <testbed>/<row>/<concept>.json")
    options = parser.parse_args()

    from eraseflow import params, rows

    rows.write(params.load(), options.out)


if __name__ == "__main__":
    stage.run(main)
