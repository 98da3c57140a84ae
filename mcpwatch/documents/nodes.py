"""Readers of nodes: each turns one node of a YAML file into a value, or says with its line what it must be."""

from __future__ import annotations

import difflib
import ipaddress
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from datetime import date
from typing import Any, Final, NoReturn

from mcpwatch.documents.tree import Node, NodeError, quote
from mcpwatch.text import safe
from mcpwatch.times import DAY, parse_duration, parse_rfc3339, utc_day

_LAST_MOMENT: Final = 253_402_300_799 * 1_000_000_000  # 9999-12-31T23:59:59
_LONGEST: Final = 3_650 * DAY
_FLAGS: Final[Mapping[str, bool]] = {
    spelling: value
    for words, value in ((("true", "yes", "on"), True), (("false", "no", "off"), False))
    for word in words
    for spelling in (word, word.capitalize(), word.upper())
}

Reader = Callable[[Node, str], Any]
"""Turns one node into a value; the text names the node in messages. Raises NodeError."""


def fail(node: Node, place: str, expected: str) -> NoReturn:
    """Say what the node must be."""
    raise NodeError(node, f"{place} must be {expected}")


def or_none(reader: Reader) -> Reader:
    """What the reader gives, or None where nothing stands."""
    return lambda node, place: None if node.null else reader(node, place)


def text(node: Node, place: str) -> str:
    """Text that is not empty."""
    if node.kind != "text" or node.null or not node.text:
        fail(node, place, "text that is not empty")
    return node.text


def flag(node: Node, place: str) -> bool:
    """True or false."""
    if node.kind != "text" or not node.plain or node.text not in _FLAGS:
        fail(node, place, "true or false, without quotes")
    return _FLAGS[node.text]


def one_of(*words: str) -> Reader:
    """One of some words."""

    def read(node: Node, place: str) -> str:
        if node.kind != "text" or node.text not in words:
            fail(node, place, " or ".join(words))
        return node.text

    return read


def whole_number(most: int) -> Reader:
    """A whole number from 1 on."""

    def read(node: Node, place: str) -> int:
        match = re.fullmatch(r"[1-9][0-9]{0,9}", node.text) if node.kind == "text" else None
        if match is None or int(node.text) > most:
            fail(node, place, f"a whole number from 1 to {most}")
        return int(node.text)

    return read


def duration(node: Node, place: str) -> int:
    """A duration in ns, more than zero."""
    try:
        value = parse_duration(text(node, place))
    except ValueError:
        value = 0
    if not 0 < value <= _LONGEST:
        fail(
            node, place, f"a duration of at most 3650 days, such as 90s, 5m or 1h30m, not {quote(node.text)}"
        )
    return value


def duration_or_zero(node: Node, place: str) -> int:
    """A duration in ns."""
    return 0 if node.kind == "text" and node.text in ("0", "0s") else duration(node, place)


def moment(node: Node, place: str) -> int:
    """A time, ns since the epoch."""
    found = parse_rfc3339(node.text) if node.kind == "text" else None
    if found is None or not 0 <= found[0] <= _LAST_MOMENT:
        fail(node, place, "a time such as 2026-11-22T03:14:07Z")
    return found[0]


def day(node: Node, place: str) -> date:
    """A day."""
    if node.kind == "text":
        try:
            found = parse_rfc3339(node.text)
            return date.fromisoformat(utc_day(found[0]) if found else node.text)
        except (ValueError, OverflowError):
            pass
    fail(node, place, "a day such as 2026-09-01")


def sha256(node: Node, place: str) -> str:
    """A SHA-256 hash in small letters."""
    if node.kind != "text" or re.fullmatch(r"[0-9a-fA-F]{64}", node.text) is None:
        fail(node, place, "a SHA-256 hash: 64 hexadecimal digits")
    return node.text.lower()


def address(node: Node, place: str) -> str:
    """An IP address, as it is written."""
    try:
        ipaddress.ip_address(text(node, place))
    except ValueError:
        fail(node, place, f"an IP address, not {quote(node.text)}")
    return node.text


def list_of(reader: Reader) -> Reader:
    """A list of what the reader gives, as a tuple."""

    def read(node: Node, place: str) -> tuple[Any, ...]:
        if node.kind != "list":
            fail(node, place, "a list, such as [a, b]; [] allows nothing, and without the key all is allowed")
        return tuple(reader(item, f"{place}[{number}]") for number, item in enumerate(node.items))

    return read


def fields(
    node: Node, place: str, table: Mapping[str, Reader], required: tuple[str, ...] = ()
) -> dict[str, Any]:
    """A mapping whose keys are all in the table; nothing is an empty one."""
    if node.null:
        node = replace(node, kind="map")
    if node.kind != "map":
        fail(node, place or "the file", "a mapping, such as {key: value}")
    found = {}
    for key, value in node.pairs:
        reader = table.get(key.text)
        if reader is None:
            near = difflib.get_close_matches(key.text[:80], table, n=1)
            hint = f"did you mean '{near[0]}'?" if near else f"known are {', '.join(table)}"
            where = f" in {place}" if place else ""
            raise NodeError(key, f"unknown key {quote(key.text)}{where}; {hint}")
        found[key.text] = reader(value, f"{place}.{key.text}" if place else key.text)
    for name in required:
        if found.get(name) is None:
            raise NodeError(node, f"{place or 'the file'} has no '{name}'")
    return found


def entries(node: Node, place: str) -> Iterator[tuple[str, Node, str]]:
    """The entries of a mapping of names, each with its place."""
    if not node.null and node.kind != "map":
        fail(node, place, "a mapping, such as {name: {…}}")
    return ((key.text, value, f"{place}.{safe(key.text, 80)}") for key, value in node.pairs)


def rows(node: Node, place: str) -> Iterator[tuple[Node, str]]:
    """The items of a list, each with its place."""
    if not node.null and node.kind != "list":
        fail(node, place, "a list, one entry for each '-'")
    return ((item, f"{place}[{number}]") for number, item in enumerate(node.items))
