"""Stage `judges`: train the emoji testbed's judges."""

import argparse
from pathlib import Path

from eraseflow import stage


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pictures", type=Path, required=True, help="the folder of the pictures' tables")
    parser.add_argument("--tokenizer", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()

    from eraseflow import params
    from eraseflow.emoji import judges

    judges.train(options.pictures, options.tokenizer, params.load().emoji.judges, options.out)


if __name__ == "__main__":
    stage.run(main)
