"""The operator's changes: planned against the policy file as it is, written as they were shown, and remembered.

What is written differs from what was shown in nothing but the moment, which is that of writing.
"""

from __future__ import annotations

import getpass
import os
import socket
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from mcpwatch.policy.edit import (
    Change,
    Disable,
    Enable,
    Lock,
    Relock,
    Restore,
    Revoke,
    Unlock,
    Withdraw,
    quoted,
    undo_of,
)
from mcpwatch.policy.edit import plan as plan_edit
from mcpwatch.policy.file import read_whole
from mcpwatch.policy.load import parse
from mcpwatch.policy.model import PRINCIPAL_KINDS, Lockout, Policy, PolicyError, PrincipalKind
from mcpwatch.policy.write import Written, apply, owner_change, writable
from mcpwatch.response.lockout import Offender, ladder_length, stands_for_many, unlock_command
from mcpwatch.response.plan import Plan, ResponseError, Target, Verb
from mcpwatch.text import SafeText, safe
from mcpwatch.times import format_duration, iso

SHOWN_DIFF_LINES: Final = 400
_SHOWN_LOCKOUTS: Final = 3

DOUBT: Final = (
    "put in place, not confirmed: its folder could not be synced, or somebody else changed the file right after: "
    "look at it"
)
"""What is said of a change that was applied but not confirmed."""


def actor() -> str:
    """Who is at the keyboard, as it is written into the policy: `alice@bastion`."""
    try:
        user = getpass.getuser()
    except (OSError, KeyError):
        user = f"uid-{os.getuid()}"
    return f"{user}@{socket.gethostname()}"


@dataclass(frozen=True, slots=True)
class Made:
    """A change that was written."""

    change: Change
    what: SafeText
    at_ns: int
    by: str
    unconfirmed: bool
    """Applied, but not confirmed: `DOUBT` says what to do, and `what` ends with it."""
    reverse: Change | None = None
    """What takes it back, where that can be told."""


def lockout_length(policy: Policy, key: str | None, source_ip: str | None, now_ns: int) -> int:
    """How long a lockout of that subject lasts that begins now, ns: a step of the policy's ladder.

    Who is locked out stays so to the end of that: nothing is gained by locking twice.
    """
    whom = Offender(key, source_ip)
    current = (
        entry for entry in policy.lockouts if whom.is_subject(entry) and entry.at <= now_ns < entry.until
    )
    left = max((entry.until - now_ns for entry in current), default=0)
    return left or ladder_length(policy, whom, now_ns)


def change_for(
    verb: Verb,
    targets: tuple[Target, ...],
    reason: str,
    *,
    now_ns: int,
    by: str,
    policy: Policy,
    length_ns: int | None = None,
) -> Change:
    """The change of the policy that a verb on some targets means.

    Args:
        length_ns: How long a revocation or lockout lasts; None is for good, or by the ladder for lockouts.

    Raises:
        ResponseError: The verb can't be applied to such a target.
    """
    ids = {target.kind: target.id for target in targets}
    if verb in ("lock", "unlock"):
        key, source_ip = ids.get("key"), ids.get("source_ip")
        if key is None and source_ip is None:
            raise ResponseError("a lockout needs a key or an address; this record names neither")
        if verb == "unlock":
            return Unlock(key, source_ip, now_ns)
        if key is None and source_ip is not None and stands_for_many(source_ip, policy):
            raise ResponseError(
                f"{safe(source_ip, 60)} is this host or a trusted proxy: everybody behind it would be locked out; "
                "lock a key, or revoke it"
            )
        length = length_ns or lockout_length(policy, key, source_ip, now_ns)
        return Lock(key, source_ip, now_ns, now_ns + length)
    if verb in ("disable", "enable"):
        tool = ids.get("tool")
        if tool is None:
            raise ResponseError("this record names no tool; pick a tool call")
        return Disable(tool, now_ns) if verb == "disable" else Enable(tool, now_ns)
    principal = _principal(targets)
    if verb == "restore":
        return Restore(*principal)
    until = now_ns + length_ns if length_ns is not None else None
    return Revoke(*principal, now_ns, by, reason, until)


def _principal(targets: tuple[Target, ...]) -> tuple[PrincipalKind, str]:
    for target in targets:
        for kind in PRINCIPAL_KINDS:
            if target.kind == kind:
                return kind, target.id
    raise ResponseError(
        "only a key, client, session or subject can be revoked; this record names none (lock: l)"
    )


class Operator:
    """Plans and writes changes of one policy file.

    Attributes:
        made: The changes written here, oldest first.
    """

    def __init__(
        self, path: Path | None, *, state_dir: Path, clock: Callable[[], int], read_only: bool = False
    ) -> None:
        self.path = path
        self.state_dir = state_dir
        self.by = actor()
        self.made: list[Made] = []
        self._undone: set[int] = set()
        self._clock = clock
        self._read_only = read_only

    @property
    def changes_off(self) -> str | None:
        """Why nothing can be changed, or None."""
        if self._read_only:
            return "read-only: started with --read-only"
        if self.path is None:
            return "no policy file: make one with `mcpwatch policy init --from LOG`"
        return writable(self.path)

    @property
    def _refusal(self) -> str | None:
        """Why nothing can be changed, as an error that stands alone."""
        off = self.changes_off
        if off is None or self.path is None or self._read_only:
            return off
        return f"{safe(self.path)}: not written: {off}"

    def plan(
        self,
        verb: Verb,
        targets: tuple[Target, ...],
        reason: str,
        policy: Policy,
        impact: tuple[SafeText, ...],
    ) -> Plan:
        """Work out a change. Raises ResponseError."""
        change = change_for(verb, targets, reason, now_ns=self._clock(), by=self.by, policy=policy)
        return self.plan_change(verb, change, targets, impact)

    def plan_change(
        self, verb: Verb, change: Change, targets: tuple[Target, ...], impact: tuple[SafeText, ...] = ()
    ) -> Plan:
        """Work out the edit of a change. Raises ResponseError."""
        off = self._refusal
        if self.path is None:
            raise ResponseError(str(off))
        try:
            edit = plan_edit(read_whole(self.path), change, self.path.name)
        except PolicyError as error:
            raise ResponseError(str(error)) from None
        if off is not None and not edit.noop:
            raise ResponseError(off)
        rest = _still_locked(change, parse(edit.before, self.path).lockouts)
        if rest and edit.noop:
            raise ResponseError(_not_exactly(rest))
        stays = f"stays locked out: {_not_exactly(rest)}" if rest else None
        notes = [note for note in (_ends(change), stays, owner_change(self.path)) if note is not None]
        return Plan(
            verb=verb,
            targets=targets,
            what=edit.summary,
            diff=_shown(edit.diff, change),
            impact=(*impact, *map(safe, notes)),
            noop=edit.noop,
            edit=edit,
            change=change,
        )

    def apply(self, plan: Plan) -> Made:
        """Write what was planned, stamped with the moment of writing.

        Raises:
            ResponseError: Nothing was written; among other reasons because the file is no longer what was shown.
        """
        if (off := self._refusal) is not None:
            raise ResponseError(off)
        assert self.path is not None
        # the plan may have been on screen for a minute: the change counts from when it is made
        change = _stamped(plan.change, self._clock())
        try:
            edit = plan_edit(plan.edit.before, change, self.path.name)
            written = apply(self.path, edit, state_dir=self.state_dir, actor=self.by)
        except PolicyError as error:
            raise ResponseError(str(error)) from None
        except OSError as error:
            raise ResponseError(f"{safe(self.path)}: not written: {error.strerror}") from None
        doubt = f" ({DOUBT})" if written is Written.UNCONFIRMED else ""
        made = Made(
            change,
            SafeText(plan.what + doubt),
            _at(change) or self._clock(),
            self.by,
            written is Written.UNCONFIRMED,
            undo_of(change, parse(plan.edit.before, self.path)),
        )
        if written is not Written.UNCHANGED:
            self.made.append(made)
        return made

    def plan_undo(self) -> Plan:
        """The reverse of the newest change made here that was not undone. Raises ResponseError."""
        for number in range(len(self.made) - 1, -1, -1):
            reverse = self.made[number].reverse
            if number in self._undone or reverse is None:
                continue
            verb = _VERBS[type(reverse)]
            return self.plan_change(
                verb, reverse, _targets(reverse), (safe(f"undoes: {self.made[number].what}"),)
            )
        raise ResponseError("nothing to undo: no change was made here that can be reversed")

    def undid(self, plan: Plan) -> None:
        """Note that an undo was written, so that the next one reverses the change before."""
        for number in range(len(self.made) - 1, -1, -1):
            if number not in self._undone and self.made[number].reverse == plan.change:
                # nor is the undo itself to be undone next, which would do it all again
                self._undone |= {number, len(self.made) - 1}
                return


_VERBS: Final[dict[type, Verb]] = {
    Revoke: "revoke", Restore: "restore", Lock: "lock", Unlock: "unlock", Disable: "disable", Enable: "enable",
    Withdraw: "unlock", Relock: "lock",
}  # fmt: skip


def _targets(change: Change) -> tuple[Target, ...]:
    if isinstance(change, Revoke | Restore):
        return (Target(change.kind, change.id),)
    if isinstance(change, Disable | Enable):
        return (Target("tool", change.tool),)
    found = []
    if change.key is not None:
        found.append(Target("key", change.key))
    if change.source_ip is not None:
        found.append(Target("source_ip", change.source_ip))
    return tuple(found)


def _at(change: Change) -> int | None:
    if isinstance(change, Revoke | Lock | Unlock):
        return change.at_ns
    return change.since_ns if isinstance(change, Disable | Enable) else None


def _stamped(change: Change, now_ns: int) -> Change:
    """The same change, made now."""
    if isinstance(change, Revoke):
        until = None if change.until_ns is None else now_ns + change.until_ns - change.at_ns
        return replace(change, at_ns=now_ns, until_ns=until)
    if isinstance(change, Lock):
        return replace(change, at_ns=now_ns, until_ns=now_ns + change.until_ns - change.at_ns)
    if isinstance(change, Disable | Enable):
        return replace(change, since_ns=now_ns)
    if isinstance(change, Unlock):
        return replace(change, at_ns=now_ns)
    return change


def _shown(diff: SafeText, change: Change) -> tuple[SafeText, ...]:
    """The diff in lines, with its moments as they will be: the change counts from when it is written."""
    at = _at(change)
    moments = {} if at is None else {quoted(iso(at)): "now"}
    until = getattr(change, "until_ns", None)
    if at is not None and until is not None:
        moments[quoted(iso(until))] = f"now + {format_duration(until - at)}"
    lines = []
    for line in diff.splitlines()[:SHOWN_DIFF_LINES]:
        for moment, words in moments.items():
            # in quotes, which no id can hold but escaped
            line = line.replace(moment, words) if line.startswith("+") else line
        lines.append(SafeText(line))
    return tuple(lines)


def _still_locked(change: Change, lockouts: tuple[Lockout, ...]) -> list[Offender]:
    """Who of those that an unlock names stays locked out, by entries about more than that or less."""
    if not isinstance(change, Unlock):
        return []
    whom = Offender(change.key, change.source_ip)
    return list(
        dict.fromkeys(
            Offender.of(entry)
            for entry in lockouts
            if entry.at <= change.at_ns < entry.until and whom.shares(entry) and not whom.is_subject(entry)
        )
    )


def _not_exactly(rest: list[Offender]) -> str:
    commands = "; ".join(unlock_command(whom) for whom in rest[:_SHOWN_LOCKOUTS])
    more = f"; and {len(rest) - _SHOWN_LOCKOUTS} more" if len(rest) > _SHOWN_LOCKOUTS else ""
    return f"a lockout must be named as it was written: {commands}{more}"


def _ends(change: Change) -> str | None:
    if isinstance(change, Lock):
        return f"ends by itself after {format_duration(change.until_ns - change.at_ns)}"
    if isinstance(change, Revoke) and change.until_ns is not None:
        return f"ends by itself after {format_duration(change.until_ns - change.at_ns)}"
    return None
