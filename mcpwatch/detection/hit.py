"""A hit: one rule firing on one event."""

from __future__ import annotations

from enum import IntEnum
from typing import NamedTuple

Subject = tuple[tuple[str, str], ...]
"""Whom a hit is about, as (kind, id) pairs: `(("key", "key_0007"), ("source_ip", "203.0.113.9"))`.

Kinds: `session`, `key`, `client`, `subject`, `source_ip`, and `gap` for what failed to be enforced.
"""


class Severity(IntEnum):
    """How bad it is; higher is worse."""

    LOW = 1
    MEDIUM = 2
    HIGH = 3
    CRITICAL = 4

    @property
    def label(self) -> str:
        """`low`, `medium`, `high` or `critical`."""
        return self.name.lower()

    @classmethod
    def named(cls, label: str) -> Severity:
        """The severity of that label. Raises KeyError for any other word."""
        return cls[label.upper()]


class Hit(NamedTuple):
    """One rule firing on one event.

    Of a call that is logged in two lines some hits are made when it begins, with outcome `unknown`. When it ends,
    what it is found to be now makes further hits, and those from the beginning are said anew, as amendments: with the
    final outcome, and the severity that goes with it. What was found when the call began and would not be found with
    its final outcome stays, with its severity.

    Attributes:
        rule: Rule id.
        subject: Whom the rule grouped by.
        time_ns: Time of the event; the arrival time where a record had none.
        outcome: Status of the event.
        reason: Why, in one clause; empty for window rules, whose limit says it.
        peak: Events (or distinct values) in the fullest window that contains the event; 0 for stateless rules.
        source: Where the record is: name of the log,
        line: its line (None after a start in the middle),
        offset: and its byte offset.
        limit: The limit that was set for such events, where it is not the rule's own.
        ended: It was made when the call ended, after an event of its own for the beginning.
        amends: It is the hit that the beginning made, which had this severity and outcome `unknown`.
    """

    rule: str
    subject: Subject
    time_ns: int
    severity: Severity
    outcome: str
    reason: str
    peak: int
    source: str
    line: int | None
    offset: int
    limit: int | None = None
    ended: bool = False
    amends: Severity | None = None
