"""`mcpwatch rules`: what is detected, and why."""

from __future__ import annotations

from typing import Any

import click

from mcpwatch.cli.options import json_option, policy_file, policy_option
from mcpwatch.detection.rules import BY_ID, RULES, Rule
from mcpwatch.incidents.export import dump
from mcpwatch.policy.model import Alerts


@click.group(epilog="\b\nExamples:\n  mcpwatch rules list\n  mcpwatch rules show enforcement-gap")
def rules() -> None:
    """What is detected, and why."""


@rules.command(
    "list", epilog="\b\nExamples:\n  mcpwatch rules list\n  mcpwatch rules list --json | jq -r .id"
)
@json_option
@policy_option
def list_rules(as_json: bool, policy: str | None) -> None:
    """List the rules with their severity and limit under the policy in use."""
    alerts = policy_file(policy).policy.alerts
    for rule in RULES:
        if as_json:
            click.echo(dump(_record(rule, alerts)))
        else:
            click.echo(f"{rule.id:24} {_severity(rule):11} {rule.limit(alerts):34} {rule.title}")


@rules.command(epilog="\b\nExamples:\n  mcpwatch rules show enforcement-gap")
@click.argument("rule", type=click.Choice(list(BY_ID)))
@policy_option
def show(rule: str, policy: str | None) -> None:
    """Show one rule: what it means, what looks the same and is harmless, and what to do."""
    alerts = policy_file(policy).policy.alerts
    found = BY_ID[rule]
    click.echo(f"{found.id}: {found.title}")
    click.echo(f"  severity      {_severity(found)}")
    click.echo(f"  limit         {found.limit(alerts)}")
    click.echo(f"  grouped by    {', else '.join('+'.join(names) for names in found.subject)}")
    click.echo(f"  tags          {' '.join(found.tags)}")
    click.echo(f"  meaning       {found.why}")
    click.echo(f"  false alarms  {found.false_alarms}")
    for number, step in enumerate(found.runbook, 1):
        click.echo(f"  {number}. {step}")


def _severity(rule: Rule) -> str:
    return rule.severity.label if rule.severity is not None else "by outcome"


def _record(rule: Rule, alerts: Alerts) -> dict[str, Any]:
    return {
        "type": "rule", "id": rule.id, "title": rule.title, "severity": _severity(rule), "limit": rule.limit(alerts),
        "subject": [list(names) for names in rule.subject], "why": rule.why, "false_alarms": rule.false_alarms,
        "tags": list(rule.tags), "runbook": list(rule.runbook),
    }  # fmt: skip


COMMANDS = {"rules": rules}
