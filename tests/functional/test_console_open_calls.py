"""A call that is logged in two lines: what the console shows between them, and after."""

from __future__ import annotations

import json
from pathlib import Path

from mcpwatch.console.columns import EVENTS
from mcpwatch.snapshot import EventRow
from tests.unit.monitor.monitor_runs import NOW, Room, call

NAMED = json.dumps({"name": "add", "arguments": {}})
START = json.dumps({"event": "request_start", "method": "tools/call", "source": "client", "payload": NAMED})
END = json.dumps({"event": "request_error", "method": "tools/call", "source": "client", "duration_ms": 2.5,
                  "error": "broken"})  # fmt: skip


def status(row: EventRow) -> str:
    (column,) = (column for column in EVENTS if column.header == "STATUS")
    return column.cell(row, False)[0]


def notes(room: Room, row: EventRow) -> list[str]:
    detail = room.monitor.record(row.seq)
    assert detail is not None
    return [value for name, value in detail.fields if name == "note"]


def test_a_call_without_its_end_is_no_call_without_an_outcome(tmp_path: Path) -> None:
    room = Room(tmp_path)
    shown = room.write(call(NOW, status=None), START.encode() + b"\n")
    assert [status(row) for row in shown.events] == ["unknown", "no end"]
    opened = shown.events[-1]
    note = "the beginning of a call: its end was not read, or may be that of another call"
    assert note in notes(room, opened)
    shown = room.write(END.encode() + b"\n")
    assert [status(row) for row in shown.events] == ["unknown", "ERROR"]
    assert note not in notes(room, opened)
    room.sources.close()
