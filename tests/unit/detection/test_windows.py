"""Windows are exact: held against a brute-force reading of their definition, and the published vectors."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mcpwatch.detection.windows import MAX_TIMES, CountWindow, DistinctWindow
from mcpwatch.times import SECOND

MINUTE = 60 * SECOND
KEEP = 60 * SECOND + 120 * SECOND


def seconds(text: str) -> list[int]:
    return [round(float(word) * SECOND) for word in text.split()]


def firing(need: int, width: int, times: list[int]) -> list[int]:
    """Which events (1 is the first) fire."""
    window = CountWindow(need, width, width + 120 * SECOND)
    return [number for number, time in enumerate(times, 1) if window.add(time)]


@pytest.mark.parametrize(
    ("need", "width", "times", "fires"),
    [
        pytest.param(6, 60, seconds("0 .1 .2 .3 .5"), [], id="five in half a second"),
        pytest.param(6, 60, seconds("0 1 2 3 4 59.999"), [6], id="just inside"),
        pytest.param(6, 60, seconds("0 1 2 3 4 60"), [], id="exactly W apart"),
        pytest.param(6, 60, [0, SECOND, 2, 3, 4, 60 * SECOND - 1], [6], id="one nanosecond inside"),
        pytest.param(6, 60, seconds("58 59 59.5 60.5 61 61.5"), [6], id="across a minute"),
        pytest.param(6, 60, [7] * 6, [6], id="same instant"),
        pytest.param(6, 60, seconds("0 10 20 30 50 40"), [6], id="the late one"),
        pytest.param(6, 60, [round(i * 12.0 * SECOND) for i in range(51)], [], id="every 12 s"),
        pytest.param(
            6, 60, [round(i * 11.99 * SECOND) for i in range(51)], list(range(6, 52)), id="every 11.99 s"
        ),
        pytest.param(3, 300, seconds("0 150 299.999"), [3], id="gte 3 inside"),
        pytest.param(3, 300, seconds("0 150 300"), [], id="gte 3 exactly W"),
        pytest.param(101, 60, [i * SECOND // 2 for i in range(100)], [], id="100 of 100"),
        pytest.param(101, 60, [i * SECOND // 2 for i in range(101)], [101], id="101 of 100"),
        pytest.param(6, 60, seconds("0 1 2 3 4 5 6 7"), [6, 7, 8], id="firing resets nothing"),
    ],
)
def test_published_vectors(need: int, width: int, times: list[int], fires: list[int]) -> None:
    assert firing(need, width * SECOND, times) == fires


def fullest_around(times: list[int], time: int, width: int) -> int:
    """The definition, read literally: the most events in a window (t-W, t] that contains `time`."""
    return max(
        sum(1 for other in times if end - width < other <= end) for end in times if end - width < time <= end
    )


class TestAgainstTheDefinition:
    times = st.lists(st.integers(0, 120), max_size=60)

    @settings(max_examples=300, deadline=None)
    @given(times, st.integers(1, 8), st.integers(1, 60))
    def test_count_fires_exactly_when_a_window_is_full(self, times: list[int], need: int, width: int) -> None:
        window = CountWindow(need, width, 10_000)
        for number in range(len(times)):
            fullest = fullest_around(times[: number + 1], times[number], width)
            assert window.add(times[number]) == (fullest if fullest >= need else 0)

    @settings(max_examples=300, deadline=None)
    @given(
        st.lists(
            st.tuples(st.integers(0, 120) | st.integers(0, 400), st.sampled_from("abcdefgh")), max_size=60
        ),
        st.integers(1, 6),
        st.integers(1, 60),
    )
    def test_distinct_fires_exactly_when_enough_values_meet(
        self, events: list[tuple[int, str]], need: int, width: int
    ) -> None:
        window = DistinctWindow(need, width, 10_000)
        for number, (time, value) in enumerate(events):
            seen = events[: number + 1]
            fullest = max(
                len({name for other, name in seen if end - width < other <= end})
                for end, _ in seen
                if end - width < time <= end
            )
            assert window.add(time, value) == (fullest if fullest >= need else 0)

    @settings(max_examples=200, deadline=None)
    @given(st.lists(st.integers(0, 400), min_size=1, max_size=80), st.integers(0, 79))
    def test_what_is_older_than_the_window_and_the_lateness_never_matters(
        self, steps: list[int], cut: int
    ) -> None:
        """The one idea: any start, W and the lateness before, gives the same hits from there on."""
        width, lateness, need = 60, 20, 3
        times, latest = [], 0
        for step in steps:
            latest += step // 10
            times.append(latest - step % (lateness + 1))
        whole = CountWindow(need, width, width + lateness)
        hits = [whole.add(time) for time in times]
        start = min(cut, len(times) - 1)
        warm = [i for i in range(start) if times[i] > times[start] - width - 3 * lateness]
        later = CountWindow(need, width, width + lateness)
        for index in warm:
            later.add(times[index])
        assert [later.add(time) for time in times[start:]] == hits[start:]


def test_a_call_logged_twice_counts_once() -> None:
    window = CountWindow(3, MINUTE, KEEP, by_call=True)
    calls = [("a", 0), ("a", 1), ("b", 2), ("b", 3), ("c", 4)]
    assert [window.add(time, call) for call, time in calls] == [0, 0, 0, 0, 3]


def test_the_end_of_a_slow_call_counts_no_second_time() -> None:
    window = CountWindow(1, MINUTE, KEEP, by_call=True)
    assert [window.add(time, "a") for time in (0, KEEP - 1, 2 * KEEP - 2, 3 * KEEP)] == [1, 0, 0, 1]


def test_a_late_repeat_does_not_make_the_next_one_new() -> None:
    window = CountWindow(1, MINUTE, KEEP, by_call=True)
    assert [window.add(time, "a") for time in (2 * MINUTE, 0, KEEP + 1)] == [1, 0, 0]


@pytest.mark.parametrize("call", ["-", "", "unknown", "null"])
def test_an_absent_call_id_makes_no_two_calls_one(call: str) -> None:
    window = CountWindow(2, MINUTE, KEEP, by_call=True)
    assert [window.add(time, call) for time in (0, 1)] == [0, 2]


def test_a_repeat_after_a_sweep_is_still_a_repeat() -> None:
    window = CountWindow(1, MINUTE, KEEP, by_call=True)
    for time in (0, KEEP - 1):
        window.add(time, "a")
    assert window.is_needed(KEEP + MINUTE)
    assert window.add(KEEP + MINUTE, "a") == 0


def test_one_event_from_the_far_future_hides_no_values() -> None:
    window = DistinctWindow(6, MINUTE, KEEP)
    window.add(10**18, "future")
    for i in range(400):
        peak = window.add(i * SECOND, f"v{i}")
        assert peak == (0 if i < 5 else min(i + 1, 60))


def test_memory_of_a_subject_is_bounded() -> None:
    counts, values = CountWindow(6, MINUTE, KEEP), DistinctWindow(6, MINUTE, KEEP)
    calls = CountWindow(6, MINUTE, KEEP, by_call=True)
    for i in range(5 * MAX_TIMES):
        late = (i * 7919) % 50_000
        counts.add(late)
        if i < 2 * MAX_TIMES:  # late ones are slow
            values.add(late, f"v{i}")
        calls.add(i, f"c{i}")
    assert len(counts.times) <= MAX_TIMES + counts.need
    assert len(values.live) + len(values.past) <= 2 * MAX_TIMES + 1
    assert len(calls.calls) <= MAX_TIMES


def test_the_count_is_capped() -> None:
    window = CountWindow(6, MINUTE, KEEP)
    assert max(window.add(i) for i in range(2 * MAX_TIMES)) == MAX_TIMES


def test_a_late_event_of_a_value_whose_stretch_has_ended_brings_it_back() -> None:
    window = DistinctWindow(3, MINUTE, KEEP)
    events = [(0, "d"), (79, "e"), (65, "d"), (85, "c")]
    assert [window.add(second * SECOND, value) for second, value in events] == [0, 0, 0, 3]


def test_a_flood_of_one_value_pushes_no_other_out() -> None:
    window = DistinctWindow(6, MINUTE, KEEP)
    for i, value in enumerate("abcde"):
        window.add(i, value)
    for i in range(10 * MAX_TIMES):
        assert window.add(10 + i, "flood" if i else "e") == (0 if i == 0 else 6)


def test_a_value_that_comes_and_goes_leaves_a_bounded_past() -> None:
    window = DistinctWindow(6, MINUTE, KEEP)
    for i in range(10 * MAX_TIMES):
        window.add(2 * i * MINUTE, "a")
    assert len(window.past) <= 2 * MAX_TIMES + 1


def test_late_events_among_hundreds_of_sessions_fire_without_a_sweep(monkeypatch: pytest.MonkeyPatch) -> None:
    """An attacker who sends many sessions out of order must not make each event cost a look at all of them."""
    window = DistinctWindow(6, MINUTE, KEEP)
    for i in range(500):
        window.add(MINUTE + i, f"s{i}")
    monkeypatch.setattr(DistinctWindow, "_sweep", None)
    assert window.add(MINUTE - 5, "late") >= 500
