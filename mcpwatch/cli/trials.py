"""What `mcpwatch rules test` does: run the cases of rules, and tell how often rules fire on saved logs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import click

from mcpwatch.cli.exits import note
from mcpwatch.cli.progress import ReadingProgress
from mcpwatch.detection.hit import Severity
from mcpwatch.detection.principal import describe
from mcpwatch.detection.rule import Rule, RuleSet
from mcpwatch.detection.rulefile import shipped, with_tests
from mcpwatch.detection.trial import failures, missing_kinds
from mcpwatch.incidents.export import dump
from mcpwatch.monitor.pipeline import NO_POLICY, Pipeline, Reading
from mcpwatch.monitor.rates import Rate, Rates, rates
from mcpwatch.policy.model import BUILT_IN, Policy
from mcpwatch.sources.saved import open_saved
from mcpwatch.text import safe_id


def run_cases(rules: RuleSet, *, as_json: bool) -> bool:
    """Run the cases of the rules, and print how they went.

    A shipped rule is tried as it is shipped: its cases say nothing of how a site tunes it.

    Returns:
        Whether one failed, or a shipped rule lacks a kind of case.
    """
    total: Counter[str] = Counter()
    for rule in rules:
        tried = with_tests(shipped().by_id[rule.id] if rule.shipped else rule)
        failed = failures(tried)
        lacking = missing_kinds(tried)
        bad = bool(failed) or (rule.shipped and bool(lacking))
        total.update(rules=1, cases=len(tried.tests), failed=len(failed), bad=bad)
        if as_json:
            click.echo(dump({"type": "rule_cases", "id": rule.id, "cases": len(tried.tests), "failures": failed,
                             "lacking": lacking, "ok": not bad}))  # fmt: skip
            continue
        click.echo(f"{'FAIL' if bad else 'ok  '} {rule.id:24} {len(tried.tests)} cases")
        for line in failed:
            click.echo(line)
        if lacking:
            severity = "error" if rule.shipped else "warning"
            click.echo(f"{tried.place}: {severity}: rule '{rule.id}' has no {' and no '.join(lacking)} case")
    if as_json:
        click.echo(
            dump(
                {"type": "cases", "rules": total["rules"], "cases": total["cases"], "failed": total["failed"]}
            )
        )
    else:
        held = total["cases"] - total["failed"]
        click.echo(f"{total['rules']} rules, {total['cases']} cases: {held} held, {total['failed']} failed")
    return total["bad"] > 0


def show_rates(
    paths: Sequence[Path], policy: Policy, reading: Reading, rules: RuleSet, *, as_json: bool
) -> None:
    """Print how often rules fire on saved logs.

    Raises:
        SourceError: A log can't be read; what was read before is printed.
    """
    logs = open_saved(paths)
    if policy is BUILT_IN:
        note(NO_POLICY)
    own = tuple(str(path.absolute()) for path in paths)
    pipeline = Pipeline(policy, replace(reading, logs=own), rules)
    progress = ReadingProgress(logs)
    counted = rates(logs, pipeline, rules, progress.show)
    progress.clear()
    found = counted.rates()
    totals = pipeline.totals()
    if as_json:
        for rate in found:
            click.echo(dump(_record(rate)))
        lines = {name: totals[name] for name in ("lines", "understood", "not_understood")}
        click.echo(dump({"type": "rates", "events": counted.events, "hours": counted.hours, **lines}))
    else:
        _tell(counted, found, totals["lines"])
    for name, reader in pipeline.readers.items():
        if reader.not_understood and not reader.understood:
            note(f"{name}: not one of its lines is an audit record: see mcpwatch inspect")
    if counted.broken is not None:
        raise counted.broken


def _severity(rule: Rule) -> str:
    return rule.level.label if rule.level is not None else "by outcome"


def _record(rate: Rate) -> dict[str, Any]:
    return {
        "type": "rate",
        "id": rate.rule.id,
        "severity": _severity(rate.rule),
        "limit": rate.limit,
        "hits": rate.hits,
        "incidents": rate.incidents,
        "by_severity": {each.label: rate.by_severity.get(each, 0) for each in sorted(Severity, reverse=True)},
        "per_hour": round(rate.per_hour, 3),
        "limits": [
            {"limit": each.limit, "hits": each.hits, "incidents": each.incidents, "own": each.own}
            for each in rate.limits
        ],
        "subjects": [{"subject": dict(subject), "hits": hits} for subject, hits in rate.loudest],
        "quieter": {"hits": rate.quieter.hits, "tune": "\n".join(rate.quieter.lines) + "\n"}
        if rate.quieter
        else None,
    }


def _tell(counted: Rates, found: Sequence[Rate], lines: int) -> None:
    hours = f"{counted.hours} hour{'s' * (counted.hours != 1)} of the clock"
    click.echo(f"{lines} lines: {counted.events} events in {hours}")
    click.echo(f"{'rule':24} {'hits':>9} {'incidents':>9} {'per hour':>9}  {'severity':21} limit")
    for rate in found:
        worst = ", ".join(f"{count} {each.label}" for each, count in rate.by_severity.items())
        click.echo(
            f"{rate.rule.id:24} {rate.hits:9} {rate.incidents:9} {rate.per_hour:9.1f}  "
            f"{worst or '-':21} {rate.limit}"
        )
    for rate in found:
        if rate.hits or any(each.hits for each in rate.limits):
            _tell_more(rate)


def _tell_more(rate: Rate) -> None:
    click.echo(f"\n{rate.rule.id}: {rate.limit}")
    if rate.limits:
        shown = [f"*{each.limit}" if each.own else str(each.limit) for each in rate.limits]
        rows = (
            ("at limit", shown),
            ("hits", [str(each.hits) for each in rate.limits]),
            ("incidents", [str(each.incidents) for each in rate.limits]),
        )
        for name, cells in rows:
            click.echo(f"  {name:9} " + " ".join(f"{cell:>8}" for cell in cells))
    if rate.loudest:
        named = (
            f"{describe(subject, lambda value: safe_id(value, 60)) or '-'} {hits}"
            for subject, hits in rate.loudest
        )
        click.echo(f"  most hits: {', '.join(named)}")
    if rate.quieter is not None:
        click.echo(
            f"  if the loudest is meant to do this, a file in the folder of --rules spares {rate.quieter.hits} hits:"
        )
        for line in rate.quieter.lines:
            click.echo(f"    {line}")
