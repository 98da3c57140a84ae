"""Reads rule files: the tree of `mcpwatch.documents`, validated node by node into a `Rule` or a `Tuning`."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator, Mapping
from dataclasses import replace
from functools import cache
from typing import Any, Final

from mcpwatch import data as shipped_data
from mcpwatch.detection.hit import Severity
from mcpwatch.detection.matching import match
from mcpwatch.detection.principal import PRINCIPAL, Grouping
from mcpwatch.detection.rule import (
    CHECK_NAMES,
    SAME_FIELDS,
    VALUE_FIELDS,
    Condition,
    Correlation,
    Limit,
    Rule,
    RuleError,
    RuleSet,
)
from mcpwatch.detection.rulecases import cases
from mcpwatch.detection.tags import tag
from mcpwatch.detection.tuning import Limits, Tuning, exceptions, limits, misfit, settings, tuning
from mcpwatch.documents import read as documents
from mcpwatch.documents.nodes import (
    Reader,
    duration,
    fail,
    fields,
    list_of,
    one_of,
    phrase,
    rows,
    text,
    whole_number,
)
from mcpwatch.documents.tree import FileKind, Node, NodeError, compose, located, quote
from mcpwatch.policy.load import MAX_COUNT
from mcpwatch.text import safe
from mcpwatch.times import DAY

RULE_FILE: Final = FileKind("a rule", "title: …", RuleError)

SHIPPED: Final = (
    "enforcement-gap",
    "unauthenticated-success",
    "shell-execute",
    "path-outside",
    "domain-unexpected",
    "auth-lockout",
    "session-rate",
    "session-churn",
    "key-rate",
    "tool-disabled",
    "tool-unlisted",
    "scope-missing",
    "audit-missing",
    "key-unknown",
    "revoked-attempt",
    "secret-in-params",
    "policy-tampering",
    "audit-gap",
    "exfil-sequence",
    "credential-spray",
    "tool-enumeration",
    "destructive-burst",
    "session-shared",
    "token-lifetime",
    "key-stale",
    "tool-changed",
    "runaway-loop",
    "hostile-text",
)
"""Ids of the rules that come with mcpwatch, in the order in which they are listed."""

MAX_STEPS: Final = 5
"""Most steps of a `temporal_ordered`."""

_TESTS: Final = b"\ntests:"
_IDENTITIES: Final = ("key", "known_key", "client", "session", "subject", "source_ip")
_COUNT_SETTINGS: Final = ("session_calls_per_minute", "key_requests_per_minute", "auth_failures")
_TIME_SETTINGS: Final = ("auth_failures_within",)
_ID: Final = re.compile(r"[a-z][a-z0-9-]{0,63}")


def _nearest(word: str, known: tuple[str, ...]) -> str:
    near = difflib.get_close_matches(word[:80], known, n=1)
    return f"did you mean '{near[0]}'?" if near else f"known are {', '.join(known)}"


def _named(what: str, known: tuple[str, ...]) -> Reader:
    """One of some names, with the nearest of them in the message."""

    def read(node: Node, place: str) -> str:
        found = text(node, place)
        if found not in known:
            raise NodeError(node, f"{place} is no {what}: {quote(found)}; {_nearest(found, known)}")
        return found

    return read


def _one_or_more(reader: Reader) -> Reader:
    """One value or a list of different ones, as a tuple that is not empty."""

    def read(node: Node, place: str) -> tuple[Any, ...]:
        items = node.items if node.kind == "list" else (node,)
        found = tuple(reader(item, place) for item in items)
        if not found or len(set(found)) != len(found):
            fail(node, place, "one or more different values")
        return found

    return read


def _rule_id(node: Node, place: str) -> str:
    found = text(node, place)
    if _ID.fullmatch(found) is None:
        raise NodeError(
            node, f"{place} {quote(found)} must be small letters, digits and '-', first a letter, at most 64"
        )
    return found


def _level(node: Node, place: str) -> Severity:
    return Severity.named(one_of("critical", "high", "medium", "low")(node, place))


_alternatives: Final = _one_or_more(_named("identity", _IDENTITIES))


def _grouping(node: Node, place: str) -> Grouping:
    if node.kind == "text" and node.text == "principal":
        return PRINCIPAL
    if node.kind != "list" or not node.items:
        fail(node, place, "principal, or a list of identities such as [[key, client], source_ip]")
    return tuple(_alternatives(item, f"{place}[{number}]") for number, item in enumerate(node.items))


def _limit(reader: Reader, known: tuple[str, ...]) -> Reader:
    """What the reader gives, or a setting of the policy's alerts."""
    setting = _named("limit of the policy", tuple(f"alerts.{name}" for name in known))

    def read(node: Node, place: str) -> Limit:
        if node.kind == "text" and node.text.startswith("alerts"):
            return Limit(setting=setting(node, place).removeprefix("alerts."))
        return Limit(reader(node, place))

    return read


def _up_to_a_day(node: Node, place: str) -> int:
    found: int = duration(node, place)
    if found > DAY:
        fail(node, place, f"at most 1d, which is as long as events are remembered, not {quote(node.text)}")
    return found


_bound: Final = _limit(whole_number(MAX_COUNT), _COUNT_SETTINGS)


def _bounds(node: Node, place: str) -> dict[str, Any]:
    found = fields(node, place, {"gt": _bound, "gte": _bound})
    if len(found) != 1:
        fail(node, place, "{gt: 5} or {gte: 5}")
    ((op, limit),) = found.items()
    return {"op": op, "limit": limit}


_CONDITION: Final[Mapping[str, Reader]] = {"match": match, "check": _named("check", CHECK_NAMES)}


def _step(node: Node, place: str) -> Condition:
    found = fields(node, place, _CONDITION)
    if not found:
        fail(node, place, "{match: …}, {check: …} or both")
    return Condition(**found)


def _steps(node: Node, place: str) -> tuple[Condition, ...]:
    found = tuple(_step(item, where) for item, where in rows(node, place))
    if not 2 <= len(found) <= MAX_STEPS:
        fail(node, place, f"a list of 2 to {MAX_STEPS} steps, such as [{{check: …}}, {{match: …}}]")
    return found


_CORRELATION: Final[Mapping[str, Reader]] = {
    "type": _named("correlation", ("event_count", "value_count", "temporal_ordered")),
    **_CONDITION,
    "steps": _steps,
    "timespan": _limit(_up_to_a_day, _TIME_SETTINGS),
    "condition": _bounds,
    "field": _one_or_more(_named("field that can be counted", VALUE_FIELDS)),
    "same": _one_or_more(_named("field that can be compared", SAME_FIELDS)),
    "once-per": one_of("call"),
    "in-one": one_of("call"),
    "unit": phrase(40),
}
# type: (what it must have, what it can have) beside type and timespan
_TAKES: Final[Mapping[str, tuple[tuple[str, ...], tuple[str, ...]]]] = {
    "event_count": (("condition",), ("match", "check", "same", "once-per", "unit")),
    "value_count": (("condition", "field"), ("match", "check", "unit")),
    "temporal_ordered": (("steps",), ("in-one",)),
}


def _correlation(node: Node, place: str) -> Correlation:
    found = fields(node, place, _CORRELATION, ("type", "timespan"))
    kind = found["type"]
    needed, possible = _TAKES[kind]
    for name in needed:
        if name not in found:
            raise NodeError(node, f"{place} of type {kind} has no '{name}'")
    for key, _ in node.pairs:
        if key.text not in ("type", "timespan", *needed, *possible):
            raise NodeError(key, f"{place} of type {kind} takes no '{key.text}'")
    if kind == "temporal_ordered":
        return Correlation(kind, found["steps"], found["timespan"], in_one_call="in-one" in found)
    event = Condition(found.get("match"), found.get("check"))
    if event == Condition():
        raise NodeError(node, f"{place} has no 'match': say which events are counted, such as kind:tool_call")
    values: tuple[str, ...] = found.get("field", ())
    return Correlation(
        kind,
        (event,),
        found["timespan"],
        **found["condition"],
        fields=values,
        same=found.get("same", ()),
        once_per_call="once-per" in found,
        unit=found.get("unit", f"values of {' or '.join(values)}" if values else "events"),
    )


_phrases: Final = list_of(phrase(500), "a list of texts, one for each '-'")


def _runbook(node: Node, place: str) -> tuple[str, ...]:
    found: tuple[str, ...] = _phrases(node, place)
    if not 1 <= len(found) <= 6:
        fail(node, place, "a list of one to six steps, one for each '-'")
    return found


def _table(name: str) -> dict[str, Reader]:
    return {
        "title": phrase(120),
        "id": _rule_id,
        "level": _level,
        "description": phrase(2_000),
        "falsepositives": _phrases,
        "tags": list_of(tag, "a list of tags, such as [owasp-mcp:02]"),
        "references": _phrases,
        "author": phrase(200),
        "group-by": _grouping,
        **_CONDITION,
        "settings": settings,
        "correlation": _correlation,
        "exceptions": exceptions(name),
        "thresholds": limits(name),
        "runbook": _runbook,
        "tests": cases(name),
    }


def _contradictions(found: Mapping[str, Any], shipped: bool) -> Iterator[tuple[str, str]]:
    """What can't be so in a rule that is right key by key: which key says it, and the message."""
    rule_id, correlated = found["id"], "correlation" in found
    if not shipped and rule_id in SHIPPED:
        yield (
            "id",
            f"rule '{rule_id}' comes with mcpwatch: tune it with `tune: {rule_id}`, or name yours otherwise",
        )
    for name in ("match", "check"):
        if correlated and name in found:
            yield (
                name,
                f"'{name}' beside a correlation: move it into the correlation, which says what is counted",
            )
    if not correlated and "match" not in found and "check" not in found:
        yield "id", "the rule has no 'match', 'check' or 'correlation': it would fire on every event"
    if "level" not in found and (correlated or "check" not in found):
        yield "id", "the rule has no 'level': write critical, high, medium or low"


def _rule(root: Node, name: str, shipped: bool) -> Rule:
    found = fields(root, "", _table(name), ("title", "id", "description"))
    for key, message in _contradictions(found, shipped):
        raise NodeError(root.get(key) or root, message)
    bounds: Limits = found.pop("thresholds", Limits())
    rule = Rule(
        level=found.pop("level", None),
        group_by=found.pop("group-by", PRINCIPAL),
        condition=Condition(found.pop("match", None), found.pop("check", None)),
        thresholds=bounds.thresholds,
        shipped=shipped,
        place=safe(name),
        **found,
    )
    problem = misfit(rule, bounds, rule.settings)
    if problem is not None:
        raise NodeError(root.get("settings") or root.get("thresholds") or root, problem)
    return rule


def parse(data: bytes, name: str, *, shipped: bool = False, tests: bool = True) -> Rule | Tuning:
    """Read a rule file.

    Args:
        name: Of the file, for messages.
        shipped: It comes with mcpwatch, and so may have the id of a shipped rule.
        tests: False leaves out the cases of a shipped rule, which are the last key of its file.

    Raises:
        RuleError: The bytes are no valid rule file; the message has the file, the line and what to do.
    """
    if shipped and not tests:
        data = data.partition(_TESTS)[0]
    document = compose(data, name, RULE_FILE)
    with located(name, RULE_FILE):
        if document.root.get("tune") is not None and not shipped:
            return tuning(document.root, name)
        return _rule(document.root, name, shipped)


def _shipped(rule_id: str, tests: bool) -> Rule:
    path = shipped_data.shipped("rules") / f"{rule_id}.yaml"
    try:
        data = documents.read(path, RULE_FILE)
    except FileNotFoundError:
        raise RuleError(safe(f"{path}: no such file: install mcpwatch again")) from None
    found = parse(data, f"rules/{path.name}", shipped=True, tests=tests)
    assert isinstance(found, Rule)  # nothing shipped tunes
    return found


@cache
def shipped() -> RuleSet:
    """The rules that come with mcpwatch, without their cases (`with_tests`).

    Raises:
        RuleError: A file of the installation is missing or broken.
    """
    return RuleSet(tuple(_shipped(rule_id, False) for rule_id in SHIPPED))


def with_tests(rule: Rule) -> Rule:
    """The rule with its cases, which are read now if it is a shipped one.

    Raises:
        RuleError: A file of the installation is missing or broken.
    """
    return replace(rule, tests=_shipped(rule.id, True).tests) if rule.shipped else rule
