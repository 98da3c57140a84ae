"""Does it bite? Watches the log for what became of every restriction in the policy."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final, Literal, NamedTuple

from mcpwatch.detection.enforcement import DisabledTool, Enforcement, Restriction
from mcpwatch.event import AuditEvent, CallEnd
from mcpwatch.policy.model import Lockout, Policy, Revocation
from mcpwatch.times import format_duration

ForceState = Literal["written", "untested", "in force", "NOT IN FORCE"]
"""Whether a change bites. `untested`: nobody tried since. `in force`: a refusal was seen, and no success after it."""

_MAX: Final = 50_000
_MAX_TURNS: Final = 10_000

Identity = tuple[str | int | None, ...]
"""What stays the same of a restriction while its reason or its end is changed."""


def identity(restriction: Restriction) -> Identity:
    """Which restriction it is."""
    match restriction:
        case Revocation():
            return restriction.kind, restriction.id, restriction.at
        case Lockout():
            return "lockout", restriction.key, restriction.source_ip, restriction.at
        case DisabledTool():
            return "tool", restriction.tool, restriction.since


def since(restriction: Restriction) -> int | None:
    """Since when it holds, ns; None where the policy does not say."""
    return restriction.since if isinstance(restriction, DisabledTool) else restriction.at


def until(restriction: Restriction) -> int | None:
    """When it ends by itself, ns; None for never."""
    return None if isinstance(restriction, DisabledTool) else restriction.until


def restrictions_of(policy: Policy) -> list[Restriction]:
    """Everything that a policy holds against somebody or something by name."""
    disabled = (DisabledTool(name, tool.since) for name, tool in policy.tools.items() if not tool.enabled)
    return [*policy.revoked, *policy.lockouts, *disabled]


class Turn(NamedTuple):
    """A restriction was seen to bite, or not to, for the first time or after the contrary.

    Attributes:
        time_ns: Time of the event that shows it.
    """

    restriction: Restriction
    state: ForceState
    time_ns: int


@dataclass(slots=True)
class _Seen:
    refused_ns: int | None = None
    """First refusal since the last success."""
    succeeded_ns: int | None = None

    @property
    def state(self) -> ForceState:
        if self.refused_ns is not None:
            return "in force"
        return "untested" if self.succeeded_ns is None else "NOT IN FORCE"


class Confirmations:
    """What was seen of each restriction. A refusal puts it in force, a later success withdraws that.

    Attributes:
        turns: What changed, oldest first, since somebody last took it.
    """

    def __init__(self) -> None:
        self.turns: list[Turn] = []
        self._seen: dict[Identity, _Seen] = {}

    def observe(self, sightings: Iterable[Enforcement]) -> None:
        """Take in what the engine saw."""
        for restriction, time, refused, early in sightings:
            name = identity(restriction)
            seen = self._seen.get(name)
            if seen is None:
                if len(self._seen) >= _MAX:
                    self._seen.clear()
                seen = self._seen[name] = _Seen()
            before = seen.state
            if not refused:
                if not early and (seen.succeeded_ns is None or time > seen.succeeded_ns):
                    seen.succeeded_ns = time
                if seen.refused_ns is not None and time >= seen.refused_ns:
                    seen.refused_ns = None
            elif seen.refused_ns is None and (seen.succeeded_ns is None or time > seen.succeeded_ns):
                seen.refused_ns = time
            if seen.state != before and len(self.turns) < _MAX_TURNS:
                self.turns.append(Turn(restriction, seen.state, time))

    def state(self, restriction: Restriction, since_ns: int) -> tuple[ForceState, str]:
        """The state of a restriction that holds since `since_ns`, and what says so."""
        seen = self._seen.get(identity(restriction))
        state: ForceState = "untested" if seen is None else seen.state
        if seen is not None and seen.refused_ns is not None:
            return state, f"after {format_duration(max(seen.refused_ns - since_ns, 0))}"
        if seen is not None and seen.succeeded_ns is not None:
            return state, f"success {format_duration(max(seen.succeeded_ns - since_ns, 0))} after the change"
        return "untested", "no attempt since"  # but for successes within the grace

    def proof(self, restriction: Restriction) -> tuple[ForceState, int | None]:
        """The state of a restriction, and the time of the event that shows it, ns."""
        seen = self._seen.get(identity(restriction))
        if seen is None:
            return "untested", None
        return seen.state, seen.refused_ns if seen.refused_ns is not None else seen.succeeded_ns


class SavedSightings:
    """Holds back what saved records show until it is clear that their clock was right.

    A record from the future would prove for ever what nothing after it can take back. In a saved log that is one
    after which its log goes on more than the allowed lateness earlier.
    """

    def __init__(self, lateness_ns: int) -> None:
        self._lateness = lateness_ns
        self._held: list[Enforcement] = []
        self._last: dict[str, int] = {}
        self._ahead: set[int] = set()

    def take(self, events: Sequence[AuditEvent], sightings: Iterable[Enforcement]) -> list[Enforcement]:
        """Take in events and what they show; what those before them show for certain."""
        new = list(sightings)
        if not new and not self._held:
            self._last.clear()
            return []
        last, ahead = self._last, self._ahead
        for event in events:
            time = event.time_ns
            if time is None or isinstance(event, CallEnd):
                continue  # a call that ends has the time at which it began
            source = event.source
            before = last.get(source, time)
            if time < before - self._lateness:
                ahead.add(before)
            last[source] = time
        sure = self.rest()
        self._held = new
        ahead.intersection_update(seen.time_ns for seen in new)
        return sure

    def rest(self) -> list[Enforcement]:
        """What is still held back, when nothing comes any more."""
        sure = [seen for seen in self._held if seen.time_ns not in self._ahead]
        self._held = []
        return sure


def sentence(state: str, detail: str) -> str:
    """State and detail as one reads them: `in force after 0.4 s`, `untested, no attempt since`."""
    if not detail:
        return state
    return f"{state} {detail}" if detail.startswith("after ") else f"{state}, {detail}"
