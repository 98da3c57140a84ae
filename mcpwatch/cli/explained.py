"""How `policy explain` prints what is said of a record: 80 columns for people, or one JSON object."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Iterator
from typing import Any, Final

import click

from mcpwatch.detection.explain import Standing
from mcpwatch.detection.principal import describe
from mcpwatch.detection.rule import RuleSet, Threshold
from mcpwatch.incidents.export import SCHEMA, dump, event_record
from mcpwatch.monitor.explain import STDIN, Explanation, Restricted
from mcpwatch.policy.model import Revocation
from mcpwatch.policy.verdict import Finding, Verdict
from mcpwatch.text import SafeText, is_secret_name, redact_text, safe, safe_id
from mcpwatch.times import iso

WIDTH: Final = 80
_NAME: Final = 11
_STATES: Final = {
    "in_force": "in force",
    "in_grace": "in force, within the grace",
    "over": "over",
    "not_yet": "later than the record",
}
_EVENT_FIELDS: Final = {
    "time": "time", "event": "event", "tool": "tool", "status": "outcome", "error": "error", "key_id": "key",
    "client_id": "client", "session_id": "session", "subject": "subject", "source_ip": "address",
    "server": "server", "call_id": "call", "params": "parameters",
}  # fmt: skip


def print_json(found: Explanation, rules: RuleSet) -> None:
    """One JSON object."""
    event, judge, explained = found.event, found.explained.case.what.judge, found.explained
    row = judge.policy if judge is not None else None
    called = event.event == "tool_call" and judge is not None
    tool = {
        "listed": judge.listed,
        "enabled": judge.enabled,
        "since": _time(row.since) if row is not None else None,
        "tier": found.tier,
        "tier_reason": found.tier_reason,
        "require_scope": row.require_scope if row is not None else None,
        "require_audit_log": row.require_audit_log if row is not None else False,
    } if called and judge is not None else None  # fmt: skip
    record = {
        "type": "explanation",
        "schema": SCHEMA,
        "record": event_record(event, found.tier, reveal=False),
        "events_before": found.before,
        "policy": safe(found.policy.path) if found.policy.path is not None else None,
        "tool": tool,
        "findings": [
            _finding(finding) | {"parameter": name, "value": _value(name, finding)}
            for name, finding in found.findings
        ],
        "scope": _finding(found.scope) if found.scope is not None else None,
        "key_known": found.key is not None,
        "restrictions": [_restriction(each) for each in found.restrictions],
        "decision": {"allowed": found.decision.allowed, "status": found.decision.status,
                     "reason": found.decision.reason} if found.decision is not None else None,
        "in_windows": explained.left_out is None,
        "rules": [_standing(each) for each in explained.standings],
        "disabled": list(rules.disabled),
    }  # fmt: skip
    click.echo(dump(record))


def _time(ns: int | None) -> str | None:
    return iso(ns) if ns is not None else None


def _value(name: str, finding: Finding) -> SafeText:
    secret = any(is_secret_name(part) for part in name.split("."))
    return safe("[redacted]" if secret and finding.value else redact_text(finding.value), 300)


def _finding(finding: Finding) -> dict[str, Any]:
    return {"aspect": finding.aspect, "verdict": finding.verdict.value, "critical": finding.critical,
            "reason": finding.reason}  # fmt: skip


def _restriction(each: Restricted) -> dict[str, Any]:
    entry = each.entry
    ids: dict[str, str | None]
    if isinstance(entry, Revocation):
        kind, ids = "revocation", {entry.kind: entry.id}
        why = {"by": entry.by, "reason": entry.reason}
    else:
        kind, ids = "lockout", {"key": entry.key, "source_ip": entry.source_ip}
        why = {"rule": entry.rule, "incident": entry.incident}
    subject = {name: value for name, value in ids.items() if value is not None}
    return {"kind": kind, "subject": subject, "at": iso(entry.at), "until": _time(entry.until),
            "state": each.state, **why}  # fmt: skip


def _standing(each: Standing) -> dict[str, Any]:
    return {
        "id": each.rule.id,
        "state": each.state,
        "severity": each.severity.label if each.severity is not None else None,
        "subject": dict(each.subject) if each.subject is not None else None,
        "reasons": list(each.reasons),
        "limit": each.limit,
        "threshold": _threshold(each.threshold) if each.threshold is not None else None,
        "windows": [{"field": count.field or None, "fill": count.fill, "need": count.need} for count in each.counts],
        "steps": [
            {"condition": step.condition, "here": step.here, "time": _time(step.time_ns), "line": step.line}
            for step in each.steps
        ],
        "exception": {"fields": str(each.exception.fields), "until": _time(each.exception.until),
                      "author": each.exception.author, "reason": each.exception.reason,
                      "place": each.exception.place} if each.exception is not None else None,
    }  # fmt: skip


def _threshold(each: Threshold) -> dict[str, Any]:
    return {"fields": str(each.fields), "limit": each.limit, "author": each.author, "reason": each.reason,
            "place": each.place}  # fmt: skip


def print_plain(found: Explanation, rules: RuleSet) -> None:
    """Sections of lines, 80 columns wide."""
    for line in _lines(found, rules):
        click.echo(line)


def _row(name: str, text: object, indent: int = 2) -> Iterator[str]:
    """A name and its text, wrapped below each other."""
    start = " " * indent + f"{name:{_NAME}} "
    yield from textwrap.wrap(
        safe(text, 1_000), WIDTH, initial_indent=start, subsequent_indent=" " * len(start), break_on_hyphens=False
    ) or [start.rstrip()]  # fmt: skip


def _lines(found: Explanation, rules: RuleSet) -> Iterator[str]:
    yield from _record_lines(found)
    yield ""
    where = safe(found.policy.path) if found.policy.path is not None else "built in: nothing is restricted"
    yield f"Policy ({where})"
    yield from _policy_lines(found)
    yield ""
    yield from _rule_lines(found, rules)


def _record_lines(found: Explanation) -> Iterator[str]:
    event = found.event
    place = (
        "Record" if event.source == STDIN else f"{safe(event.source)} line {event.line}, byte {event.offset}"
    )
    yield place
    record = event_record(event, found.tier, reveal=False)
    for name, label in _EVENT_FIELDS.items():
        value = record.get(name)
        if value is None or (name == "event" and value == "tool_call"):
            continue
        shown = json.dumps(value, ensure_ascii=False) if isinstance(value, dict | list) else value
        yield from _row(label, shown)
    if found.explained.left_out is not None:
        yield from _row("note", found.explained.left_out)
    if event.source == STDIN:
        yield from _row("note", "nothing before it is known: counts begin with it")
    else:
        yield from _row("before it", f"{found.before} events of this log were read first")


def _policy_lines(found: Explanation) -> Iterator[str]:
    judge = found.explained.case.what.judge
    if found.decision is not None:
        allowed = found.decision.allowed
        answer = "allows it" if allowed else f"refuses it ({found.decision.status}): {found.decision.reason}"
        yield from _row("decision", f"a server that enforces the policy {answer}")
    if found.event.event == "tool_call" and judge is not None:
        row = judge.policy
        words = ["listed" if judge.listed else "not listed"]
        if not judge.listed:
            words.append(
                "unlisted tools are denied" if found.policy.deny_unlisted else "unlisted tools are allowed"
            )
        since = f" since {iso(row.since)}" if row is not None and row.since is not None else ""
        words.append(("enabled" if judge.enabled else "disabled") + since)
        if row is not None and row.require_audit_log:
            words.append("complete records required")
        yield from _row("tool", ", ".join(words))
        yield from _row("tier", f"{found.tier}: {found.tier_reason}")
    for name, finding in found.findings:
        yield from _finding_lines(name, finding)
    if found.scope is not None:
        yield from _finding_lines("", found.scope)
    if found.event.caller.key is not None:
        known = found.key
        owner = f", owner {known.owner}" if known is not None and known.owner else ""
        yield from _row(
            "key", f"known to the policy{owner}" if known is not None else "not known to the policy"
        )
    for each in found.restrictions:
        yield from _row("caller", _restriction_words(each))
    if not found.restrictions:
        yield from _row("caller", "neither revoked nor locked out")


def _finding_lines(name: str, finding: Finding) -> Iterator[str]:
    critical = ", critical" if finding.critical else ""
    verdict = finding.verdict.value.replace("_", " ")
    yield from _row(finding.aspect, f"{verdict}{critical}: {finding.reason}")
    if name and finding.verdict is not Verdict.NOT_EVALUABLE and finding.value:
        yield from _row("", f"{name}: {_value(name, finding)}")
    elif name:
        yield from _row("", name)


def _restriction_words(each: Restricted) -> str:
    entry = each.entry
    until = f" until {iso(entry.until)}" if entry.until is not None else ""
    if isinstance(entry, Revocation):
        what = f"{entry.kind} {safe(entry.id, 60)} revoked"
        why = ", ".join(filter(None, (f"by {entry.by}" if entry.by else "", entry.reason or "")))
    else:
        who = " from ".join(safe(each, 60) for each in (entry.key, entry.source_ip) if each is not None)
        what, why = f"{who} locked out", entry.rule or ""
    return f"{what} since {iso(entry.at)}{until}" + (f" ({why})" if why else "") + f": {_STATES[each.state]}"


def _rule_lines(found: Explanation, rules: RuleSet) -> Iterator[str]:
    standings = found.explained.standings
    groups = {state: [each for each in standings if each.state == state]
              for state in ("fires", "does_not_fire", "not_concerned")}  # fmt: skip
    counts = [len(each) for each in groups.values()]
    fire = "fires" if counts[0] == 1 else "fire"
    yield f"Rules: {counts[0]} {fire}, {counts[1]} could and did not, {counts[2]} not concerned"
    for each in groups["fires"]:
        severity = each.severity.label if each.severity is not None else ""
        yield f"  FIRES {each.rule.id} ({severity}), {_subject(each)}"
        yield from _reasons(each)
    for each in groups["does_not_fire"]:
        yield f"  does not fire: {each.rule.id}, {_subject(each)}"
        yield from _reasons(each)
    if groups["not_concerned"]:
        yield "  not concerned:"
    for each in groups["not_concerned"]:
        yield from textwrap.wrap(
            f"{each.rule.id}: {'; '.join(each.reasons)}", WIDTH, initial_indent="    ", subsequent_indent="      ",
            break_on_hyphens=False,
        )  # fmt: skip
    for line in rules.disabled:
        yield from textwrap.wrap(f"off: {line}", WIDTH, initial_indent="  ", subsequent_indent="      ")


def _subject(each: Standing) -> str:
    return describe(each.subject, lambda value: safe_id(value, 60)) if each.subject else "nobody"


def _reasons(each: Standing) -> Iterator[str]:
    lines: list[str] = list(each.reasons)
    if each.limit is not None:
        own = each.threshold
        whose = (
            f", set for {own.fields} by {own.author}: {own.reason} ({own.place})" if own is not None else ""
        )
        lines.append(f"limit: {each.limit}{whose}")
    for line in lines:
        yield from textwrap.wrap(
            safe(line, 500), WIDTH, initial_indent="      ", subsequent_indent="        ", break_on_hyphens=False
        )  # fmt: skip
