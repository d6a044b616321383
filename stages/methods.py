"""Stage `methods`: what each row of the table trains."""

import argparse
from pathlib import Path

from eraseflow import stage


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="folder for <testbed>/<row>/<concept>.json")
    parser.add_argument("--attacks", type=Path, required=True, help="folder for the same of attacks")
    options = parser.parse_args()

    from eraseflow import params, rows

    everything = params.load()
    rows.write(everything, options.out)
    rows.write_attacks(everything, options.attacks)


if __name__ == "__main__":
    stage.run(main)
