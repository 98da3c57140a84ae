"""The header: is it live and complete, is the policy in force, how bad is it? And the banners under it."""

from __future__ import annotations

from typing import Final

from mcpwatch.console.columns import SEVERITY_WORDS
from mcpwatch.console.lines import Line, Span, ends, fit_line, flow, join, line_cells, wrap
from mcpwatch.detection.hit import Severity
from mcpwatch.snapshot import Snapshot
from mcpwatch.text import safe
from mcpwatch.times import SECOND, format_duration

GAP: Final[Line] = (("  ", "text"),)
RULE: Final[Line] = ((" │ ", "frame"),)
MAX_NOTICES: Final = 3
"""Banners shown at once; the others are counted."""


def _state(live: Snapshot) -> Line:
    if live.replay is not None:
        return (("REPLAY", "brand"),)
    states = {source.state for source in live.sources}
    word, role = next(
        (word, role)
        for state, word, role in (
            ("reading", "LIVE ●", "ok"),
            ("waiting", "WAITING ○", "warn"),
            ("refused", "REFUSED ×", "error"),
            ("", "ENDED ■", "dim"),
        )
        if state in states or not state
    )
    return ((word, role),)


def _sources(live: Snapshot) -> Line:
    if len(live.sources) == 1:
        return ((safe(live.sources[0].name, 32), "text"),)
    refused = sum(source.state == "refused" for source in live.sources)
    extra: Line = ((f", {refused} refused", "error"),) if refused else ()
    return ((f"{len(live.sources)} logs", "text"), *extra)


def _pace(live: Snapshot) -> list[Line]:
    parts: list[Line] = [((f"{live.per_second:,.0f}/s", "text"),)]
    if live.lag_s is not None and any(source.state != "ended" for source in live.sources):
        lag = format_duration(round(live.lag_s * SECOND))
        parts.append((("lag ", "dim"), (lag, "warn" if live.lag_s > 5 else "text")))
    return parts


def _count(name: str, value: int, bad: str = "warn") -> Line:
    return ((f"{name} ", "dim"), (f"{value:,}", bad if value else "dim"))


def _read(lines: int, short: bool) -> Line:
    text = f"{lines / 1e6:,.1f}M" if short and lines >= 1_000_000 else f"{lines:,}"
    return (("read ", "dim"), (text, "text"))


def _counters(live: Snapshot, short: bool) -> Line:
    count = live.counters
    parts = [
        _read(count.lines, short),
        _count("not understood", count.not_understood),
        _count("late", count.late),
        _count("gaps", count.gaps, "error"),
    ]
    return join(parts, ((" ", "text"),) if short else GAP)


def _policy(live: Snapshot) -> Line:
    policy = live.policy
    if policy.error is not None:
        return (("POLICY BROKEN", "error"), (", the last good one is used", "dim"))
    if policy.path is None:
        return (("NO POLICY", "warn"),)
    out: list[Span] = [("policy ok", "ok")]
    out.append((f", {policy.revoked} revoked, {policy.locked} locked", "text"))
    if policy.changes_off is not None:
        out.append((", changes off", "warn"))
    return tuple(out)


def _chip(severity: Severity, count: int, width: int) -> str:
    if width >= 100:
        return f" {count} {severity.label} "
    return (
        f"{count} {SEVERITY_WORDS[severity].strip().lower()}"
        if width >= 60
        else f"{count}{severity.label[0].upper()}"
    )


def _severities(live: Snapshot, width: int) -> Line:
    order = (Severity.CRITICAL, Severity.HIGH, Severity.MEDIUM, Severity.LOW)
    parts: list[Line] = [
        ((_chip(severity, count, width), f"chip-{severity.label}"),)
        for severity, count in zip(order, live.severities, strict=True)
        if count
    ]
    return join(parts, ((" ", "text"),)) if parts else (("no open incidents", "ok"),)


def header_lines(live: Snapshot, width: int, *, frozen: bool) -> list[Line]:
    """The header in one line where the terminal is wide enough, else in two."""
    short = width < 100
    name: list[Line] = [(("mcpwatch", "brand"),)] if width >= 60 else []
    chip: list[Line] = [(("FROZEN", "chip"),)] if frozen else []
    source = [_sources(live)] if width >= 60 else []
    left = join([*name, _state(live), *chip, *source, *_pace(live)], GAP)
    left = ((" ", "text"), *left)
    right = (*_severities(live, width), (" ", "text"))
    rest = join([_counters(live, short), _policy(live)], RULE)
    whole = join([left, rest], RULE)
    if line_cells(whole) + line_cells(right) + 2 <= width:
        return [ends(whole, right, width)]
    return [ends(left, right, width), fit_line(((" ", "text"), *rest), width)]


def notice_lines(live: Snapshot, width: int) -> list[Line]:
    """The banners, worst first as the monitor orders them, each in one line."""
    notices = list(live.notices)
    if live.policy.error is not None and live.policy.error not in notices:
        notices.insert(0, live.policy.error)
    shown = notices if len(notices) <= MAX_NOTICES else notices[: MAX_NOTICES - 1]
    lines: list[Line] = [fit_line(((" ! ", "warn"), (notice, "warn")), width) for notice in shown]
    if len(notices) > len(shown):
        lines.append(((f" ! and {len(notices) - len(shown)} more: press s for the sources", "warn"),))
    return lines


def hint_lines(hints: list[tuple[str, str]], width: int) -> Line:
    """The footer: keys and what they do, as many as fit."""
    parts: list[Line] = [((key, "key"), (f" {label}", "dim")) for key, label in hints]
    rows = flow(parts, width - 2, GAP)
    return ((" ", "text"), *(rows[0] if rows else ()))


def paragraph(label: str, text: str, width: int, role: str = "text") -> list[Line]:
    """A labelled text, wrapped, its later lines under the first."""
    size = 12
    rows = wrap(text, max(width - size, 16), role)
    return [((f"{label if not i else '':<{size}}", "dim"), *row) for i, row in enumerate(rows)]
