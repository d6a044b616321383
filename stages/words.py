"""Stage `words`: collect and sort what people call the things on the pictures."""

import argparse
from pathlib import Path

from eraseflow import stage


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()

    from eraseflow.emoji import words

    words.build(options.out)


if __name__ == "__main__":
    stage.run(main)
