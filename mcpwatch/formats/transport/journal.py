"""The journal of systemd, as `journalctl -o json` writes it."""

from __future__ import annotations

import re
from typing import Any, Final

import orjson

from mcpwatch.formats.transport.unwrapped import Unwrapped
from mcpwatch.times import iso

_JOURNAL_TIME: Final = b'"__REALTIME_TIMESTAMP"'
# journald(8) takes no other names, so that a record of somebody else's, with a key MESSAGE in it, is never one of its
_JOURNAL_FIELD: Final = re.compile(r"[A-Z0-9_]{1,64}", re.ASCII)


def journal(line: bytes, written_ns: int | None) -> Unwrapped | None:
    """An entry as `journalctl -o json` writes it (systemd's JOURNAL_EXPORT_FORMATS)."""
    if _JOURNAL_TIME not in line:
        return None
    try:
        entry = orjson.loads(line)
    except (ValueError, RecursionError):
        return None
    if not isinstance(entry, dict) or "MESSAGE" not in entry or not all(map(_JOURNAL_FIELD.fullmatch, entry)):
        return None
    stamp = entry.get("__REALTIME_TIMESTAMP")
    if not isinstance(stamp, str) or not stamp.isascii() or not stamp.isdigit():
        return None
    time = _moment(int(stamp) * 1_000) if len(stamp) < 19 else None
    host, unit = _field(entry.get("_HOSTNAME")), _field(entry.get("_SYSTEMD_UNIT"))
    program = unit.removesuffix(".service") if unit else _field(entry.get("SYSLOG_IDENTIFIER"))
    message = entry["MESSAGE"]
    if message is None:
        return Unwrapped(b"", lack="journal entry without its message: write it out with journalctl --all")
    several = isinstance(message, list) and any(not isinstance(item, int) for item in message)
    texts = [text for item in (message if several else [message]) if (text := _bytes(item)) is not None]
    if not texts:
        return Unwrapped(b"", lack="journal entry whose message is no text")
    return Unwrapped(texts[-1], time, host, program, tuple(texts[:-1]))


def _bytes(value: Any) -> bytes | None:
    """A field of the journal: text, or a list of bytes where it is none."""
    if isinstance(value, str):
        return value.encode()
    try:
        return bytes(value) if isinstance(value, list) else None
    except (ValueError, TypeError):
        return None


def _field(value: Any) -> str | None:
    """A field of the journal as text; of several values the last."""
    if isinstance(value, list) and value and not isinstance(value[-1], int):
        value = value[-1]
    text = _bytes(value)
    return text.decode("utf-8", "backslashreplace") if text else None


def _moment(time_ns: int) -> str | None:
    try:
        return iso(time_ns)
    except (OverflowError, ValueError, OSError):
        return None
