"""What the console draws: immutable pictures of the monitor's state, safe to show.

The monitor publishes a `Snapshot`; drilling down asks it for a `…Detail`. Every string that comes from a log or
a file name is `SafeText`. Raw ids stand only in `Target` and in `facts`, which are never drawn.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal, Protocol

from mcpwatch.detection.hit import Severity
from mcpwatch.event import AuditEvent
from mcpwatch.policy.model import Tier
from mcpwatch.response.confirm import ForceState
from mcpwatch.response.exception import Choice
from mcpwatch.response.exceptionfile import ExceptionPlan
from mcpwatch.response.lockout import LockoutState
from mcpwatch.response.plan import Plan, Target, Verb
from mcpwatch.text import SafeText

TREND_BUCKETS: Final = 12
"""Length of a session's trend: five seconds a bucket, the last minute."""
RATE_MINUTES: Final = 15
"""Length of a tier's history, one number a minute."""


@dataclass(frozen=True, slots=True)
class Counters:
    """Lines = understood + not_understood + blank + repeated + joined + held, at any moment."""

    lines: int = 0
    understood: int = 0
    not_understood: int = 0
    blank: int = 0
    repeated: int = 0
    joined: int = 0
    held: int = 0
    events: int = 0
    late: int = 0
    gaps: int = 0


@dataclass(frozen=True, slots=True)
class GapRow:
    """Bytes that are known to be lost, or may be."""

    seen_ns: int
    """When it was found."""
    offset: int
    size: int | None
    """Bytes lost; None when that cannot be known."""
    reason: SafeText


@dataclass(frozen=True, slots=True)
class SourceRow:
    """One log: is it read, and what does it tell?"""

    name: SafeText
    path: SafeText
    state: Literal["waiting", "reading", "refused", "ended"]
    note: SafeText
    counters: Counters
    format: SafeText
    coverage: tuple[tuple[str, int, int], ...]
    """The five fields that every tool call should have: (name, calls that have it, calls)."""
    behind: int
    """Bytes in the file that were not read yet."""
    per_second: float
    oversize: int = 0
    """Lines over 1 MiB: counted as not understood, and judged by no rule."""
    gaps: tuple[GapRow, ...] = ()
    """The newest gaps, newest first; `counters.gaps` counts all."""
    lost: int = 0
    """Bytes in all gaps whose size is known."""
    rotations: int = 0
    truncations: int = 0
    filesystem: SafeText | None = None
    """The network file system that the log lies on, which says nothing of changes and is polled; else None."""
    senders: tuple[SafeText, ...] = ()
    """Who is connected, of a source that others send to."""
    last_record_ns: int | None = None
    """The newest record's own time, as far as it was seen live."""
    formats: tuple[tuple[SafeText, int], ...] = ()
    """The formats met, (name, records), those with most first; `format` is the first of them."""
    reasons: tuple[tuple[SafeText, int], ...] = ()
    """Why lines were not understood, (reason, lines), the most frequent first."""
    open_calls: int = 0
    """Calls that began and have not ended."""
    unended_calls: int = 0
    """Calls whose end did not come in time: their outcome stays unknown."""


@dataclass(frozen=True, slots=True)
class SessionRow:
    """A session, or the principal of a source that has no sessions."""

    ref: str
    """Opaque handle for `Feed.session`."""
    session: SafeText
    key: SafeText
    client: SafeText
    per_minute: int
    trend: tuple[int, ...]
    high: int
    medium: int
    low: int
    errors: int
    calls: int
    last_ns: int
    worst: Severity | None
    """The worst open incident that it takes part in."""
    targets: tuple[Target, ...]


@dataclass(frozen=True, slots=True)
class RateRow:
    """Tool calls of one tier: one number a minute, oldest first, the last one still growing."""

    tier: Tier
    per_minute: tuple[int, ...]
    now: int
    median: int


@dataclass(frozen=True, slots=True)
class TierRow:
    """One risk tier: how many calls, which share of all, and by which tools (most used first)."""

    tier: Tier
    calls: int
    share: float
    tools: tuple[tuple[SafeText, int], ...]


@dataclass(frozen=True, slots=True)
class AlertRow:
    """An incident in the list of alerts, worst first."""

    id: str
    severity: Severity
    first_ns: int
    last_ns: int
    rule: str
    title: str
    subject: SafeText
    count: int
    note: SafeText
    """The most telling fact: "2 denied, 1 ok", "NOT IN FORCE", "in force"."""
    quiet: bool
    targets: tuple[Target, ...]


@dataclass(frozen=True, slots=True)
class EventRow:
    """One record in the list of events."""

    seq: int
    """Grows by one with every event; names the record for `Feed.record`."""
    time_ns: int
    key: SafeText
    session: SafeText
    client: SafeText
    tool: SafeText
    """The tool, or the kind of event where there is none."""
    detail: SafeText
    """The argument that matters most, redacted: a path, a URL, a command."""
    status: str
    duration_ms: float | None
    tier: Tier | None
    worst: Severity | None
    """Severity of the worst hit on this event."""
    note: SafeText
    """Why it was a hit, in a few words."""
    facts: AuditEvent
    """For the filter only; never drawn."""
    targets: tuple[Target, ...]
    open: bool = False
    """A call whose end, a line of its own, was not read."""


@dataclass(frozen=True, slots=True)
class ChangeRow:
    """A change made through the policy file, and whether it bites."""

    what: SafeText
    at_ns: int
    by: SafeText
    state: ForceState | LockoutState
    detail: SafeText
    """"after 0.4 s", "no attempt since", "success 12 s after the change"."""


@dataclass(frozen=True, slots=True)
class PolicyRow:
    """The policy in one line."""

    path: SafeText | None
    """None: no policy file, the built-in one is used."""
    error: SafeText | None
    """Why the file on disk can't be used; the last good policy stays in force here."""
    revoked: int
    locked: int
    changes_off: SafeText | None
    """Why nothing can be changed from here, or None when it can."""
    lockouts: tuple[tuple[Target, ...], ...] = ()
    """Whom the current lockouts shut out, each once."""


@dataclass(frozen=True, slots=True)
class ReplayRow:
    """Where a replay stands."""

    start_ns: int
    end_ns: int
    at_ns: int
    playing: bool
    speed: float
    """Seconds of log per second; inf is as fast as it goes."""
    marks: tuple[tuple[int, Severity], ...]
    """First hit of every incident of the whole log, in order of time."""
    indexed: float
    """Share of the log that has been surveyed for the marks, 0 to 1."""


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Everything that the main screen shows."""

    version: int
    """Grows with every change of content; two snapshots of one version are equal."""
    now_ns: int
    """Time that "per minute" refers to: the clock when live, the cursor in a replay."""
    per_second: float
    lag_s: float | None
    """Arrival time less event time of the newest record; None before the first one and in a replay."""
    counters: Counters
    sources: tuple[SourceRow, ...]
    policy: PolicyRow
    severities: tuple[int, int, int, int]
    """Open incidents: critical, high, medium, low."""
    sessions: tuple[SessionRow, ...]
    """The busiest, at most 200, by rate."""
    session_count: int
    rates: tuple[RateRow, ...]
    tiers: tuple[TierRow, ...]
    alerts: tuple[AlertRow, ...]
    """Worst first, then newest; at most 500."""
    alert_count: int
    events: tuple[EventRow, ...]
    """The newest, oldest first, at most 2,000."""
    changes: tuple[ChangeRow, ...]
    """Newest first."""
    notices: tuple[SafeText, ...]
    """Banners: no policy, a broken policy, gaps, evictions, where reading began."""
    replay: ReplayRow | None = None


@dataclass(frozen=True, slots=True)
class EvidenceRow:
    """A record that an incident rests on."""

    source: SafeText
    line: int | None
    offset: int
    time_ns: int
    seq: int | None
    """Handle for `Feed.record`, while the record is still in memory or can be read again."""
    text: SafeText
    """The record in short."""


@dataclass(frozen=True, slots=True)
class LockoutRow:
    """Where the lockout of somebody whose logins fail stands."""

    state: LockoutState | None
    """None: mcpwatch never locks them out by itself, and `detail` says why."""
    detail: SafeText
    command: SafeText | None
    """What writes it, where it is advised."""


@dataclass(frozen=True, slots=True)
class RuleRate:
    """How often a rule fired in this run (in a replay, on the whole log)."""

    hits: int
    incidents: int
    subjects: int
    capped: bool
    """There are more incidents and subjects than are counted."""
    hours: int
    """Hours of the clock in which anything was logged."""
    unit: str
    """What is counted, in words; empty for rules that don't count."""
    peak: int | None
    """The highest count seen, of rules that count."""
    limits: tuple[tuple[int, int], ...]
    """Limits above the rule's own, and how many of the hits there would be; the last one is quiet."""


@dataclass(frozen=True, slots=True)
class IncidentDetail:
    """An incident, opened."""

    row: AlertRow
    why: SafeText
    """One sentence."""
    limit: str
    peak: int | None
    outcomes: tuple[tuple[str, int], ...]
    evidence: tuple[EvidenceRow, ...]
    evidence_left_out: int
    tags: tuple[str, ...]
    runbook: tuple[str, ...]
    changes: tuple[ChangeRow, ...]
    """What was done about its principal."""
    related: tuple[AlertRow, ...]
    """Other incidents of the same principal."""
    lockout: LockoutRow | None = None
    """For failed logins: where the lockout stands."""
    rate: RuleRate | None = None
    place: SafeText | None = None
    """The file of a rule that does not come with mcpwatch."""
    tuned: tuple[SafeText, ...] = ()
    """Exceptions and thresholds of the rule that are in use."""


@dataclass(frozen=True, slots=True)
class ExceptionRow:
    """An exception that was written, and whether it is in use."""

    path: SafeText
    in_use: bool
    note: SafeText
    """Why it is not in use, or when it will be."""


@dataclass(frozen=True, slots=True)
class SessionDetail:
    """A session, opened: its newest records and its incidents."""

    row: SessionRow
    timeline: tuple[EventRow, ...]
    alerts: tuple[AlertRow, ...]


@dataclass(frozen=True, slots=True)
class RecordDetail:
    """One record, opened."""

    row: EventRow
    fields: tuple[tuple[str, SafeText], ...]
    verdicts: tuple[tuple[str, str, SafeText], ...]
    """(aspect, verdict, reason with the value)."""
    raw: tuple[SafeText, ...]
    """The record as JSON, redacted, a line each; the raw line where it is no JSON."""
    where: SafeText
    """Source, line and byte offset."""


@dataclass(frozen=True, slots=True)
class PolicyDetail:
    """The policy, opened. Tables are (header, rows) of safe text."""

    row: PolicyRow
    tools: tuple[tuple[SafeText, ...], ...]
    """tool, tier, enabled, paths, domains, scope, audit log"""
    keys: tuple[tuple[SafeText, ...], ...]
    """key, client, owner, scopes, age in days, last use"""
    revoked: tuple[tuple[SafeText, ...], ...]
    """principal, since, until, by, reason, state"""
    lockouts: tuple[tuple[SafeText, ...], ...]
    """key, address, since, until, rule, state"""


class Feed(Protocol):
    """What the console asks the monitor. Every call is quick (milliseconds) and safe from any thread."""

    def snapshot(self) -> Snapshot:
        """The newest snapshot."""

    def incident(self, incident_id: str) -> IncidentDetail | None:
        """An incident by id."""

    def session(self, ref: str) -> SessionDetail | None:
        """A session by the `ref` of its row."""

    def record(self, seq: int) -> RecordDetail | None:
        """A record by the `seq` of its row."""

    def policy(self) -> PolicyDetail:
        """The policy as it is now."""

    def plan(self, verb: Verb, targets: tuple[Target, ...], reason: str) -> Plan:
        """Work out a change. Raises ResponseError."""

    def apply(self, plan: Plan) -> ChangeRow:
        """Write what was shown. Raises ResponseError; nothing is written then."""

    def plan_undo(self) -> Plan:
        """The reverse of the newest change made here that is not undone yet. Raises ResponseError."""

    def exceptions(self, incident_id: str) -> tuple[Choice, ...]:
        """What one could say to quiet the rule of an incident. Raises ResponseError: nothing, and why."""

    def first_term(self, choice: Choice) -> str:
        """The limit or the last day that is proposed for a choice."""

    def plan_exception(self, incident_id: str, choice: Choice, reason: str, term: str) -> ExceptionPlan:
        """Work out an exception; `term` is its last day, or the limit. Raises ResponseError."""

    def write_exception(self, plan: ExceptionPlan) -> ExceptionRow:
        """Write what was shown. Raises ResponseError; nothing is written then."""


class Player(Protocol):
    """The controls of a replay."""

    def toggle(self) -> None:
        """Play or pause."""

    def set_speed(self, speed: float) -> None:
        """Seconds of log per second; inf is as fast as it goes."""

    def step(self, events: int) -> None:
        """Go on by that many events (back when negative), and pause."""

    def seek(self, time_ns: int) -> None:
        """Go to a time."""

    def next_incident(self, direction: int) -> None:
        """Go to where the next (1) or previous (-1) incident begins."""


SPEEDS: Final = (1.0, 2.0, 5.0, 10.0, 60.0, 600.0, float("inf"))
"""Steps of the replay speed."""
