"""Reads the policy file: the tree of `mcpwatch.documents`, validated node by node into a `Policy`."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

from mcpwatch.documents import read as documents
from mcpwatch.documents.nodes import (
    Reader,
    address,
    day,
    duration,
    duration_or_zero,
    entries,
    fail,
    fields,
    flag,
    list_of,
    moment,
    one_of,
    or_none,
    rows,
    sha256,
    text,
    whole_number,
)
from mcpwatch.documents.tree import Document, FileKind, Node, NodeError, compose, located, quote
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

MAX_COUNT: Final = 1_000
"""Highest limit of a window rule, whose windows keep 1,024 times at most."""


POLICY_FILE: Final = FileKind("a policy", "version: 1", PolicyError)


class MissingPolicy(PolicyError):
    """The policy file is not there."""


def _durations(node: Node, place: str) -> tuple[int, ...]:
    found: tuple[int, ...] = list_of(duration)(node, place)
    if not found:
        fail(node, place, "a list of at least one duration, such as [5m, 15m]")
    return found


_count: Final = whole_number(MAX_COUNT)

_TOOL: Final[Mapping[str, Reader]] = {
    "enabled": flag,
    "since": or_none(moment),
    "allowed_paths": list_of(text),
    "allowed_domains": list_of(text),
    "require_scope": or_none(text),
    "require_audit_log": flag,
    "risk": or_none(lambda node, place: Tier(one_of(*Tier)(node, place))),
    "path_params": list_of(text),
    "url_params": list_of(text),
    "base_dir": or_none(text),
    "definition_sha256": or_none(sha256),
}
_KEY: Final[Mapping[str, Reader]] = {
    "client": or_none(text),
    "owner": or_none(text),
    "scopes": list_of(text),
    "created": or_none(day),
    "sha256": or_none(sha256),
}
_ALERTS: Final[Mapping[str, Reader]] = {
    "session_calls_per_minute": _count,
    "key_requests_per_minute": _count,
    "auth_failures": _count,
    "auth_failures_within": duration,
    "enforcement_grace": duration_or_zero,
    "allowed_lateness": duration_or_zero,
    "token_lifetime": duration,
}
_LOCKOUT: Final[Mapping[str, Reader]] = {
    "enforce": flag,
    "durations": _durations,
    "trusted_proxies": list_of(address),
}
_REVOCATION: Final[Mapping[str, Reader]] = {
    **dict.fromkeys(PRINCIPAL_KINDS, or_none(text)),
    "at": moment,
    "by": or_none(text),
    "reason": or_none(text),
    "until": or_none(moment),
}
_LOCK: Final[Mapping[str, Reader]] = {
    "key": or_none(text),
    "source_ip": or_none(address),
    "at": moment,
    "until": moment,
    "rule": or_none(text),
    "incident": or_none(text),
}


def _tools(node: Node, place: str) -> Mapping[str, ToolPolicy]:
    rows = entries(node, place)
    return MappingProxyType({name: ToolPolicy(**fields(value, where, _TOOL)) for name, value, where in rows})


def _keys(node: Node, place: str) -> Mapping[str, Key]:
    rows = entries(node, place)
    return MappingProxyType({name: Key(id=name, **fields(value, where, _KEY)) for name, value, where in rows})


def _risk_tiers(node: Node, place: str) -> Mapping[str, Tier]:
    tiers: dict[str, Tier] = {}
    for name, tools in fields(node, place, dict.fromkeys(Tier, list_of(text))).items():
        for tool in tools:
            if tiers.setdefault(tool, Tier(name)) != name:
                raise NodeError(node, f"{place} puts {quote(tool)} into two tiers: keep one")
    return MappingProxyType(tiers)


def _revocation(node: Node, place: str) -> Revocation:
    found = fields(node, place, _REVOCATION, ("at",))
    named = [kind for kind in PRINCIPAL_KINDS if found.get(kind) is not None]
    if len(named) != 1:
        fail(node, place, f"about exactly one of {', '.join(PRINCIPAL_KINDS)}")
    _check_span(node, place, found)
    values = {name: value for name, value in found.items() if name not in PRINCIPAL_KINDS}
    return Revocation(kind=named[0], id=found[named[0]], **values)


def _lock(node: Node, place: str) -> Lockout:
    found = fields(node, place, _LOCK, ("at", "until"))
    if found.get("key") is None and found.get("source_ip") is None:
        fail(node, place, "about a key, a source_ip, or both")
    _check_span(node, place, found)
    return Lockout(**{"key": None, "source_ip": None, **found})


def _check_span(node: Node, place: str, found: Mapping[str, Any]) -> None:
    until = found.get("until")
    if until is not None and until <= found["at"]:
        raise NodeError(node, f"{place} ends ('until') before it begins ('at')")


_POLICY: Final[Mapping[str, Reader]] = {
    "version": one_of("1"),
    "tools": _tools,
    "unlisted_tools": one_of("deny", "allow"),
    "risk_tiers": _risk_tiers,
    "alerts": lambda node, place: Alerts(**fields(node, place, _ALERTS)),
    "lockout": lambda node, place: LockoutRules(**fields(node, place, _LOCKOUT)),
    "keys": _keys,
    "revoked": lambda node, place: tuple(_revocation(item, where) for item, where in rows(node, place)),
    "lockouts": lambda node, place: tuple(_lock(item, where) for item, where in rows(node, place)),
}


def interpret(document: Document) -> Policy:
    """Validate a tree, key by key, and make the policy of it (without `path` and `sha256`).

    Raises:
        PolicyError: Something is unknown, missing or out of range; the message has the file and the line.
    """
    with located(document.name, POLICY_FILE):
        # without a version a file that an editor has only half written could pass for a policy
        found = fields(document.root, "", _POLICY, ("version",))
    del found["version"]
    deny = found.pop("unlisted_tools", "allow") == "deny"
    return Policy(**found, deny_unlisted=deny)


def parse(data: bytes, path: Path | None) -> Policy:
    """Read a policy from the bytes of its file; `path` is for messages and for `Policy.path`.

    Raises:
        PolicyError: The bytes are no valid policy.
    """
    policy = interpret(compose(data, "policy" if path is None else str(path), POLICY_FILE))
    return replace(policy, path=path, sha256=hashlib.sha256(data).hexdigest())


def read(path: Path) -> bytes:
    """The bytes of a policy file, at most one more than `MAX_BYTES`.

    Raises:
        MissingPolicy: There is no such file.
        PolicyError: It can't be read, or is no regular file.
    """
    try:
        return documents.read(path, POLICY_FILE)
    except FileNotFoundError:
        raise MissingPolicy(
            safe(f"{path}: no such policy file: check --policy, or make one with `policy init`")
        ) from None


def load(path: Path) -> Policy:
    """Read the policy file at `path`.

    Raises:
        MissingPolicy: There is no such file.
        PolicyError: It can't be read or is no valid policy.
    """
    return parse(read(path), path)
