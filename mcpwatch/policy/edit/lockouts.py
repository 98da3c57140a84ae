"""Locking keys and addresses out, ending that, and taking either back."""

from __future__ import annotations

import ipaddress
from dataclasses import replace

from mcpwatch.documents.tree import Document
from mcpwatch.policy.address import same_address
from mcpwatch.policy.edit.changes import Lock, LockAll, Relock, Unlock, Withdraw
from mcpwatch.policy.edit.scalars import flow, quoted
from mcpwatch.policy.edit.sections import append, remove
from mcpwatch.policy.edit.splice import Splice, editable
from mcpwatch.policy.edit.step import Step, microseconds, same_time
from mcpwatch.policy.model import Lockout, Policy, PolicyError
from mcpwatch.text import safe
from mcpwatch.times import iso


def _same_subject(old: Lockout, key: str | None, source_ip: str | None) -> bool:
    return old.key == (key or None) and same_address(old.source_ip, source_ip or None)


def _locked_name(key: str | None, source_ip: str | None) -> str:
    if not key and not source_ip:
        raise PolicyError("a lockout needs a key, an address, or both")
    if source_ip:
        try:
            ipaddress.ip_address(source_ip)
        except ValueError:
            raise PolicyError(f"'{safe(source_ip, 80)}' is not an IP address") from None
    parts = (f"key {safe(key, 80)}" if key else "", f"address {source_ip}" if source_ip else "")
    return " from ".join(filter(None, parts))


def lockout_of(change: Lock) -> Lockout:
    """The entry that a change writes. Raises PolicyError where it makes no sense."""
    name = _locked_name(change.key, change.source_ip)
    entry = Lockout(
        key=change.key or None,
        source_ip=change.source_ip or None,
        at=microseconds(change.at_ns),
        until=microseconds(change.until_ns),
        rule=change.rule or None,
        incident=change.incident or None,
    )
    if entry.until <= entry.at:
        raise PolicyError(f"the lockout of {name} would end before it begins")
    return entry


def lock(change: Lock, document: Document, policy: Policy) -> Step:
    """Write a lockout, unless one of the same subject lasts as long."""
    entry = lockout_of(change)
    name = _locked_name(entry.key, entry.source_ip)
    summary = f"lock out {name} until {iso(entry.until)}"
    for old in policy.lockouts:
        same = _same_subject(old, entry.key, entry.source_ip)
        if same and old.at <= entry.at and old.until >= entry.until:
            return Step(summary, (), policy)
    splices = append(document, "lockouts", [_lockout_text(entry)], "- ")
    return Step(summary, splices, with_lockout(policy, entry))


def lock_all(change: LockAll, document: Document, policy: Policy) -> Step:
    """Write several lockouts."""
    entries = [lockout_of(lock) for lock in change.locks]
    expected = replace(policy, lockouts=(*policy.lockouts, *entries))
    texts = [_lockout_text(entry) for entry in entries]
    splices = append(document, "lockouts", texts, "- ") if texts else []
    return Step(f"lock out {len(entries)}", splices, expected)


def with_lockout(policy: Policy, entry: Lockout) -> Policy:
    """The policy with one more lockout."""
    return replace(policy, lockouts=(*policy.lockouts, entry))


def _lockout_text(entry: Lockout) -> str:
    return flow(
        [
            ("key", entry.key),
            ("source_ip", entry.source_ip),
            ("at", iso(entry.at)),
            ("until", iso(entry.until)),
            ("rule", entry.rule),
            ("incident", entry.incident),
        ]
    )


def unlock(change: Unlock, document: Document, policy: Policy) -> Step:
    """Let the lockouts of a subject end."""
    name = _locked_name(change.key, change.source_ip)
    end = microseconds(change.at_ns)
    ended = lasting(policy, change)
    if not ended:
        return Step(f"unlock {name}", (), policy)
    unbegun = [number for number in ended if policy.lockouts[number].at >= end]
    splices = [*remove(document, "lockouts", unbegun)]
    kept = []
    for number, old in enumerate(policy.lockouts):
        if number in unbegun:
            continue
        if number in ended:
            splices.append(_until(document, number, end))
            old = replace(old, until=end)
        kept.append(old)
    return Step(f"unlock {name}", splices, replace(policy, lockouts=tuple(kept)))


def lasting(policy: Policy, change: Unlock) -> list[int]:
    """The numbers of the lockouts that a change ends: those that last beyond its moment."""
    end = microseconds(change.at_ns)
    return [
        number
        for number, old in enumerate(policy.lockouts)
        if _same_subject(old, change.key, change.source_ip) and old.until > end
    ]


def _until(document: Document, number: int, until: int) -> Splice:
    """Let a lockout end at another time."""
    entry = editable(document, (document.root.get("lockouts") or document.root).items[number])
    node = editable(document, entry.get("until") or entry)
    return Splice(node.start, node.end, quoted(iso(until)))


def withdraw(change: Withdraw, document: Document, policy: Policy) -> Step:
    """Remove a lockout that was written for a moment."""
    name = _locked_name(change.key, change.source_ip)
    unwanted = [
        number
        for number, old in enumerate(policy.lockouts)
        if _same_subject(old, change.key, change.source_ip) and same_time(old.at, change.at_ns)
    ]
    kept = tuple(old for number, old in enumerate(policy.lockouts) if number not in set(unwanted))
    splices = remove(document, "lockouts", unwanted)
    return Step(f"withdraw the lockout of {name}", splices, replace(policy, lockouts=kept))


def relock(change: Relock, document: Document, policy: Policy) -> Step:
    """Let lockouts last again as long as they did."""
    name = _locked_name(change.key, change.source_ip)
    until = {entry.at: entry.until for entry in change.entries}
    lockouts, splices = [], []
    for number, old in enumerate(policy.lockouts):
        again = (
            until.get(old.at, old.until) if _same_subject(old, change.key, change.source_ip) else old.until
        )
        if again > old.until:
            splices.append(_until(document, number, again))
            old = replace(old, until=again)
        lockouts.append(old)
    return Step(f"lock {name} out again", splices, replace(policy, lockouts=tuple(lockouts)))
