"""Does it bite? Watches the log for what became of every restriction in the policy."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final, Literal

from mcpwatch.detection.checks import Enforcement, Restriction
from mcpwatch.times import format_duration

ForceState = Literal["written", "untested", "in force", "NOT IN FORCE"]
"""Whether a change bites. `untested`: nobody tried since. `in force`: a refusal was seen, and no success after it."""

_MAX: Final = 50_000


@dataclass(slots=True)
class _Seen:
    refused_ns: int | None = None
    """First refusal since the last success."""
    succeeded_ns: int | None = None


class Confirmations:
    """What was seen of each restriction. A refusal puts it in force, a later success withdraws that."""

    def __init__(self) -> None:
        self._seen: dict[Restriction, _Seen] = {}

    def observe(self, sightings: Iterable[Enforcement]) -> None:
        """Take in what the engine saw."""
        for restriction, time, refused, early in sightings:
            seen = self._seen.get(restriction)
            if seen is None:
                if len(self._seen) >= _MAX:
                    self._seen.clear()
                seen = self._seen[restriction] = _Seen()
            if not refused:
                if not early and (seen.succeeded_ns is None or time > seen.succeeded_ns):
                    seen.succeeded_ns = time
                if seen.refused_ns is not None and time >= seen.refused_ns:
                    seen.refused_ns = None
            elif seen.refused_ns is None and (seen.succeeded_ns is None or time > seen.succeeded_ns):
                seen.refused_ns = time

    def state(self, restriction: Restriction, since_ns: int) -> tuple[ForceState, str]:
        """The state of a restriction that holds since `since_ns`, and what says so."""
        seen = self._seen.get(restriction)
        if seen is None:
            return "untested", "no attempt since"
        if seen.refused_ns is not None:
            return "in force", f"after {format_duration(max(seen.refused_ns - since_ns, 0))}"
        if seen.succeeded_ns is None:
            return "untested", "no attempt since"  # but for successes within the grace
        success = seen.succeeded_ns - since_ns
        return "NOT IN FORCE", f"success {format_duration(max(success, 0))} after the change"


def sentence(state: ForceState, detail: str) -> str:
    """State and detail as one reads them: `in force after 0.4 s`, `untested, no attempt since`."""
    if not detail:
        return state
    return f"{state} {detail}" if state == "in force" else f"{state}, {detail}"
