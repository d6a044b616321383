"""Stage `judges`: train the emoji testbed's judges."""

import argparse
from pathlib import Path

from eraseflow import stage


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pictures", type=Path, required=True)
    options = parser.parse_args()

    from eraseflow import params
    from eraseflow.emoji import judges

    judges.train(options.pictures, params.load().emoji.judges)


if __name__ == "__main__":
    stage.run(main)
