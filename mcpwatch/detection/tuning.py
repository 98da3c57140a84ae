"""Tuning: what a site says about a rule that it did not write, and how that changes the rule."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any, Final, Literal

from mcpwatch.detection.matching import some_callers, some_events
from mcpwatch.detection.rule import CHECK_SETTINGS, Rule, RuleError, RuleException, Threshold
from mcpwatch.documents.nodes import (
    Reader,
    day,
    duration,
    duration_or_zero,
    entries,
    fields,
    flag,
    phrase,
    rows,
    text,
    whole_number,
)
from mcpwatch.documents.tree import Node, NodeError, quote
from mcpwatch.policy.load import MAX_COUNT
from mcpwatch.text import SafeText, safe
from mcpwatch.times import DAY, utc_midnight

_phrase: Final = phrase(500)
_count: Final = whole_number(MAX_COUNT)


@dataclass(frozen=True, slots=True)
class Limits:
    """Thresholds, and whether they are written as `gt` or as `gte`; None where there is none."""

    op: Literal["gt", "gte"] | None = None
    thresholds: tuple[Threshold, ...] = ()


@dataclass(frozen=True, slots=True)
class Tuning:
    """A file that changes a rule.

    Attributes:
        rule: The rule's id.
        enabled: False switches the rule off.
        reason: Why it is off; empty where nobody said.
        settings: In place of the rule's own of the same names.
        place: File and line, for messages.
    """

    rule: str
    enabled: bool
    reason: str
    exceptions: tuple[RuleException, ...]
    limits: Limits
    settings: Mapping[str, int]
    place: SafeText


def settings(node: Node, place: str) -> Mapping[str, int]:
    """Times (ns) by name. Only a leeway may be nothing."""
    readers = {"leeway": duration_or_zero}
    return MappingProxyType(
        {name: readers.get(name, duration)(item, where) for name, item, where in entries(node, place)}
    )


_SIGNED: Final = ("fields", "author", "reason")
_EXCEPTION: Final[Mapping[str, Reader]] = {
    "fields": some_events,
    "author": _phrase,
    "reason": _phrase,
    "expires": day,
}
_THRESHOLD: Final[Mapping[str, Reader]] = {
    "fields": some_callers,
    "gt": _count,
    "gte": _count,
    "author": _phrase,
    "reason": _phrase,
}


def _signed(
    node: Node, place: str, table: Mapping[str, Reader]
) -> Iterator[tuple[Node, str, dict[str, Any]]]:
    """The rows of a list of which no two are about the same events."""
    seen: dict[str, int] = {}
    for item, where in rows(node, place):
        found = fields(item, where, table, _SIGNED)
        events = str(found["fields"]).casefold()
        if events in seen:
            raise NodeError(
                item, f"{where} names the same events as line {seen[events]}: keep one of the two"
            )
        seen[events] = item.line
        yield item, where, found


def exceptions(name: str) -> Reader:
    """A reader of the exceptions in a file of that name."""

    def read(node: Node, place: str) -> tuple[RuleException, ...]:
        result = []
        for item, _, found in _signed(node, place, _EXCEPTION):
            last = found.pop("expires", None)
            until = None if last is None else utc_midnight(last) + DAY
            result.append(RuleException(**found, until=until, place=safe(f"{name}:{item.line}")))
        return tuple(result)

    return read


def limits(name: str) -> Reader:
    """A reader of the thresholds in a file of that name."""

    def read(node: Node, place: str) -> Limits:
        op, result = None, []
        for item, where, found in _signed(node, place, _THRESHOLD):
            given = [name for name in ("gt", "gte") if name in found]
            if len(given) != 1:
                raise NodeError(item, f"{where} needs one of gt and gte, as the rule's condition has it")
            if op not in (None, given[0]):
                raise NodeError(item, f"{where} says {given[0]} and others say {op}: write all of them alike")
            op = given[0]
            limit = found.pop(op)
            result.append(Threshold(**found, limit=limit, place=safe(f"{name}:{item.line}")))
        return Limits(op, tuple(result))

    return read


def tuning(root: Node, name: str) -> Tuning:
    """Read a file that starts with `tune`. Raises NodeError."""
    table: dict[str, Reader] = {
        "tune": text,
        "enabled": flag,
        "reason": _phrase,
        "exceptions": exceptions(name),
        "thresholds": limits(name),
        "settings": settings,
    }
    found = fields(root, "", table, ("tune",))
    if len(found) == 1:
        raise NodeError(root, "tunes nothing: give exceptions, thresholds, settings or `enabled: false`")
    if not found.get("enabled", True) and "reason" not in found:
        raise NodeError(root, "`enabled: false` without a reason: say why nobody needs this rule here")
    return Tuning(
        rule=found["tune"],
        enabled=found.get("enabled", True),
        reason=found.get("reason", ""),
        exceptions=found.get("exceptions", ()),
        limits=found.get("thresholds", Limits()),
        settings=found.get("settings", MappingProxyType({})),
        place=safe(f"{name}:{root.line}"),
    )


def misfit(rule: Rule, limits: Limits, given: Mapping[str, int]) -> str | None:
    """Why a rule can't have these thresholds and settings; None where it can."""
    counting = rule.correlation
    if limits.op is not None:
        if counting is None or counting.type == "temporal_ordered":
            return f"rule '{rule.id}' counts nothing, so it has no thresholds: use exceptions"
        if limits.op != counting.op:
            return f"thresholds of rule '{rule.id}' are written with {counting.op}, as its condition is"
    known = CHECK_SETTINGS.get(rule.condition.check or "", ())
    for name in given:
        if name not in known:
            has = f"it has {', '.join(known)}" if known else "it has none"
            return f"rule '{rule.id}' has no setting {quote(name)}; {has}"
    return None


def tuned(rule: Rule, tuning: Tuning) -> Rule:
    """The rule as a site wants it: what the site says goes before what the rule's author said.

    Raises:
        RuleError: The rule can't have such thresholds or settings.
    """
    problem = misfit(rule, tuning.limits, tuning.settings)
    if problem is not None:
        raise RuleError(safe(f"{tuning.place}: {problem}"))
    return replace(
        rule,
        exceptions=tuning.exceptions + rule.exceptions,
        thresholds=tuning.limits.thresholds + rule.thresholds,
        settings=MappingProxyType({**rule.settings, **tuning.settings}),
    )
