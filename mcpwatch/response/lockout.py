"""Lockouts: who gets one after failed logins, for how long, and how mcpwatch writes it itself.

Only the policy's entries decide, so that a restart, and somebody else who watches the same log, change nothing.
"""

from __future__ import annotations

import ipaddress
import re
import shlex
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

from mcpwatch.detection.hit import Hit, Subject
from mcpwatch.incidents.incident import incident_id
from mcpwatch.policy.address import canonical, same_address
from mcpwatch.policy.edit import Edit, Lock, LockAll, lockout_of, with_lockout
from mcpwatch.policy.edit import plan as plan_edit
from mcpwatch.policy.load import parse
from mcpwatch.policy.model import Lockout, Policy, PolicyError
from mcpwatch.policy.write import change as change_file
from mcpwatch.text import SafeText, safe
from mcpwatch.times import DAY, MINUTE, utc_day

RULE: Final = "auth-lockout"

MOST_ENTRIES: Final = 1_000
"""Lockouts of the last day beyond which mcpwatch adds none itself: whoever has addresses without end must not be able
to fill the policy file."""

FUTURE: Final = MINUTE
"""A failure that is further ahead of the clock than this locks nobody out: its time is wrong."""

LockoutState = Literal["advised", "written", "confirmed", "NOT IN FORCE", "over"]
"""Where a lockout stands. `written`: in the policy, and nobody tried since; `confirmed`: a refusal of it was seen."""


@dataclass(frozen=True, slots=True)
class Offender:
    """Whom failed logins are about: a key from an address, or an address. Untrusted text."""

    key: str | None
    source_ip: str | None

    @classmethod
    def of(cls, entry: Lockout) -> Offender:
        """Whom a lockout shuts out, with the address in one spelling."""
        return cls(entry.key, None if entry.source_ip is None else canonical(entry.source_ip))

    def is_subject(self, entry: Lockout) -> bool:
        """Whether a lockout is of exactly this key and address."""
        return entry.key == self.key and same_address(entry.source_ip, self.source_ip)

    def shares(self, entry: Lockout) -> bool:
        """Whether a lockout shuts out some of whom this names: the same key or address, and no other of either."""
        same_key = entry.key is not None and entry.key == self.key
        same_ip = entry.source_ip is not None and same_address(entry.source_ip, self.source_ip)
        other_key = entry.key is not None and self.key is not None and not same_key
        other_ip = entry.source_ip is not None and self.source_ip is not None and not same_ip
        return (same_key or same_ip) and not (other_key or other_ip)


@dataclass(frozen=True, slots=True)
class Trigger:
    """A hit of `auth-lockout`: the failure that asks for a lockout, and when it was, ns."""

    offender: Offender
    time_ns: int
    subject: Subject

    @property
    def incident(self) -> str:
        """Id of the incident that it is part of."""
        return incident_id(RULE, self.subject, utc_day(self.time_ns))


def offender_of(subject: Subject) -> Offender | None:
    """Whom a subject names, None where that is nobody who could be locked out."""
    ids = dict(subject)
    source_ip = ids.get("source_ip")
    key = ids.get("key")
    return None if source_ip is None else Offender(key, canonical(source_ip))


def triggers(hits: Iterable[Hit]) -> list[Trigger]:
    """The hits that ask for a lockout."""
    return [
        Trigger(offender, hit.time_ns, hit.subject)
        for hit in hits
        if hit.rule == RULE and (offender := offender_of(hit.subject)) is not None
    ]


def ladder_length(policy: Policy, offender: Offender, at_ns: int) -> int:
    """How long a lockout that begins at a moment lasts, ns: a step up the ladder for each in the 24 hours before."""
    before = sum(1 for entry in _entries(policy, offender, at_ns - DAY) if at_ns - DAY < entry.at <= at_ns)
    ladder = policy.lockout.durations
    return ladder[min(before, len(ladder) - 1)]


def _entries(policy: Policy, offender: Offender, since_ns: int) -> list[Lockout]:
    """The lockouts of a subject that last beyond a moment."""
    # where there is a journal, the lockouts that it remembers belong here as well
    return [entry for entry in policy.lockouts if entry.until > since_ns and offender.is_subject(entry)]


def exempt(policy: Policy, offender: Offender) -> SafeText | None:
    """Why mcpwatch never locks somebody out by itself, or None."""
    address = offender.source_ip or ""
    try:
        meant = _unmapped(address)
    except ValueError:
        return safe(f"'{safe(address, 60)}' is no IP address")
    if meant.is_multicast or (isinstance(meant, ipaddress.IPv4Address) and meant.is_reserved):
        return safe(f"{address} is no address that anybody calls from: the log has it wrong")
    if stands_for_many(address, policy):
        return safe(f"{address} is this host or a trusted proxy: everybody behind it would be locked out")
    return None


def stands_for_many(source_ip: str, policy: Policy) -> bool:
    """Whether an address is this host or a proxy, behind which every caller may look the same."""
    try:
        address = _unmapped(source_ip)
        proxies = [_unmapped(proxy) for proxy in policy.lockout.trusted_proxies]
    except ValueError:
        return False
    return address.is_loopback or address.is_unspecified or address in proxies


_CARRIERS: Final = tuple(
    map(ipaddress.IPv6Network, ("::/96", "::ffff:0:0:0/96", "64:ff9b::/96", "64:ff9b:1::/48"))
)
"""IPv6 forms that end in an IPv4 address and that no caller can choose: compatible, translated, NAT64."""


def _unmapped(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    """An address; an IPv4 one that is written as IPv6 is the IPv4 one."""
    address = ipaddress.ip_address(canonical(text))
    if not isinstance(address, ipaddress.IPv6Address) or address.is_loopback or address.is_unspecified:
        return address
    if any(address in network for network in _CARRIERS):
        return ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
    return address.sixtofour or address


def due(policy: Policy, trigger: Trigger, now_ns: int) -> Lock | None:
    """The lockout that a failure asks for; None where it asks for none.

    It asks for none when an entry of its subject lasts beyond it, whether that was written before or after: that is
    what makes it safe to read a log again, and to watch it twice. Nor does a failure of long ago, whose lockout
    would be over by now. One that is written later than the servers are given time for begins when it is written:
    nobody could have obeyed it before.
    """
    offender, time_ns = trigger.offender, trigger.time_ns
    if time_ns > now_ns + FUTURE or exempt(policy, offender) is not None:
        return None
    begun = max(now_ns, time_ns)
    if any(entry.at <= begun for entry in _entries(policy, offender, time_ns)):
        return None
    until = time_ns + ladder_length(policy, offender, time_ns)
    prompt = now_ns - time_ns <= policy.alerts.enforcement_grace
    at = time_ns if prompt else now_ns
    # the file has microseconds
    if until // 1_000 <= max(at, now_ns) // 1_000:
        return None
    return Lock(offender.key, offender.source_ip, at, until, RULE, trigger.incident)


def write_due(
    path: Path, asked: Sequence[Trigger], *, now_ns: int, forced: bool, state_dir: Path, actor: str
) -> None:
    """Write the lockouts that failures ask for, all in one go.

    What the policy says is read again under its lock, so that two who watch the same log write one entry.

    Args:
        forced: Write them even if the policy itself does not ask for it (`lockout.enforce`).

    Raises:
        PolicyError: Not all that were due could be written; the message says why.
    """
    full = False

    def make(data: bytes) -> Edit:
        nonlocal full
        full = False
        policy = parse(data, path)
        locks: list[Lock] = []
        wanted = asked if forced or policy.lockout.enforce else ()
        recent = sum(1 for entry in policy.lockouts if entry.until > now_ns - DAY)
        for trigger in wanted:
            lock = due(policy, trigger, now_ns)
            if lock is None:
                continue
            full = recent + len(locks) >= MOST_ENTRIES
            if full:
                break
            locks.append(lock)
            policy = with_lockout(policy, lockout_of(lock))
        return plan_edit(data, LockAll(tuple(locks)), path.name)

    change_file(path, make, state_dir=state_dir, actor=actor)
    if full:
        raise PolicyError(
            safe(
                f"{path}: it has {MOST_ENTRIES} lockouts of a day: no more are added; block the network instead"
            )
        )


def lock_command(offender: Offender, reason: str, policy: Path | None = None) -> SafeText:
    """The command that locks somebody out, to be pasted into a shell. Nothing in it can be obeyed by a terminal."""
    return _command("lock", offender, reason, policy)


def unlock_command(offender: Offender, reason: str = "WHY") -> SafeText:
    """The command that ends a lockout, to be pasted into a shell; its reason is left to whoever does."""
    return _command("unlock", offender, reason, None)


def _command(verb: str, offender: Offender, reason: str, policy: Path | None) -> SafeText:
    words = ["mcpwatch", verb]
    for option, value in (
        ("--key", offender.key),
        ("--ip", offender.source_ip),
        ("--reason", reason),
        ("--policy", None if policy is None else str(policy)),
    ):
        if value is not None:
            words += [option, shell_word(value)]
    return SafeText(" ".join(words))


_ESCAPED: Final = re.compile(r"[^ -&(-\[\]-~]")


def shell_word(text: str) -> str:
    """Text as one word of a shell; what a terminal could obey is spelled as bytes in `$'…'`, as bash reads them."""
    if text.isascii() and text.isprintable():
        return shlex.quote(text)

    def spell(found: re.Match[str]) -> str:
        return "".join(f"\\x{byte:02x}" for byte in found[0].encode("utf-8", "surrogatepass"))

    return f"$'{_ESCAPED.sub(spell, text)}'"
