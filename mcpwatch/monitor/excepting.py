"""Exceptions of a rule, as the console asks for them: offered, planned, written, and whether they are in use."""

from __future__ import annotations

from datetime import date
from pathlib import Path
from typing import NamedTuple

from mcpwatch.detection.rule import Rule, RuleError
from mcpwatch.detection.rulefiles import load_rules
from mcpwatch.incidents.incident import Incident
from mcpwatch.monitor.known import Known
from mcpwatch.response.exception import Choice, Effect, Entry, choices, effect, entry_of
from mcpwatch.response.exceptionfile import ExceptionPlan, plan
from mcpwatch.response.plan import ResponseError
from mcpwatch.response.tuningfile import refusal
from mcpwatch.response.tuningfile import write as write_file
from mcpwatch.snapshot import ExceptionRow
from mcpwatch.text import SafeText, safe


class Wanted(NamedTuple):
    """An exception that somebody asks for, and what it would have changed."""

    rule: Rule
    entry: Entry
    effect: Effect


def _incident(known: Known, incident_id: str) -> Incident:
    incident = known.pipeline.fold.find(incident_id)
    if incident is None:
        raise ResponseError("this incident is no longer in memory")
    return incident


def offered(known: Known, incident_id: str) -> tuple[Choice, ...]:
    """What one could say to quiet the rule of an incident. Raises ResponseError: nothing, and why."""
    incident = _incident(known, incident_id)
    seen = known.tally.seen(incident.rule.id, incident.subject)
    return choices(incident.rule, incident.subject, seen, known.policy_file.policy.alerts)


def wanted(known: Known, incident_id: str, choice: Choice, reason: str, term: str, today: date) -> Wanted:
    """What is asked for, and its effect on the hits of this run. Raises ResponseError."""
    rule = _incident(known, incident_id).rule
    entry = entry_of(rule, choice, reason, term, author=known.operator.by, today=today)
    return Wanted(rule, entry, effect(rule, entry, known.tally.seen(rule.id), known.tally.hits(rule.id)))


def planned(known: Known, wanted: Wanted) -> ExceptionPlan:
    """Where it would be written. Raises ResponseError."""
    folder = _folder(known)
    return plan(wanted.rule, wanted.entry, wanted.effect, folder=folder, refusal=_refusal(known, folder))


def write(known: Known, plan: ExceptionPlan) -> Path:
    """Write it; the file. Raises ResponseError."""
    folder = _folder(known)
    off = _refusal(known, folder)
    if plan.path is None or off is not None:
        raise ResponseError(off or plan.by_hand or "there is nowhere to write it")
    write_file(plan.path, plan.before, plan.after)
    return plan.path


def _folder(known: Known) -> Path | None:
    return known.rule_files.folder if known.rule_files is not None else None


def _refusal(known: Known, folder: Path | None) -> str | None:
    if known.settings.read_only:
        return "read-only: started with --read-only"
    return refusal(folder) if folder is not None else None


def state(known: Known, rule_id: str, path: Path, today: date) -> ExceptionRow:
    """Whether a file that was written is in use."""
    shown = safe(path, 200)
    files = known.rule_files
    if files is None:
        return ExceptionRow(shown, False, SafeText("no rule files are in use"))
    try:
        # a replay goes on by the rules that it surveyed the log with, but the files can be looked at
        rules = files.rules if known.replay is None else load_rules(files.folder, today)
    except RuleError as error:
        return ExceptionRow(shown, False, safe(error, 400))
    problem = next((line for line in rules.problems if line.startswith(f"{safe(path)}:")), None)
    if problem is not None:
        return ExceptionRow(shown, False, safe(problem, 400))
    if known.replay is not None:
        return ExceptionRow(
            shown, False, SafeText("a replay goes on with the rules it began with: start it again")
        )
    rule = rules.by_id.get(rule_id)
    places = [row.place for row in rule.exceptions] if rule is not None else []
    places += [row.place for row in rule.thresholds] if rule is not None else []
    if any(place.startswith(f"{safe(path)}:") for place in places):
        return ExceptionRow(shown, True, SafeText(""))
    return ExceptionRow(shown, False, safe(f"{rule_id} is switched off, or its file is not read", 200))
