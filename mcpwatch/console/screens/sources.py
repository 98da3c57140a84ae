"""The logs, opened: is each one read, does it tell what it should, and is every line accounted for?"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from mcpwatch.console.lines import Line, bar, flow, wrap
from mcpwatch.console.screens.document import DocumentScreen, Part, heading
from mcpwatch.snapshot import Counters, GapRow, SourceRow
from mcpwatch.text import safe
from mcpwatch.times import iso

_STATE_ROLES = {"reading": "ok", "waiting": "warn", "refused": "error", "ended": "dim"}
_PARTS: Final = ("understood", "not_understood", "blank", "repeated", "joined", "held")
"""What every line is one of."""
_LABEL: Final = 12
_BETWEEN: Final[Line] = ((" ", "text"),)


def source_parts(row: SourceRow, width: int) -> list[Part]:
    """One log as part of a document."""
    parts = heading(row.name, width)
    behind = f", {row.behind:,} bytes behind" if row.behind else ""
    lines: list[Line] = [
        ((f"{row.state:<{_LABEL}}", _STATE_ROLES[row.state]), (row.note, "text")),
        (_label("file"), (row.path, "text")),
        *_labelled("formats" if len(row.formats) > 1 else "format", list(_formats(row)), width),
        (_label("pace"), (f"{row.per_second:,.1f} records/s{behind}", "text")),
        *_labelled("badges", list(_badges(row)), width),
        *_labelled("counters", counter_sum(row.counters), width),
        *_reasons(row, width),
        *_labelled("calls", list(_calls(row)), width),
        *(line for gap in row.gaps for line in _gap(gap, width)),
    ]
    hidden = row.counters.gaps - len(row.gaps)
    if row.gaps and hidden > 0:
        lines.append((_label(""), (f"and {_number(hidden, 'earlier gap')}", "warn")))
    for index, (name, have, calls) in enumerate(row.coverage):
        share = have / calls if calls else 0.0
        role = "ok" if share >= 1 else "warn" if share > 0 else "error"
        lines.append(
            (
                _label("every call:" if not index else ""),
                (f"{safe(name):<20}", "text"),
                (f"{share:>5.0%}  ", role),
                (f"{bar(share, 20):<20}", role),
                ("" if calls else "  no call yet", "dim"),
            )
        )
    return [*parts, *((line, None) for line in lines)]


def counter_sum(counters: Counters) -> list[Line]:
    """The counters as the sum that they are, a part for each."""
    values = {name: getattr(counters, name) for name in _PARTS}
    right = counters.lines == sum(values.values())
    wrong = "" if right else " DOES NOT ADD UP:"
    parts: list[Line] = [((f"{counters.lines:,}", "text"), (" lines", "dim"), (wrong, "error"))]
    for index, (name, value) in enumerate(values.items()):
        role = "warn" if value and name == "not_understood" else "text"
        sign = "+" if index else "="
        parts.append(((f"{sign} ", "dim"), (f"{value:,}", role), (f" {name.replace('_', ' ')}", "dim")))
    parts.append((("· ", "dim"), (_number(counters.events, "event"), "text")))
    if counters.gaps:
        parts.append((("· ", "dim"), (_number(counters.gaps, "gap"), "error")))
    return parts


def _formats(row: SourceRow) -> Iterator[Line]:
    """The formats met, each with its records where there are several."""
    if len(row.formats) < 2:
        yield ((row.format or "not known yet", "text"),)
        return
    for name, count in row.formats:
        yield ((name, "text"), (f" {count:,}", "dim"))


def _reasons(row: SourceRow, width: int) -> Iterator[Line]:
    """Why lines were not understood."""
    for index, (reason, count) in enumerate(row.reasons):
        for line in wrap(f"{count:,} x {reason}", width - _LABEL, "warn"):
            yield (_label("" if index else "reasons"), *line)


def _calls(row: SourceRow) -> Iterator[Line]:
    """Calls in two lines of which the second is missing."""
    if row.open_calls:
        yield ((f"{_number(row.open_calls, 'call')} open", "text"),)
    if row.unended_calls:
        yield ((f"{_number(row.unended_calls, 'call')} without an end, outcome unknown", "warn"),)


def _badges(row: SourceRow) -> Iterator[Line]:
    """What is special about a log, a word or two each."""
    if row.filesystem is not None:
        yield ((f"{row.filesystem}: polled", "warn"),)
    if row.senders:
        yield ((f"{_number(len(row.senders), 'sender')}: {', '.join(row.senders)}", "text"),)
    if row.oversize:
        yield ((f"{row.oversize:,} over 1 MiB, not judged", "error"),)
    if row.rotations:
        yield ((_number(row.rotations, "rotation"), "text"),)
    if row.truncations:
        yield ((_number(row.truncations, "truncation"), "warn"),)
    if row.lost:
        yield ((f"{row.lost:,} bytes lost", "error"),)


def _gap(gap: GapRow, width: int) -> Iterator[Line]:
    size = f"{gap.size:,} bytes lost" if gap.size is not None else "lost bytes unknown"
    text = f"{iso(gap.seen_ns)[:19]}Z at byte {gap.offset:,}, {size}: {gap.reason}"
    for index, line in enumerate(wrap(text, width - _LABEL, "warn")):
        yield (_label("" if index else "gap"), *line)


def _labelled(label: str, parts: list[Line], width: int) -> list[Line]:
    rows = flow(parts, max(width - _LABEL, _LABEL), _BETWEEN if label == "counters" else ((", ", "dim"),))
    return [(_label("" if index else label), *row) for index, row in enumerate(rows)]


def _number(count: int, noun: str) -> str:
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {noun}s"


def _label(text: str) -> tuple[str, str]:
    return f"{text:<{_LABEL}}", "dim"


class SourcesScreen(DocumentScreen):
    """Every log that is read."""

    HINTS = ("back", "copy", "help")

    def build(self, width: int) -> tuple[Line, list[Part]]:
        """All notices, then each source."""
        live = self.console_app.live
        parts: list[Part] = [
            ((((" ! " if not index else "   "), "warn"), *line), None)
            for notice in live.notices
            for index, line in enumerate(wrap(notice, width - 3, "warn"))
        ]
        if len(live.sources) > 1:
            parts += [(line, None) for line in _labelled("counters", counter_sum(live.counters), width)]
        for row in live.sources:
            parts += source_parts(row, width)
        if not live.sources:
            parts.append(((("No log is read.", "dim"),), None))
        return ((f"Logs: {len(live.sources)}", "title"),), parts
