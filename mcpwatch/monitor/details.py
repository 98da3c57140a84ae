"""What opens when the operator drills down: incidents, sessions, records, the policy, and what a change touches."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from itertools import islice
from typing import Final

from mcpwatch.detection.rule import Rule
from mcpwatch.event import Caller
from mcpwatch.incidents.incident import EVIDENCE_HEAD, EVIDENCE_TAIL, Incident
from mcpwatch.monitor.board import session_key
from mcpwatch.monitor.known import Known
from mcpwatch.monitor.picture import (
    SHOWN_ALERTS,
    alert_rows,
    change_row,
    lockout_row,
    lockout_state,
    note_of,
    once_ref,
    policy_row,
    row_of,
    session_ref,
    session_row,
    worst_by_id,
)
from mcpwatch.monitor.rows import alert_row, event_row, raw_lines, record_fields, short
from mcpwatch.policy.model import Key, Lockout, Revocation
from mcpwatch.policy.tiers import tier_of
from mcpwatch.response.confirm import sentence
from mcpwatch.response.operator import Made
from mcpwatch.response.plan import Target
from mcpwatch.snapshot import EvidenceRow, IncidentDetail, PolicyDetail, RecordDetail, SessionDetail
from mcpwatch.text import SafeText, safe
from mcpwatch.times import HOUR, SECOND, iso

_NONE: Final = SafeText("-")
SHOWN_TIMELINE: Final = 500
SHOWN_RELATED: Final = 50
_SHOWN_TUNING: Final = 5


def incident_detail(known: Known, incident_id: str) -> IncidentDetail | None:
    """An incident, opened."""
    incident = known.pipeline.fold.find(incident_id)
    if incident is None:
        return None
    fold = known.pipeline.fold
    alerts = known.policy_file.policy.alerts
    by_place = {(r.event.source, r.event.offset): r for r in known.board.records}
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
    quiet = fold.is_quiet(incident, known.now_ns)
    others = fold.related(incident, SHOWN_RELATED)
    return IncidentDetail(
        row=alert_row(incident, note_of(known, incident), quiet, newest),
        why=safe(f"{incident.rule.description} Here: {incident.why(alerts)}.", 600),
        limit=incident.limit(alerts),
        peak=incident.peak if incident.rule.correlation is not None else None,
        outcomes=tuple(incident.outcomes.most_common()),
        evidence=tuple(evidence),
        evidence_left_out=max(0, incident.count - EVIDENCE_HEAD - EVIDENCE_TAIL),
        tags=incident.rule.tags,
        runbook=incident.rule.runbook,
        changes=tuple(change_row(known, m) for m in reversed(known.operator.made) if _touches(m, incident)),
        related=tuple(alert_row(i, note_of(known, i), fold.is_quiet(i, known.now_ns), None) for i in others),
        lockout=lockout_row(known, incident),
        rate=known.tally.rate(incident.rule, alerts),
        place=incident.rule.place if not incident.rule.shipped else None,
        tuned=tuple(_tuning(known.rule_in_use(incident.rule), known.clock())),
    )


def _tuning(rule: Rule, now_ns: int) -> Iterator[SafeText]:
    """What a site says about a rule, a line each."""
    for threshold in rule.thresholds[:_SHOWN_TUNING]:
        yield safe(
            f"a limit of {threshold.limit} for {threshold.fields}; {threshold.author}: {threshold.reason}",
            300,
        )
    holding = (each for each in rule.exceptions if each.until is None or now_ns < each.until)
    for exception in islice(holding, _SHOWN_TUNING):
        until = f" until {iso(exception.until - 1)[:10]}" if exception.until is not None else ""
        yield safe(f"not about {exception.fields}{until}; {exception.author}: {exception.reason}", 300)


def _touches(made: Made, incident: Incident) -> bool:
    """Whether a change was about somebody that the incident names."""
    change = made.change
    ids = {
        ("key", getattr(change, "key", None)),
        ("source_ip", getattr(change, "source_ip", None)),
        (getattr(change, "kind", None), getattr(change, "id", None)),
    }
    return bool(ids & set(incident.subject))


def session_detail(known: Known, ref: str) -> SessionDetail | None:
    """A row of the sessions pane, opened: one session, or those of a principal that were seen once."""
    group = [stats for stats in known.board.sessions.values() if ref in (session_ref(stats), once_ref(stats))]
    if not group:
        return None
    row = session_row(known, group, worst_by_id(known, [group]))
    keys = {session_key(stats.caller) for stats in group}
    records = [r for r in known.board.records if session_key(r.event.caller) in keys]
    ids = {(target.kind, target.id) for target in row.targets if target.kind in ("session", "key")}
    alerts = tuple(a for a in alert_rows(known, SHOWN_ALERTS) if ids & {(t.kind, t.id) for t in a.targets})
    timeline = (row_of(known, record.seq) for record in records[-SHOWN_TIMELINE:])
    return SessionDetail(row, tuple(event for event in timeline if event is not None), alerts)


def record_detail(known: Known, seq: int) -> RecordDetail | None:
    """A record, opened, with what the policy says of it."""
    record, row = known.board.find(seq), row_of(known, seq)
    if record is None or row is None:
        return None
    event, engine = record.event, known.pipeline.engine
    what = engine.what(event)
    verdicts: list[tuple[str, str, SafeText]] = []
    if what.judge is not None:
        judge = what.judge
        listed = "listed in the policy" if judge.listed else "not listed in the policy"
        denied = not judge.listed and known.policy_file.policy.deny_unlisted
        state = "violation" if denied or not judge.enabled else "allowed"
        verdicts.append(("tool", state, SafeText(listed if judge.enabled else "disabled by the policy")))
        key = known.policy_file.policy.keys.get(event.caller.key or "")
        scopes = event.scopes if event.scopes is not None else (key.scopes if key is not None else None)
        for finding in (judge.scope(scopes), *judge.explain(event.params)):
            value = f": {finding.value}" if finding.value else ""
            verdicts.append((finding.aspect, finding.verdict.value, safe(f"{finding.reason}{value}", 400)))
    line = f"line {event.line}, " if event.line is not None else ""
    return RecordDetail(
        row=row,
        fields=tuple(record_fields(record)),
        verdicts=tuple(verdicts),
        raw=raw_lines(event, reveal=known.settings.reveal),
        where=safe(f"{event.source}: {line}byte {event.offset}", 200),
    )


def policy_detail(known: Known) -> PolicyDetail:
    """The policy, opened."""
    policy = known.policy_file.policy
    tools = []
    for name, tool in policy.tools.items():
        tools.append((
            short(name), SafeText(tier_of(policy, name).value), SafeText("yes" if tool.enabled else "no"),
            _listed(tool.allowed_paths), _listed(tool.allowed_domains), short(tool.require_scope),
            SafeText("required" if tool.require_audit_log else "-"),
        ))  # fmt: skip
    return PolicyDetail(
        row=policy_row(known),
        tools=tuple(tools),
        keys=tuple(_key_row(known, key) for key in policy.keys.values()),
        revoked=tuple(_revocation_row(known, entry) for entry in policy.revoked),
        lockouts=tuple(_lockout_cells(known, entry) for entry in policy.lockouts),
    )


def _listed(values: tuple[str, ...] | None) -> SafeText:
    if values is None:
        return SafeText("not restricted")
    return safe(", ".join(values), 200) if values else SafeText("nothing")


def _key_row(known: Known, key: Key) -> tuple[SafeText, ...]:
    used = known.board.keys_last_used.get(key.id)
    age = _NONE
    if key.created is not None:
        today = datetime.fromtimestamp(known.now_ns // SECOND, UTC).date()
        days = (today - key.created).days
        age = SafeText(f"{days} days" + (", rotate" if days > 90 else ""))
    scopes = _NONE if key.scopes is None else safe(" ".join(key.scopes) or "none", 60)
    last = SafeText(iso(used)[:19] + "Z") if used is not None else SafeText("not seen")
    return short(key.id), short(key.client), short(key.owner), scopes, age, last


def _revocation_row(known: Known, entry: Revocation) -> tuple[SafeText, ...]:
    state, detail = known.confirmations.state(entry, entry.at)
    over = entry.until is not None and known.now_ns >= entry.until
    return (
        safe(f"{entry.kind} {entry.id}", 60), SafeText(iso(entry.at)[:19] + "Z"), _until(entry.until),
        short(entry.by), short(entry.reason, 60), SafeText("over" if over else sentence(state, detail)),
    )  # fmt: skip


def _lockout_cells(known: Known, entry: Lockout) -> tuple[SafeText, ...]:
    state, detail = lockout_state(known, entry)
    return (
        short(entry.key), short(entry.source_ip), SafeText(iso(entry.at)[:19] + "Z"), _until(entry.until),
        short(entry.rule), SafeText(sentence(state, detail)),
    )  # fmt: skip


def _until(until: int | None) -> SafeText:
    return SafeText(iso(until)[:19] + "Z") if until is not None else SafeText("for good")


def impact(known: Known, targets: tuple[Target, ...]) -> tuple[SafeText, ...]:
    """What depends on a target: its sessions, its calls in the last hour, its entry in the policy."""
    lines = []
    since = known.now_ns - HOUR
    keys = known.policy_file.policy.keys
    recent = [record for record in known.board.records if record.time_ns >= since]
    # older records of this hour may have been dropped: what is left is then only a part
    at_least = "at least " if len(recent) == known.board.records.maxlen else ""
    for target in targets:
        calls = [r for r in recent if _names(r.event.caller, r.event.tool, target)]
        sessions = {r.event.caller.session for r in calls if r.event.caller.session is not None}
        counts = f"{at_least}{_some(len(calls), 'record')} in {_some(len(sessions), 'session')}"
        kind = "address" if target.kind == "source_ip" else target.kind
        lines.append(safe(f"{kind} {safe(target.id, 60)}: {counts} in the last hour", 200))
        if target.kind == "key" and (key := keys.get(target.id)) is not None:
            lines.append(safe(f"owner {key.owner or '-'}, client {key.client or '-'}", 200))
        elif target.kind == "key" and keys:
            lines.append(SafeText("this key is not in the policy's list of keys"))
    return tuple(lines)


def _some(count: int, what: str) -> str:
    return f"{count:,} {what}" + ("" if count == 1 else "s")


def _names(caller: Caller, tool: str | None, target: Target) -> bool:
    return bool((tool if target.kind == "tool" else getattr(caller, target.kind)) == target.id)
