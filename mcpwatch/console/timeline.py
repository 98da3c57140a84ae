"""The bar of a replay: where it stands, and where the incidents begin."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import Final

from mcpwatch.console.lines import Line, Span, fit_line
from mcpwatch.detection.hit import Severity
from mcpwatch.snapshot import SPEEDS, ReplayRow
from mcpwatch.times import SECOND, clock_time, format_duration, iso, parse_duration, parse_time

_OF_DAY: Final = re.compile(r"([01]?\d|2[0-3]):([0-5]\d)(?::([0-5]\d))?", re.ASCII)


def speed_text(speed: float) -> str:
    """`10x`, or `max` for as fast as it goes."""
    return "max" if speed == float("inf") else f"{speed:g}x"


def next_speed(speed: float, direction: int) -> float:
    """The speed after or before this one."""
    if direction > 0:
        return next((step for step in SPEEDS if step > speed), SPEEDS[-1])
    return next((step for step in reversed(SPEEDS) if step < speed), SPEEDS[0])


def _place(time_ns: int, replay: ReplayRow, width: int) -> int:
    span = max(replay.end_ns - replay.start_ns, 1)
    return min(max((time_ns - replay.start_ns) * (width - 1) // span, 0), width - 1)


def timeline_lines(replay: ReplayRow, width: int, *, local: bool) -> list[Line]:
    """State, speed and time over a bar; marks are the first letters of the severities, the worst one on top."""
    size = max(width - 2, 10)
    marks: list[Severity | None] = [None] * size
    for time_ns, severity in replay.marks:
        at = _place(time_ns, replay, size)
        marks[at] = max(severity, marks[at] or severity)
    here = _place(replay.at_ns, replay, size)
    bar: list[Span] = [(" ", "text")]
    for at, mark in enumerate(marks):
        passed = at < here
        if at == here:
            bar.append(("●", "brand"))
        elif mark is not None:
            bar.append((mark.label[0].upper(), f"severity-{mark.label}"))
        else:
            text, role = ("━", "frame-active") if passed else ("─", "frame")
            if bar[-1][1] == role:
                bar[-1] = (bar[-1][0] + text, role)
            else:
                bar.append((text, role))
    play: Span = ("playing ▶", "ok") if replay.playing else ("paused ‖", "warn")
    rest = replay.end_ns - replay.at_ns
    left = f"{format_duration(rest)} left of" if rest >= SECOND // 10 else "at the end of"
    survey: Line = () if replay.indexed >= 1 else ((f"  marks {replay.indexed:.0%} surveyed", "dim"),)
    words: Line = (
        (" ", "text"), play, (f" {speed_text(replay.speed)}  ", "text"),
        (iso(replay.at_ns)[:10] + " ", "dim"), (clock_time(replay.at_ns, local=local), "bold"),
        (f"  {left} {format_duration(max(replay.end_ns - replay.start_ns, 0))}", "dim"),
        (f"  {len(replay.marks)} incidents", "dim"), *survey,
    )  # fmt: skip
    return [fit_line(words, width), fit_line(tuple(bar), width)]


def parse_go_to(text: str, at_ns: int, *, local: bool) -> int:
    """Read where to go: `03:14`, `03:14:07`, `+5m`, `-90s`, or a full time.

    Args:
        at_ns: Where the replay stands: times of day are of its day.

    Raises:
        ValueError: It is none of these; the message says what to write.
    """
    text = text.strip()
    if text[:1] in ("+", "-"):
        try:
            return at_ns + (1 if text[0] == "+" else -1) * parse_duration(text[1:])
        except ValueError:
            raise ValueError("write a time as 03:14, 03:14:07, +5m, -90s or 2026-11-20T03:14:07Z") from None
    match = _OF_DAY.fullmatch(text)
    if match is not None:
        zone = None if local else UTC
        day = datetime.fromtimestamp(at_ns // SECOND, zone)
        moment = day.replace(hour=int(match[1]), minute=int(match[2]), second=int(match[3] or 0))
        return int(moment.timestamp()) * SECOND
    found = parse_time(text)
    if found is None:
        raise ValueError("write a time as 03:14, 03:14:07, +5m, -90s or 2026-11-20T03:14:07Z")
    return found[0]
