"""How `policy what-if` prints what would change: sections for people, or JSON lines."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

import click

from mcpwatch.detection.principal import describe
from mcpwatch.incidents.export import SCHEMA, dump, incident_record
from mcpwatch.monitor.whatif import FINE, Change, Example, IncidentChange, Side, VerdictKind, WhatIf
from mcpwatch.text import safe, safe_id
from mcpwatch.times import iso

SHOWN: Final = 20
"""Kinds of changes, and incidents, that are printed for people; the others are counted."""

CANNOT_TELL: Final = (
    "What logs cannot tell: what a call that was refused would have done, and what a caller would have done next, "
    "had a call been refused or allowed that was not."
)


def print_json(found: WhatIf) -> None:
    """A line for each change, then one for the whole."""
    for decision, change in found.decisions.items():
        record: dict[str, Any] = {
            "allowed": decision.allowed,
            "tool": decision.tool,
            "reason": decision.reason,
        }
        _echo("decision_change", record | _change(change))
    for verdict, change in found.verdicts.items():
        record = {"tool": verdict.tool, "aspect": verdict.aspect, "old": verdict.old, "new": verdict.new,
                  "reason": verdict.reason}  # fmt: skip
        _echo("verdict_change", record | _change(change))
    for incident in found.incidents:
        old = incident_record(incident.old, found.old.policy.alerts) if incident.old is not None else None
        new = incident_record(incident.new, found.new.policy.alerts) if incident.new is not None else None
        _echo("incident_change", {"id": incident.either.id, "how": incident.how, "old": old, "new": new})
    totals = {"events": found.events, "requests": found.requests, "refused_in_log": found.refused_in_log,
              "more": found.more, "differs": found.differs}  # fmt: skip
    _echo("what_if", totals | {"old": _side(found.old), "new": _side(found.new)})


def _echo(kind: str, record: Mapping[str, Any]) -> None:
    click.echo(dump({"type": kind, "schema": SCHEMA, **record}))


def _change(change: Change) -> dict[str, Any]:
    return {
        "count": change.count,
        "outcomes": dict(sorted(change.outcomes.items())),
        "examples": [
            {"source": each.source, "line": each.line, "offset": each.offset, "who": each.who,
             "time": iso(each.time_ns) if each.time_ns is not None else None, "outcome": each.outcome}
            for each in change.examples
        ],
    }  # fmt: skip


def _side(side: Side) -> dict[str, Any]:
    return {
        "policy": safe(side.policy.path) if side.policy.path is not None else None,
        "refused": side.refused,
        "tiers": {tier.value: count for tier, count in side.tiers.items()},
        "incidents": {severity.label: count for severity, count in side.incidents.items()},
    }


def print_plain(found: WhatIf) -> None:
    """Totals of both policies, then what changes, with the first records of each change."""
    for line in _lines(found):
        click.echo(line)


def _lines(found: WhatIf) -> Iterator[str]:
    yield f"{found.events} events, {found.requests} of them requests; the servers refused {found.refused_in_log}"
    for name, side in (("old", found.old), ("new", found.new)):
        where = safe(side.policy.path) if side.policy.path is not None else "built in"
        counts = ", ".join(f"{count} {severity.label}" for severity, count in side.incidents.items())
        yield f"  {name}: refuses {side.refused}; incidents: {counts}   {where}"
    yield from _decision_lines(found, allowed=False)
    yield from _decision_lines(found, allowed=True)
    yield from _verdict_lines(found)
    yield from _incident_lines(found)
    if found.more:
        yield f"and {found.more} more changes of too many different kinds to be listed"
    if found.differs:
        yield ""
        yield CANNOT_TELL


def _decision_lines(found: WhatIf, *, allowed: bool) -> Iterator[str]:
    changes = [(kind, change) for kind, change in found.decisions.items() if kind.allowed is allowed]
    if not changes:
        return
    total = sum(change.count for _, change in changes)
    yield ""
    turn = "allowed, refused until" if allowed else "refused, allowed until"
    yield f"{total} request{'s' * (total != 1)} would be {turn} now:"
    for kind, change in changes[:SHOWN]:
        yield from _change_lines(f"{kind.tool or 'any request'}: {kind.reason}", change)
    yield from _left_out(len(changes))


def _verdict_lines(found: WhatIf) -> Iterator[str]:
    changes = list(found.verdicts.items())
    if not changes:
        return
    yield ""
    total = sum(change.count for _, change in changes)
    yield f"{total} verdict{'s' * (total != 1)} would change:"
    for kind, change in changes[:SHOWN]:
        yield from _change_lines(_verdict_words(kind), change)
    yield from _left_out(len(changes))


def _verdict_words(kind: VerdictKind) -> str:
    old, new = kind.old.replace("_", " "), kind.new.replace("_", " ")
    was = "was: " if kind.new == FINE else ""
    return f"{kind.tool}: {kind.aspect} {old} -> {new} ({was}{kind.reason})"


def _change_lines(text: str, change: Change) -> Iterator[str]:
    outcomes = ", ".join(f"{count} {name}" for name, count in change.outcomes.most_common())
    yield f"  {change.count:6}  {text}"
    yield f"          in the log: {outcomes}"
    for example in change.examples:
        yield f"          {_place(example)}"


def _place(example: Example) -> str:
    line = f":{example.line}" if example.line is not None else f" byte {example.offset}"
    time = iso(example.time_ns) if example.time_ns is not None else "-"
    return f"{example.source}{line}  {time}  {example.who}  {safe(example.outcome, 20)}"


def _incident_lines(found: WhatIf) -> Iterator[str]:
    if not found.incidents:
        return
    counts = {
        how: sum(each.how == how for each in found.incidents) for how in ("appears", "changes", "vanishes")
    }
    yield ""
    yield f"incidents: {counts['appears']} appear, {counts['changes']} change, {counts['vanishes']} vanish"
    for each in found.incidents[:SHOWN]:
        yield f"  {_incident_words(each, found)}"
    yield from _left_out(len(found.incidents))


def _incident_words(each: IncidentChange, found: WhatIf) -> str:
    sign = {"appears": "+", "vanishes": "-", "changes": "~"}[each.how]
    incident = each.either
    who = describe(incident.subject, lambda value: safe_id(value, 60)) or "-"
    old, new = each.old, each.new
    severity, count = incident.severity.label.upper(), f"x{incident.count}"
    if old is not None and new is not None:
        count = f"x{old.count} -> x{new.count}"
        if old.severity is not new.severity:
            severity = f"{old.severity.label.upper()} -> {severity}"
    alerts = (found.new if new is not None else found.old).policy.alerts
    return f"{sign} {severity:8} {incident.id} {incident.rule.id} {who} {count}: {safe(incident.why(alerts), 160)}"


def _left_out(count: int) -> Iterator[str]:
    if count > SHOWN:
        yield f"          and {count - SHOWN} more (all with --json)"
