"""A log as bad as logs get: records cut off, in odd encodings and time formats, and text meant for a terminal.

Nothing in it may stop a reader, be lost without being counted, or move a cursor.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Final

import orjson

from mcpwatch.times import MINUTE, SECOND, iso

HOSTILE: Final = (
    "[/x]",
    "[@click=app.quit]press[/]",
    "[link=https://evil.example]here[/link]",
    "\x1b]52;c;UFdORUQ=\x07",
    "\x1b]0;title\x07",
    "\x1b[2J\x1b[H\x1b[31mgone",
    "\x1bP+q544e\x1b\\",
    "\x9b31mred\x9d0;title\x9c",
    "\x1b[6n\x1b[c",
    "\r\x08\x7fback\x00nul\ttab\nline",
    "/app/data/\u202egpj.exe\u2066",
    "zero\u200bwidth\ufefftag\U000e0041",
    "e" + "\u0301" * 12,
)
"""Markup of the console's toolkit, terminal commands (clipboard, title, clear, C1, replies), and text that hides."""

_TIMES: Final[tuple[Callable[[int], Any], ...]] = (
    iso,
    lambda ns: ns // SECOND,
    lambda ns: ns / SECOND,
    lambda ns: ns // 1_000_000,
    lambda ns: ns // 1_000,
    lambda ns: ns,
    lambda ns: str(ns // SECOND),
    lambda ns: iso(ns)[:19],
    lambda ns: iso(ns).replace("T", " ").replace(".", ","),
    lambda ns: iso(ns + 120 * MINUTE)[:-1] + "+02:00",
    lambda ns: iso(ns - 330 * MINUTE)[:-1] + "-05:30",
)
"""The same moment as people write it."""


def _record(at_ns: int, number: int, **more: Any) -> dict[str, Any]:
    return {
        "timestamp": iso(at_ns),
        "tool": "file_read",
        "params": {"path": f"/app/data/ledger/{number}.csv"},
        "status": "success",
        "duration_ms": 4.5,
        "key_id": "key_0004",
        "client_id": "report-writer",
        "session_id": f"s-{number // 8:04d}",
        "source_ip": "10.20.0.14",
        "scopes": ["read", "write"],
        "auth": {"method": "api_key"},
        "server": "files",
        "call_id": f"broken-{number:04d}",
        **more,
    }


def _whole(at_ns: int) -> bytes:
    return orjson.dumps(_record(at_ns, 900))


def _not_json(at_ns: int) -> Iterator[bytes]:
    whole = _whole(at_ns)
    yield whole[: len(whole) // 2]
    yield whole[len(whole) // 2 :]
    yield whole + whole
    yield b"Nov 20 12:00:01 host mcp[4711]: server started"
    yield b"Traceback (most recent call last):"
    yield bytes(range(128, 160)) + b"\xff\xfe\x1f\x8b" + bytes(range(224, 256))
    yield b"[" * 3_000
    yield b"{'single': 'quotes'}"


def _not_records(_: int) -> Iterator[bytes]:
    yield from (
        b"42",
        b'"text"',
        b"null",
        b"true",
        b"[]",
        b'[{"tool": "file_read"}]',
        b"{}",
        b'{"colour": "blue"}',
    )


def _blank(_: int) -> Iterator[bytes]:
    yield from (b"", b"   ", b"\t", b"\r", b"\0" * 64)


def _odd_bytes(at_ns: int) -> Iterator[bytes]:
    """Records that are readable for all that: byte order mark, CRLF, NULs in front, bad UTF-8, raw control bytes."""
    whole = _whole(at_ns)
    yield b"\xef\xbb\xbf" + whole
    yield whole + b"\r"
    yield b"\0" * 16 + whole
    yield whole.replace(b"ledger", b"l\xe9dg\xff r")
    yield whole.replace(b"ledger", b"\x1b[31mledger\x9b0m")
    yield whole.replace(b"ledger", b"\\ud800ledger")
    yield whole.replace(b"4.5", b"NaN")
    yield whole.replace(b"4.5", b"1" + b"0" * 600)
    yield whole.replace(b'"server":"files"', b'"server":"files","server":"files"')


def _twice(at_ns: int) -> Iterator[bytes]:
    """Byte for byte the same line again, and the same call in another line."""
    whole = orjson.dumps(_record(at_ns, 910))
    yield from (whole, whole, whole.replace(b"4.5", b"4.6"))


def _times(at_ns: int) -> Iterator[bytes]:
    for number, write in enumerate(_TIMES):
        yield orjson.dumps(_record(at_ns, 100 + number, timestamp=write(at_ns + number * SECOND)))
    for number, stamp in enumerate(("yesterday", "2026-13-45T99:00:00Z", -5, None, True)):
        yield orjson.dumps(_record(at_ns, 120 + number, timestamp=stamp))
    # one clock is far ahead, and one far behind
    yield orjson.dumps(_record(at_ns, 130, timestamp="2099-01-01T00:00:00Z"))
    yield orjson.dumps(_record(at_ns, 131, timestamp="1999-01-01T00:00:00Z"))


def _hostile(at_ns: int) -> Iterator[bytes]:
    for number, text in enumerate(HOSTILE):
        at = at_ns + number * 20 * SECOND
        yield orjson.dumps(_record(at, 200 + number, tool=text, status="denied", error=text))
        yield orjson.dumps(_record(at + SECOND, 300 + number, params={"path": "/app/data/x", text: text}))
        yield orjson.dumps(
            _record(at + 2 * SECOND, 400 + number, session_id=text, client_id=text, server=text)
        )


def _odd_values(at_ns: int) -> Iterator[bytes]:
    """Wrong types, other names, nothing where something is needed, far too much."""
    yield orjson.dumps(_record(at_ns, 500, params="path=/app/data/x"))
    yield orjson.dumps(_record(at_ns, 501, params=None, status="denied"))
    yield orjson.dumps(_record(at_ns, 502, duration_ms="slow", status="forbidden"))
    yield orjson.dumps(_record(at_ns, 503, session_id="-", client_id="unknown", note="a field of its own"))
    yield orjson.dumps(_record(at_ns, 504, params={"path": "/app/data/[truncated]"}, status="timeout"))
    yield orjson.dumps(_record(at_ns, 505, params={"path": "/app/data/x", "content": "A" * 60_000}))
    yield orjson.dumps(
        {"ts": iso(at_ns), "toolName": "file_read", "args": {"path": "/app/data/y"}, "outcome": "ok"}
    )


_PARTS: Final[tuple[Callable[[int], Iterator[bytes]], ...]] = (
    _times, _not_json, _odd_bytes, _not_records, _twice, _blank, _hostile, _odd_values,
)  # fmt: skip


def broken_log(start_ns: int) -> bytes:
    """The log. Its last line has no newline."""
    lines = [line for number, part in enumerate(_PARTS) for line in part(start_ns + number * 5 * MINUTE)]
    last = orjson.dumps(_record(start_ns + 45 * MINUTE, 999))
    return b"\n".join((*lines, last))
