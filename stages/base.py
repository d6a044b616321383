"""Stage `base`: train the emoji base model."""

import argparse
from pathlib import Path

from eraseflow import stage


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pictures", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--resume", action="store_true", help="go on from the checkpoints of an unfinished training")
    options = parser.parse_args()

    from eraseflow import params
    from eraseflow.emoji import base

    base.train(options.pictures, options.out, params.load().emoji.base, resume=options.resume)


if __name__ == "__main__":
    stage.run(main)
