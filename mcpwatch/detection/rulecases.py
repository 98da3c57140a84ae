"""Reads the cases in a rule's file: the lines of a log, and on which of them the rule must fire."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any, Final

from mcpwatch.detection.hit import Severity
from mcpwatch.detection.rule import Case
from mcpwatch.documents.nodes import (
    Reader,
    fail,
    fields,
    one_of,
    phrase,
    plain_value,
    rows,
    seconds,
    text,
    whole_number,
)
from mcpwatch.documents.tree import Node, NodeError
from mcpwatch.policy.load import parse as parse_policy
from mcpwatch.policy.model import PolicyError
from mcpwatch.text import safe
from mcpwatch.times import SECOND, iso, parse_rfc3339

MAX_EVENTS: Final = 5_000
"""Most lines of one case: some more than the highest limit needs."""

BEGIN: Final = "2026-11-20T08:00:00Z"
"""The moment that `at: 0` stands for."""

_parsed_begin = parse_rfc3339(BEGIN)
assert _parsed_begin is not None
_BEGIN_NS: Final = _parsed_begin[0]

_MAKING: Final[Mapping[str, Reader]] = {"at": seconds, "repeat": whole_number(MAX_EVENTS), "every": seconds}


def _timestamp(ns: int) -> str:
    moment = _BEGIN_NS + ns
    return f"{iso(moment).partition('.')[0]}.{moment % SECOND:09d}Z"


def _repeated(node: Node, place: str) -> Iterator[bytes]:
    """The lines of one event that is written as a mapping."""
    made: dict[str, int] = {}
    record: dict[str, Any] = {}
    for key, value in node.pairs:
        where = f"{place}.{safe(key.text, 80)}"
        if key.text in _MAKING:
            made[key.text] = _MAKING[key.text](value, where)
        else:
            record[key.text] = plain_value(value, where)
    if "every" in made and not ("at" in made and "repeat" in made):
        raise NodeError(node, f"{place} has 'every' without 'at' and 'repeat': give all three")
    if "at" in made and "timestamp" in record:
        raise NodeError(node, f"{place} has 'at' and 'timestamp': keep one of the two")
    for number in range(made.get("repeat", 1)):
        stamp = {"timestamp": _timestamp(made["at"] + number * made.get("every", 0))} if "at" in made else {}
        yield json.dumps(stamp | record).encode()


def _event(node: Node, place: str) -> Iterator[bytes]:
    if node.kind == "map":
        yield from _repeated(node, place)
        return
    line = text(node, place).removesuffix("\n")
    if "\n" in line:
        fail(node, place, "one line: write one entry for each line of the log")
    yield line.encode("utf-8", "surrogatepass")


def _events(node: Node, place: str) -> tuple[bytes, ...]:
    lines: list[bytes] = []
    for item, where in rows(node, place):
        lines.extend(_event(item, where))
        if len(lines) > MAX_EVENTS:
            raise NodeError(item, f"{place} are more than {MAX_EVENTS}: fewer must show the same")
    if not lines:
        fail(node, place, "a list of at least one event")
    return tuple(lines)


def _policy(node: Node, place: str) -> str:
    found = text(node, place)
    try:
        parse_policy(found.encode(), None)
    except PolicyError as error:
        raise NodeError(node, f"{place} can't be used: {error}") from None
    return found


def _numbers(node: Node, place: str) -> tuple[int, ...] | None:
    """Numbers of events in rising order; None is all of them."""
    if node.kind == "text" and node.text == "all":
        return None
    if node.kind != "list":
        fail(node, place, "all, or a list of numbers of events, from 1: [6, 7]; [] is none")
    found = tuple(whole_number(MAX_EVENTS)(item, place) for item in node.items)
    if list(found) != sorted(set(found)):
        fail(node, place, "numbers of events in their order, each once")
    return found


_CASE: Final[Mapping[str, Reader]] = {
    "name": phrase(200),
    "kind": one_of("positive", "negative", "edge", "evasion"),
    "policy": _policy,
    "events": _events,
    "fires": _numbers,
    "level": lambda node, place: Severity.named(one_of("critical", "high", "medium", "low")(node, place)),
}


def _case(node: Node, place: str, name: str) -> Case:
    found = fields(node, place, _CASE, ("name", "kind", "events"))
    if "fires" not in found:
        raise NodeError(node, f"{place} has no 'fires': name the events, such as [6], [] or all")
    count = len(found["events"])
    fires = tuple(range(1, count + 1)) if found["fires"] is None else found["fires"]
    if fires and fires[-1] > count:
        raise NodeError(
            node.get("fires") or node, f"{place}.fires names event {fires[-1]}, and there are {count}"
        )
    if found["kind"] == "positive" and not fires:
        raise NodeError(
            node, f"{place} is positive and fires on nothing: make it negative, or name the events"
        )
    if found["kind"] == "negative" and fires:
        raise NodeError(node, f"{place} is negative and fires: make it positive, edge or evasion")
    return Case(
        name=found["name"],
        kind=found["kind"],
        policy=found.get("policy"),
        lines=found["events"],
        fires=fires,
        level=found.get("level"),
        place=safe(f"{name}:{node.line}"),
    )


def cases(name: str) -> Reader:
    """A reader of the cases in a file of that name."""

    def read(node: Node, place: str) -> tuple[Case, ...]:
        found = tuple(_case(item, where, name) for item, where in rows(node, place))
        titles = [case.name for case in found]
        for number, title in enumerate(titles):
            if title in titles[:number]:
                raise NodeError(node.items[number], f"{place}[{number}] has the name of another case")
        return found

    return read
