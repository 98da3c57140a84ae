"""What a check is given, an event with all that is known of it, and what it gives back."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import NamedTuple

from mcpwatch.credentials import PROCESS_KEY
from mcpwatch.detection.enforcement import Enforcement, in_force
from mcpwatch.detection.hit import Severity, Subject
from mcpwatch.detection.principal import Identity
from mcpwatch.detection.repository import does_nothing_there
from mcpwatch.event import AuditEvent, Flag
from mcpwatch.policy.judge import Judge, ToolJudge
from mcpwatch.policy.marks import Mark, marks
from mcpwatch.policy.model import Lockout, Policy, Revocation, Tier
from mcpwatch.policy.params import in_repository


class Found(NamedTuple):
    """What a check finds: its name, which rules stand on, how bad it is, and why.

    Attributes:
        gap: What was not enforced, or which log is broken: part of the subject.
        nobody: It is about a log and not about whoever the record names.
    """

    check: str
    severity: Severity
    reason: str
    gap: str | None = None
    nobody: bool = False


@dataclass(frozen=True, slots=True)
class What:
    """Everything that is the same for all events of one shape.

    Attributes:
        guard: Cheap look at the event alone; false when no check can fire on it. None where there is no check.
    """

    kind: str
    tool: str | None
    status: str
    tier: Tier | None
    judge: ToolJudge | None
    guard: Guard | None
    checks: tuple[Check, ...]

    @property
    def example(self) -> AuditEvent:
        """An event of this kind."""
        return AuditEvent(event=self.kind, tool=self.tool, status=self.status)


@dataclass(frozen=True, slots=True)
class Who:
    """Everything that is the same for all events of one caller."""

    identity: Identity
    principal: Subject | None
    identified: bool
    """Has a key, a subject or a client."""
    revocations: tuple[Revocation, ...]
    lockouts: tuple[Lockout, ...]
    checks: tuple[Check, ...]
    wakes: int
    """No check fires on an event before this time, ns."""


@dataclass(slots=True)
class Case:
    """One event before the checks.

    Attributes:
        time_ns: The event's time, or the best guess where it has none.
        identified_ns: When a caller was last named in this source; before every time if never.
    """

    event: AuditEvent
    who: Who
    what: What
    time_ns: int
    identified_ns: int
    policy: Policy
    judge: Judge
    enforcement: list[Enforcement]
    fingerprint_key: bytes = PROCESS_KEY
    _marks: tuple[Mark, ...] | None = None

    @property
    def marks(self) -> tuple[Mark, ...]:
        """What stands out in the parameters, whatever the policy says."""
        if self._marks is None:
            params = self.event.params
            # most records are looked at again for another reason than what stands in them
            judge = self.what.judge
            blank = params is None or (judge is not None and not judge.marks_in(params))
            found = () if blank else marks(params, own=self.judge.own)
            if params is not None and in_repository(params):
                found = tuple(mark for mark in found if not does_nothing_there(mark))
            self._marks = found
        return self._marks

    @property
    def outcome(self) -> str:
        """How the call ended, as the end of a reason."""
        return f"outcome {self.what.status}"

    @property
    def restrictions(self) -> list[Revocation | Lockout]:
        """What the caller is under at the time of the call."""
        return [*in_force(self.who.revocations, self.time_ns), *in_force(self.who.lockouts, self.time_ns)]

    def note(self, seen: Enforcement) -> None:
        """Take note of an event that tells whether a restriction bites."""
        # a record from the future would prove for ever what nothing after it can take back
        if not self.event.flags & Flag.FUTURE_TIME:
            self.enforcement.append(seen)


Check = Callable[[Case], Iterable[Found]]
Guard = Callable[[AuditEvent], object]
"""False when the check can't fire on this event."""
