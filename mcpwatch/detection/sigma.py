"""Rules as Sigma rules (https://sigmahq.io), for whoever searches in another system for what mcpwatch detects.

A stateless rule becomes one Sigma rule. One that counts, or waits for steps in order, becomes for each of its
subjects the Sigma rules of its events and one correlation rule over them.
"""

from __future__ import annotations

import re
import uuid
from collections.abc import Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Any, Final

import yaml

from mcpwatch.detection.rule import Condition, Correlation, Rule, RuleError, RuleException
from mcpwatch.filter import AllOf, AnyOf, Field, Node, Not, Term
from mcpwatch.policy.model import Policy
from mcpwatch.text import safe
from mcpwatch.times import DAY, HOUR, MINUTE, SECOND, format_duration, iso

_ARGUMENTS: Final = ("gen_ai.tool.call.arguments", "params")
FIELDS: Final[Mapping[str, tuple[str, str]]] = MappingProxyType(
    {
        "tool": ("gen_ai.tool.name", "tool"),
        "tier": ("mcpwatch.tier", "tier"),
        "status": ("mcpwatch.status", "status"),
        "kind": ("mcpwatch.event", "event"),
        "key": ("mcpwatch.key_id", "key_id"),
        "client": ("mcpwatch.client_id", "client_id"),
        "session": ("mcp.session.id", "session_id"),
        "subject": ("enduser.id", "subject"),
        "ip": ("client.address", "source_ip"),
        "server": ("service.name", "server"),
        "source": ("mcpwatch.source", "source"),
        "call": ("gen_ai.tool.call.id", "call_id"),
        "path": _ARGUMENTS,
        "url": _ARGUMENTS,
        "param": _ARGUMENTS,
        "error": ("error.message", "error"),
        "duration": ("mcpwatch.duration_ms", "duration_ms"),
        "check": ("mcpwatch.check", "checks"),
        "network": ("mcpwatch.network", "network"),
    }
)
"""Name in filters -> (name in Sigma rules, key of the event lines that `--json --events` prints).

OpenTelemetry's names where it has one. `path`, `url` and `param` stand for the values of all parameters.
"""

_ANYWHERE: Final = ("tool", "key", "client", "session", "subject", "ip", "error", "param")
"""Where free text is looked for."""

_IDENTITIES: Final = {"source_ip": "ip", "known_key": "key"}  # else an identity is called as its field
_NAMESPACE: Final = uuid.uuid5(uuid.NAMESPACE_URL, "mcpwatch:rules")
_COMPARISONS: Final = {":": "", "!=": "", ">=": "|gte", "<=": "|lte", ">": "|gt", "<": "|lt"}
_MILLISECONDS: Final = {"ms": 1, "s": 1_000, "m": 60_000, "": 1}
_NUMBER: Final = re.compile(r"([\d.]+)(ms|s|m|)")
_UNITS: Final = ((DAY, "d"), (HOUR, "h"), (MINUTE, "m"), (SECOND, "s"))
_NOT_LITERAL: Final = re.compile(r"[*?]")
# a pattern that is a plain text with stars around it: (star before, text, star behind) -> what Sigma calls it
_AROUND: Final = re.compile(r"(\*?)([^*?]+)(\*?)", re.DOTALL)
_MODIFIERS: Final = {("*", "*"): "|contains", ("", "*"): "|startswith", ("*", ""): "|endswith", ("", ""): ""}

_CHECKED: Final = (
    "The field mcpwatch.check has what mcpwatch finds in a call; `mcpwatch tail --json --events` writes it."
)
_OWN_SEVERITY: Final = "How bad it is depends on the call, so there is no level."
_ONCE_PER_CALL: Final = "A call that is logged twice is counted twice here, and once by mcpwatch."


class SigmaError(RuleError):
    """A rule says something that Sigma can't say. The message says where and what."""


class _Detection:
    """The selections of one Sigma rule, each under a name of its own, and the condition over them."""

    def __init__(self) -> None:
        self.selections: dict[str, Any] = {}

    def name(self, stem: str, selection: Any) -> str:
        """The name of a selection: that of an equal one if there is one."""
        number = 1
        name = stem
        while name in self.selections and self.selections[name] != selection:
            number += 1
            name = f"{stem}_{number}"
        self.selections[name] = selection
        return name

    def expression(self, node: Node) -> str:
        """A part of a filter as a condition."""
        if isinstance(node, Term):
            return self._term(node)
        if isinstance(node, Not):
            return f"not {self._inside(node.part)}"
        if isinstance(node, AllOf):
            return " and ".join(self._inside(part) for part in node.parts)
        return " or ".join(self._alternatives(node))

    def conjunct(self, node: Node) -> str:
        """A part of a filter as one of several conditions that all must hold."""
        return self._inside(node) if isinstance(node, AnyOf) else self.expression(node)

    def _inside(self, node: Node) -> str:
        found = self.expression(node)
        return f"({found})" if " and " in found or " or " in found else found

    def _alternatives(self, node: AnyOf) -> Iterator[str]:
        """The parts of an "or"; what is said of one field with one modifier becomes one list of values."""
        lists: dict[str, tuple[Field, list[Any]]] = {}
        for part in node.parts:
            if not isinstance(part, Term) or part.of is None or part.op == "!=":
                yield self._inside(part)
                continue
            key, values = _key_and_values(part.of, part)
            _, known = lists.setdefault(key, (part.of, []))
            known.extend(value for value in values if value not in known)
        for key, (row, values) in lists.items():
            yield self.name(row.name, {key: _one_or_list(values)})

    def _term(self, term: Term) -> str:
        if term.of is None:
            anywhere = [{f"{FIELDS[name][0]}|contains": _escaped(term.value)} for name in _ANYWHERE]
            return self.name("text", anywhere)
        key, values = _key_and_values(term.of, term)
        name = self.name(term.of.name, {key: _one_or_list(values)})
        return f"not {name}" if term.op == "!=" else name


def _one_or_list(values: Sequence[Any]) -> Any:
    return values[0] if len(values) == 1 else list(values)


def _escaped(value: str) -> str:
    """Text that stands for exactly itself."""
    return _NOT_LITERAL.sub(r"\\\g<0>", value.replace("\\", "\\\\"))


def _key_and_values(row: Field, term: Term) -> tuple[str, list[Any]]:
    """Field with modifier, and the values of which it must have one."""
    name, value = FIELDS.get(row.name, ("", ""))[0], term.value
    match row.kind:
        case "text":
            if term.literal or not _NOT_LITERAL.search(value):
                return name, [_escaped(value)]
            found = _AROUND.fullmatch(value)
            if found is None:
                return name, [value.replace("\\", "\\\\")]
            return name + _MODIFIERS[found[1], found[3]], [_escaped(found[2])]
        case "contains":
            return f"{name}|contains", [_escaped(value)]
        case "prefix":
            return f"{name}|startswith", [_escaped(value)]
        case "ordered":
            return name, _span(row.values, term.op, value.lower())
        case "number":
            number = _NUMBER.fullmatch(value.lower())
            assert number is not None  # the filter took it
            milliseconds = float(number[1]) * _MILLISECONDS[number[2]]
            plain = int(milliseconds) if milliseconds.is_integer() else milliseconds
            return name + _COMPARISONS[term.op], [plain]
        case "time":
            raise SigmaError(f"'{safe(term, 80)}': Sigma rules say nothing about the time")


def _span(values: Sequence[str], op: str, value: str) -> list[Any]:
    """The values of an ordered field that compare so; for `!=` those that don't."""
    at = values.index(value)
    spans = {">=": values[at:], ">": values[at + 1 :], "<=": values[: at + 1], "<": values[:at]}
    # nothing has the value "none": the term never holds, as in the filter
    return list(spans.get(op, values[at : at + 1])) or ["none"]


class _Alternative:
    """One of the subjects that a rule groups by: events that have these identities, and none of those before.

    Attributes:
        slug: Tells it from the others in ids and names.
        fields: What Sigma groups by.
    """

    def __init__(self, grouping: Sequence[tuple[str, ...]], number: int, policy: Policy) -> None:
        names = grouping[number]
        self.slug = "-".join(name.replace("_", "-") for name in names)
        self.fields = [_field_of(name) for name in names]
        self._has, self._policy = grouping[: number + 1], policy

    def conditions(self, detection: _Detection) -> Iterator[str]:
        """Conditions on an event that all must hold for it to be about such a subject."""
        *before, own = self._has
        for name in own:
            yield self._present(name, detection)
        for names in before:
            missing = [self._present(name, detection) for name in names if name not in own]
            yield f"not {missing[0]}" if len(missing) == 1 else f"not ({' and '.join(missing)})"

    def _present(self, name: str, detection: _Detection) -> str:
        if name == "known_key":
            keys = [_escaped(key) for key in sorted(self._policy.keys)]
            return detection.name("known_key", {f"{_field_of(name)}|cased": keys})
        return detection.name(f"has_{name}", {f"{_field_of(name)}|exists": True})


def _field_of(name: str) -> str:
    return FIELDS[_IDENTITIES.get(name, name)][0]


def _subjects(rule: Rule, policy: Policy) -> list[_Alternative]:
    # in a policy without keys no key is known
    grouping = [names for names in rule.group_by if policy.keys or "known_key" not in names]
    # what has all that one before needs is never reached
    grouping = [
        names
        for at, names in enumerate(grouping)
        if not any(set(each) <= set(names) for each in grouping[:at])
    ]
    return [_Alternative(grouping, number, policy) for number in range(len(grouping))]


def documents(rule: Rule, policy: Policy, now_ns: int) -> list[dict[str, Any]]:
    """The Sigma rules that say what a rule says, the correlation rules behind those that they refer to.

    Args:
        policy: Gives the limits that the rule leaves to it, and the keys that are known.
        now_ns: Exceptions that are over by then are left out.

    Raises:
        SigmaError: The rule says something that Sigma can't say.
    """
    try:
        return list(_documents(rule, policy, now_ns))
    except SigmaError as error:
        raise SigmaError(safe(f"{rule.place}: rule '{rule.id}': {error}")) from None


def write(found: Sequence[Mapping[str, Any]]) -> str:
    """Sigma rules as YAML documents, in ASCII."""
    return "".join("---\n" + yaml.safe_dump(dict(each), sort_keys=False, width=110) for each in found)


def _documents(rule: Rule, policy: Policy, now_ns: int) -> Iterator[dict[str, Any]]:
    exceptions = [each for each in rule.exceptions if each.until is None or now_ns < each.until]
    counting = rule.correlation
    if counting is None:
        detection = _detection(rule.condition, exceptions)
        single = {"logsource": _log_source(), "detection": detection}
        yield _document(rule, "", rule.title, single, _notes(rule, (rule.condition,), exceptions))
        return
    if rule.thresholds:
        raise SigmaError("it has thresholds, and a Sigma rule has one limit for all: use exceptions")
    subjects = _subjects(rule, policy)
    for subject in subjects:
        named = subject.slug if len(subjects) > 1 else ""
        steps = []
        for number, condition in enumerate(counting.events, 1):
            step = "events" if len(counting.events) == 1 else f"step-{number}"
            part = f"{named}-{step}" if named else step
            steps.append(f"mcpwatch-{rule.id}-{part}")
            body: dict[str, Any] = {
                "name": steps[-1],
                "logsource": _log_source(),
                "detection": _detection(condition, exceptions, subject),
            }
            yield _document(rule, part, f"{rule.title}: {part}", body, _notes(rule, (condition,), exceptions))
        notes = _notes(rule, counting.events, exceptions)
        for part, correlation in _correlations(counting, policy, subject, steps):
            part = "-".join(filter(None, (named, part)))
            title = f"{rule.title}: {part}" if part else rule.title
            yield _document(rule, part, title, {"correlation": correlation}, notes)


def _correlations(
    counting: Correlation, policy: Policy, subject: _Alternative, steps: Sequence[str]
) -> Iterator[tuple[str, dict[str, Any]]]:
    """What is said of the events of one subject: one for each field whose values are counted, and that field."""
    alike = [FIELDS[{"params": "param"}.get(name, name)][0] for name in counting.same]
    for field in counting.fields or ("",):
        correlation: dict[str, Any] = {
            "type": counting.type,
            "rules": list(steps),
            "group-by": [*subject.fields, *alike],
            "timespan": _timespan(counting.timespan.of(policy.alerts)),
        }
        if counting.type != "temporal_ordered":
            correlation["condition"] = {counting.op: counting.limit.of(policy.alerts)}
            if field:
                correlation["condition"]["field"] = _field_of(field)
        yield field.replace("_", "-") if len(counting.fields) > 1 else "", correlation


def _detection(
    condition: Condition, exceptions: Sequence[RuleException], subject: _Alternative | None = None
) -> dict[str, Any]:
    detection = _Detection()
    parts: list[str] = []
    if condition.check is not None:
        parts.append(detection.name("check", {FIELDS["check"][0]: condition.check}))
    if condition.match is not None:
        parts.append(detection.conjunct(condition.match.root))
    if subject is not None:
        parts += subject.conditions(detection)
    for exception in exceptions:
        parts.append(f"not ({detection.expression(exception.fields.root)})")
    return {**detection.selections, "condition": " and ".join(parts)}


def _document(
    rule: Rule, part: str, title: str, body: Mapping[str, Any], notes: Sequence[str]
) -> dict[str, Any]:
    """One Sigma rule. The rules that a correlation refers to raise no alarm by themselves."""
    found: dict[str, Any] = {
        "title": title,
        "id": str(uuid.uuid5(_NAMESPACE, f"{rule.id}/{part}")),
        "status": "stable" if rule.shipped else "experimental",
        "description": " ".join((str(rule.description), *notes)),
    }
    author = rule.author or ("mcpwatch" if rule.shipped else None)
    if author is not None:
        found["author"] = str(author)
    if rule.references:
        found["references"] = [str(each) for each in rule.references]
    if rule.tags:
        found["tags"] = [tag.replace(":", ".", 1).lower() for tag in rule.tags]
    found |= body
    if "name" in body:
        found["level"] = "informational"
    elif rule.level is not None:
        found["level"] = rule.level.label
    if rule.falsepositives:
        found["falsepositives"] = [str(each) for each in rule.falsepositives]
    return found


def _notes(rule: Rule, conditions: Sequence[Condition], exceptions: Sequence[RuleException]) -> list[str]:
    """What a reader of the Sigma rule must know besides."""
    notes = []
    if any(condition.check is not None for condition in conditions):
        notes.append(_CHECKED)
    for name, value in rule.settings.items():
        told = format_duration(value) if value >= SECOND else value
        notes.append(f"mcpwatch was told {name} {told}.")
    if rule.level is None:
        notes.append(_OWN_SEVERITY)
    if rule.correlation is not None and rule.correlation.once_per_call:
        notes.append(_ONCE_PER_CALL)
    notes += [
        f"An exception by {each.author} holds until {iso(each.until)}: export the rule again then."
        for each in exceptions
        if each.until is not None
    ]
    return notes


def _log_source() -> dict[str, str]:
    return {"product": "mcpwatch", "service": "audit"}


def _timespan(ns: int) -> str:
    for size, unit in _UNITS:
        if ns % size == 0:
            return f"{ns // size}{unit}"
    raise SigmaError("Sigma's times are whole seconds")
