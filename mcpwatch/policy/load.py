"""Reads the policy file: bytes, then a capped tree of nodes with their places, then a validated `Policy`.

The tree is built from parser events, never from constructed values: an id is the text that stands in the file
(`0007` stays `0007`, `yes` stays `yes`), every node knows its line, and a document made to exhaust memory is
refused while it is being read.
"""

from __future__ import annotations

import difflib
import hashlib
import ipaddress
import os
import re
import stat
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import date
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final, Literal, NoReturn

import yaml

from mcpwatch.policy.model import (
    PRINCIPAL_KINDS,
    Alerts,
    Key,
    Lockout,
    LockoutRules,
    Policy,
    PolicyError,
    Revocation,
    Tier,
    ToolPolicy,
)
from mcpwatch.text import safe
from mcpwatch.times import DAY, parse_duration, parse_rfc3339, utc_day

MAX_BYTES: Final = 1 << 20
MAX_DEPTH: Final = 64
MAX_ALIASES: Final = 100
MAX_NODES: Final = 50_000
"""Nodes of the tree, with what an alias stands for counted each time: ten thousand keys fit."""

MAX_COUNT: Final = 1_000
"""Highest limit of a window rule, whose windows keep 1,024 times at most."""

_LOADER: Final = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_LAST_MOMENT: Final = 253_402_300_799 * 1_000_000_000  # 9999-12-31T23:59:59
_LONGEST: Final = 3_650 * DAY
_NULLS: Final = frozenset({"", "~", "null", "Null", "NULL"})
_FLAGS: Final[Mapping[str, bool]] = {
    spelling: value
    for words, value in ((("true", "yes", "on"), True), (("false", "no", "off"), False))
    for word in words
    for spelling in (word, word.capitalize(), word.upper())
}
_TAGS: Final = frozenset(
    f"tag:yaml.org,2002:{kind}" for kind in ("str", "int", "float", "bool", "null", "timestamp", "map", "seq")
)


class MissingPolicy(PolicyError):
    """The policy file is not there."""


@dataclass(frozen=True, slots=True, eq=False)
class Node:
    """One value of the file, and where it stands.

    Attributes:
        line: Line of its start, from 1.
        start: Index of its first character in `Document.text`; of the alias where it is one.
        end: Index behind its last character; exact for single values and for `{…}` and `[…]` only.
        text: A single value's text, as the quotes and escapes mean it.
        plain: Written without quotes, so that `~` is nothing and `yes` is true.
        block: Written as a `|` or `>` block, whose end is the start of a line.
        flow: Written as `{…}` or `[…]`.
        odd: What else is special about it: "an alias", "anchored" or "tagged"; empty for nearly all.
        size: How many nodes it stands for, itself included.
    """

    kind: Literal["text", "list", "map"]
    line: int
    start: int
    end: int
    text: str = ""
    plain: bool = False
    block: bool = False
    flow: bool = False
    odd: str = ""
    items: tuple[Node, ...] = ()
    pairs: tuple[tuple[Node, Node], ...] = ()
    size: int = 1

    @property
    def null(self) -> bool:
        """Whether nothing stands there: no text, `~` or `null`."""
        return self.kind == "text" and self.plain and self.text in _NULLS

    def pair(self, key: str) -> tuple[Node, Node] | None:
        """The key and the value of one entry."""
        return next((pair for pair in self.pairs if pair[0].text == key), None)

    def get(self, key: str) -> Node | None:
        """The value of one entry."""
        found = self.pair(key)
        return None if found is None else found[1]


@dataclass(frozen=True, slots=True, eq=False)
class Document:
    """The file as text without its byte order mark, and its tree.

    Attributes:
        bom: The byte order mark that stood before the text, or nothing.
        end: Index where more could be added: of the document's end mark `...`, else of the end of the text.
    """

    name: str
    text: str
    bom: bytes
    root: Node
    end: int


class _NodeError(Exception):
    def __init__(self, where: Node | int, message: str) -> None:
        super().__init__(message)
        self.line = where if isinstance(where, int) else where.line
        self.message = message


class _TreeBuilder:
    """Makes the tree from parser events, which come one at a time, so that a cap stops the reading."""

    def __init__(self) -> None:
        self.root: Node | None = None
        self.end: int | None = None
        self._open: list[tuple[Any, list[Node]]] = []
        self._anchors: dict[str, Node] = {}
        self._documents = self._aliases = self._nodes = 0

    def take(self, event: Any) -> None:
        """Take the next event; raises `_NodeError` where a cap is exceeded."""
        mark = event.start_mark
        line = mark.line + 1
        if isinstance(event, yaml.DocumentStartEvent):
            self._documents += 1
            if self._documents > 1:
                raise _NodeError(line, "a second document starts here: a policy is one document")
        elif isinstance(event, yaml.DocumentEndEvent):
            if event.explicit:
                self.end = mark.index
        elif isinstance(event, yaml.AliasEvent):
            self._alias(event, line)
        elif isinstance(event, yaml.ScalarEvent):
            self._add(event, _text_node(event, line))
        elif isinstance(event, yaml.CollectionStartEvent):
            if len(self._open) >= MAX_DEPTH:
                raise _NodeError(line, f"nested more than {MAX_DEPTH} levels deep")
            self._open.append((event, []))
        elif isinstance(event, yaml.CollectionEndEvent):
            self._close(event)

    def _alias(self, event: Any, line: int) -> None:
        self._aliases += 1
        target = self._anchors.get(event.anchor)
        if self._aliases > MAX_ALIASES:
            raise _NodeError(line, f"more than {MAX_ALIASES} aliases")
        if target is None:
            raise _NodeError(line, f"alias {_quote(event.anchor)} stands for nothing, or for itself")
        start, end = event.start_mark.index, event.end_mark.index
        self._add(None, replace(target, line=line, start=start, end=end, odd="an alias"))

    def _add(self, event: Any, node: Node) -> None:
        self._nodes += node.size
        if self._nodes > MAX_NODES:
            raise _NodeError(node, f"more than {MAX_NODES} values")
        if event is not None and event.anchor is not None:
            self._anchors[event.anchor] = node
        if self._open:
            self._open[-1][1].append(node)
        else:
            self.root = node

    def _close(self, event: Any) -> None:
        start, children = self._open.pop()
        line = start.start_mark.line + 1
        is_map = isinstance(start, yaml.MappingStartEvent)
        pairs = tuple(zip(children[::2], children[1::2], strict=True)) if is_map else ()
        _check_keys(pairs)
        self._nodes -= sum(child.size for child in children)  # _add counts them again as part of the node
        node = Node(
            "map" if is_map else "list",
            line,
            start.start_mark.index,
            event.end_mark.index,
            flow=bool(start.flow_style),
            odd=_oddity(start, line),
            items=() if is_map else tuple(children),
            pairs=pairs,
            size=1 + sum(child.size for child in children),
        )
        self._add(start, node)


def _oddity(event: Any, line: int) -> str:
    if event.tag is not None and event.tag != "!":
        if event.tag not in _TAGS:
            raise _NodeError(line, f"unknown tag {_quote(event.tag)}: a policy needs no tags")
        return "tagged"
    return "anchored" if event.anchor is not None else "tagged" if event.tag is not None else ""


def _text_node(event: Any, line: int) -> Node:
    odd = _oddity(event, line)
    plain = event.style in (None, "") and odd != "tagged"
    start, end = event.start_mark.index, event.end_mark.index
    return Node("text", line, start, end, event.value, plain, event.style in ("|", ">"), odd=odd)


def _check_keys(pairs: tuple[tuple[Node, Node], ...]) -> None:
    seen: dict[str, int] = {}
    for key, _ in pairs:
        if key.kind != "text" or key.odd == "an alias":
            raise _NodeError(key, "a key must be plain text")
        if key.plain and key.text == "<<":
            raise _NodeError(key, "merge keys (<<) are not read: write the entries out")
        if not key.text:
            raise _NodeError(key, "a key must not be empty")
        if key.text in seen:
            raise _NodeError(
                key, f"duplicate key {_quote(key.text)}, first on line {seen[key.text]}: remove one"
            )
        seen[key.text] = key.line


def compose(data: bytes, name: str) -> Document:
    """Build the tree of a policy file.

    Raises:
        PolicyError: The bytes are no YAML mapping in UTF-8, or exceed a cap.
    """
    if len(data) > MAX_BYTES:
        raise PolicyError(safe(f"{name}: larger than {MAX_BYTES} bytes: is this a policy file?"))
    bom = b"\xef\xbb\xbf" if data.startswith(b"\xef\xbb\xbf") else b""
    try:
        text = data[len(bom) :].decode("utf-8")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, len(bom) + error.start) + 1
        raise PolicyError(safe(f"{name}:{line}: not UTF-8: save the file as UTF-8")) from None
    builder = _TreeBuilder()
    try:
        if text.startswith("\ufeff"):
            raise _NodeError(1, "two byte order marks: remove one")
        for event in yaml.parse(text, Loader=_LOADER):
            builder.take(event)
        root = builder.root
        if root is None or root.null:
            raise _NodeError(1, 'empty: a policy starts with "version: 1"')
        if root.kind != "map":
            raise _NodeError(root, 'a policy is a mapping that starts with "version: 1"')
    except _NodeError as error:
        raise PolicyError(safe(f"{name}:{error.line}: {error.message}")) from None
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = mark.line + 1 if mark is not None else 1
        what = " ".join(filter(None, (error.context, error.problem)))
        raise PolicyError(safe(f"{name}:{line}: not YAML: {what}")) from None
    except (yaml.YAMLError, ValueError, OverflowError, RecursionError) as error:
        reason = str(error).partition("\n")[0]
        raise PolicyError(safe(f"{name}: not YAML: {reason}")) from None
    return Document(name, text, bom, root, len(text) if builder.end is None else builder.end)


# The readers below each turn one node into a value of the model; `place` names the node in messages.
Reader = Callable[[Node, str], Any]


def _quote(text: str) -> str:
    return f"'{safe(text, 80)}'"


def _fail(node: Node, place: str, expected: str) -> NoReturn:
    raise _NodeError(node, f"{place} must be {expected}")


def _or_none(reader: Reader) -> Reader:
    return lambda node, place: None if node.null else reader(node, place)


def _text(node: Node, place: str) -> str:
    if node.kind != "text" or node.null or not node.text:
        _fail(node, place, "text that is not empty")
    return node.text


def _flag(node: Node, place: str) -> bool:
    if node.kind != "text" or not node.plain or node.text not in _FLAGS:
        _fail(node, place, "true or false, without quotes")
    return _FLAGS[node.text]


def _one_of(*words: str) -> Reader:
    def read(node: Node, place: str) -> str:
        if node.kind != "text" or node.text not in words:
            _fail(node, place, " or ".join(words))
        return node.text

    return read


def _count(node: Node, place: str) -> int:
    match = re.fullmatch(r"[1-9][0-9]{0,3}", node.text) if node.kind == "text" else None
    if match is None or int(node.text) > MAX_COUNT:
        _fail(node, place, f"a whole number from 1 to {MAX_COUNT}")
    return int(node.text)


def _duration(node: Node, place: str) -> int:
    try:
        value = parse_duration(_text(node, place))
    except ValueError:
        value = 0
    if not 0 < value <= _LONGEST:
        _fail(
            node, place, f"a duration of at most 3650 days, such as 90s, 5m or 1h30m, not {_quote(node.text)}"
        )
    return value


def _duration_or_zero(node: Node, place: str) -> int:
    return 0 if node.kind == "text" and node.text in ("0", "0s") else _duration(node, place)


def _moment(node: Node, place: str) -> int:
    found = parse_rfc3339(node.text) if node.kind == "text" else None
    if found is None or not 0 <= found[0] <= _LAST_MOMENT:
        _fail(node, place, "a time such as 2026-11-22T03:14:07Z")
    return found[0]


def _day(node: Node, place: str) -> date:
    if node.kind == "text":
        try:
            found = parse_rfc3339(node.text)
            return date.fromisoformat(utc_day(found[0]) if found else node.text)
        except (ValueError, OverflowError):
            pass
    _fail(node, place, "a day such as 2026-09-01")


def _sha256(node: Node, place: str) -> str:
    if node.kind != "text" or re.fullmatch(r"[0-9a-fA-F]{64}", node.text) is None:
        _fail(node, place, "a SHA-256 hash: 64 hexadecimal digits")
    return node.text.lower()


def _address(node: Node, place: str) -> str:
    try:
        ipaddress.ip_address(_text(node, place))
    except ValueError:
        _fail(node, place, f"an IP address, not {_quote(node.text)}")
    return node.text


def _list(reader: Reader) -> Reader:
    def read(node: Node, place: str) -> tuple[Any, ...]:
        if node.kind != "list":
            _fail(
                node, place, "a list, such as [a, b]; [] allows nothing, and without the key all is allowed"
            )
        return tuple(reader(item, f"{place}[{number}]") for number, item in enumerate(node.items))

    return read


def _durations(node: Node, place: str) -> tuple[int, ...]:
    found: tuple[int, ...] = _list(_duration)(node, place)
    if not found:
        _fail(node, place, "a list of at least one duration, such as [5m, 15m]")
    return found


def _fields(
    node: Node, place: str, table: Mapping[str, Reader], required: tuple[str, ...] = ()
) -> dict[str, Any]:
    if node.null:
        node = replace(node, kind="map")
    if node.kind != "map":
        _fail(node, place or "the policy", "a mapping, such as {key: value}")
    found = {}
    for key, value in node.pairs:
        reader = table.get(key.text)
        if reader is None:
            near = difflib.get_close_matches(key.text[:80], table, n=1)
            hint = f"did you mean '{near[0]}'?" if near else f"known are {', '.join(table)}"
            where = f" in {place}" if place else ""
            raise _NodeError(key, f"unknown key {_quote(key.text)}{where}; {hint}")
        found[key.text] = reader(value, f"{place}.{key.text}" if place else key.text)
    for name in required:
        if found.get(name) is None:
            raise _NodeError(node, f"{place or 'the policy'} has no '{name}'")
    return found


def _entries(node: Node, place: str) -> Iterator[tuple[str, Node, str]]:
    if not node.null and node.kind != "map":
        _fail(node, place, "a mapping, such as {name: {…}}")
    return ((key.text, value, f"{place}.{safe(key.text, 80)}") for key, value in node.pairs)


def _rows(node: Node, place: str) -> Iterator[tuple[Node, str]]:
    if not node.null and node.kind != "list":
        _fail(node, place, "a list, one entry for each '-'")
    return ((item, f"{place}[{number}]") for number, item in enumerate(node.items))


_TOOL: Final[Mapping[str, Reader]] = {
    "enabled": _flag,
    "since": _or_none(_moment),
    "allowed_paths": _list(_text),
    "allowed_domains": _list(_text),
    "require_scope": _or_none(_text),
    "require_audit_log": _flag,
    "risk": _or_none(lambda node, place: Tier(_one_of(*Tier)(node, place))),
    "path_params": _list(_text),
    "url_params": _list(_text),
    "base_dir": _or_none(_text),
    "definition_sha256": _or_none(_sha256),
}
_KEY: Final[Mapping[str, Reader]] = {
    "client": _or_none(_text),
    "owner": _or_none(_text),
    "scopes": _list(_text),
    "created": _or_none(_day),
    "sha256": _or_none(_sha256),
}
_ALERTS: Final[Mapping[str, Reader]] = {
    "session_calls_per_minute": _count,
    "key_requests_per_minute": _count,
    "auth_failures": _count,
    "auth_failures_within": _duration,
    "enforcement_grace": _duration_or_zero,
    "allowed_lateness": _duration_or_zero,
}
_LOCKOUT: Final[Mapping[str, Reader]] = {
    "enforce": _flag,
    "durations": _durations,
    "trusted_proxies": _list(_address),
}
_REVOCATION: Final[Mapping[str, Reader]] = {
    **dict.fromkeys(PRINCIPAL_KINDS, _or_none(_text)),
    "at": _moment,
    "by": _or_none(_text),
    "reason": _or_none(_text),
    "until": _or_none(_moment),
}
_LOCK: Final[Mapping[str, Reader]] = {
    "key": _or_none(_text),
    "source_ip": _or_none(_address),
    "at": _moment,
    "until": _moment,
    "rule": _or_none(_text),
    "incident": _or_none(_text),
}


def _tools(node: Node, place: str) -> Mapping[str, ToolPolicy]:
    rows = _entries(node, place)
    return MappingProxyType({name: ToolPolicy(**_fields(value, where, _TOOL)) for name, value, where in rows})


def _keys(node: Node, place: str) -> Mapping[str, Key]:
    rows = _entries(node, place)
    return MappingProxyType(
        {name: Key(id=name, **_fields(value, where, _KEY)) for name, value, where in rows}
    )


def _risk_tiers(node: Node, place: str) -> Mapping[str, Tier]:
    tiers: dict[str, Tier] = {}
    for name, tools in _fields(node, place, dict.fromkeys(Tier, _list(_text))).items():
        for tool in tools:
            if tiers.setdefault(tool, Tier(name)) != name:
                raise _NodeError(node, f"{place} puts {_quote(tool)} into two tiers: keep one")
    return MappingProxyType(tiers)


def _revocation(node: Node, place: str) -> Revocation:
    found = _fields(node, place, _REVOCATION, ("at",))
    named = [kind for kind in PRINCIPAL_KINDS if found.get(kind) is not None]
    if len(named) != 1:
        _fail(node, place, f"about exactly one of {', '.join(PRINCIPAL_KINDS)}")
    _check_span(node, place, found)
    values = {name: value for name, value in found.items() if name not in PRINCIPAL_KINDS}
    return Revocation(kind=named[0], id=found[named[0]], **values)


def _lock(node: Node, place: str) -> Lockout:
    found = _fields(node, place, _LOCK, ("at", "until"))
    if found.get("key") is None and found.get("source_ip") is None:
        _fail(node, place, "about a key, a source_ip, or both")
    _check_span(node, place, found)
    return Lockout(**{"key": None, "source_ip": None, **found})


def _check_span(node: Node, place: str, found: Mapping[str, Any]) -> None:
    until = found.get("until")
    if until is not None and until <= found["at"]:
        raise _NodeError(node, f"{place} ends ('until') before it begins ('at')")


_POLICY: Final[Mapping[str, Reader]] = {
    "version": _one_of("1"),
    "tools": _tools,
    "unlisted_tools": _one_of("deny", "allow"),
    "risk_tiers": _risk_tiers,
    "alerts": lambda node, place: Alerts(**_fields(node, place, _ALERTS)),
    "lockout": lambda node, place: LockoutRules(**_fields(node, place, _LOCKOUT)),
    "keys": _keys,
    "revoked": lambda node, place: tuple(_revocation(item, where) for item, where in _rows(node, place)),
    "lockouts": lambda node, place: tuple(_lock(item, where) for item, where in _rows(node, place)),
}


def interpret(document: Document) -> Policy:
    """Validate a tree, key by key, and make the policy of it (without `path` and `sha256`).

    Raises:
        PolicyError: Something is unknown, missing or out of range; the message has the file and the line.
    """
    try:
        # without a version a file that an editor has only half written could pass for a policy
        found = _fields(document.root, "", _POLICY, ("version",))
    except _NodeError as error:
        raise PolicyError(safe(f"{document.name}:{error.line}: {error.message}")) from None
    del found["version"]
    deny = found.pop("unlisted_tools", "allow") == "deny"
    return Policy(**found, deny_unlisted=deny)


def parse(data: bytes, path: Path | None) -> Policy:
    """Read a policy from the bytes of its file; `path` is for messages and for `Policy.path`.

    Raises:
        PolicyError: The bytes are no valid policy.
    """
    policy = interpret(compose(data, "policy" if path is None else str(path)))
    return replace(policy, path=path, sha256=hashlib.sha256(data).hexdigest())


def read(path: Path) -> bytes:
    """The bytes of a policy file, at most one more than `MAX_BYTES`.

    Raises:
        MissingPolicy: There is no such file.
        PolicyError: It can't be read, or is no regular file.
    """
    try:
        # a FIFO must not hang the monitor
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        with open(descriptor, "rb") as file:  # noqa: PTH123 - a descriptor, not a path
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                raise PolicyError(safe(f"{path}: not a regular file: name a policy file"))
            return file.read(MAX_BYTES + 1)
    except FileNotFoundError:
        raise MissingPolicy(
            safe(f"{path}: no such policy file: check --policy, or make one with `policy init`")
        ) from None
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise PolicyError(safe(f"{path}: can't be read: {reason}")) from None


def load(path: Path) -> Policy:
    """Read the policy file at `path`.

    Raises:
        MissingPolicy: There is no such file.
        PolicyError: It can't be read or is no valid policy.
    """
    return parse(read(path), path)
