"""What a change comes to in one file: the text that goes in and out, and the policy that it must then mean."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from mcpwatch.policy.edit.splice import Splice
from mcpwatch.policy.model import Policy


@dataclass(frozen=True, slots=True)
class Step:
    """What a change comes to; no splices where it is already so."""

    summary: str
    splices: Sequence[Splice]
    expected: Policy


def microseconds(ns: int) -> int:
    """A time in ns as the file can hold it."""
    return ns // 1_000 * 1_000


def same_time(at: int, wanted_ns: int | None) -> bool:
    """Whether the file holds a time that was wanted; None wants any."""
    return wanted_ns is None or at // 1_000 == wanted_ns // 1_000
