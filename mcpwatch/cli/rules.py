"""`mcpwatch rules`: what is detected and why, whether the rules do what their cases say, and rules as Sigma rules."""

from __future__ import annotations

import difflib
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import click

from mcpwatch import data
from mcpwatch.cli.exits import Exit, UsageError, note
from mcpwatch.cli.options import (
    json_option,
    log_options,
    policy_file,
    policy_option,
    reading,
    rule_set,
    rules_option,
)
from mcpwatch.detection.rule import Condition, Rule, RuleSet
from mcpwatch.detection.rulefile import SHIPPED, with_tests
from mcpwatch.incidents.export import dump
from mcpwatch.policy.model import Alerts
from mcpwatch.text import safe
from mcpwatch.times import SECOND, format_duration, iso


def _complete(_: click.Context, __: click.Parameter, typed: str) -> list[str]:
    return [rule_id for rule_id in SHIPPED if rule_id.startswith(typed)]


@click.group(
    epilog="\b\nExamples:\n  mcpwatch rules list\n  mcpwatch rules show enforcement-gap\n"
    "  mcpwatch rules test --on audit.jsonl\n  mcpwatch rules export --sigma > mcpwatch.sigma.yaml"
)
def rules() -> None:
    """What is detected and why; try rules out, and export them."""


LIST_EPILOG: Final = """\b
Examples:
  mcpwatch rules list
  mcpwatch rules list --rules /etc/mcpwatch/rules
  mcpwatch rules list --json | jq -r .id
"""


@rules.command("list", epilog=LIST_EPILOG)
@json_option
@policy_option
@rules_option
def list_rules(as_json: bool, policy: str | None, rules: str | None) -> None:
    """List the rules with their severity and limit under the policy in use."""
    alerts = policy_file(policy).policy.alerts
    found = rule_set(rules)
    for rule, disabled in _with_those_off(found):
        if as_json:
            click.echo(dump(_record(rule, alerts, disabled)))
        elif disabled is None:
            click.echo(f"{rule.id:24} {_severity(rule):11} {rule.limit(alerts):34} {rule.title}")
        else:
            click.echo(f"{rule.id:24} {'off':11} {disabled}")


@rules.command(
    epilog="\b\nExamples:\n  mcpwatch rules show enforcement-gap\n  mcpwatch rules show key-rate --json"
)
@click.argument("rule", metavar="ID", shell_complete=_complete)
@json_option
@policy_option
@rules_option
def show(rule: str, as_json: bool, policy: str | None, rules: str | None) -> None:
    """Show one rule: what it means, what looks the same and is harmless, what to do, and where it is written."""
    alerts = policy_file(policy).policy.alerts
    known = rule_set(rules)
    _known(known, rule, off_too=True)
    found, disabled = next(each for each in _with_those_off(known) if each[0].id == rule)
    found = with_tests(found)
    if as_json:
        click.echo(dump(_record(found, alerts, disabled) | _details(found)))
        return
    click.echo(f"{found.id}: {found.title}")
    for name, text in _lines(found, alerts, disabled):
        click.echo(f"  {name:13} {text}")
    for number, step in enumerate(found.runbook, 1):
        click.echo(f"  {number}. {step}")


TEST_EPILOG: Final = """\b
Examples:
  mcpwatch rules test                                    the cases of all rules
  mcpwatch rules test my-rule --rules ./rules
  mcpwatch rules test --on audit.jsonl                   how often each rule would have fired
  mcpwatch rules test session-rate --on audit.jsonl.1 audit.jsonl --json
"""


@rules.command(epilog=TEST_EPILOG)
@click.argument("words", metavar="[ID]...", nargs=-1, shell_complete=_complete)
@click.option(
    "--on",
    "logs",
    metavar="LOG...",
    multiple=True,
    type=click.Path(readable=False),
    help="Saved logs: say how often the rules would have fired, and at which limits.",
)
@json_option
@rules_option
@log_options
def test(words: tuple[str, ...], logs: tuple[str, ...], as_json: bool, rules: str | None, policy: str | None,
         state: str | None, format_name: str, formats: str | None) -> None:  # fmt: skip
    """Run the cases that stand in the rule files, or with --on see how often rules would have fired on saved logs.

    Exit 1 when a case fails, a shipped rule lacks a kind of case, or a rule file can't be used.
    """
    from mcpwatch.cli import trials

    found = rule_set(rules)
    ids = [word for word in words if word in found.by_id]
    others = [word for word in words if word not in found.by_id]
    for word in others:
        if not (logs and Path(word).exists()):  # --on *.jsonl is several words
            _known(found, word)
    chosen = found.only(*ids) if ids else found
    if logs:
        trials.show_rates(
            [Path(name) for name in (*logs, *others)],
            policy_file(policy).policy,
            reading(formats, format_name, coverage=False),
            chosen,
            as_json=as_json,
        )
        return
    sys.exit(Exit.FOUND if trials.run_cases(chosen, as_json=as_json) or found.problems else Exit.DONE)


EXPORT_EPILOG: Final = """\b
Examples:
  mcpwatch rules export --sigma > mcpwatch.sigma.yaml
  mcpwatch rules export --sigma auth-lockout key-rate --policy policy.yaml
"""


@rules.command(epilog=EXPORT_EPILOG)
@click.argument("words", metavar="[ID]...", nargs=-1, shell_complete=_complete)
@click.option("--sigma", is_flag=True, help="As Sigma rules: YAML documents, with correlation rules.")
@policy_option
@rules_option
def export(words: tuple[str, ...], sigma: bool, policy: str | None, rules: str | None) -> None:
    """Print rules in a form that other systems read, with the limits of the policy in use.

    What can't be said in that form is left out, named on standard error and in the output, and makes exit code 1.
    """
    if not sigma:
        raise UsageError("rules export: in which form? There is --sigma")
    from mcpwatch.detection.sigma import SigmaError, documents, write

    found = rule_set(rules)
    for word in words:
        _known(found, word)
    in_force = policy_file(policy).policy
    complete = True
    for rule in found.only(*words) if words else found:
        try:
            click.echo(write(documents(rule, in_force, time.time_ns())), nl=False)
        except SigmaError as error:
            complete = False
            note(f"not exported: {error}")
            click.echo(f"# not exported: {safe(error)}")
    sys.exit(Exit.DONE if complete else Exit.FOUND)


def _with_those_off(found: RuleSet) -> Iterator[tuple[Rule, str | None]]:
    """All rules, each with why it is off, or None."""
    yield from ((rule, None) for rule in found)
    yield from zip(found.off, found.disabled, strict=True)


def _known(found: RuleSet, word: str, *, off_too: bool = False) -> None:
    """Raises UsageError for what is no rule's id, or the id of a rule that is off."""
    every = {rule.id: disabled for rule, disabled in _with_those_off(found)}
    if word not in every:
        near = difflib.get_close_matches(word[:80], every, n=1)
        hint = f"did you mean '{near[0]}'?" if near else "see: mcpwatch rules list"
        raise UsageError(f"there is no rule '{safe(word, 60)}'; {hint}")
    disabled = every[word]
    if disabled is not None and not off_too:
        raise UsageError(disabled)


def _severity(rule: Rule) -> str:
    return rule.level.label if rule.level is not None else "by outcome"


def _place(rule: Rule) -> str:
    return safe(data.shipped("rules") / f"{rule.id}.yaml") if rule.shipped else rule.place


def _record(rule: Rule, alerts: Alerts, disabled: str | None) -> dict[str, Any]:
    groups = [list(names) for names in rule.group_by]
    return {
        "type": "rule",
        "id": rule.id,
        "title": rule.title,
        "severity": _severity(rule),
        "correlation": rule.correlation.type if rule.correlation is not None else None,
        "limit": rule.limit(alerts),
        "subject": groups,
        "group_by": groups,
        "why": rule.description,
        "false_alarms": " ".join(rule.falsepositives),
        "falsepositives": list(rule.falsepositives),
        "tags": list(rule.tags),
        "runbook": list(rule.runbook),
        "shipped": rule.shipped,
        "place": _place(rule),
        "disabled": disabled,
    }


def _details(rule: Rule) -> dict[str, Any]:
    """What only one rule at a time is asked for."""
    counting = rule.correlation
    signed = [
        {"fields": str(each.fields), "limit": each.limit, "author": each.author, "reason": each.reason,
         "place": each.place}
        for each in rule.thresholds
    ]  # fmt: skip
    excepted = [
        {"fields": str(each.fields), "until": iso(each.until) if each.until is not None else None,
         "author": each.author, "reason": each.reason, "place": each.place}
        for each in rule.exceptions
    ]  # fmt: skip
    return {
        "events": [
            {"match": str(each.match) if each.match is not None else None, "check": each.check}
            for each in (counting.events if counting is not None else (rule.condition,))
        ],
        "settings": dict(rule.settings),
        "author": rule.author,
        "references": list(rule.references),
        "exceptions": excepted,
        "thresholds": signed,
        "tests": [{"name": each.name, "kind": each.kind, "place": each.place} for each in rule.tests],
    }


def _condition(condition: Condition) -> str:
    parts = (
        f"check {condition.check}" if condition.check is not None else "",
        safe(condition.match) if condition.match is not None else "",
    )
    return " and ".join(filter(None, parts))


def _lines(rule: Rule, alerts: Alerts, disabled: str | None) -> Iterator[tuple[str, str]]:
    """Name and text of each line that `rules show` prints, but the runbook's."""
    counting = rule.correlation
    yield "file", _place(rule)
    if disabled is not None:
        yield "off", disabled
    yield "severity", _severity(rule)
    yield "limit", rule.limit(alerts)
    events = counting.events if counting is not None else (rule.condition,)
    for number, condition in enumerate(events, 1):
        yield (
            "fires on" if counting is None else f"step {number}" if len(events) > 1 else "counts",
            _condition(condition),
        )
    if counting is not None:
        yield "correlation", " ".join((counting.type, *counting.fields))
        if counting.same:
            yield "alike in", " ".join(counting.same)
    for name, value in rule.settings.items():
        yield name, format_duration(value) if value >= SECOND else str(value)
    yield "grouped by", ", else ".join("+".join(names) for names in rule.group_by)
    yield "tags", " ".join(rule.tags)
    yield "meaning", rule.description
    for text in rule.falsepositives:
        yield "false alarms", text
    yield from (("reference", text) for text in rule.references)
    if rule.author is not None:
        yield "author", rule.author
    for threshold in rule.thresholds:
        words = counting.words(alerts, threshold.limit) if counting is not None else ""
        yield (
            "threshold",
            f"{safe(threshold.fields)}: {words}; {threshold.author}: {threshold.reason} ({threshold.place})",
        )
    for exception in rule.exceptions:
        until = f" until {iso(exception.until)}" if exception.until is not None else ""
        yield (
            "exception",
            f"{safe(exception.fields)}{until}; {exception.author}: {exception.reason} ({exception.place})",
        )
    kinds = Counter(case.kind for case in rule.tests)
    yield "cases", ", ".join(f"{count} {kind}" for kind, count in kinds.items()) or "none"


COMMANDS = {"rules": rules}
