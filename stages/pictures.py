"""Stage `pictures`: fetch and render the emoji."""

import argparse
from pathlib import Path

from eraseflow import stage


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, required=True, help="where pictures and licences go")
    options = parser.parse_args()

    from eraseflow.emoji import pictures

    pictures.build(options.folder)


if __name__ == "__main__":
    stage.run(main)
