"""What the panes count: sessions and their rates, calls by tier and minute, tools, and the newest records."""

from __future__ import annotations

from collections import Counter, deque
from dataclasses import dataclass, field
from typing import Final

from mcpwatch.detection.engine import Engine
from mcpwatch.detection.hit import Hit, Severity
from mcpwatch.event import OUTCOMES, AuditEvent, CallEnd, Caller, OwnLines
from mcpwatch.monitor.pipeline import Batch
from mcpwatch.policy.model import Tier
from mcpwatch.snapshot import RATE_MINUTES, TREND_BUCKETS
from mcpwatch.times import MINUTE, SECOND

BUCKET: Final = 5 * SECOND
MAX_SESSIONS: Final = 5_000
MAX_TOOLS: Final = 1_000
KEPT_RECORDS: Final = 20_000
KEPT_BYTES: Final = 64 << 20
"""Newest records that can be listed and opened: so many, and no more than fit into so many bytes of raw lines."""
MAX_OPEN: Final = 20_000
"""Calls that have begun and not ended of which the record is known again."""

FAILURES: Final = OUTCOMES - {"success", "unknown"}
"""Outcomes that count as an error of a session. A call whose outcome nobody logged is none."""

TIERS: Final = (Tier.HIGH, Tier.MEDIUM, Tier.LOW)


@dataclass(slots=True)
class SessionStats:
    """One session, or the caller of a source without sessions."""

    caller: Caller
    calls: int = 0
    errors: int = 0
    last_ns: int = 0
    tiers: dict[Tier, int] = field(default_factory=lambda: dict.fromkeys(TIERS, 0))
    buckets: list[int] = field(default_factory=lambda: [0] * TREND_BUCKETS)
    bucket: int = 0
    """Number of the newest bucket, time // BUCKET."""

    def count(self, time_ns: int) -> None:
        """Put a call into its bucket; one that is older than the buckets reach is left out."""
        number = time_ns // BUCKET
        if number > self.bucket:
            self.advance(number)
        back = self.bucket - number
        if back < TREND_BUCKETS:
            self.buckets[number % TREND_BUCKETS] += 1

    def advance(self, number: int) -> None:
        """Empty the buckets that time has passed."""
        for passed in range(max(self.bucket + 1, number - TREND_BUCKETS + 1), number + 1):
            self.buckets[passed % TREND_BUCKETS] = 0
        self.bucket = max(self.bucket, number)

    def trend(self, now_ns: int) -> tuple[int, ...]:
        """Calls in each of the last buckets, oldest first, the current one last."""
        number = now_ns // BUCKET
        return tuple(
            self.buckets[n % TREND_BUCKETS] if 0 <= self.bucket - n < TREND_BUCKETS else 0
            for n in range(number - TREND_BUCKETS + 1, number + 1)
        )

    def per_minute(self, now_ns: int) -> int:
        """Calls in the last minute."""
        return sum(self.trend(now_ns)) if now_ns // BUCKET - self.bucket < TREND_BUCKETS else 0


@dataclass(slots=True)
class Record:
    """One of the newest events, with what was found on it."""

    seq: int
    event: AuditEvent
    tier: Tier | None
    time_ns: int
    worst: Severity | None = None
    note: str = ""


def session_key(caller: Caller) -> tuple[str | None, ...]:
    """What makes two calls belong to one row of the sessions pane."""
    if caller.session is not None:
        return (caller.session,)
    return (None, caller.key, caller.client, caller.subject, caller.source_ip)


class Board:
    """Counts for the panes. Bounded: the least recent sessions and the rarest tools go first."""

    def __init__(self) -> None:
        self.sessions: dict[tuple[str | None, ...], SessionStats] = {}
        self.minutes: dict[int, dict[Tier, int]] = {}
        self.tiers: dict[Tier, int] = dict.fromkeys(TIERS, 0)
        self.tools: dict[Tier, Counter[str]] = {tier: Counter() for tier in TIERS}
        self.records: deque[Record] = deque(maxlen=KEPT_RECORDS)
        self._runs: deque[tuple[int, int]] = deque()
        """Of each run of raw lines that records hold on to: (number of its first record, bytes)."""
        self._bytes = 0
        self._open: dict[int, int] = {}
        """Of calls that have begun: id of the origin -> number of the record."""
        self.keys_last_used: dict[str, int] = {}
        self.seq = 0
        self.arrivals: deque[tuple[int, Counter[str]]] = deque(maxlen=16)
        """(arrival second, records by source) of the last seconds that had any."""

    def take(self, batch: Batch, engine: Engine, now_ns: int) -> list[int]:
        """Count a batch that arrived at `now_ns`; the numbers of records that it changes."""
        by_record: dict[tuple[str, int], Hit] = {}
        at_end: dict[tuple[str, int], Hit] = {}
        for hit in batch.hits:
            key = (hit.source, hit.offset)
            found_there = at_end if hit.ended else by_record
            known = found_there.get(key)
            if known is None or hit.severity > known.severity:
                found_there[key] = hit
        self._note_arrival(batch.events, now_ns)
        origin = None
        changed: list[int] = []
        for event in batch.events:
            if event.origin is not origin:
                if isinstance(event, CallEnd):
                    changed += self._end(event, engine, at_end.get((event.source, event.offset)), now_ns)
                    continue
                origin = event.origin
                self._hold(sum(map(len, event.origin.lines)))
                if isinstance(origin, OwnLines):
                    self._note_open(event)
            time = event.time_ns if event.time_ns is not None else now_ns
            self.seq += 1
            tier = engine.what(event).tier
            record = Record(self.seq, event, tier, time)
            if by_record and (found := by_record.get((event.source, event.offset))) is not None:
                record.worst, record.note = found.severity, found.reason or found.rule
            self.records.append(record)
            self._count(event, tier, time)
        return changed

    def _note_open(self, start: AuditEvent) -> None:
        """Remember which record a call is that has begun."""
        if len(self._open) >= MAX_OPEN:
            for oldest in list(self._open)[: MAX_OPEN // 2]:
                del self._open[oldest]
        self._open[id(start.origin)] = self.seq + 1

    def _end(self, call: CallEnd, engine: Engine, hit: Hit | None, now_ns: int) -> list[int]:
        """Count how a call came out; the number of its record, if that is kept."""
        start: AuditEvent = call.start
        self._hold(len(call.origin.lines[1]))
        seq = self._open.pop(id(start.origin), None)
        record = self.find(seq) if seq is not None else None
        tier = engine.what(call).tier
        time = call.time_ns if call.time_ns is not None else now_ns
        if call.before.kind == "tool_call" and call.before.tool is not None:
            stats = self.sessions.get(session_key(call.caller))
            if stats is not None:
                stats.errors += call.status in FAILURES
        else:
            self._count(call, tier, time)
        if record is None or record.event is not start:
            return []
        record.tier = tier
        if hit is not None and (
            record.worst is None or hit.amends is not None or hit.severity > record.worst
        ):
            record.worst, record.note = hit.severity, hit.reason or hit.rule
        return [record.seq]

    def _hold(self, size: int) -> None:
        """Make room for a run of raw lines; records whose lines must go, go with them."""
        self._runs.append((self.seq + 1, size))
        self._bytes += size
        while self._bytes > KEPT_BYTES and len(self._runs) > 1:
            self._bytes -= self._runs.popleft()[1]
            first = self._runs[0][0]
            while self.records and self.records[0].seq < first:
                self.records.popleft()
        oldest = self.records[0].seq if self.records else 0
        while len(self._runs) > 1 and self._runs[1][0] <= oldest:
            self._bytes -= self._runs.popleft()[1]

    def _count(self, event: AuditEvent, tier: Tier | None, time: int) -> None:
        caller: Caller = event.caller
        if caller.key is not None:
            if len(self.keys_last_used) > MAX_SESSIONS:
                self.keys_last_used.clear()
            self.keys_last_used[caller.key] = max(time, self.keys_last_used.get(caller.key, 0))
        if tier is None or event.event != "tool_call":
            return
        key = session_key(caller)
        stats = self.sessions.get(key)
        if stats is None:
            if len(self.sessions) >= MAX_SESSIONS:
                self._forget_sessions()
            stats = self.sessions[key] = SessionStats(caller)
        stats.calls += 1
        stats.tiers[tier] += 1
        stats.errors += event.status in FAILURES
        stats.last_ns = max(stats.last_ns, time)
        stats.count(time)
        self.tiers[tier] += 1
        tools = self.tools[tier]
        tools[event.tool or ""] += 1
        if len(tools) > MAX_TOOLS:
            self.tools[tier] = Counter(dict(tools.most_common(MAX_TOOLS // 2)))
        minute = time // MINUTE
        counts = self.minutes.get(minute)
        if counts is None:
            counts = self.minutes[minute] = dict.fromkeys(TIERS, 0)
            if len(self.minutes) > 4 * RATE_MINUTES:
                for old in sorted(self.minutes)[: -2 * RATE_MINUTES]:
                    del self.minutes[old]
                counts = self.minutes.setdefault(minute, counts)
        counts[tier] += 1

    def _forget_sessions(self) -> None:
        by_use = sorted(self.sessions, key=lambda key: self.sessions[key].last_ns)
        for key in by_use[: MAX_SESSIONS // 10]:
            del self.sessions[key]

    def _note_arrival(self, events: list[AuditEvent], now_ns: int) -> None:
        if not events:
            return
        second = now_ns // SECOND
        if not self.arrivals or self.arrivals[-1][0] != second:
            self.arrivals.append((second, Counter()))
        self.arrivals[-1][1].update(event.source for event in events)

    def per_second(self, now_ns: int, source: str | None = None) -> float:
        """Records that arrived a second, over the last five whole seconds; of one source, if that is named."""
        second = now_ns // SECOND
        recent = [counts for at, counts in self.arrivals if second - 5 <= at < second]
        return sum(counts.total() if source is None else counts[source] for counts in recent) / 5

    def find(self, seq: int) -> Record | None:
        """A record by its number, while it is kept."""
        if not self.records or not self.records[0].seq <= seq <= self.records[-1].seq:
            return None
        return self.records[seq - self.records[0].seq]

    def newest(self, count: int) -> list[Record]:
        """The newest records, oldest first."""
        records = self.records
        return [records[i] for i in range(max(0, len(records) - count), len(records))]
