"""Checks of keys, revocations and lockouts: old ones, unowned ones, and entries that cancel each other out."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Final

from mcpwatch.policy.advice.subject import Found, Subject, short
from mcpwatch.policy.model import Key, Lockout, Policy, Revocation
from mcpwatch.times import utc_day

MAX_KEY_AGE: Final = 90
"""Days after which a key is due for rotation."""


def _in_use(subject: Subject) -> Iterator[tuple[str, Key]]:
    """Keys that are not taken away for good: nobody needs to look after those."""
    gone = {entry.id for entry in subject.policy.revoked if entry.kind == "key" and entry.until is None}
    return ((name, key) for name, key in subject.policy.keys.items() if name not in gone)


def old_key(subject: Subject) -> Found:
    """A key that is due for rotation."""
    for name, key in _in_use(subject):
        age = (subject.today - key.created).days if key.created else 0
        if age > MAX_KEY_AGE:
            what = f"{short(name)} is {age} days old: rotate keys every {MAX_KEY_AGE} days"
            yield subject.line("keys", name, "created"), "medium", what


def undated_key(subject: Subject) -> Found:
    """A key whose age nobody knows."""
    for name, key in _in_use(subject):
        if key.created is None:
            what = f"{short(name)} has no created day, so that nobody sees when to rotate it: add one"
            yield subject.line("keys", name), "low", what


def unowned_key(subject: Subject) -> Found:
    """A key that nobody answers for."""
    for name, key in _in_use(subject):
        if key.owner is None:
            what = f"{short(name)} has no owner, so that nobody can be asked before it is revoked: add owner"
            yield subject.line("keys", name), "low", what


def unused_scope(subject: Subject) -> Found:
    """A scope of a key that no tool asks for."""
    required = {row.require_scope for row in subject.policy.tools.values()} - {None}
    if not required:
        return
    for name, key in _in_use(subject):
        for number, scope in enumerate(key.scopes or ()):
            if scope not in required:
                what = f"no tool requires the scope {short(scope)} of {short(name)}: a slip, or more than it needs?"
                yield subject.line("keys", name, "scopes", number), "low", what


def unheld_scope(subject: Subject) -> Found:
    """A scope that a tool asks for and no key has."""
    keys = subject.policy.keys.values()
    # the scopes of a key without any in the file are told by the log
    if not keys or any(key.scopes is None for key in keys):
        return
    held = {scope for key in keys for scope in key.scopes or ()}
    for name, row, _ in subject.tools():
        if row.require_scope is not None and row.require_scope not in held:
            what = f"no key has the scope {short(row.require_scope)} that {short(name)} requires: a slip?"
            yield subject.line("tools", name, "require_scope"), "low", what


def unknown_revoked(subject: Subject) -> Found:
    """A revocation of a key that does not exist."""
    keys = subject.policy.keys
    for number, entry in enumerate(subject.policy.revoked):
        if keys and entry.kind == "key" and entry.id not in keys:
            what = f"the revoked key {short(entry.id)} is not among the keys: a slip?"
            yield subject.line("revoked", number), "low", what


def revoked_twice(subject: Subject) -> Found:
    """Two revocations of the same principal at the same time: restoring one would leave the other."""
    entries: dict[tuple[str, str], list[tuple[int, Revocation]]] = defaultdict(list)
    for number, entry in enumerate(subject.policy.revoked):
        entries[entry.kind, entry.id].append((number, entry))
    for (kind, name), found in entries.items():
        found.sort(key=lambda each: (each[1].at, each[0]))
        number, longest = found[0]
        for later, entry in found[1:]:
            if longest.until is None or entry.at < longest.until:
                line = subject.line("revoked", number)
                what = (
                    f"{kind} {short(name)} is revoked on line {line} at the same time: remove one of the two"
                )
                yield subject.line("revoked", later), "low", what
            if longest.until is not None and (entry.until is None or entry.until > longest.until):
                number, longest = later, entry


def locked_revoked(subject: Subject) -> Found:
    """A lockout that a revocation makes pointless."""
    revoked: dict[str | None, list[Revocation]] = defaultdict(list)
    for entry in subject.policy.revoked:
        if entry.kind == "key":
            revoked[entry.id].append(entry)
    for number, lock in _lockouts(subject):
        if any(
            entry.at < lock.until and (entry.until is None or entry.until >= lock.until)
            for entry in revoked.get(lock.key, ())
        ):
            what = f"{short(lock.key or '')} is locked out and revoked: remove the lockout"
            yield subject.line("lockouts", number), "low", what


def locked_proxy(subject: Subject) -> Found:
    """A lockout of an address that stands for many callers."""
    for number, lock in _lockouts(subject):
        if (
            lock.key is None
            and lock.source_ip is not None
            and _stands_for_many(lock.source_ip, subject.policy)
        ):
            what = (
                f"{short(lock.source_ip)} is this host or a trusted proxy, and its lockout shuts out everybody "
                "behind it: remove it"
            )
            yield subject.line("lockouts", number), "high", what


def over(subject: Subject) -> Found:
    """A revocation or lockout that has ended."""
    today = subject.today.isoformat()
    for number, entry in enumerate(subject.policy.revoked):
        if entry.until is not None and utc_day(entry.until) < today:
            what = f"the revocation of {entry.kind} {short(entry.id)} is over: remove it"
            yield subject.line("revoked", number), "low", what
    for number, lock in enumerate(subject.policy.lockouts):
        if utc_day(lock.until) < today:
            name = " from ".join(map(short, filter(None, (lock.key, lock.source_ip))))
            yield subject.line("lockouts", number), "low", f"the lockout of {name} is over: remove it"


def _lockouts(subject: Subject) -> Iterator[tuple[int, Lockout]]:
    """Those that are not over."""
    today = subject.today.isoformat()
    return (
        (number, lock) for number, lock in enumerate(subject.policy.lockouts) if utc_day(lock.until) >= today
    )


def _stands_for_many(source_ip: str, policy: Policy) -> bool:
    address = _address(source_ip)
    proxies = map(_address, policy.lockout.trusted_proxies)
    return address.is_loopback or address.is_unspecified or address in proxies


def _address(text: str) -> IPv4Address | IPv6Address:
    address = ip_address(text)
    return (isinstance(address, IPv6Address) and address.ipv4_mapped) or address
