"""What is being enforced, and the events that tell whether it bites."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple, TypeVar

from mcpwatch.policy.model import Lockout, Revocation


class DisabledTool(NamedTuple):
    """A tool that is switched off, and since when, ns: switched on and off again it is another restriction."""

    tool: str
    since: int | None


Restriction = Revocation | Lockout | DisabledTool
"""What is being enforced: an entry of the policy, or a disabled tool."""

Entry = TypeVar("Entry", Revocation, Lockout)
"""An entry of the policy that restricts a caller."""


class Enforcement(NamedTuple):
    """An event that tells whether a restriction bites: a refusal proves that it does, a success that it does not.

    A success within the grace (`early`) proves nothing yet; it only takes back what a refusal before seemed to prove.
    """

    restriction: Restriction
    time_ns: int
    refused: bool
    early: bool = False


def in_force(entries: Iterable[Entry], time_ns: int) -> list[Entry]:
    """Those of the entries that hold at a time."""
    return [
        entry for entry in entries if entry.at <= time_ns and (entry.until is None or time_ns < entry.until)
    ]
