"""What takes a change back: always another change, never an old file, so that what others wrote since stays."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from mcpwatch.policy.edit.changes import (
    Change,
    Disable,
    Enable,
    Lock,
    Relock,
    Restore,
    Revoke,
    Unlock,
    Withdraw,
)
from mcpwatch.policy.edit.lockouts import lasting
from mcpwatch.policy.edit.step import microseconds
from mcpwatch.policy.model import BUILT_IN, Policy

_UNDO: Final[dict[type, Callable[[Any, Policy], Change | None]]] = {
    Revoke: lambda change, _: Restore(change.kind, change.id, change.at_ns),
    Lock: lambda change, _: Withdraw(change.key, change.source_ip, change.at_ns),
    Unlock: lambda change, before: _undo_unlock(change, before),
    Disable: lambda change, _: Enable(change.tool, change.since_ns, change.since_ns),
    Enable: lambda change, _: Disable(change.tool, change.since_ns),
}


def _undo_unlock(change: Unlock, before: Policy) -> Change | None:
    entries = tuple(before.lockouts[number] for number in lasting(before, change))
    begun = all(entry.at < microseconds(change.at_ns) for entry in entries)
    return Relock(change.key, change.source_ip, entries) if entries and begun else None


def undo_of(change: Change, before: Policy = BUILT_IN) -> Change | None:
    """The change that takes this one back.

    Args:
        before: The policy that it was made in; only `Unlock` needs it.

    Returns:
        None where both don't tell it: for `Restore`, whose entries are gone, and for what is an undo itself.
    """
    make = _UNDO.get(type(change))
    return None if make is None else make(change, before)
