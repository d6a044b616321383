"""One line that tells where a run of many stages is: how many are done, what runs, and how long the rest may take."""

import logging
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager

from dvc.progress import Tqdm

SHOWN = 3  # of the stages that run, those that run longest


class Progress(AbstractContextManager):
    """A bar at the foot of a terminal, above which DVC's own lines go on; where the output is none, lines alone.

    rest: asked for the seconds that all that is not done may take; None where that is not known. where: the names of
    the workers by their stages, if there are others than this machine's.
    """

    def __init__(self, total: int, rest: Callable[[], float | None], where: Callable[[], Mapping[str, str]]) -> None:
        self.rest, self.where = rest, where
        self.running: dict[str, float] = {}
        self.said: set[str] = set()
        self.left = total
        shown = sys.stderr.isatty()
        logging.getLogger("dvc.progress").setLevel(logging.CRITICAL)  # no bars of DVC's own beside this one
        self.bar = Tqdm(
            total=total,
            disable=not shown,
            level=logging.CRITICAL,
            bar_format="{n_fmt}/{total_fmt} {bar:20} {desc}",
            dynamic_ncols=True,
        )

    def begin(self, stage: str) -> None:
        self.running[stage] = time.monotonic()

    def end(self, stage: str, ran: bool) -> None:
        """ran: or came from DVC's cache; of what was as it is, nothing is said."""
        seconds = time.monotonic() - self.running.pop(stage)
        self.left -= 1
        self.bar.update()
        if ran:
            said = [f"Stage '{stage}' is done, {seconds:.0f} s; {self.left} to go", *self._time()]
            self.bar.write(", ".join(said if self.left else said[:1]))

    def elapsed(self, stage: str) -> float:
        """Seconds since a stage began; 0 of one that does not run."""
        return time.monotonic() - self.running[stage] if stage in self.running else 0.0

    def aside(self) -> AbstractContextManager:
        """While the block prints, the bar is not there."""
        return self.bar.external_write_mode()

    def say(self, line: str) -> None:
        """Something that is said once."""
        if line not in self.said:
            self.said.add(line)
            self.bar.write(line)

    def show(self) -> None:
        if self.bar.disable:
            return
        where = self.where()
        longest = sorted(self.running.items(), key=lambda item: item[1])[:SHOWN]
        parts = [f"{stage}{_at(where.get(stage))} {clock(self.elapsed(stage))}" for stage, _ in longest]
        if len(self.running) > SHOWN:
            parts.append(f"{len(self.running) - SHOWN} more")
        self.bar.set_description_str(", ".join([*parts, *self._time()]))

    def _time(self) -> list[str]:
        rest = self.rest()
        return [] if rest is None else [f"about {clock(rest)} left"]

    def __exit__(self, *_) -> None:
        self.bar.close()


def _at(worker: str | None) -> str:
    return f" on {worker}" if worker else ""


def clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02} min" if hours else f"{minutes} min {rest:02} s" if minutes else f"{rest} s"
