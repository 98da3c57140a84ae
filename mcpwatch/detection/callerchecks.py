"""Checks of who makes a call: revoked, locked out, unknown, nobody at all, with an old key or token."""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache
from typing import Final

from mcpwatch.detection.book import Book, found_name
from mcpwatch.detection.callchecks import gap, otherwise_allowed
from mcpwatch.detection.case import Case, Check, Found
from mcpwatch.detection.enforcement import Enforcement, Entry, in_force
from mcpwatch.detection.hit import Severity
from mcpwatch.detection.rule import Rule
from mcpwatch.event import REFUSALS, REQUEST_KINDS
from mcpwatch.policy.model import Key
from mcpwatch.times import DAY, SECOND, format_duration, parse_time, utc_midnight

_MAX_TIME_TEXT: Final = 64
KEY_AGE: Final = 90 * DAY
"""Age at which a key is due for rotation, where a rule doesn't say it."""
TOKEN_LEEWAY: Final = 60 * SECOND
"""How far the clocks of issuer and server may be apart, where a rule doesn't say it."""
IDENTIFIED_WITHIN: Final = 300_000_000_000
"""A source "otherwise names its callers" if it did so in the five minutes before: no rule looks further back."""


def revoked(case: Case) -> Iterable[Found]:
    """The caller is revoked: refused, which is as it should be, or not."""
    entries = in_force(case.who.revocations, case.time_ns)
    if case.what.kind == "session_end" or not entries:
        return
    status = case.what.status
    if status in REFUSALS:
        _note_refusal(case, entries)
        yield Found("revoked-attempt", Severity.LOW, f"revoked {entries[0].kind} was refused ({status})")
    elif ignored := _note_success(case, entries):
        yield gap("revoked", f"the {ignored[0].kind} is revoked, and the call succeeded")


def locked(case: Case) -> Iterable[Found]:
    """The caller is locked out, and got through."""
    entries = in_force(case.who.lockouts, case.time_ns)
    if case.what.kind == "session_end" or not entries:
        return
    _note_refusal(case, entries)
    if _note_success(case, entries):
        yield gap("locked", "locked out, and the call succeeded")


def _note_refusal(case: Case, entries: Iterable[Entry]) -> None:
    """A refusal proves the entries, unless the call may have been denied for what it asked."""
    status = case.what.status
    if status == "unauthenticated" or (status == "denied" and otherwise_allowed(case)):
        for entry in entries:
            # the failure that a lockout is for was refused before there was a lockout
            if case.time_ns > entry.at:
                case.note(Enforcement(entry, case.time_ns, refused=True))


def _note_success(case: Case, entries: Iterable[Entry]) -> list[Entry]:
    """The entries that a success disproves: those that the server has had time to learn of."""
    if case.what.status != "success":
        return []
    grace = case.policy.alerts.enforcement_grace
    ignored = []
    for entry in entries:
        early = case.time_ns <= entry.at + grace
        case.note(Enforcement(entry, case.time_ns, refused=False, early=early))
        if not early:
            ignored.append(entry)
    return ignored


def key_unknown(case: Case) -> Iterable[Found]:
    """A key that the policy does not know got through."""
    if case.what.status == "success" and case.what.kind != "session_end":
        yield Found(
            "key-unknown", Severity.MEDIUM, "the key is not among the policy's keys, and the call succeeded"
        )


def no_credentials(case: Case) -> Iterable[Found]:
    """Somebody got through without any authentication."""
    if case.what.status == "success" and case.what.kind in REQUEST_KINDS:
        yield Found("unauthenticated-success", Severity.CRITICAL, "succeeded with auth.method none")


def nobody(case: Case) -> Iterable[Found]:
    """A record names nobody, on a source that names its callers otherwise."""
    if (
        case.what.status == "success"
        and case.what.kind in REQUEST_KINDS
        and abs(case.time_ns - case.identified_ns) < IDENTIFIED_WITHIN
    ):
        yield Found(
            "unauthenticated-success", Severity.CRITICAL,
            "succeeded without key, subject and client, on a source that names its callers",
        )  # fmt: skip


def stale_checks(key: Key | None, book: Book) -> list[tuple[bool, int, Check]]:
    """For each rule about old keys: whether it can fire, from when on, and its check."""
    if key is None or key.created is None:
        return []
    created = utc_midnight(key.created)
    found: list[tuple[bool, int, Check]] = []
    for rule in book.parametric("key-stale"):
        stale = created + rule.settings.get("age", KEY_AGE)
        found.append((True, stale, _stale_check(rule, created, stale)))
    return found


def _stale_check(rule: Rule, created: int, stale: int) -> Check:
    def check(case: Case) -> Iterable[Found]:
        if case.time_ns > stale and case.what.kind != "session_end":
            age = (case.time_ns - created) // DAY
            yield Found(
                found_name(rule, "key-stale"), Severity.LOW, f"the key is {age} days old, {case.outcome}"
            )

    return check


def token_check(rule: Rule) -> Check:
    """The check of a rule about the lifetime of tokens."""
    leeway = rule.settings.get("leeway", TOKEN_LEEWAY)
    name = found_name(rule, "token-lifetime")

    def check(case: Case) -> Iterable[Found]:
        auth = case.event.auth
        if auth is None or case.what.status != "success" or case.what.kind == "session_end":
            return
        expires = _auth_time(auth.expires_at)
        issued = _auth_time(auth.issued_at)
        longest = case.policy.alerts.token_lifetime
        if auth.expires_at is None and (auth.method or "").lower() != "jwt":
            return  # it may be opaque, and known to its issuer alone
        if auth.expires_at is None:
            # a log that tells neither time may just not write them
            severity = Severity.LOW if auth.issued_at is None else Severity.MEDIUM
            yield Found(name, severity, "the record shows no expiry of the token")
        elif expires is None:
            yield Found(name, Severity.MEDIUM, "the expiry of the token can't be read")
        elif case.time_ns > expires + leeway:
            late = format_duration(case.time_ns - expires)
            yield Found(name, Severity.HIGH, f"the token had expired {late} before, and the call succeeded")
        elif expires - (begins := _begins(issued, case.time_ns + leeway)) > longest:
            lifetime = format_duration(expires - begins)
            reason = f"the token is valid for {lifetime}; the policy allows {format_duration(longest)}"
            yield Found(name, Severity.LOW, reason)

    return check


def _begins(issued: int | None, used: int) -> int:
    """When a token was issued, ns: before it was used at the latest, whatever it says of itself."""
    return used if issued is None else min(issued, used)


def _auth_time(value: str | float | None) -> int | None:
    if value is None or (isinstance(value, str) and len(value) > _MAX_TIME_TEXT):
        return None  # nor is it kept
    return _known_time(value)


@lru_cache(maxsize=8_192)
def _known_time(value: str | float) -> int | None:
    found = parse_time(value)
    return found[0] if found is not None else None
