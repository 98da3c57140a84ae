"""Reads the policy file: the tree of `mcpwatch.policy.tree`, validated node by node into a `Policy`."""

from __future__ import annotations

import difflib
import hashlib
import ipaddress
import os
import re
import stat
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from datetime import date
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final, NoReturn

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
from mcpwatch.policy.tree import MAX_BYTES, Document, Node, NodeError, compose, quote
from mcpwatch.text import safe
from mcpwatch.times import DAY, parse_duration, parse_rfc3339, utc_day

MAX_COUNT: Final = 1_000
"""Highest limit of a window rule, whose windows keep 1,024 times at most."""

_LAST_MOMENT: Final = 253_402_300_799 * 1_000_000_000  # 9999-12-31T23:59:59
_LONGEST: Final = 3_650 * DAY
_FLAGS: Final[Mapping[str, bool]] = {
    spelling: value
    for words, value in ((("true", "yes", "on"), True), (("false", "no", "off"), False))
    for word in words
    for spelling in (word, word.capitalize(), word.upper())
}


class MissingPolicy(PolicyError):
    """The policy file is not there."""


# The readers below each turn one node into a value of the model; `place` names the node in messages.
Reader = Callable[[Node, str], Any]


def _fail(node: Node, place: str, expected: str) -> NoReturn:
    raise NodeError(node, f"{place} must be {expected}")


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
            node, place, f"a duration of at most 3650 days, such as 90s, 5m or 1h30m, not {quote(node.text)}"
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
        _fail(node, place, f"an IP address, not {quote(node.text)}")
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
            raise NodeError(key, f"unknown key {quote(key.text)}{where}; {hint}")
        found[key.text] = reader(value, f"{place}.{key.text}" if place else key.text)
    for name in required:
        if found.get(name) is None:
            raise NodeError(node, f"{place or 'the policy'} has no '{name}'")
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
                raise NodeError(node, f"{place} puts {quote(tool)} into two tiers: keep one")
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
        raise NodeError(node, f"{place} ends ('until') before it begins ('at')")


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
    except NodeError as error:
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
