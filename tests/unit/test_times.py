"""What is promised about times: every readable one is read exactly, and every one that was read can be written."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mcpwatch.times import (
    DAY,
    HOUR,
    MINUTE,
    SECOND,
    clock_time,
    format_duration,
    iso,
    parse_duration,
    parse_epoch,
    parse_rfc3339,
    parse_time,
    utc_day,
)

EIGHT = 1_763_625_600 * SECOND  # 2025-11-20T08:00:00Z
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def nanoseconds(moment: datetime) -> int:
    """The oracle: exact, by whole microseconds."""
    return (moment - EPOCH) // timedelta(microseconds=1) * 1_000


@pytest.mark.parametrize(
    ("text", "ns", "naive"),
    [
        ("2025-11-20T08:00:00Z", EIGHT, False),
        ("2025-11-20t08:00:00z", EIGHT, False),
        ("2025-11-20 08:00:00 UTC", EIGHT, False),
        ("2025-11-20T08:00Z", EIGHT, False),
        ("2025-11-20T08:00:00", EIGHT, True),
        ("2025-11-20 08:00:00,250", EIGHT + SECOND // 4, True),
        ("2025-11-20T08:00:00.000000001Z", EIGHT + 1, False),
        ("2025-11-20T08:00:00.1234567899Z", EIGHT + 123_456_789, False),
        ("2025-11-20T13:30:00+05:30", EIGHT, False),
        ("2025-11-20T13:30:00+0530", EIGHT, False),
        ("2025-11-20T03:00:00 -05", EIGHT, False),
        ("2025-11-20T08:00:00-00:00", EIGHT, False),
        ("2025-11-19T23:00:00-09:00", EIGHT, False),
        ("2016-12-31T23:59:60Z", 1_483_228_800 * SECOND, False),
        ("2016-12-31T18:59:60.5-05:00", 1_483_228_800 * SECOND + SECOND // 2, False),
        ("1969-12-31T23:59:59.5Z", -SECOND // 2, False),
        ("2024-02-29T00:00:00Z", 1_709_164_800 * SECOND, False),
    ],
)
def test_rfc3339_and_its_usual_relatives_are_read_exactly(text: str, ns: int, naive: bool) -> None:
    assert parse_rfc3339(text) == (ns, naive)
    assert parse_time(f" {text}\n") == (ns, naive)


@pytest.mark.parametrize(
    "text",
    [
        *("", "now", "2025-11-20", "2025-13-01T00:00:00Z", "2025-02-29T00:00:00Z", "2025-00-10T00:00:00Z"),
        *(
            "2025-11-20T24:00:00Z",
            "2025-11-20T08:60:00Z",
            "2025-11-20T08:00:61Z",
            "2025-11-20T08:00:00+24:00",
        ),
        *(
            "2025-11-20T08:00:00+05:60",
            "2025-11-20T08:00:00.Z",
            "2025-11-20T08:00:00ZZ",
            "25-11-20T08:00:00Z",
        ),
        *(
            "٢٠٢٥-11-20T08:00:00Z",
            "2025-11-20T08:00:00Z\0",
            "0000-01-01T00:00:00Z",
            "2025-11-20T08:00:00+05:30:15",
        ),
        *("0001-01-02T23:59:59Z", "9999-12-31T23:59:59-01:00", "9999-12-31T23:59:60Z"),
    ],
)
def test_what_is_no_time_is_none(text: str) -> None:
    assert parse_rfc3339(text) is None
    assert parse_time(text) is None


AWARE = st.datetimes(
    min_value=datetime(2, 1, 1),
    max_value=datetime(9998, 12, 31),
    timezones=st.integers(-23 * 60 - 59, 23 * 60 + 59).map(
        lambda minutes: timezone(timedelta(minutes=minutes))
    ),
)


@given(AWARE)
def test_times_are_read_as_datetime_reads_them(moment: datetime) -> None:
    assert parse_rfc3339(moment.isoformat()) == (nanoseconds(moment), False)
    assert parse_rfc3339(moment.isoformat(" ")) == (nanoseconds(moment), False)


@given(st.datetimes(min_value=datetime(2, 1, 1), max_value=datetime(9998, 12, 31)))
def test_naive_times_are_utc_and_say_so(moment: datetime) -> None:
    assert parse_rfc3339(moment.isoformat()) == (nanoseconds(moment.replace(tzinfo=UTC)), True)


@given(AWARE)
def test_what_is_written_is_read_back(moment: datetime) -> None:
    ns = nanoseconds(moment)
    assert parse_rfc3339(iso(ns)) == (ns, False)
    utc = moment.astimezone(UTC)
    assert iso(ns) == utc.strftime("%m-%dT%H:%M:%S.%fZ").join([f"{utc.year:04d}-", ""])
    assert utc_day(ns) == utc.date().isoformat()
    assert clock_time(ns) == f"{utc:%H:%M:%S}"
    assert clock_time(ns, millis=True) == f"{utc:%H:%M:%S}.{utc.microsecond // 1000:03d}"


@pytest.mark.parametrize("zone", ["UTC", "Pacific/Kiritimati", "Pacific/Pago_Pago"])
@pytest.mark.parametrize(
    "text",
    [
        "0001-01-03T00:00:00Z",
        "9999-12-31T00:00:00Z",
        "9999-12-31T12:00:00+12:00",
        "0001-01-02T12:00:00-12:00",
    ],
)
def test_the_farthest_readable_times_can_be_shown_in_every_zone(
    zone: str, text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TZ", zone)
    time.tzset()
    try:
        found = parse_rfc3339(text)
        assert found is not None
        assert iso(found[0]).endswith("Z")
        assert len(clock_time(found[0], local=True)) == 8
        assert len(utc_day(found[0])) == 10
    finally:
        monkeypatch.undo()
        time.tzset()


@pytest.mark.parametrize(
    ("number", "ns"),
    [
        (0, 0),
        (1_763_625_600, EIGHT),
        (1_763_625_600_000, EIGHT),
        (1_763_625_600_000_000, EIGHT),
        (1_763_625_600_000_000_000, EIGHT),
        (1_763_625_600.25, EIGHT + SECOND // 4),
        (1_763_625_600_000.5, EIGHT + 500_000),
        (99_999_999_999, 99_999_999_999 * SECOND),
        (100_000_000_000, 100_000_000 * SECOND),
        (99_999_999_999_999, 99_999_999_999_999 * 1_000_000),
        (100_000_000_000_000, 100_000_000 * SECOND),
        (99_999_999_999_999_999, 99_999_999_999_999_999 * 1_000),
        (100_000_000_000_000_000, 100_000_000 * SECOND),
    ],
)
def test_the_size_of_an_epoch_number_says_its_unit(number: float, ns: int) -> None:
    assert parse_epoch(number) == ns
    assert parse_time(number) == (ns, False)
    assert parse_time(str(number)) == (ns, False)


@pytest.mark.parametrize("value", [-1, -0.5, True, False, float("nan"), float("inf"), 1e20, 10**400])
def test_numbers_that_are_no_time_are_none(value: float) -> None:
    assert parse_epoch(value) is None


@pytest.mark.parametrize(
    "value", [None, [], {}, b"2025", "1e9", "-5", "1.2.3", "²", "9" * 30, "0x10", "nan", "."]
)
def test_other_things_are_no_time(value: object) -> None:
    assert parse_time(value) is None


@given(st.one_of(st.text(max_size=40), st.floats(), st.integers(), st.from_regex(r"[0-9TZ:.+ -]{0,40}")))
def test_reading_a_time_never_raises_and_what_was_read_can_be_written(value: object) -> None:
    found = parse_time(value)
    if found is not None:
        assert iso(found[0]).endswith("Z")
        assert utc_day(found[0]) == iso(found[0])[:10]


@pytest.mark.parametrize(
    ("text", "ns"),
    [
        ("90s", 90 * SECOND),
        ("5m", 5 * MINUTE),
        (" 1h30m ", 90 * MINUTE),
        ("2d", 2 * DAY),
        ("1d2h3m4s", DAY + 2 * HOUR + 3 * MINUTE + 4 * SECOND),
        ("36500d", 36_500 * DAY),
    ],
)
def test_durations_are_read(text: str, ns: int) -> None:
    assert parse_duration(text) == ns


@pytest.mark.parametrize(
    "text", ["", "5", "0s", "0h0m", "5 m", "m5", "-5m", "1.5h", "5m1h", "٥m", "36501d", "999999999d"]
)
def test_what_is_no_duration_is_refused_with_its_text(text: str) -> None:
    with pytest.raises(ValueError, match="duration") as refused:
        parse_duration(text)
    assert repr(text) in str(refused.value)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("ns", "text"),
    [
        (400_000_000, "0.4 s"),
        (65 * SECOND, "1m 5s"),
        (90 * MINUTE, "1h 30m"),
        (DAY + 2 * HOUR + 3 * MINUTE, "1d 2h"),
        (HOUR, "1h"),
        (12 * SECOND, "12 s"),
    ],
)
def test_durations_are_written_by_their_two_largest_parts(ns: int, text: str) -> None:
    assert format_duration(ns) == text
