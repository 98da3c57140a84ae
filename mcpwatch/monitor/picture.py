"""Draws the picture: what the monitor knows becomes the rows of a snapshot."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Final

from mcpwatch.detection.enforcement import DisabledTool, Restriction
from mcpwatch.detection.hit import Severity
from mcpwatch.incidents.incident import Incident
from mcpwatch.monitor.board import TIERS, SessionStats, session_key
from mcpwatch.monitor.known import Known
from mcpwatch.monitor.pipeline import NO_POLICY
from mcpwatch.monitor.rows import alert_row, event_row, session_label, short, targets_of
from mcpwatch.monitor.sourcerows import counters, source_notices, source_rows
from mcpwatch.policy.edit import Change, Disable, Lock, Revoke
from mcpwatch.policy.model import Lockout, Policy
from mcpwatch.response.confirm import ForceState
from mcpwatch.response.lockout import RULE as LOCKOUT_RULE
from mcpwatch.response.lockout import LockoutState, Offender, exempt, lock_command, offender_of
from mcpwatch.response.operator import Made
from mcpwatch.response.plan import Target
from mcpwatch.snapshot import (
    RATE_MINUTES,
    AlertRow,
    ChangeRow,
    EventRow,
    LockoutRow,
    PolicyRow,
    RateRow,
    SessionRow,
    Snapshot,
    TierRow,
)
from mcpwatch.text import SafeText, safe
from mcpwatch.times import MINUTE, SECOND, iso

SHOWN_SESSIONS: Final = 200
SHOWN_ALERTS: Final = 500
SHOWN_EVENTS: Final = 2_000
SHOWN_TOOLS: Final = 12
SHOWN_CHANGES: Final = 20
_RULE_NOTICES: Final = 3

_SHORT_OUTCOMES: Final = {"success": "ok", "unauthenticated": "unauth", "rate_limited": "limited"}

Worst = Mapping[tuple[str, str], Severity]
"""The worst incident of every id that a subject names, by (kind, id)."""


def picture(known: Known, version: int) -> Snapshot:
    """Everything that the main screen shows, as it is now."""
    now = known.now_ns
    fold = known.pipeline.fold
    by_severity = fold.by_severity()
    return Snapshot(
        version=version,
        now_ns=now,
        per_second=round(known.board.per_second(now), 1),
        lag_s=known.lag_s if known.replay is None else None,
        counters=counters(known),
        sources=tuple(source_rows(known, now)),
        policy=policy_row(known),
        severities=(
            by_severity[Severity.CRITICAL],
            by_severity[Severity.HIGH],
            by_severity[Severity.MEDIUM],
            by_severity[Severity.LOW],
        ),
        sessions=_sessions(known, now),
        session_count=len(known.pipeline.engine.sessions),
        rates=_rates(known, now),
        tiers=_tiers(known),
        alerts=tuple(alert_rows(known, SHOWN_ALERTS)),
        alert_count=len(fold),
        events=tuple(
            row for r in known.board.newest(SHOWN_EVENTS) if (row := row_of(known, r.seq)) is not None
        ),
        changes=tuple(change_row(known, made) for made in reversed(known.operator.made[-SHOWN_CHANGES:])),
        notices=_notices(known),
        replay=known.replay,
    )


def row_of(known: Known, seq: int) -> EventRow | None:
    """The row of a record, made once; None when it is no longer kept."""
    row = known.rows.get(seq)
    if row is None:
        record = known.board.find(seq)
        if record is None:
            return None
        if len(known.rows) > 3 * SHOWN_EVENTS:
            known.rows.clear()
        row = known.rows[seq] = event_row(record)
    return row


def restriction_of(change: Change, policy: Policy) -> tuple[Restriction, int] | None:
    """The entry of the policy that a change wrote, and since when it holds; None once it is gone."""
    if isinstance(change, Revoke):
        for entry in policy.revoked:
            if (entry.kind, entry.id) == (change.kind, change.id) and abs(entry.at - change.at_ns) < SECOND:
                return entry, entry.at
    if isinstance(change, Lock):
        for lockout in policy.lockouts:
            same = Offender(change.key, change.source_ip).is_subject(lockout)
            if same and abs(lockout.at - change.at_ns) < SECOND:
                return lockout, lockout.at
    if isinstance(change, Disable):
        tool = policy.tools.get(change.tool)
        if tool is not None and not tool.enabled:
            return DisabledTool(change.tool, tool.since), change.since_ns
    return None


def change_row(known: Known, made: Made) -> ChangeRow:
    """A change with what was seen of it in the log."""
    state: ForceState | LockoutState = "written"
    found = restriction_of(made.change, known.policy_file.policy)
    if found is not None and isinstance(found[0], Lockout):
        state, detail = lockout_state(known, found[0])
    elif found is not None:
        state, detail = known.confirmations.state(*found)
    else:
        detail = "taken back since" if isinstance(made.change, Revoke | Lock | Disable) else ""
    return ChangeRow(made.what, made.at_ns, safe(made.by, 60), state, SafeText(detail))


_LOCKOUT_STATES: Final[Mapping[ForceState, LockoutState]] = {
    "written": "written", "untested": "written", "in force": "confirmed", "NOT IN FORCE": "NOT IN FORCE",
}  # fmt: skip


def lockout_state(known: Known, entry: Lockout) -> tuple[LockoutState, str]:
    """Where a lockout of the policy stands, and what says so."""
    if known.now_ns >= entry.until:
        return "over", ""
    state, detail = known.confirmations.state(entry, entry.at)
    return _LOCKOUT_STATES[state], detail


def lockout_row(known: Known, incident: Incident) -> LockoutRow | None:
    """Where the lockout that an incident of failed logins asks for stands; None for any other incident."""
    offender = offender_of(incident.subject) if incident.rule.id == LOCKOUT_RULE else None
    if offender is None:
        return None
    policy = known.policy_file.policy
    entries = [entry for entry in policy.lockouts if offender.is_subject(entry)]
    # one that ended before the newest failure is no answer to it
    entry = max(
        (entry for entry in entries if entry.until > incident.last_ns or entry.until > known.now_ns),
        key=lambda entry: entry.until,
        default=None,
    )
    if entry is not None:
        state, detail = lockout_state(known, entry)
        return LockoutRow(state, SafeText(detail or f"until {iso(entry.until)[:19]}Z"), None)
    spared = exempt(policy, offender)
    if spared is not None:
        return LockoutRow(None, spared, None)
    path = known.policy_file.path
    if path is None:
        return LockoutRow("advised", SafeText("there is no policy file to write it into"), None)
    command = lock_command(offender, f"{LOCKOUT_RULE} {incident.id}", path.absolute())
    return LockoutRow("advised", SafeText(""), command)


def note_of(known: Known, incident: Incident) -> str:
    """The most telling fact about an incident: whether its caller's restriction bites, else what came of it."""
    ids = dict(incident.subject)
    lockout = lockout_row(known, incident)
    state = lockout.state if lockout is not None else _state_of_caller(known, ids)
    if "gap" in ids and len(ids) > 1:
        # the incident itself is a success that should not have been; only a later refusal takes that back
        return state if state in ("in force", "confirmed") else "NOT IN FORCE"
    shares = incident.outcomes.most_common(2)
    if state is None and len(shares) == 1:
        return shares[0][0]
    short = [(count, _SHORT_OUTCOMES.get(outcome, outcome)) for outcome, count in shares]
    came = short[0][1] if len(short) == 1 else ", ".join(f"{count:,} {outcome}" for count, outcome in short)
    return came if state is None else f"{state}; {came}"


def _state_of_caller(known: Known, ids: Mapping[str, str]) -> ForceState | LockoutState | None:
    """Whether what the policy holds against a caller bites; None when it holds nothing against it now."""
    policy, now = known.policy_file.policy, known.now_ns
    entry: Restriction
    for entry in reversed(policy.revoked):
        if ids.get(entry.kind) == entry.id and (entry.until is None or now < entry.until):
            return known.confirmations.state(entry, entry.at)[0]
    for entry in reversed(policy.lockouts):
        same = Offender(ids.get("key"), ids.get("source_ip")).is_subject(entry)
        if same and entry.at <= now < entry.until:
            return lockout_state(known, entry)[0]
    return None


def alert_rows(known: Known, limit: int) -> list[AlertRow]:
    """The incidents, worst first, then newest."""
    fold = known.pipeline.fold
    newest = {(r.event.source, r.event.offset): r.event for r in known.board.newest(SHOWN_EVENTS) if r.worst}
    rows = []
    for incident in fold.worst(limit):
        last = incident.evidence[-1]
        event = newest.get((last.source, last.offset))
        rows.append(
            alert_row(incident, note_of(known, incident), fold.is_quiet(incident, known.now_ns), event)
        )
    return rows


def policy_row(known: Known) -> PolicyRow:
    """The policy in one line."""
    now, policy = known.now_ns, known.policy_file.policy
    off = known.operator.changes_off
    error = known.policy_file.error
    return PolicyRow(
        path=safe(known.policy_file.path) if known.policy_file.path is not None else None,
        error=safe(error, 300) if error is not None else None,
        revoked=sum(1 for entry in policy.revoked if entry.until is None or now < entry.until),
        locked=sum(1 for entry in policy.lockouts if entry.at <= now < entry.until),
        changes_off=safe(off, 300) if off is not None else None,
        lockouts=tuple(dict.fromkeys(_targets(entry) for entry in policy.lockouts if now < entry.until)),
    )


def _targets(entry: Lockout) -> tuple[Target, ...]:
    key = (Target("key", entry.key),) if entry.key is not None else ()
    return (*key, Target("source_ip", entry.source_ip)) if entry.source_ip is not None else key


def worst_by_id(known: Known, groups: Iterable[Sequence[SessionStats]]) -> Worst:
    """The worst incident of every id that a subject may name, of those that some rows of sessions have."""
    return known.pipeline.fold.worst_of(frozenset(name for group in groups for name in _names(group)))


def _names(group: Sequence[SessionStats]) -> set[tuple[str, str]]:
    caller = group[0].caller
    ids = {("session", stats.caller.session) for stats in group}
    ids |= {("key", caller.key), ("source_ip", caller.source_ip)}
    return {(kind, name) for kind, name in ids if name is not None}


def session_ref(stats: SessionStats) -> str:
    """The handle of a session's own row."""
    return "\0".join(part or "" for part in session_key(stats.caller))


def once_ref(stats: SessionStats) -> str | None:
    """The handle of the row that a session seen once shares with others of its principal; None for any other.

    Servers that give every request a session id of its own would fill the pane otherwise.
    """
    caller = stats.caller
    if stats.calls != 1 or caller.session is None or not (caller.key or caller.client):
        return None
    # a session's own handle has one part, and one without a session five
    return "\0".join(("once", caller.key or "", caller.client or ""))


def session_row(known: Known, group: Sequence[SessionStats], worst: Worst) -> SessionRow:
    """A session with its rate; several that were seen once as one row, under their principal."""
    first, caller = group[0], group[0].caller
    alone = len(group) == 1
    trends = [stats.trend(known.now_ns) for stats in group]
    trend = tuple(map(sum, zip(*trends, strict=True)))
    high, medium, low = (sum(stats.tiers[tier] for stats in group) for tier in TIERS)
    severities = [worst[name] for name in _names(group) if name in worst]
    return SessionRow(
        ref=session_ref(first) if alone else once_ref(first) or "",
        session=session_label(first) if alone else SafeText(f"({len(group):,} seen once)"),
        key=short(caller.key),
        client=short(caller.client),
        per_minute=sum(trend),
        trend=trend,
        high=high,
        medium=medium,
        low=low,
        errors=sum(stats.errors for stats in group),
        calls=sum(stats.calls for stats in group),
        last_ns=max(stats.last_ns for stats in group),
        worst=max(severities, default=None),
        targets=tuple(t for t in targets_of(caller) if alone or t.kind != "session"),
    )


def _sessions(known: Known, now: int) -> tuple[SessionRow, ...]:
    groups: dict[str, list[SessionStats]] = {}
    for stats in known.board.sessions.values():
        groups.setdefault(once_ref(stats) or session_ref(stats), []).append(stats)

    def order(group: list[SessionStats]) -> tuple[int, int]:
        return -sum(stats.per_minute(now) for stats in group), -max(stats.last_ns for stats in group)

    shown = sorted(groups.values(), key=order)[:SHOWN_SESSIONS]
    worst = worst_by_id(known, shown)
    return tuple(session_row(known, group, worst) for group in shown)


def _rates(known: Known, now: int) -> tuple[RateRow, ...]:
    minute = now // MINUTE
    rows = []
    for tier in TIERS:
        counts = tuple(
            known.board.minutes.get(n, {}).get(tier, 0) for n in range(minute - RATE_MINUTES + 1, minute + 1)
        )
        whole = sorted(counts[:-1])
        rows.append(RateRow(tier, counts, counts[-1], whole[len(whole) // 2]))
    return tuple(rows)


def _tiers(known: Known) -> tuple[TierRow, ...]:
    board = known.board
    total = sum(board.tiers.values())
    return tuple(
        TierRow(
            tier,
            board.tiers[tier],
            round(board.tiers[tier] / total, 3) if total else 0.0,
            tuple((short(tool), count) for tool, count in board.tools[tier].most_common(SHOWN_TOOLS)),
        )
        for tier in TIERS
    )


def _notices(known: Known) -> tuple[SafeText, ...]:
    found = list(known.settings.notices)
    if known.failure is not None:
        found.insert(0, SafeText(f"THE MONITOR STOPPED, start mcpwatch again: {known.failure}"))
    if known.watch_problem is not None:
        found.append(known.watch_problem)
    found += known.lockout_notices()
    if known.pipeline.fold.notice is not None:
        found.append(known.pipeline.fold.notice)
    if known.rule_files is not None:
        rules = known.rule_files.rules
        found += rules.problems[:_RULE_NOTICES]
        if len(rules.problems) > _RULE_NOTICES:
            found.append(SafeText(f"{len(rules.problems) - _RULE_NOTICES} more problems in rule files"))
    if known.policy_file.path is None:
        found.append(NO_POLICY)
    if known.policy_file.error is not None:
        found.append(safe(f"policy not usable, the last good one stays: {known.policy_file.error}", 300))
    found += source_notices(known)
    late, events = known.pipeline.engine.late, sum(r.events for r in known.pipeline.readers.values())
    if late > max(100, events // 20):
        found.append(
            SafeText("many records are too late for any window: a clock is wrong, or somebody confuses it")
        )
    for rule, count in sorted(known.pipeline.engine.evictions.items()):
        found.append(
            SafeText(f"{rule}: {count:,} windows dropped, too many subjects: somebody may be hiding")
        )
    return tuple(found)
