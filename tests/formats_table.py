"""What the shipped formats read of the lines that stand beside the tests: `python -m tests.formats_table`.

Every shipped format has a file of lines under tests/unit/formats/lines, and one with the events that they must give.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from mcpwatch.event import AuditEvent, CallEnd
from mcpwatch.formats.reader import Reader
from mcpwatch.formats.shipped import shipped_mapping
from mcpwatch.sources.block import Block
from mcpwatch.times import iso

LINES: Final = Path(__file__).parent / "unit" / "formats" / "lines"
ONLY_FORCED: Final = frozenset({"otlp-client-traces"})
"""Formats that read nothing unless they are asked for by name."""
KEPT: Final = (
    "event", "tool", "params", "status", "error", "duration_ms", "key_id", "client_id", "session_id", "subject",
    "source_ip", "server", "call_id", "scopes",
)  # fmt: skip
"""What is compared of an event, where it has it; besides its line and its time."""
HEAD: Final = (
    "format", "lines", "understood", "time", "tool", "parameters", "client", "status", "duration",
    "failed logins", "address",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Sample:
    """The lines of one format, and what was read of them.

    Attributes:
        events: In the order of their lines, calls that were logged in two lines with their outcome.
    """

    name: str
    lines: tuple[bytes, ...]
    reader: Reader
    events: tuple[AuditEvent, ...]


def names() -> list[str]:
    """The formats that there are lines of."""
    return sorted(path.stem for path in LINES.iterdir() if path.suffix in (".jsonl", ".log"))


def lines_of(name: str) -> tuple[bytes, ...]:
    """The lines of a format."""
    path = next(path for path in (LINES / f"{name}.jsonl", LINES / f"{name}.log") if path.exists())
    return tuple(path.read_bytes().removesuffix(b"\n").split(b"\n"))


def read(name: str, lines: Iterable[bytes], format_name: str = "auto") -> Sample:
    """Read lines as a saved log is read; calls get the outcome of their second line."""
    reader = Reader(name, format_name=format_name)
    kept = tuple(lines)
    events = []
    for event in reader.read(Block(name, list(kept), 0, 1)):
        if isinstance(event, CallEnd):
            event.apply()
        else:
            events.append(event)
    return Sample(name, kept, reader, tuple(events))


def sample(name: str) -> Sample:
    """The lines of a format, read as users would."""
    return read(name, lines_of(name), name if name in ONLY_FORCED else "auto")


def record(event: AuditEvent) -> dict[str, Any]:
    """What is compared of an event."""
    found: dict[str, Any] = {"line": event.line}
    if event.time_ns is not None:
        found["time"] = iso(event.time_ns)
    said = {key: getattr(event, key) for key in KEPT}
    return found | {key: value for key, value in said.items() if value is not None}


def _share(having: Iterable[bool]) -> str:
    found = list(having)
    if not found:
        return "-"
    return "all" if all(found) else "some" if any(found) else "no"


def row(found: Sample) -> tuple[str, ...]:
    """What a format says of its tool calls, of failed logins, and of addresses."""
    reader, events = found.reader, found.events
    calls = [event for event in events if event.event == "tool_call"]
    logins = any(event.status == "unauthenticated" for event in events)
    return (
        found.name,
        str(reader.lines),
        str(reader.understood + reader.joined),
        _share(event.time_ns is not None for event in events),
        _share(event.tool is not None for event in calls),
        _share(event.params is not None for event in calls),
        _share(bool(e.key_id or e.client_id or e.session_id or e.subject) for e in calls),
        _share(event.status != "unknown" for event in calls),
        _share(event.duration_ms is not None for event in calls),
        "yes" if logins else "no",
        _share(event.source_ip is not None for event in events),
    )


def rows() -> list[tuple[str, ...]]:
    """One row for each format, as in `HEAD`."""
    return [row(sample(name)) for name in names()]


def main() -> int:
    """Print the table, with what the format of the first line was taken for."""
    table: list[tuple[str, ...]] = [(*HEAD, "first line read as")]
    for name in names():
        first = read(name, lines_of(name)[:1], name if name in ONLY_FORCED else "auto")
        table.append((*row(sample(name)), first.reader.format_name))
    widths = [max(len(line[column]) for line in table) for column in range(len(table[0]))]
    for line in table:
        print("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())
    missing = [name for name in names() if not shipped_mapping(name).title]
    return 1 if missing else 0


if __name__ == "__main__":
    sys.exit(main())
