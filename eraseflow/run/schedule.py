"""Which task goes first, and how long all of them take on so many workers."""

import heapq
from collections.abc import Collection, Hashable, Mapping
from graphlib import TopologicalSorter
from typing import TypeVar

T = TypeVar("T", bound=Hashable)


def tails(seconds: Mapping[T, float], needed: Mapping[T, Collection[T]]) -> dict[T, float]:
    """Of each task the seconds of the longest chain of tasks from it on, each of which waits for the one before.

    needed: the tasks that a task waits for. The greatest of all is the time that no number of workers undercuts.
    """
    found = dict.fromkeys(needed, 0.0)
    for task in reversed(list(TopologicalSorter(needed).static_order())):
        found[task] += seconds[task]
        for before in needed[task]:
            found[before] = max(found[before], found[task])
    return found


def makespan(seconds: Mapping[T, float], needed: Mapping[T, Collection[T]], workers: int) -> float:
    """The seconds until all tasks are done, where a free worker takes of those that may begin the one with the longest
    tail (list scheduling; Graham 1969: at most 2 - 1/workers times the least)."""
    longest, left = tails(seconds, needed), {task: len(needed[task]) for task in needed}
    users: dict[T, list[T]] = {task: [] for task in needed}
    for task, before in needed.items():
        for other in before:
            users[other].append(task)
    place = {task: number for number, task in enumerate(needed)}
    ready = [(-longest[task], place[task], task) for task in needed if not left[task]]
    heapq.heapify(ready)
    running: list[tuple[float, int, T]] = []
    now = 0.0
    while ready or running:
        while ready and len(running) < workers:
            _, number, task = heapq.heappop(ready)
            heapq.heappush(running, (now + seconds[task], number, task))
        now, _, task = heapq.heappop(running)
        for user in users[task]:
            left[user] -= 1
            if not left[user]:
                heapq.heappush(ready, (-longest[user], place[user], user))
    return now
