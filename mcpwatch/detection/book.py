"""The rules of a run, sorted by what makes them fire."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from mcpwatch.detection.principal import Grouping
from mcpwatch.detection.rule import Rule, RuleSet
from mcpwatch.event import AuditEvent
from mcpwatch.filter import Filter

PARAMETRIC: Final = frozenset({"key-stale", "token-lifetime"})
"""Checks that take settings: each rule that uses one has a check of its own."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One way into the windows of a rule with a correlation.

    Attributes:
        step: Which step of the sequence it is, from 0; 0 for those that count.
        match: What an event must look like.
        grouping: Number of the rule's grouping, the same for equal ones.
    """

    rule: Rule
    step: int
    match: Filter | None
    grouping: int


class Book:
    """The rules of a run.

    Attributes:
        by_check: Stateless rules by the check that they stand on.
        own: Stateless rules that stand on nothing but a filter.
        entries: Ways into windows by what an event looks like,
        entries_by_check: and by what a check finds.
        correlated: The rules with a correlation.
    """

    def __init__(self, rules: RuleSet) -> None:
        self.rules = rules
        self.by_id = rules.by_id
        self.by_check: dict[str, tuple[Rule, ...]] = {}
        self.own: tuple[Rule, ...] = ()
        self.entries: tuple[Entry, ...] = ()
        self.entries_by_check: dict[str, tuple[Entry, ...]] = {}
        self._parametric = {
            check: tuple(rule for rule in rules if check in _checks_of(rule)) for check in PARAMETRIC
        }
        self.correlated = tuple(rule for rule in rules if rule.correlation is not None)
        groupings: dict[Grouping, int] = {}
        for rule in rules:
            if rule.correlation is None:
                self._add_stateless(rule)
                continue
            for step, condition in enumerate(rule.correlation.events):
                grouping = groupings.setdefault(rule.group_by, len(groupings))
                entry = Entry(rule, step, condition.match, grouping)
                if condition.check is None:
                    self.entries += (entry,)
                else:
                    name = found_name(rule, condition.check)
                    self.entries_by_check[name] = (*self.entries_by_check.get(name, ()), entry)

    def _add_stateless(self, rule: Rule) -> None:
        if rule.condition.check is None:
            self.own += (rule,)
        name = found_name(rule, rule.condition.check)
        self.by_check[name] = (*self.by_check.get(name, ()), rule)

    def wants(self, *checks: str) -> bool:
        """Whether any rule stands on one of the checks."""
        return any(check in self.by_check or check in self.entries_by_check for check in checks)

    def parametric(self, check: str) -> tuple[Rule, ...]:
        """The rules that use a check with settings of their own."""
        return self._parametric[check]

    def excepted(self, rule: Rule, event: AuditEvent, tier: str | None, time_ns: int) -> bool:
        """Whether somebody said that the rule is not about such an event."""
        return any(
            (exception.until is None or time_ns < exception.until) and exception.fields.match(event, tier)
            for exception in rule.exceptions
        )


def found_name(rule: Rule, check: str | None) -> str:
    """What a check of a rule calls its findings: one with settings, or that is a mere filter, is the rule's own."""
    if check is None:
        return f"match of {rule.id}"
    return f"{check} of {rule.id}" if check in PARAMETRIC else check


def _checks_of(rule: Rule) -> set[str | None]:
    steps = rule.correlation.events if rule.correlation is not None else (rule.condition,)
    return {step.check for step in steps}
