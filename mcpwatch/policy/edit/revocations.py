"""Revoking a principal and restoring it."""

from __future__ import annotations

from dataclasses import replace

from mcpwatch.documents.tree import Document
from mcpwatch.policy.edit.changes import Restore, Revoke
from mcpwatch.policy.edit.scalars import flow
from mcpwatch.policy.edit.sections import append, remove
from mcpwatch.policy.edit.step import Step, microseconds, same_time
from mcpwatch.policy.model import Policy, PolicyError, Revocation
from mcpwatch.text import safe
from mcpwatch.times import iso


def revoke(change: Revoke, document: Document, policy: Policy) -> Step:
    """Write a revocation, unless one of the same principal lasts as long."""
    name = f"{change.kind} {safe(change.id, 80)}"
    if not change.id:
        raise PolicyError(f"no {change.kind} to revoke: name one")
    if change.until_ns is not None and change.until_ns // 1_000 <= change.at_ns // 1_000:
        raise PolicyError(f"the revocation of {name} would end before it begins")
    entry = Revocation(
        kind=change.kind,
        id=change.id,
        at=microseconds(change.at_ns),
        by=change.by or None,
        reason=change.reason or None,
        until=None if change.until_ns is None else microseconds(change.until_ns),
    )
    summary = f"revoke {name}" + (f" until {iso(entry.until)}" if entry.until is not None else "")
    for old in policy.revoked:
        lasts = old.until is None or (entry.until is not None and old.until >= entry.until)
        if (old.kind, old.id) == (entry.kind, entry.id) and old.at <= entry.at and lasts:
            return Step(summary, (), policy)
    text = flow(
        [
            (entry.kind, entry.id),
            ("at", iso(entry.at)),
            ("until", None if entry.until is None else iso(entry.until)),
            ("by", entry.by),
            ("reason", entry.reason),
        ]
    )
    expected = replace(policy, revoked=(*policy.revoked, entry))
    return Step(summary, append(document, "revoked", [text], "- "), expected)


def restore(change: Restore, document: Document, policy: Policy) -> Step:
    """Remove the revocations of a principal."""
    unwanted = [
        number
        for number, old in enumerate(policy.revoked)
        if (old.kind, old.id) == (change.kind, change.id) and same_time(old.at, change.at_ns)
    ]
    kept = tuple(old for number, old in enumerate(policy.revoked) if number not in set(unwanted))
    summary = f"restore {change.kind} {safe(change.id, 80)}"
    return Step(summary, remove(document, "revoked", unwanted), replace(policy, revoked=kept))
