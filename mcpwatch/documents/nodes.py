"""Readers of nodes: each turns one node of a YAML file into a value, or says with its line what it must be."""

from __future__ import annotations

import difflib
import ipaddress
import re
from collections.abc import Callable, Iterator, Mapping
from datetime import date
from typing import Any, Final, NoReturn

from msgspec.structs import replace

from mcpwatch.documents.tree import Node, NodeError, quote
from mcpwatch.text import SafeText, safe
from mcpwatch.times import DAY, SECOND, parse_duration, parse_rfc3339, utc_day

_LAST_MOMENT: Final = 253_402_300_799 * 1_000_000_000  # 9999-12-31T23:59:59
_LONGEST: Final = 3_650 * DAY
_FLAGS: Final[Mapping[str, bool]] = {
    spelling: value
    for words, value in ((("true", "yes", "on"), True), (("false", "no", "off"), False))
    for word in words
    for spelling in (word, word.capitalize(), word.upper())
}

_SECONDS: Final = re.compile(r"(\d{1,9})(?:\.(\d{1,9}))?", re.ASCII)
_JSON_FLAGS: Final = {"true": True, "false": False}
_WHOLE: Final = re.compile(r"-?(?:0|[1-9]\d{0,39})", re.ASCII)  # 0007 is an id, and no number
_FLOAT: Final = re.compile(
    r"-?(?:0|[1-9]\d{0,19})(?:\.\d{1,20}(?:[eE][+-]?\d{1,2})?|[eE][+-]?\d{1,2})", re.ASCII
)

Day = date
"""What `day` reads."""

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


def phrase(most: int) -> Reader:
    """Text of printable characters, with every run of blanks and line ends written as one space."""

    def read(node: Node, place: str) -> SafeText:
        found = " ".join(text(node, place).split())
        if not found or safe(found, most) != found:
            fail(node, place, f"text of 1 to {most} printable characters, not {quote(found)}")
        return SafeText(found)

    return read


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


def seconds(node: Node, place: str) -> int:
    """A number of seconds with up to nine decimals, in ns, exactly."""
    found = _SECONDS.fullmatch(node.text) if node.kind == "text" else None
    if found is None:
        fail(node, place, "a number of seconds with up to nine decimals, such as 1.5")
    return int(found[1]) * SECOND + int((found[2] or "").ljust(9, "0"))


def plain_value(node: Node, place: str) -> Any:
    """What JSON would say: numbers, true, false and null where they stand without quotes, else text."""
    if node.kind == "map":
        return {key.text: plain_value(value, place) for key, value in node.pairs}
    if node.kind == "list":
        return [plain_value(item, place) for item in node.items]
    if not node.plain:
        return node.text
    if node.null:
        return None
    if node.text in _JSON_FLAGS:
        return _JSON_FLAGS[node.text]
    if _WHOLE.fullmatch(node.text):
        return int(node.text)
    return float(node.text) if _FLOAT.fullmatch(node.text) else node.text


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


_PERMISSIONS: Final = "a list, such as [a, b]; [] allows nothing, and without the key all is allowed"


def list_of(reader: Reader, expected: str = _PERMISSIONS) -> Reader:
    """A list of what the reader gives, as a tuple; `expected` says in a message what must stand there."""

    def read(node: Node, place: str) -> tuple[Any, ...]:
        if node.kind != "list":
            fail(node, place, expected)
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
