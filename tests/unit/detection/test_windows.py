"""Windows are exact: held against a brute-force reading of their definition, and the published vectors."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mcpwatch.detection.calls import Call, call_of
from mcpwatch.detection.windows import MAX_TIMES, CountWindow, DistinctWindow
from mcpwatch.event import AuditEvent
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


MAKERS = st.integers(0, 2**32).map(random.Random)


class TestAgainstTheDefinition:
    """Crowded logs, in any order."""

    @settings(max_examples=400, deadline=None)
    @given(MAKERS)
    def test_count_fires_exactly_when_a_window_is_full(self, maker: random.Random) -> None:
        """By the window's limit, or by an event's own where it has a lower one."""
        need, width = maker.randrange(1, 7), maker.randrange(1, 25)
        window = CountWindow(need, width, 10_000)
        times: list[int] = []
        for _ in range(40):
            times.append(maker.randrange(60))
            own = maker.choice([0, maker.randrange(1, need + 1)])
            fullest = fullest_around(times, times[-1], width)
            assert window.add(times[-1], need=own) == (fullest if fullest >= (own or need) else 0)

    @settings(max_examples=400, deadline=None)
    @given(MAKERS)
    def test_distinct_fires_exactly_when_enough_values_meet(self, maker: random.Random) -> None:
        """By the window's limit, or by an event's own where it has a higher one."""
        need, width, span = maker.randrange(1, 6), maker.randrange(1, 40), maker.choice([80, 300])
        window = DistinctWindow(need, width, 10_000)
        seen: list[tuple[int, str]] = []
        for number in range(40):
            forward = number * span // 40
            seen.append((maker.choice([forward, maker.randrange(span)]), maker.choice("abcdefgh")))
            time, value = seen[-1]
            fullest = max(
                len({name for other, name in seen if end - width < other <= end})
                for end, _ in seen
                if end - width < time <= end
            )
            own = need + maker.choice([0, 0, 1, 3])
            assert window.add(time, value, own) == (fullest if fullest >= own else 0)

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


def called(call_id: str, tool: str = "echo", params: dict[str, object] | None = None) -> Call | None:
    return call_of(AuditEvent(event="tool_call", tool=tool, params=params, call_id=call_id))


def test_a_call_logged_twice_counts_once() -> None:
    window = CountWindow(3, MINUTE, KEEP, by_call=True)
    calls = [("a", 0), ("a", 1), ("b", 2), ("b", 3), ("c", 4)]
    assert [window.add(time, called(call)) for call, time in calls] == [0, 0, 0, 0, 3]


@pytest.mark.parametrize(
    ("records", "counted"),
    [
        ([("echo", None), ("echo", None)], 1),
        ([("echo", {"n": 1}), ("echo", {"n": 1})], 1),
        ([("echo", {"n": 1, "m": 2}), ("echo", {"m": 2, "n": 1})], 1),
        ([("echo", None), ("echo", {"n": 1})], 1),
        ([("echo", {"n": 1}), ("echo", None)], 1),
        ([("echo", {"n": 1}), ("echo", {})], 1),
        ([("echo", {"n": 1}), ("echo", {"n": "[redacted]"})], 1),
        ([("echo", {"n": 1}), ("echo", {"n": 2}), ("echo", {"n": 3})], 3),
        ([("echo", {"n": 1}), ("shell", {"n": 1})], 2),
        ([("echo", None), ("shell", None)], 2),
        ([("echo", {"n": 1}), ("echo", {"n": 2}), ("echo", None), ("echo", {"n": 1})], 2),
    ],
)
def test_one_call_id_for_all_hides_no_calls_that_differ(
    records: list[tuple[str, dict[str, object] | None]], counted: int
) -> None:
    """Two records with one id are one call where tool and parameters agree, as far as both show them."""
    window = CountWindow(1, MINUTE, KEEP, by_call=True)
    peaks = [window.add(time, called("c-1", *record)) for time, record in enumerate(records)]
    assert sum(peak > 0 for peak in peaks) == counted


def test_the_end_of_a_slow_call_counts_no_second_time() -> None:
    window = CountWindow(1, MINUTE, KEEP, by_call=True)
    assert [window.add(time, called("a")) for time in (0, KEEP - 1, 2 * KEEP - 2, 3 * KEEP - 2)] == [
        1,
        0,
        0,
        1,
    ]


def test_a_late_repeat_does_not_make_the_next_one_new() -> None:
    window = CountWindow(1, MINUTE, KEEP, by_call=True)
    assert [window.add(time, called("a")) for time in (2 * MINUTE, 0, KEEP + 1)] == [1, 0, 0]


@pytest.mark.parametrize("call", ["-", "", "unknown", "null"])
def test_an_absent_call_id_makes_no_two_calls_one(call: str) -> None:
    window = CountWindow(2, MINUTE, KEEP, by_call=True)
    assert [window.add(time, called(call)) for time in (0, 1)] == [0, 2]


def test_a_repeat_after_a_sweep_is_still_a_repeat() -> None:
    window = CountWindow(1, MINUTE, KEEP, by_call=True)
    for time in (0, KEEP - 1):
        window.add(time, called("a"))
    assert window.is_needed(KEEP + MINUTE)
    assert window.add(KEEP + MINUTE, called("a")) == 0


@pytest.mark.parametrize(("now", "needed"), [(300 * SECOND - 1, True), (300 * SECOND, False)])
def test_a_late_event_after_a_sweep_may_repeat_a_call(now: int, needed: bool) -> None:
    """It is at most 120 s late, and its call was logged less than 180 s before it."""
    window = CountWindow(1, MINUTE, KEEP, by_call=True)
    window.add(0, called("a"))
    assert window.is_needed(now) is needed
    assert window.add(now - 120 * SECOND, called("a")) == (not needed)


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
        calls.add(i, called(f"c{i}"))
    assert len(counts.times) <= MAX_TIMES + counts.need
    assert len(values.live) + len(values.past) <= 2 * MAX_TIMES + 1
    assert len(calls.calls or ()) <= 2 * MAX_TIMES


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


@pytest.mark.parametrize("own", [0, 100], ids=["the rule's limit", "the caller's own limit"])
def test_a_high_limit_is_exact_for_late_events_among_hundreds_of_sessions(own: int) -> None:
    """The window around the late event is full, the one that ends at the newest event is not."""
    window = DistinctWindow(6 if own else 100, MINUTE, KEEP)
    for i in range(100):
        window.add(i, f"early{i}", own)
    for i in range(80):
        window.add(MINUTE + 200 + i, f"s{i}", own)
    assert window.add(300, "late", own) >= 100
    few = DistinctWindow(100, MINUTE, KEEP)
    assert [few.add(MINUTE - i % 2, f"s{i}") > 0 for i in range(100)] == [False] * 99 + [True]


def test_a_flood_of_sessions_at_one_time_stays_bounded() -> None:
    window = DistinctWindow(6, MINUTE, KEEP)
    for i in range(5 * MAX_TIMES):
        window.add(MINUTE, f"v{i}")
    assert len(window.live) + len(window.past) <= 2 * MAX_TIMES + 1


class TestOtherLimits:
    """Limits change while the log goes on."""

    def test_times_stay(self) -> None:
        window = CountWindow(5, MINUTE, KEEP)
        assert [window.add(i) for i in range(3)] == [0, 0, 0]
        window.set_limits(4, MINUTE, KEEP)
        assert window.add(3) == 4
        window.set_limits(9, 2 * MINUTE, KEEP)
        assert [window.add(MINUTE + i) for i in range(5)] == [0, 0, 0, 0, 9]

    @pytest.mark.parametrize("need", [2, 6])
    def test_values_stay_under_another_number(self, need: int) -> None:
        window = DistinctWindow(4, MINUTE, KEEP)
        for i, value in enumerate("abc"):
            window.add(i, value)
        window.set_limits(need, MINUTE, KEEP)
        assert window.add(3, "d") == (4 if need == 2 else 0)

    @pytest.mark.parametrize("width", [MINUTE // 2, 2 * MINUTE])
    def test_values_begin_anew_under_another_width(self, width: int) -> None:
        """How long a value was present was worked out under the old one."""
        window = DistinctWindow(2, MINUTE, KEEP)
        window.add(0, "a")
        window.set_limits(2, width, KEEP)
        assert [window.add(width + i, value) for i, value in enumerate("bc")] == [0, 2]
        assert [window.add(2 * width + i, value) for i, value in enumerate("de")] == [2, 2]


def test_a_count_window_is_needed_until_nothing_it_holds_can_matter() -> None:
    window = CountWindow(3, MINUTE, KEEP)
    window.add(0)
    window.add(SECOND)
    assert window.is_needed(KEEP)
    assert window.times[3:] == [SECOND]
    assert not window.is_needed(KEEP + SECOND)
    values = DistinctWindow(3, MINUTE, KEEP)
    values.add(0, "a")
    assert values.is_needed(KEEP - 1)
    assert not values.is_needed(KEEP)


def test_records_of_the_future_push_out_nothing_of_today() -> None:
    """Whoever writes a thousand records from 2099 must not switch the counting of today's off."""
    window, far = CountWindow(6, 60 * SECOND, 180 * SECOND), 10**9 * SECOND
    found = 0
    for number in range(3_000):
        window.add(far + number * SECOND)
        found += window.add(number * SECOND) > 0
    assert found == 3_000 - 5


def test_after_one_value_from_the_future_a_window_of_values_holds_no_more_than_before() -> None:
    """All events are late then; equal values still make one stretch, or each event would cost more than the last."""
    window, far = DistinctWindow(2, 600 * SECOND, 720 * SECOND), 10**9 * SECOND
    window.add(far, "a")
    for number in range(5_000):
        assert window.add(number * SECOND, "a") == 0
    assert len(window.past) <= 2
    assert window.add(5_000 * SECOND, "b") == 2
