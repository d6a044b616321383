"""Stage `cards`: the judges' cards and the base model's samples."""

import argparse
from pathlib import Path

from eraseflow import stage


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--folder", type=Path, required=True)
    options = parser.parse_args()

    from eraseflow import params
    from eraseflow.emoji import cards

    cards.write(params.load(), options.out, options.folder)


if __name__ == "__main__":
    stage.run(main)
