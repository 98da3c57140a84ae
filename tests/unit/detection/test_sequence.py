"""Windows of steps in order are exact, and hold no more than they may."""

from __future__ import annotations

from itertools import pairwise, product

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mcpwatch.detection.sequence import SequenceWindow
from mcpwatch.detection.windows import MAX_TIMES

KEEP = 10_000


def completes(events: list[tuple[int, int]], steps: int, width: int) -> bool:
    """Read literally: some events of each step, in order, the newest among them, first and last less than W apart."""
    newest = (events[-1][0], len(events))
    by_step = [
        [(time, order) for order, (time, at) in enumerate(events, 1) if at == step] for step in range(steps)
    ]
    return any(
        newest in chosen
        and all(one < other for one, other in pairwise(chosen))
        and chosen[-1][0] - chosen[0][0] < width
        for chosen in product(*by_step)
    )


@settings(max_examples=300, deadline=None)
@given(
    st.integers(2, 4).flatmap(
        lambda steps: st.tuples(
            st.just(steps),
            st.lists(st.tuples(st.integers(0, 40), st.integers(0, steps - 1)), max_size=5 * steps),
        )
    ),
    st.integers(1, 40),
)
def test_it_fires_exactly_when_the_steps_come_in_order_within_the_window(
    log: tuple[int, list[tuple[int, int]]], width: int
) -> None:
    steps, events = log
    window = SequenceWindow(steps, width, KEEP)
    for number, (time, step) in enumerate(events, 1):
        fires = completes(events[:number], steps, width)
        assert window.add(time, step, number) == (steps if fires else 0)


@pytest.mark.parametrize(
    ("events", "fires"),
    [
        pytest.param([(0, 0), (9, 1)], True, id="just inside"),
        pytest.param([(0, 0), (10, 1)], False, id="exactly W apart"),
        pytest.param([(5, 0), (5, 1)], True, id="at the same time, as logged"),
        pytest.param([(5, 1), (5, 0)], False, id="at the same time, the other way round"),
        pytest.param([(5, 1), (4, 0)], True, id="the first step is late"),
        pytest.param([(5, 0), (4, 1)], False, id="the second step is late and lies before"),
    ],
)
def test_the_edges(events: list[tuple[int, int]], fires: bool) -> None:
    window = SequenceWindow(2, 10, KEEP)
    assert [window.add(time, step, n) for n, (time, step) in enumerate(events)] == [0, 2 * fires]


@pytest.mark.parametrize("steps", [(0, 1), (1, 0)])
def test_one_event_is_never_two_steps_whichever_is_entered_first(steps: tuple[int, int]) -> None:
    window = SequenceWindow(2, 10, KEEP)
    assert [window.add(5, step, 1) for step in steps] == [0, 0]
    assert any(window.add(5, step, 2) for step in steps)


def test_firing_resets_nothing() -> None:
    window = SequenceWindow(2, 10, KEEP)
    assert [window.add(time, step, time) for time, step in ((1, 0), (2, 1), (3, 1), (4, 1))] == [0, 2, 2, 2]


def test_it_is_needed_until_nothing_it_holds_can_matter_and_forgets_what_can_not() -> None:
    window = SequenceWindow(2, 10, 30)
    window.add(0, 0, 1)
    window.add(1, 1, 2)
    assert window.is_needed(29)
    assert [len(times) for times in window.times] == [1, 1]
    assert window.is_needed(30)
    assert [len(times) for times in window.times] == [0, 1]
    assert not window.is_needed(31)
    assert window.newest == 1


@pytest.mark.parametrize("way", [1, 0, -1], ids=["in order", "all at once", "backwards"])
def test_memory_is_bounded_whatever_comes_and_the_newest_stay(way: int) -> None:
    window = SequenceWindow(2, 10, KEEP)
    for i in range(5 * MAX_TIMES):
        window.add(10**9 + way * i, 0, i)
        assert len(window.times[0]) <= 2 * MAX_TIMES
    assert window.add(window.newest + 9, 1, 10**6) == 2


def test_another_width_holds_at_once() -> None:
    window = SequenceWindow(2, 10, KEEP)
    window.add(0, 0, 1)
    window.set_limits(2, 20, KEEP)
    assert window.add(15, 1, 2) == 2
