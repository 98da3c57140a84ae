"""Changes of random policy files: nothing else moves, the file means what it must, and ids are never misread."""

from __future__ import annotations

import random
import re
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from itertools import count
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

import pytest
import yaml

from mcpwatch.policy.edit import (
    Change,
    Disable,
    Edit,
    Enable,
    Lock,
    LockAll,
    Relock,
    Restore,
    Revoke,
    Unlock,
    Withdraw,
    plan,
    undo_of,
)
from mcpwatch.policy.load import load, parse
from mcpwatch.policy.model import PRINCIPAL_KINDS, Lockout, Policy, PolicyError, Revocation, ToolPolicy
from mcpwatch.policy.write import Written, apply
from mcpwatch.text import SafeText
from mcpwatch.times import HOUR, iso
from tests.faults.matrix import FULL, Figure, row
from tests.faults.random_policies import ADDRESSES, IDS, NOW, TOOLS, Writer

DOCUMENTS: Final = 3_000 if FULL else 200

Make = Callable[[random.Random, Policy], Change | LockAll]


def _revoke(rng: random.Random, policy: Policy) -> Change:
    until = rng.choice([None, NOW + HOUR])
    return Revoke(rng.choice(PRINCIPAL_KINDS), rng.choice(IDS), NOW, rng.choice(IDS), rng.choice(IDS), until)


def _restore(rng: random.Random, policy: Policy) -> Change:
    entry = rng.choice(policy.revoked or (Revocation("key", "nobody", 0),))
    return Restore(entry.kind, entry.id, rng.choice([None, entry.at]))


def _lock(rng: random.Random, policy: Policy) -> Lock:
    return Lock(
        rng.choice([None, *IDS[:3]]),
        rng.choice(ADDRESSES),
        NOW,
        NOW + rng.randrange(1, 9) * HOUR,
        "auth-lockout",
    )


def _lock_all(rng: random.Random, policy: Policy) -> LockAll:
    return LockAll(tuple(_lock(rng, policy) for _ in range(rng.randrange(1, 4))))


def _locked(rng: random.Random, policy: Policy) -> Lockout:
    return rng.choice(policy.lockouts or (Lockout(None, ADDRESSES[0], NOW - HOUR, NOW + HOUR),))


def _unlock(rng: random.Random, policy: Policy) -> Change:
    entry = _locked(rng, policy)
    return Unlock(entry.key, entry.source_ip, rng.choice([NOW, entry.at + 60_000_000_000]))


def _withdraw(rng: random.Random, policy: Policy) -> Change:
    entry = _locked(rng, policy)
    return Withdraw(entry.key, entry.source_ip, entry.at)


def _relock(rng: random.Random, policy: Policy) -> Change:
    entry = _locked(rng, policy)
    return Relock(entry.key, entry.source_ip, (replace(entry, until=entry.until + HOUR),))


def _tool(rng: random.Random, policy: Policy) -> str:
    return rng.choice([*policy.tools, *TOOLS])


MAKERS: Final[tuple[Make, ...]] = (
    _revoke,
    _restore,
    _lock,
    _lock_all,
    _unlock,
    _withdraw,
    _relock,
    lambda rng, policy: Disable(_tool(rng, policy), NOW),
    lambda rng, policy: Enable(_tool(rng, policy), NOW),
)


def _subject(change: Lock | Unlock | Withdraw | Relock) -> tuple[str | None, str | None]:
    return change.key, change.source_ip


def expected(policy: Policy, change: Change | LockAll) -> Policy:
    """What the policy must mean with the change: worked out on values alone, for changes that are not already so."""
    match change:
        case Revoke():
            entry = Revocation(change.kind, change.id, NOW, change.by, change.reason, change.until_ns)
            return replace(policy, revoked=(*policy.revoked, entry))
        case Restore():
            kept = [
                old
                for old in policy.revoked
                if (old.kind, old.id) != (change.kind, change.id) or change.at_ns not in (None, old.at)
            ]
            return replace(policy, revoked=tuple(kept))
        case Lock() | LockAll():
            locks = change.locks if isinstance(change, LockAll) else (change,)
            entries = [Lockout(lock.key, lock.source_ip, NOW, lock.until_ns, lock.rule) for lock in locks]
            return replace(policy, lockouts=(*policy.lockouts, *entries))
        case Unlock():
            return _lockouts(policy, change, lambda old: _ended(old, change.at_ns))
        case Withdraw():
            return _lockouts(policy, change, lambda old: None if old.at == change.at_ns else old)
        case Relock():
            again = {entry.at: entry.until for entry in change.entries}
            return _lockouts(
                policy, change, lambda old: replace(old, until=max(old.until, again.get(old.at, 0)))
            )
        case Disable() | Enable():
            row = policy.tools.get(change.tool, ToolPolicy())
            row = replace(row, enabled=isinstance(change, Enable), since=NOW)
            return replace(policy, tools=MappingProxyType({**policy.tools, change.tool: row}))


def _ended(old: Lockout, at: int) -> Lockout | None:
    at = at // 1_000 * 1_000
    return old if old.until <= at else None if old.at >= at else replace(old, until=at)


def _lockouts(
    policy: Policy, change: Unlock | Withdraw | Relock, of: Callable[[Lockout], Lockout | None]
) -> Policy:
    mine = [of(old) if (old.key, old.source_ip) == _subject(change) else old for old in policy.lockouts]
    return replace(policy, lockouts=tuple(entry for entry in mine if entry is not None))


_MOMENT: Final = re.compile(rb"""["']?\d{4}-\d\d-\d\dT[\d:.]+Z["']?""")
_OWN_LINE: Final = re.compile(rb"^ *# comment \d+[^\r\n]*", re.MULTILINE)


def is_pure(before: bytes, after: bytes, change: Change | LockAll) -> bool:
    """Whether nothing moved but what the change is about; looks at the bytes alone."""
    start = next(
        (at for at, (a, b) in enumerate(zip(before, after, strict=False)) if a != b),
        min(len(before), len(after)),
    )
    most = min(len(before), len(after)) - start
    same = next((n for n in range(most) if before[-1 - n] != after[-1 - n]), most)
    gone = before[start : len(before) - same]
    comments = _OWN_LINE.findall(before)
    if isinstance(change, Revoke | Lock | LockAll):
        return gone in (b"", b"~", b"null") and _OWN_LINE.findall(after) == comments
    if isinstance(change, Restore | Withdraw):
        rest = iter(before)
        # the rest in order, and nothing new between
        return all(byte in rest for byte in after) and _kept_outside(before, after)
    if isinstance(change, Relock):
        return _MOMENT.sub(b"T", before) == _MOMENT.sub(b"T", after)
    if isinstance(change, Unlock):
        removed = before.count(b"until") != after.count(b"until")
        return removed or _MOMENT.sub(b"T", before) == _MOMENT.sub(b"T", after)
    listed = _row_of(change.tool, before)
    if not listed:
        return gone in (b"", b"~", b"null") and _OWN_LINE.findall(after) == comments
    return _without_switch(before) == _without_switch(after) and _OWN_LINE.findall(after) == comments


def _row_of(tool: str, data: bytes) -> bool:
    return tool in parse(data, None).tools


def _without_switch(data: bytes) -> bytes:
    """What is left without `enabled` and `since`, and without what parts fields from each other."""
    rest = re.sub(rb"enabled *: *\w+|since *: *" + _MOMENT.pattern, b"", data)
    return re.sub(rb"[\s,{}~]|null", b"", rest)


def _kept_outside(before: bytes, after: bytes) -> bool:
    """Whether of every section that a removal is not about each line is there as it was."""
    before, after = (data.removeprefix(b"\xef\xbb\xbf") for data in (before, after))
    found = re.search(rb"^( *)[\"']?version", before, re.MULTILINE)
    margin = re.escape(found[1]) if found is not None else b""
    lines, inside = set(after.splitlines()), False
    for line in before.splitlines():
        section = re.match(margin + rb"[\"']?([a-z_]+)[\"']?:", line)
        if section is not None:
            inside = section[1] in (b"revoked", b"lockouts")
        if not inside and line not in lines:
            return False
    return True


def _meaning(data: bytes) -> Policy:
    return replace(parse(data, None), path=None, sha256=None)


@row("C11")
def test_changes_of_random_files_move_nothing_else_and_mean_what_they_must(figure: Figure) -> None:
    """Every kind of change on files of every style; what is refused is refused with its line."""
    outcomes: Counter[str] = Counter()
    for seed in count():
        if outcomes["done"] + outcomes["refused"] == DOCUMENTS:
            break
        data = Writer(seed).document()
        policy, rng = _meaning(data), random.Random(~seed)
        change = MAKERS[seed % len(MAKERS)](rng, policy)
        try:
            edit = plan(data, change, "policy.yaml")
        except PolicyError as error:
            assert re.match(r"policy\.yaml:\d+: not changed: |tool '.*' is not in the policy", str(error)), (
                seed,
                error,
            )
            outcomes["not meant" if "not in the policy" in str(error) else "refused"] += 1
            continue
        if edit.noop:
            outcomes["already so"] += 1
            continue
        assert _meaning(edit.after) == expected(policy, change), (seed, change)
        assert is_pure(data, edit.after, change), (seed, change)
        assert edit.before == data
        outcomes["done"] += 1
        undo = undo_of(change, policy) if not isinstance(change, LockAll) else None
        if (
            undo is not None
            and isinstance(change, Revoke | Lock)
            and "~" not in data.decode()
            and "null" not in data.decode()
        ):
            assert plan(edit.after, undo, "policy.yaml").after == data, (seed, change)
            outcomes["undone"] += 1
    assert outcomes["refused"] <= DOCUMENTS * 0.05, outcomes
    share = 100 * outcomes["refused"] / DOCUMENTS
    figure(
        f"{DOCUMENTS} files: {outcomes['done']} changed, 0 impure, 0 wrong, {outcomes['refused']} refused "
        f"({share:.1f} %), {outcomes['undone']} undone to the byte"
    )


def _by_yaml_edit(data: bytes, change: Change | LockAll, policy: Policy) -> bytes:
    """The same change by another editor that keeps what it does not change. Raises where it has no way to."""
    from yaml_edit import Document, ScalarValue

    def quoted(text: str) -> ScalarValue:
        return ScalarValue(text, "double-quoted")

    document: Any = Document.parse(data.decode())
    match change:
        case Revoke():
            entry = {change.kind: change.id, "at": iso(NOW), "by": change.by, "reason": change.reason}
            if change.until_ns is not None:
                entry["until"] = iso(change.until_ns)
            document["revoked"].as_sequence().append(
                {name: quoted(str(value)) for name, value in entry.items()}
            )
        case Restore():
            rows = document["revoked"].as_sequence()
            for number in reversed(range(len(policy.revoked))):
                old = policy.revoked[number]
                if (old.kind, old.id) == (change.kind, change.id) and change.at_ns in (None, old.at):
                    del rows[number]
        case Lock():
            entry = {
                "source_ip": change.source_ip,
                "at": iso(NOW),
                "until": iso(change.until_ns),
                "rule": change.rule,
            }
            entry |= {"key": change.key} if change.key else {}
            document["lockouts"].as_sequence().append(
                {name: quoted(str(value)) for name, value in entry.items()}
            )
        case Disable() | Enable():
            tool = document["tools"].as_mapping()[change.tool].as_mapping()
            tool["enabled"], tool["since"] = isinstance(change, Enable), quoted(iso(NOW))
        case _:
            raise LookupError
    return str(document).encode()


@row("C11")
def test_another_careful_editor_means_the_same_where_it_can_make_the_change(figure: Figure) -> None:
    """Two programs that share nothing but the file agree on what it means afterwards."""
    pytest.importorskip("yaml_edit")
    agreed = impure = unable = 0
    for seed in range(1_500 if FULL else 100):
        data = Writer(seed).document()
        policy, rng = _meaning(data), random.Random(~seed)
        change = (_revoke, _restore, _lock, MAKERS[-2], MAKERS[-1])[seed % 5](rng, policy)
        try:
            edit = plan(data, change, "policy.yaml")
        except PolicyError:
            continue
        if edit.noop:
            continue
        try:
            other = _by_yaml_edit(data, change, policy)
        except (AttributeError, LookupError, TypeError, ValueError):
            unable += 1  # a section or a value that is not there yet, a byte order mark
            continue
        assert _meaning(other) == _meaning(edit.after), (seed, change)
        agreed += 1
        impure += not is_pure(data, other, change)
    assert agreed > unable
    figure(f"yaml-edit agrees on {agreed} of {agreed}, {unable} it can't make, {impure} it makes impurely")


HOSTILE: Final = (
    "yes", "# x", "a: b", "line\nbreak", "carriage\r\nreturn", "u\u2028\x85\u2029x", "x" * 10_000, "~", "0007", "1e3",
    "'\"\\\\", "\x1b[31m", "\x00\x07", "é😀", "- a", "\ufeff", "{}", "[a", "*a", "&a", "!!str a",
    "<<", "? a", "%a", "@", "`", " a ", "\ta", "2026-11-22", "null", "a #b", "---", "...",
)  # fmt: skip


@row("C13")
@pytest.mark.parametrize("shape", [b"version: 1\n", b"version: 1\nrevoked: []\ntools: {}\nlockouts: []\n"])
def test_any_id_reads_back_equal_from_the_file(shape: bytes, tmp_path: Path, figure: Figure) -> None:
    """Through the whole write, in every place an id can stand in; any YAML reader takes it for the same text."""
    path = tmp_path / "policy.yaml"
    for text in HOSTILE:
        tool = text[:900]
        changes: tuple[Change, ...] = (
            *(Revoke(kind, text, NOW, text, text) for kind in PRINCIPAL_KINDS),
            Lock(text, None, NOW, NOW + HOUR, text, text),
            Disable(tool, NOW),
        )
        path.write_bytes(shape)
        data = shape
        for change in changes:
            data = plan(data, change, "policy.yaml").after
        edit = Edit(shape, data, SafeText(""), SafeText(""), False)
        assert apply(path, edit, state_dir=tmp_path / "state", actor="me") is Written.APPLIED
        policy, plain = load(path), yaml.safe_load(path.read_bytes())
        read = {(entry.kind, entry.id, entry.by, entry.reason) for entry in policy.revoked}
        assert read == {(kind, text, text, text) for kind in PRINCIPAL_KINDS}
        assert [(entry.key, entry.rule, entry.incident) for entry in policy.lockouts] == [(text,) * 3]
        assert tool in policy.tools
        assert [entry[kind] for kind, entry in zip(PRINCIPAL_KINDS, plain["revoked"], strict=True)] == [
            text
        ] * 4
        assert (plain["lockouts"][0]["key"], list(plain["tools"])) == (text, [tool])
    figure(f"{len(HOSTILE)} ids in 8 places: all equal")
