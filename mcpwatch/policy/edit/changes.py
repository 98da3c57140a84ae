"""The changes that can be made to a policy file, and what takes each of them back."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

from mcpwatch.policy.model import Lockout, PrincipalKind


@dataclass(frozen=True, slots=True)
class Revoke:
    """Take every right from a principal, from `at_ns` on (until `until_ns`, if that is set)."""

    kind: PrincipalKind
    id: str
    at_ns: int
    by: str | None
    reason: str | None
    until_ns: int | None = None


@dataclass(frozen=True, slots=True)
class Restore:
    """Remove the revocations of a principal; with `at_ns`, only those that were written for that moment."""

    kind: PrincipalKind
    id: str
    at_ns: int | None = None


@dataclass(frozen=True, slots=True)
class Lock:
    """Shut out a key, an address, or a key from an address, for at <= time < until."""

    key: str | None
    source_ip: str | None
    at_ns: int
    until_ns: int
    rule: str | None = None
    incident: str | None = None


@dataclass(frozen=True, slots=True)
class LockAll:
    """Several lockouts at once, whatever the file holds already."""

    locks: tuple[Lock, ...]


@dataclass(frozen=True, slots=True)
class Unlock:
    """End the lockouts of exactly this key and address at a moment.

    Their entries stay, so that the next lockout is a longer one; an entry that had not begun is removed.
    """

    key: str | None
    source_ip: str | None
    at_ns: int


@dataclass(frozen=True, slots=True)
class Withdraw:
    """Undo a `Lock`: remove the lockout that was written for a moment, as if it had never been."""

    key: str | None
    source_ip: str | None
    at_ns: int


@dataclass(frozen=True, slots=True)
class Relock:
    """Undo an `Unlock`: let these lockouts last again as long as they did."""

    key: str | None
    source_ip: str | None
    entries: tuple[Lockout, ...]


@dataclass(frozen=True, slots=True)
class Disable:
    """Forbid a tool to everybody. One that is not in the file is added to it."""

    tool: str
    since_ns: int


@dataclass(frozen=True, slots=True)
class Enable:
    """Permit a tool again.

    With `undoes_ns`, the moment of the `Disable` that this undoes, a tool that the `Disable` itself added to the
    file is removed from it: where unlisted tools are denied, enabling it would permit more than was before.
    """

    tool: str
    since_ns: int
    undoes_ns: int | None = None


Change: TypeAlias = Revoke | Restore | Lock | Unlock | Withdraw | Relock | Disable | Enable
