"""Breaks the shipped rules in small ways, one at a time, and sees whether a case of the rule notices each.

Run it as `python -m tests.mutate_rules [RULE…]`. It exits with 1 if some change went unnoticed.

A change that can't matter is not made; why it can't is said where it is left out.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Final, Literal

from mcpwatch.detection.hit import Severity
from mcpwatch.detection.principal import Grouping
from mcpwatch.detection.rule import CHECK_SETTINGS, Condition, Correlation, Limit, Rule
from mcpwatch.detection.rulefile import SHIPPED, shipped, with_tests
from mcpwatch.detection.trial import policy_of, run, wrong
from mcpwatch.filter import AllOf, AnyOf, Filter, Node, Not, Term
from mcpwatch.policy.model import Alerts

CHECK_ALERTS: Final[Mapping[str, str]] = MappingProxyType(
    {"enforcement-gap": "enforcement_grace", "token-lifetime": "token_lifetime"}
)
"""Limits of the policy that a check looks at itself."""

ONLY_SUBJECTS: Final[Mapping[str, tuple[str, ...]]] = MappingProxyType(
    {
        "audit-gap": (),  # is about a log, whoever its record names
        "key-stale": ("key",),  # there always is a key, so no other alternative is ever taken
        "key-unknown": ("key",),
        "revoked-attempt": ("key", "subject", "client", "session"),  # no address is ever revoked
    }
)
"""Where not all alternatives of `group-by` can matter: those that do."""


def _as_they_are(alerts: Alerts) -> Alerts:
    return alerts


@dataclass(frozen=True, slots=True)
class Mutant:
    """A rule with one thing changed.

    Attributes:
        what: The change, in words.
        alerts: A change of the limits that the policy of each case gives.
    """

    what: str
    rule: Rule
    alerts: Callable[[Alerts], Alerts] = field(default=_as_they_are)

    def caught(self) -> bool:
        """Whether a case of the rule fails."""
        for case in sorted(self.rule.tests, key=lambda case: len(case.lines)):
            policy = policy_of(case)
            changed = replace(policy, alerts=self.alerts(policy.alerts))
            if wrong(case, run(self.rule, case, changed)) is not None:
                return True
        return False


def _moved(setting: str, by: int) -> Callable[[Alerts], Alerts]:
    def change(alerts: Alerts) -> Alerts:
        return replace(alerts, **{setting: getattr(alerts, setting) + by})

    return change


def _without_one(node: Node) -> Iterator[tuple[Term, Node | None]]:
    """A filter without each of its terms, and which term that is; None where nothing is left."""
    if isinstance(node, Term):
        yield node, None
    elif isinstance(node, Not):
        for term, rest in _without_one(node.part):
            yield term, None if rest is None else Not(rest)
    else:
        for at, part in enumerate(node.parts):
            for term, rest in _without_one(part):
                parts = (*node.parts[:at], *(() if rest is None else (rest,)), *node.parts[at + 1 :])
                yield term, _joined(type(node), parts)


def _joined(kind: type[AllOf] | type[AnyOf], parts: tuple[Node, ...]) -> Node | None:
    if len(parts) < 2:
        return parts[0] if parts else None
    return kind(parts)


def _conditions(condition: Condition, place: str) -> Iterator[tuple[str, Condition]]:
    """A condition that asks for less."""
    if condition.check is not None:
        yield f"no check {condition.check}{place}", replace(condition, check=None)
    if condition.match is not None:
        for term, rest in _without_one(condition.match.root):
            less = Filter("", rest if rest is not None else AllOf(()))
            yield f"no term {term}{place}", replace(condition, match=less)


def _with_limit(counting: Correlation, name: Literal["limit", "timespan"], limit: Limit) -> Correlation:
    return replace(counting, limit=limit) if name == "limit" else replace(counting, timespan=limit)


def _limits(
    rule: Rule, counting: Correlation, name: Literal["limit", "timespan"], unit: str
) -> Iterator[Mutant]:
    """The limit or the timespan, moved by one."""
    limit = counting.limit if name == "limit" else counting.timespan
    for by in (-1, 1):
        what = f"{name} {by:+d}{unit}"
        if limit.setting is None:
            moved = _with_limit(counting, name, replace(limit, value=limit.value + by))
            yield Mutant(what, replace(rule, correlation=moved))
        else:
            yield Mutant(what, rule, _moved(limit.setting, by))
    if limit.setting is not None:
        fixed = _with_limit(counting, name, Limit(limit.of(Alerts())))
        yield Mutant(f"{name} not from the policy", replace(rule, correlation=fixed))


def _correlations(counting: Correlation) -> Iterator[tuple[str, Correlation]]:
    steps = counting.events
    if len(steps) > 1:
        yield "steps the other way round", replace(counting, events=steps[::-1])
    else:
        flipped: Correlation = replace(counting, op="gte" if counting.op == "gt" else "gt")
        yield f"{flipped.op} in place of {counting.op}", flipped
    for number, step in enumerate(steps):
        for what, less in _conditions(step, f" in step {number + 1}" if len(steps) > 1 else ""):
            yield what, replace(counting, events=(*steps[:number], less, *steps[number + 1 :]))
    for name in counting.same:
        rest = tuple(each for each in counting.same if each != name)
        yield f"not the same {name}", replace(counting, same=rest)
    if len(counting.fields) > 1:  # without its only field a rule counts nothing and is no rule
        for name in counting.fields:
            rest = tuple(each for each in counting.fields if each != name)
            yield f"no field {name}", replace(counting, fields=rest)
    if counting.once_per_call:
        yield "not once per call", replace(counting, once_per_call=False)
    if counting.in_one_call:
        yield "not in one call", replace(counting, in_one_call=False)


def _groupings(rule: Rule) -> Iterator[tuple[str, Grouping]]:
    """Other subjects. The order of alternatives only matters to rules that count: others fire on the same events."""
    grouping = rule.group_by
    only = ONLY_SUBJECTS.get(rule.id)
    for at, names in enumerate(grouping):
        if only is None or set(names) <= set(only):
            yield f"no group-by {'+'.join(names)}", (*grouping[:at], *grouping[at + 1 :])
    if rule.correlation is None:
        return
    for at, names in enumerate(grouping):
        if len(names) > 1:
            for name in names:
                rest = tuple(each for each in names if each != name)
                yield f"no {name} in group-by {'+'.join(names)}", (*grouping[:at], rest, *grouping[at + 1 :])
        # an event that has the subject of an earlier alternative doesn't care about the order of later ones
        if at and not any(set(names) | set(grouping[at - 1]) >= set(first) for first in grouping[: at - 1]):
            before = grouping[at - 1]
            what = f"group-by {'+'.join(names)} before {'+'.join(before)}"
            yield what, (*grouping[: at - 1], names, before, *grouping[at + 1 :])


def mutants(rule: Rule) -> Iterator[Mutant]:
    """Every small change of a rule."""
    for level in Severity:
        if level is not rule.level:
            yield Mutant(f"level {level.label}", replace(rule, level=level))
    for what, grouping in _groupings(rule):
        yield Mutant(what, replace(rule, group_by=grouping))
    check = rule.condition.check or ""
    for name in CHECK_SETTINGS.get(check, ()):
        for by in (-1, 1):
            moved = MappingProxyType({**rule.settings, name: rule.settings[name] + by})
            yield Mutant(f"setting {name} {by:+d} ns", replace(rule, settings=moved))
    if check in CHECK_ALERTS:
        for by in (-1, 1):
            yield Mutant(f"{CHECK_ALERTS[check]} {by:+d} ns", rule, _moved(CHECK_ALERTS[check], by))
    counting = rule.correlation
    if counting is None:
        for what, condition in _conditions(rule.condition, ""):
            yield Mutant(what, replace(rule, condition=condition))
        return
    if counting.type != "temporal_ordered":
        yield from _limits(rule, counting, "limit", "")
    yield from _limits(rule, counting, "timespan", " ns")
    for what, changed in _correlations(counting):
        yield Mutant(what, replace(rule, correlation=changed))


def survivors(rule: Rule) -> tuple[int, list[str]]:
    """How many changes of a rule with its cases were tried, and those that none of the cases noticed."""
    tried = list(mutants(rule))
    return len(tried), [mutant.what for mutant in tried if not mutant.caught()]


def main(ids: list[str]) -> int:
    """Try the rules of those ids, all of them where there is none, and print a table."""
    if unknown := [rule_id for rule_id in ids if rule_id not in SHIPPED]:
        print(f"no shipped rule {', '.join(unknown)}", file=sys.stderr)
        return 2
    total = caught = 0
    alive: list[str] = []
    print(f"{'rule':26}{'mutants':>8}{'caught':>8}")
    for rule in shipped():
        if ids and rule.id not in ids:
            continue
        tried, missed = survivors(with_tests(rule))
        total, caught = total + tried, caught + tried - len(missed)
        alive += [f"{rule.id}: {what}" for what in missed]
        print(f"{rule.id:26}{tried:8}{tried - len(missed):8}", flush=True)
    print(f"{'all':26}{total:8}{caught:8}")
    for line in alive:
        print(f"unnoticed: {line}")
    return 1 if alive else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
