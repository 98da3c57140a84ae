"""Readers of what an event must look like: a line of the filter language, or a mapping of fields to values."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Final

from mcpwatch import filter as language
from mcpwatch.documents.nodes import fail, fields, text
from mcpwatch.documents.tree import Node, NodeError, quote
from mcpwatch.filter import FIELDS, Field, Filter, FilterError, Not, Term

MAX_VALUES: Final = 50
"""Most values of one field."""

CALLER_AND_KIND: Final = tuple(name for name, row in FIELDS.items() if row.part != "event")
"""What says who calls and what kind of call it is, and nothing of what is in it."""

_NO_REGEX: Final = (
    "there are no regular expressions and no modifiers, but patterns with * and ?: tool:shell_*"
)
_MODIFIER: Final = re.compile(r"(?:^|[\s(-])[A-Za-z_.]+\|[A-Za-z]+\s*:")
_REGEX: Final = re.compile(r"/.*(?:\.[*+]|[\\\[^$|]).*/", re.DOTALL)
_GROUPED: Final = re.compile(r'[A-Za-z_.]:/[^\s"]*\(')  # its brackets would group terms
_PATTERN: Final = re.compile(r"\||\.[*+]|^\^|\$$")
_BLANKS: Final = re.compile(r'[\s()"]')
_PATHLIKE: Final = frozenset({"server", "source"})  # such names may well begin with a slash


def _terms(node: language.Node) -> Iterator[Term]:
    if isinstance(node, Term):
        yield node
    elif isinstance(node, Not):
        yield from _terms(node.part)
    else:
        for part in node.parts:
            yield from _terms(part)


def _is_regex(term: Term) -> bool:
    value, row = term.value, term.of
    if row is not None and row.kind == "text" and row.name not in _PATHLIKE:
        return value.startswith("/") or _PATTERN.search(value) is not None
    return _REGEX.fullmatch(value) is not None


def _check_address(term: Term, node: Node, place: str) -> None:
    if term.of is not None and term.of.name == "ip" and "/" in term.value:
        raise NodeError(node, f"{place}: {quote(term.value)}: networks are not read: write 10.* or 10.1.2.*")


def _parsed(written: str, node: Node, place: str) -> Filter:
    try:
        return language.parse(written)
    except FilterError as error:
        raise NodeError(node, f"{place}: {error}") from None


def match(node: Node, place: str) -> Filter:
    """A line of the filter language that says something."""
    written = text(node, place)
    if _MODIFIER.search(written) or _GROUPED.search(written):
        raise NodeError(node, f"{place}: {_NO_REGEX}")
    found = _parsed(written, node, place)
    terms = list(_terms(found.root))
    if not terms:
        fail(node, place, "a filter that names something, such as tool:shell_*")
    for term in terms:
        _check_address(term, node, place)
        if _is_regex(term):
            raise NodeError(node, f"{place}: {quote(term.value)}: {_NO_REGEX}")
    return found


def _values(row: Field, node: Node, place: str) -> list[tuple[Node, str]]:
    items = node.items if node.kind == "list" else (node,)
    if not items:
        raise NodeError(node, f"{place} is empty: name a value, or leave {row.name!r} out")
    if len(items) > MAX_VALUES:
        raise NodeError(node, f"{place} has more than {MAX_VALUES} values: use a pattern with *")
    return [(item, text(item, place)) for item in items]


def _term(row: Field, node: Node, place: str) -> str:
    """The filter text that says that a field has one of some values, always the same for the same values."""
    parts = set()
    for item, value in _values(row, node, place):
        pattern = row.kind == "text" and ("*" in value or "?" in value)
        if pattern and _BLANKS.search(value):
            raise NodeError(item, f"{place}: write ? for the blanks, quotes and brackets of {quote(value)}")
        part = f"{row.name}:{value if pattern else language.quote(value)}"
        for term in _terms(_parsed(part, item, place).root):
            _check_address(term, item, place)
        parts.add(part)
    return parts.pop() if len(parts) == 1 else f"({' or '.join(sorted(parts))})"


def _swallows(row: Field, node: Node) -> bool:
    """Whether the values are all that there are."""
    values = {item.text for item in (node.items or (node,))}
    everything = row.kind == "text" and any("*" in value and set(value) <= {"*", "?"} for value in values)
    return everything or (bool(row.values) and values >= set(row.values))


_ROWS: Final = {name: row for row in FIELDS.values() for name in (row.name, *row.aliases)}
_READERS: Final[Mapping[str, Callable[[Node, str], str]]] = {
    name: partial(_term, row) for name, row in _ROWS.items()
}


def _filter(node: Node, place: str) -> Filter:
    parts = fields(node, place, _READERS)
    if not parts:
        fail(node, place, "a mapping that names something, such as {client: ci-bot}")
    return _parsed(" ".join(sorted(parts.values())), node, place)


def some_events(node: Node, place: str) -> Filter:
    """Fields and their values; never so that it is every event, or every one that has them."""
    found = _filter(node, place)
    if all(_swallows(_ROWS[key.text], value) for key, value in node.pairs):
        raise NodeError(
            node,
            f"{place} is every event: name a caller or a tool, or switch the rule off with `enabled: false`",
        )
    return found


def some_callers(node: Node, place: str) -> Filter:
    """Fields of `CALLER_AND_KIND` and their values."""
    for key, _ in node.pairs:
        if key.text in _ROWS and _ROWS[key.text].name not in CALLER_AND_KIND:
            known = ", ".join(CALLER_AND_KIND)
            raise NodeError(
                key, f"{place} can't use {key.text!r}: a limit is for a caller or a kind of call; use {known}"
            )
    return _filter(node, place)
