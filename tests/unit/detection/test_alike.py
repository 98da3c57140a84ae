"""Windows of events that are alike are exact, and hold no more than they may."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mcpwatch.detection import alike as alike_module
from mcpwatch.detection.alike import AlikeWindow
from mcpwatch.detection.calls import Call
from mcpwatch.detection.windows import MAX_TIMES
from mcpwatch.times import SECOND

MINUTE = 60 * SECOND
KEEP = 180 * SECOND


def held(window: AlikeWindow) -> int:
    return sum(1 if isinstance(times, int) else len(times) for times in window.times.values())


@settings(max_examples=300, deadline=None)
@given(st.integers(0, 2**32).map(random.Random))
def test_it_fires_exactly_when_a_window_is_full_of_what_is_alike(maker: random.Random) -> None:
    """Read literally: the most events alike in a window (t-W, t] that contains the event. An own limit goes first."""
    need, width = maker.randrange(1, 6), maker.randrange(1, 25)
    window = AlikeWindow(need, width, 10_000)
    events: list[tuple[int, int]] = []
    for _ in range(50):
        time, alike = maker.randrange(60), maker.randrange(3)
        events.append((time, alike))
        own = maker.choice([0, maker.randrange(1, 7)])
        times = [other for other, likeness in events if likeness == alike]
        fullest = max(
            sum(1 for other in times if end - width < other <= end)
            for end in times
            if end - width < time <= end
        )
        assert window.add(time, alike, need=own) == (fullest if fullest >= (own or need) else 0)


@pytest.mark.parametrize(
    ("times", "fires"),
    [
        ([0, 1, MINUTE - 1], 3),
        ([0, 1, MINUTE], 0),
        ([MINUTE, 1, 0], 0),
        ([MINUTE - 1, 1, 0], 3),
        ([7, 7, 7], 3),
    ],
)
def test_the_edge_of_the_window(times: list[int], fires: int) -> None:
    window = AlikeWindow(3, MINUTE, KEEP)
    assert [window.add(time, 1) for time in times] == [0, 0, fires]


def test_a_call_that_is_logged_twice_is_one_also_after_a_sweep() -> None:
    window = AlikeWindow(1, MINUTE, KEEP)
    assert [window.logged_before(time, Call(7, None)) for time in (0, KEEP - 1, 2 * KEEP - 2)] == [
        False,
        True,
        True,
    ]
    assert window.is_needed(2 * KEEP)
    assert window.logged_before(2 * KEEP, Call(7, None))
    assert not window.logged_before(2 * KEEP, Call(8, None))
    assert not window.logged_before(3 * KEEP, Call(7, None))
    assert [window.logged_before(time, Call(9, None)) for time in (0, KEEP)] == [False, False]


@pytest.mark.parametrize(("now", "again"), [(300 * SECOND - 1, True), (300 * SECOND, False)])
def test_a_late_event_after_a_sweep_may_repeat_a_call(now: int, again: bool) -> None:
    """It is at most 120 s late, and its call was logged less than 180 s before it."""
    window = AlikeWindow(1, MINUTE, KEEP)
    window.logged_before(0, Call(7, None))
    assert window.is_needed(now) is again
    assert window.logged_before(now - 120 * SECOND, Call(7, None)) is again


def test_a_late_repeat_does_not_make_the_next_one_new() -> None:
    window = AlikeWindow(1, MINUTE, KEEP)
    assert [window.logged_before(time, Call(7, None)) for time in (2 * MINUTE, 0, KEEP + 1)] == [
        False,
        True,
        True,
    ]


def test_it_is_needed_until_nothing_it_holds_can_matter_and_forgets_what_can_not() -> None:
    window = AlikeWindow(3, MINUTE, KEEP)
    window.add(0, 1)
    window.add(SECOND, 2)
    assert window.is_needed(KEEP - 1)
    assert held(window) == 2
    assert window.is_needed(KEEP)
    assert set(window.times) == {2}
    assert not window.is_needed(KEEP + SECOND)


@pytest.mark.parametrize("step", [1, 0, -1], ids=["in order", "all at once", "backwards"])
@pytest.mark.parametrize("kinds", [1, 3], ids=["one", "a few"])
def test_memory_of_one_kind_of_call_is_bounded(kinds: int, step: int) -> None:
    window = AlikeWindow(21, MINUTE, KEEP)
    for i in range(3 * kinds * MAX_TIMES):
        window.add(10**9 + step * i, i % kinds)
    assert held(window) <= 2 * kinds * MAX_TIMES


@pytest.mark.parametrize("step", [1, 0, -1], ids=["in order", "all at once", "backwards"])
@pytest.mark.parametrize("times", [1, 2], ids=["once", "twice"])
def test_memory_of_ever_new_calls_is_bounded_and_lost_repetitions_are_counted(
    step: int, times: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What came once is no loop: to lose it hides nothing, and is no news on a busy server."""
    monkeypatch.setattr(alike_module, "MAX_HELD", 1_000)
    window = AlikeWindow(21, MINUTE, KEEP)
    for i in range(5_000):
        for _ in range(times):
            window.add(10**9 + step * i, i)
        window.logged_before(10**9 + step * i, Call(i, None))
        assert len(window.times) <= 1_000 and len(window.calls) <= 1_000
    lost = 5_000 - len(window.times)
    # one that is the oldest when it comes is dropped before it comes again
    assert lost - 10 <= window.forgotten <= lost if times > 1 else window.forgotten == 0


def test_the_count_is_capped() -> None:
    window = AlikeWindow(21, MINUTE, KEEP)
    assert max(window.add(i, 1) for i in range(2 * MAX_TIMES)) == MAX_TIMES


def test_what_comes_last_stays_when_too_much_comes(monkeypatch: pytest.MonkeyPatch) -> None:
    """A loop that begins in the middle of a flood is found, also when all have one timestamp."""
    monkeypatch.setattr(alike_module, "MAX_HELD", 1_000)
    window = AlikeWindow(21, MINUTE, KEEP)
    for i in range(3_000):
        window.add(MINUTE, 1_000 + i)
    assert [window.add(MINUTE, 1) for _ in range(21)] == [0] * 20 + [21]


def test_other_limits_hold_at_once_for_what_was_counted() -> None:
    window = AlikeWindow(5, MINUTE, KEEP)
    assert [window.add(i, 1) for i in range(3)] == [0, 0, 0]
    window.set_limits(4, MINUTE, KEEP)
    assert window.add(3, 1) == 4
    window.set_limits(2, 1, KEEP)
    assert window.add(5, 1) == 0
