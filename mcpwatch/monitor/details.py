"""What opens when the operator drills down: incidents, sessions, records, the policy, and what a change touches."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

from mcpwatch.detection.checks import Restriction
from mcpwatch.event import Caller
from mcpwatch.incidents.incident import EVIDENCE_HEAD, EVIDENCE_TAIL, Incident
from mcpwatch.monitor.board import SessionStats, session_key
from mcpwatch.monitor.rows import alert_row, event_row, raw_lines, record_fields, short
from mcpwatch.policy.edit import Change, Disable, Lock, Revoke
from mcpwatch.policy.model import Key, Lockout, Policy, Revocation
from mcpwatch.policy.tiers import tier_of
from mcpwatch.response.confirm import ForceState
from mcpwatch.response.operator import Made
from mcpwatch.response.plan import Target
from mcpwatch.snapshot import EvidenceRow, IncidentDetail, PolicyDetail, RecordDetail, SessionDetail
from mcpwatch.text import SafeText, safe
from mcpwatch.times import HOUR, SECOND, iso

if TYPE_CHECKING:
    from mcpwatch.monitor.monitor import Monitor

_NONE = SafeText("-")
SHOWN_TIMELINE = 500


def restriction_of(change: Change, policy: Policy) -> tuple[Restriction, int] | None:
    """The entry of the policy that a change wrote, and since when it holds; None once it is gone."""
    if isinstance(change, Revoke):
        for entry in policy.revoked:
            if (entry.kind, entry.id) == (change.kind, change.id) and abs(entry.at - change.at_ns) < SECOND:
                return entry, entry.at
    if isinstance(change, Lock):
        for lockout in policy.lockouts:
            same = (lockout.key, lockout.source_ip) == (change.key, change.source_ip)
            if same and abs(lockout.at - change.at_ns) < SECOND:
                return lockout, lockout.at
    if isinstance(change, Disable) and not policy.tools[change.tool].enabled:
        return change.tool, change.since_ns
    return None


def force_of(monitor: Monitor, made: Made) -> tuple[ForceState, str]:
    """Whether a change bites, and what says so."""
    try:
        found = restriction_of(made.change, monitor.policy_file.policy)
    except KeyError:
        found = None
    if found is None:
        undone = isinstance(made.change, Revoke | Lock | Disable)
        return "written", "taken back since" if undone else "the policy file was changed"
    return monitor.confirmations.state(*found)


def note_of(monitor: Monitor, incident: Incident) -> str:
    """The most telling fact about an incident: whether its caller's revocation bites, else what came of it."""
    ids = dict(incident.subject)
    gap = ids.get("gap")
    if gap is not None:
        return "NOT IN FORCE"
    policy = monitor.policy_file.policy
    for entry in policy.revoked:
        if ids.get(entry.kind) == entry.id:
            return monitor.confirmations.state(entry, entry.at)[0]
    for lockout in policy.lockouts:
        if lockout.key == ids.get("key") and lockout.source_ip == ids.get("source_ip"):
            return monitor.confirmations.state(lockout, lockout.at)[0]
    shares = incident.outcomes.most_common(2)
    return ", ".join(outcome if len(shares) == 1 else f"{count} {outcome}" for outcome, count in shares)


def incident_detail(monitor: Monitor, incident_id: str) -> IncidentDetail | None:
    """An incident, opened."""
    incident = monitor.pipeline.fold.incidents.get(incident_id)
    if incident is None:
        return None
    fold = monitor.pipeline.fold
    alerts = monitor.policy_file.policy.alerts
    by_place = {(r.event.source, r.event.offset): r for r in monitor.board.records}
    evidence = []
    newest = None
    for item in incident.evidence:
        record = by_place.get((item.source, item.offset))
        text = _NONE
        if record is not None:
            row = event_row(record)
            text = safe(f"{row.tool}  {row.detail}  {row.status}", 240)
            newest = record.event
        evidence.append(
            EvidenceRow(safe(item.source, 80), item.line, item.offset, item.time_ns,
                        record.seq if record is not None else None, text)
        )  # fmt: skip
    quiet = fold.is_quiet(incident, monitor.now_ns)
    pairs = {pair for pair in incident.subject if pair[0] != "gap"}
    others = [i for i in fold if i is not incident and pairs & set(i.subject)]
    return IncidentDetail(
        row=alert_row(incident, note_of(monitor, incident), quiet, newest),
        why=safe(f"{incident.rule.why} Here: {incident.why(alerts)}.", 600),
        limit=incident.rule.limit(alerts),
        peak=incident.peak if incident.rule.window is not None else None,
        outcomes=tuple(incident.outcomes.most_common()),
        evidence=tuple(evidence),
        evidence_left_out=max(0, incident.count - EVIDENCE_HEAD - EVIDENCE_TAIL),
        tags=incident.rule.tags,
        runbook=incident.rule.runbook,
        changes=tuple(
            monitor.change_row(m) for m in reversed(monitor.operator.made) if _touches(m, incident)
        ),
        related=tuple(
            alert_row(i, note_of(monitor, i), fold.is_quiet(i, monitor.now_ns), None) for i in others[:50]
        ),
    )


def _touches(made: Made, incident: Incident) -> bool:
    change, ids = made.change, dict(incident.subject)
    if isinstance(change, Lock):
        return change.key == ids.get("key") or change.source_ip == ids.get("source_ip")
    kind, name = getattr(change, "kind", None), getattr(change, "id", None)
    return kind is not None and ids.get(kind) == name


def session_detail(monitor: Monitor, ref: str) -> SessionDetail | None:
    """A session, opened."""
    stats = next((s for s in monitor.board.sessions.values() if _ref(s) == ref), None)
    if stats is None:
        return None
    caller = stats.caller
    records = [r for r in monitor.board.records if session_key(r.event.caller) == session_key(caller)]
    ids = {("session", caller.session), ("key", caller.key)}
    alerts = [row for row in monitor.alert_rows(500) if {(t.kind, t.id) for t in row.targets} & ids]
    row = monitor.session_row(stats, max((alert.severity for alert in alerts), default=None))
    timeline = tuple(
        r for record in records[-SHOWN_TIMELINE:] if (r := monitor.row_of(record.seq)) is not None
    )
    return SessionDetail(row, timeline, tuple(alerts))


def _ref(stats: SessionStats) -> str:
    return "\0".join(part or "" for part in session_key(stats.caller))


def record_detail(monitor: Monitor, seq: int) -> RecordDetail | None:
    """A record, opened, with what the policy says of it."""
    record, row = monitor.board.find(seq), monitor.row_of(seq)
    if record is None or row is None:
        return None
    event, engine = record.event, monitor.pipeline.engine
    what = engine.what(event)
    verdicts: list[tuple[str, str, SafeText]] = []
    if what.judge is not None:
        judge = what.judge
        listed = "listed in the policy" if judge.listed else "not listed in the policy"
        denied = not judge.listed and monitor.policy_file.policy.deny_unlisted
        state = "violation" if denied or not judge.enabled else "allowed"
        verdicts.append(("tool", state, SafeText(listed if judge.enabled else "disabled by the policy")))
        known = monitor.policy_file.policy.keys.get(event.caller.key or "")
        scopes = event.scopes if event.scopes is not None else (known.scopes if known is not None else None)
        for finding in (judge.scope(scopes), *judge.explain(event.params)):
            value = f": {finding.value}" if finding.value else ""
            verdicts.append((finding.aspect, finding.verdict.value, safe(f"{finding.reason}{value}", 400)))
    line = f"line {event.line}, " if event.line is not None else ""
    return RecordDetail(
        row=row,
        fields=tuple(record_fields(record)),
        verdicts=tuple(verdicts),
        raw=raw_lines(event, reveal=monitor.settings.reveal),
        where=safe(f"{event.source}: {line}byte {event.offset}", 200),
    )


def policy_detail(monitor: Monitor) -> PolicyDetail:
    """The policy, opened."""
    policy = monitor.policy_file.policy
    tools = []
    for name, tool in policy.tools.items():
        tools.append((
            short(name), SafeText(tier_of(policy, name).value), SafeText("yes" if tool.enabled else "no"),
            _listed(tool.allowed_paths), _listed(tool.allowed_domains), short(tool.require_scope),
            SafeText("required" if tool.require_audit_log else "-"),
        ))  # fmt: skip
    return PolicyDetail(
        row=monitor.policy_row(),
        tools=tuple(tools),
        keys=tuple(_key_row(monitor, key) for key in policy.keys.values()),
        revoked=tuple(_revocation_row(monitor, entry) for entry in policy.revoked),
        lockouts=tuple(_lockout_row(monitor, entry) for entry in policy.lockouts),
    )


def _listed(values: tuple[str, ...] | None) -> SafeText:
    if values is None:
        return SafeText("not restricted")
    return safe(", ".join(values), 200) if values else SafeText("nothing")


def _key_row(monitor: Monitor, key: Key) -> tuple[SafeText, ...]:
    used = monitor.board.keys_last_used.get(key.id)
    age = _NONE
    if key.created is not None:
        today = datetime.fromtimestamp(monitor.now_ns // SECOND, UTC).date()
        days = (today - key.created).days
        age = SafeText(f"{days} days" + (", rotate" if days > 90 else ""))
    scopes = _NONE if key.scopes is None else safe(" ".join(key.scopes) or "none", 60)
    last = SafeText(iso(used)[:19] + "Z") if used is not None else SafeText("not seen")
    return short(key.id), short(key.client), short(key.owner), scopes, age, last


def _revocation_row(monitor: Monitor, entry: Revocation) -> tuple[SafeText, ...]:
    state, detail = monitor.confirmations.state(entry, entry.at)
    over = entry.until is not None and monitor.now_ns >= entry.until
    return (
        safe(f"{entry.kind} {entry.id}", 60), SafeText(iso(entry.at)[:19] + "Z"), _until(entry.until),
        short(entry.by), short(entry.reason, 60), SafeText("over" if over else f"{state}, {detail}"),
    )  # fmt: skip


def _lockout_row(monitor: Monitor, entry: Lockout) -> tuple[SafeText, ...]:
    state, detail = monitor.confirmations.state(entry, entry.at)
    over = monitor.now_ns >= entry.until
    return (
        short(entry.key), short(entry.source_ip), SafeText(iso(entry.at)[:19] + "Z"), _until(entry.until),
        short(entry.rule), SafeText("over" if over else f"{state}, {detail}"),
    )  # fmt: skip


def _until(until: int | None) -> SafeText:
    return SafeText(iso(until)[:19] + "Z") if until is not None else SafeText("for good")


def impact(monitor: Monitor, targets: tuple[Target, ...]) -> tuple[SafeText, ...]:
    """What depends on a target: its sessions, its calls in the last hour, its entry in the policy."""
    lines = []
    since = monitor.now_ns - HOUR
    for target in targets:
        records = [
            r
            for r in monitor.board.records
            if r.time_ns >= since and _names(r.event.caller, r.event.tool, target)
        ]
        sessions = {r.event.caller.session for r in records if r.event.caller.session is not None}
        lines.append(
            safe(f"{target.kind} {safe(target.id, 60)}: {len(records)} records in {len(sessions)} sessions "
                 "in the last hour (of those kept here)", 200)
        )  # fmt: skip
        if target.kind == "key" and (key := monitor.policy_file.policy.keys.get(target.id)) is not None:
            lines.append(safe(f"owner {key.owner or '-'}, client {key.client or '-'}", 200))
        if (
            target.kind == "key"
            and monitor.policy_file.policy.keys
            and target.id not in monitor.policy_file.policy.keys
        ):
            lines.append(SafeText("this key is not in the policy's list of keys"))
    return tuple(lines)


def _names(caller: Caller, tool: str | None, target: Target) -> bool:
    return bool((tool if target.kind == "tool" else getattr(caller, target.kind)) == target.id)
