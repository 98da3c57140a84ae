"""The chain of a log: the numbers and hashes by which its records follow on each other."""

from __future__ import annotations

import hashlib
import re
from typing import Final

from mcpwatch.detection.case import Found
from mcpwatch.detection.hit import Severity
from mcpwatch.detection.reference import Link, ReferenceTime
from mcpwatch.event import AuditEvent
from mcpwatch.text import safe

_NO_HASH: Final = re.compile(r"(?:sha256:)?0*|genesis|none|null", re.IGNORECASE)
_MAX_CHAINS: Final = 1_000
_MAX_KEPT: Final = 256


def _kept(text: str | None) -> str | None:
    """The text, or what stands for one that is too long to be kept for each server."""
    if text is None or len(text) <= _MAX_KEPT:
        return text
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def broken_chain(event: AuditEvent, source: ReferenceTime) -> Found | None:
    """What doesn't fit between a record and the one before it in the same log, by their numbers and hashes.

    A number of 0 or 1 that does not follow is the beginning of a new log: a server that starts anew counts anew.
    """
    server = _kept(event.server)
    before = source.chains.get(server)
    number, own, expected = event.sequence, _kept(event.hash), _kept(event.prev_hash)
    if before is None or (number in (0, 1) and before.sequence != number - 1):
        if before is None and len(source.chains) >= _MAX_CHAINS:
            source.chains.clear()
        source.chains[server] = Link(number, own)
        if before is None or expected is None or expected == before.hash or _NO_HASH.fullmatch(expected):
            return None
        return _broken(
            event, f"record {number} begins a new log, and yet is chained to a record that is not there"
        )
    source.chains[server] = Link(number if number is not None else before.sequence, own)
    if number is not None and before.sequence is not None and number != before.sequence + 1:
        lost = number - before.sequence - 1
        said = f"{lost} records are missing" if lost > 0 else "the numbers go back"
        return _broken(event, f"record {number} follows on record {before.sequence}: {said}")
    if expected is not None and before.hash is not None and expected != before.hash:
        return _broken(event, "the record before is not the one that this record was chained to")
    return None


def _broken(event: AuditEvent, problem: str) -> Found:
    return Found("audit-gap", Severity.HIGH, problem, safe(event.server or event.source, 200), nobody=True)
