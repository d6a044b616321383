"""The order of tasks: properties of any graph, against the bounds that are known of list scheduling."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from eraseflow.run.schedule import makespan, tails


@st.composite
def graphs(draw) -> tuple[dict[int, float], dict[int, set[int]]]:
    """Seconds, and what each task waits for, of lower numbers."""
    count = draw(st.integers(1, 12))
    seconds = {task: float(draw(st.integers(0, 9))) for task in range(count)}
    return seconds, {
        task: draw(st.sets(st.integers(0, task - 1), max_size=3)) if task else set() for task in range(count)
    }


@given(graphs())
def test_one_worker_takes_the_sum_and_many_the_longest_chain(graph):
    seconds, needed = graph
    assert makespan(seconds, needed, 1) == sum(seconds.values())
    assert makespan(seconds, needed, len(seconds)) == max(tails(seconds, needed).values())


@given(graphs(), st.integers(2, 4))
def test_the_time_is_within_grahams_bounds(graph, workers):
    seconds, needed = graph
    longest, share = max(tails(seconds, needed).values()), sum(seconds.values()) / workers
    assert max(longest, share) <= makespan(seconds, needed, workers) <= share + (1 - 1 / workers) * longest + 1e-9


@given(graphs())
def test_a_tail_is_the_own_time_and_the_longest_of_those_that_wait(graph):
    seconds, needed = graph
    found = tails(seconds, needed)
    for task in needed:
        assert found[task] == seconds[task] + max((found[user] for user in needed if task in needed[user]), default=0)


def test_the_longest_chain_goes_first():
    """Taken in their order, a, b and c would keep the chain of d and e waiting: 7 seconds."""
    seconds = {"a": 2.0, "b": 2.0, "c": 2.0, "d": 2.0, "e": 3.0}
    needed = {"a": set(), "b": set(), "c": set(), "d": set(), "e": {"d"}}
    assert makespan(seconds, needed, 2) == 6.0


def test_what_waits_in_a_circle_is_refused():
    with pytest.raises(ValueError, match="cycle"):
        tails({1: 1.0, 2: 1.0}, {1: {2}, 2: {1}})
