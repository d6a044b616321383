"""Stage `pictures`: fetch and render the emoji."""

import argparse
from pathlib import Path

from eraseflow import stage


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--licences", type=Path, required=True)
    options = parser.parse_args()

    from eraseflow.emoji import pictures

    pictures.build(options.out, options.licences)


if __name__ == "__main__":
    stage.run(main)
