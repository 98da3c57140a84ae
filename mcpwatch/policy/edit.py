"""Plans one change of the policy file: finds the place, splices the bytes, and proves that nothing else moved.

Nothing here touches a file. A change is made by inserting or cutting text at places that the parser's marks
give; every other byte stays (comments, quotes, indents, line ends, byte order mark). The result is parsed again
and must mean exactly the old policy with the change, or the edit is refused.
"""

from __future__ import annotations

import difflib
import ipaddress
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import singledispatch
from types import MappingProxyType
from typing import Any, Final, TypeAlias

from mcpwatch.documents.tree import Document, Node, compose
from mcpwatch.policy.address import same_address
from mcpwatch.policy.load import POLICY_FILE, interpret
from mcpwatch.policy.model import (
    BUILT_IN,
    Lockout,
    Policy,
    PolicyError,
    PrincipalKind,
    Revocation,
    ToolPolicy,
)
from mcpwatch.text import SafeText, safe
from mcpwatch.times import iso

ADDED: Final = "  # added by mcpwatch"
"""Stands behind a section or a tool that was not in the file before, so that undoing removes it again."""


LONGEST_KEY: Final = 1_000
"""Characters of a mapping key as written; YAML's own limit is 1,024."""


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


@dataclass(frozen=True, slots=True)
class Edit:
    """A planned change.

    Attributes:
        before: The whole file as it was read.
        after: The whole file as it is to be; equal to `before` when there is nothing to do.
        diff: Unified, three lines of context, safe to show.
        summary: What the change does, in one clause.
        noop: It is already so.
    """

    before: bytes
    after: bytes
    diff: SafeText
    summary: SafeText
    noop: bool


@dataclass(frozen=True, slots=True)
class _Splice:
    start: int
    end: int
    text: str


def quoted(text: str) -> str:
    """Write text as a double-quoted YAML scalar on one line, with everything unprintable escaped.

    Raises:
        PolicyError: It holds a lone surrogate, which no UTF-8 file can.
    """
    out = []
    for char in text:
        code = ord(char)
        if 0xD800 <= code < 0xE000:
            raise PolicyError(
                f"'{safe(text, 80)}' can't be written: it holds half a character (a lone surrogate)"
            )
        if char in '"\\':
            out.append("\\" + char)
        elif char.isprintable():
            out.append(char)
        else:
            out.append(
                f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"
            )
    return '"' + "".join(out) + '"'


def _flow(pairs: Iterable[tuple[str, str | None]]) -> str:
    return "{" + ", ".join(f"{name}: {quoted(value)}" for name, value in pairs if value) + "}"


def scalar(name: str) -> str:
    """Write text as a key: plain where every YAML reader takes it for text, else quoted."""
    plain = re.fullmatch(r"[A-Za-z][A-Za-z0-9_-]*", name) and not re.fullmatch(
        r"(?i)y|n|yes|no|on|off|true|false|null", name
    )
    return name if plain else quoted(name)


_BREAKS: Final = "\n\r\x85\u2028\u2029"


def _line_start(text: str, index: int) -> int:
    while index and text[index - 1] not in _BREAKS:
        index -= 1
    return index


def _next_line(text: str, index: int) -> int:
    while index < len(text) and text[index] not in _BREAKS:
        index += 1
    return index + (2 if text.startswith("\r\n", index) else 1 if index < len(text) else 0)


def _content_end(node: Node) -> Node:
    """The last single value or `{…}` in a node: its end is exact, that of a block is not."""
    while not node.flow and (node.items or node.pairs):
        node = node.items[-1] if node.items else node.pairs[-1][1]
    return node


def _line_behind(text: str, node: Node) -> int:
    last = _content_end(node)
    # the end of a `|` block is already the start of the next line
    return last.end if last.block else _next_line(text, last.end)


def _newline(document: Document) -> str:
    found = re.search(r"\r\n|\n|\r", document.text)
    return found.group() if found else "\n"


def _new_line(document: Document, index: int, line: str) -> _Splice:
    """Insert a line at the start of a line, or at the end of a text that may lack its last newline."""
    newline = _newline(document)
    if index and document.text[index - 1] not in _BREAKS:
        return _Splice(index, index, newline + line)
    return _Splice(index, index, line + newline)


def _cut_lines(text: str, ranges: Sequence[tuple[int, int]]) -> list[_Splice]:
    merged: list[tuple[int, int]] = []
    for start, end in sorted(ranges):
        if merged and merged[-1][1] >= start:
            merged[-1] = (merged[-1][0], max(end, merged[-1][1]))
        else:
            merged.append((start, end))
    if merged and merged[-1][1] == len(text) and text[-1:] not in _BREAKS:
        # the last line has no newline: what goes with it is the newline before
        start = merged[-1][0]
        start -= 2 if text.endswith("\r\n", 0, start) else 1 if start else 0
        merged[-1] = (start, len(text))
    return [_Splice(start, end, "") for start, end in merged]


def _refuse(document: Document, node: Node, why: str) -> PolicyError:
    return PolicyError(safe(f"{document.name}:{node.line}: not changed: {why}; edit the file by hand"))


def _editable(document: Document, node: Node) -> Node:
    if node.odd:
        raise _refuse(document, node, f"the value here is {node.odd}")
    return node


def _indent(document: Document, node: Node) -> str:
    start = _line_start(document.text, node.start)
    before = document.text[start : node.start]
    if before.strip(" "):
        raise _refuse(document, node, "the entry does not start its line")
    return before


def _behind_colon(text: str, key: Node, value: str) -> _Splice:
    # where nothing stands, the two parsers of PyYAML disagree on the place
    place = text.find(":", key.end) + 1
    return _Splice(place, place, f" {value}")


def _append(
    document: Document, name: str, entries: Sequence[str], bullet: str, note: str = ""
) -> list[_Splice]:
    """Add entries to a section, which may be missing, empty, a block, or in brackets.

    Args:
        entries: The entries as they stand between brackets.
        bullet: What stands before each on a line of its own: `- ` in a list.
        note: A comment behind an entry that has its own line.
    """
    entry = ", ".join(entries)

    def lines(indent: str) -> str:
        return _newline(document).join(f"{indent}{bullet}{one}{note}" for one in entries)

    root = _editable(document, document.root)
    text = document.text
    left, right = "[]" if bullet else "{}"
    found = root.pair(name)
    if found is None:
        if root.flow:
            comma = ", " if root.pairs else ""
            place = root.pairs[-1][1].end if root.pairs else root.start + 1
            return [_Splice(place, place, f"{comma}{name}: {left}{entry}{right}")]
        indent = _indent(document, root)
        first = _new_line(document, document.end, f"{indent}{name}:{ADDED}")
        second = _new_line(document, document.end, lines(f"{indent}  "))
        return [replace(first, text=first.text + second.text)]
    key, section = found
    _editable(document, section)
    if section.null:
        if section.end > section.start:
            return [_Splice(section.start, section.end, f"{left}{entry}{right}")]
        if root.flow:
            return [_behind_colon(text, key, f"{left}{entry}{right}")]
        added = lines(f"{_indent(document, key)}  ")
        return [_new_line(document, _next_line(text, key.end), added)]
    children = section.items or [value for _, value in section.pairs]
    if section.flow:
        place = children[-1].end if children else section.start + 1
        return [_Splice(place, place, f"{', ' if children else ''}{entry}")]
    return [_new_line(document, _line_behind(text, section), lines(_indent(document, section)))]


def _remove(document: Document, name: str, unwanted: Sequence[int]) -> list[_Splice]:
    """Remove entries of a list by their numbers; a section that mcpwatch added goes with its last entry."""
    found = _editable(document, document.root).pair(name)
    if found is None or not unwanted:
        return []
    key, section = found
    _editable(document, section)
    entries = section.items
    for number in unwanted:
        _editable(document, entries[number])
    if section.flow:
        return _remove_from_brackets(document.text, section, frozenset(unwanted))
    ranges = [_entry_lines(document, entries[number]) for number in unwanted]
    key_line = (_line_start(document.text, key.start), _next_line(document.text, key.end))
    if len(unwanted) == len(entries) and ranges[0][0] == key_line[1]:
        written = document.text[key_line[0] : key_line[1]].rstrip(_BREAKS)
        if written == f"{_indent(document, key)}{name}:{ADDED}":
            ranges.append(key_line)
    return _cut_lines(document.text, ranges)


def _entry_lines(document: Document, node: Node) -> tuple[int, int]:
    start = _line_start(document.text, node.start)
    if re.fullmatch(r" *- +", document.text[start : node.start]) is None:
        raise _refuse(document, node, "the entry does not start on the line of its '-'")
    return start, _line_behind(document.text, node)


_TO_COMMA: Final = re.compile(r"(?:\s|#[^\n\r\x85\u2028\u2029]*)*,")


def _remove_from_brackets(text: str, section: Node, unwanted: frozenset[int]) -> list[_Splice]:
    splices: list[_Splice] = []
    kept = [item for number, item in enumerate(section.items) if number not in unwanted]
    for number in sorted(unwanted):
        item = section.items[number]
        before = section.items[number - 1].end if number else None
        taken = splices[-1].end if splices else 0
        if (
            before is not None
            and taken <= before  # else the comma in between went with the entry before
            and kept
            and kept[0].start < item.start
            and "#" not in text[before : item.start]
        ):
            splices.append(_Splice(before, item.end, ""))
            continue
        splices.append(_Splice(item.start, item.end, ""))
        comma = _TO_COMMA.match(text, item.end)
        if comma is not None:
            end = comma.end()
            # the blank behind the comma as well, so that the next entry stands where this one stood
            end += len(text[end:]) - len(text[end:].lstrip(" ")) if comma.end() - item.end == 1 else 0
            splices.append(_Splice(comma.end() - 1, end, ""))
    return splices


@dataclass(frozen=True, slots=True)
class _Step:
    summary: str
    splices: Sequence[_Splice]
    expected: Policy


def _microseconds(ns: int) -> int:
    return ns // 1_000 * 1_000


def _same_time(at: int, wanted_ns: int | None) -> bool:
    return wanted_ns is None or at // 1_000 == wanted_ns // 1_000


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


@singledispatch
def _step(change: Any, document: Document, policy: Policy) -> _Step:
    raise TypeError(f"no change of the policy: {change!r}")


@_step.register
def _revoke(change: Revoke, document: Document, policy: Policy) -> _Step:
    name = f"{change.kind} {safe(change.id, 80)}"
    if not change.id:
        raise PolicyError(f"no {change.kind} to revoke: name one")
    if change.until_ns is not None and change.until_ns // 1_000 <= change.at_ns // 1_000:
        raise PolicyError(f"the revocation of {name} would end before it begins")
    entry = Revocation(
        kind=change.kind,
        id=change.id,
        at=_microseconds(change.at_ns),
        by=change.by or None,
        reason=change.reason or None,
        until=None if change.until_ns is None else _microseconds(change.until_ns),
    )
    summary = f"revoke {name}" + (f" until {iso(entry.until)}" if entry.until is not None else "")
    for old in policy.revoked:
        lasts = old.until is None or (entry.until is not None and old.until >= entry.until)
        if (old.kind, old.id) == (entry.kind, entry.id) and old.at <= entry.at and lasts:
            return _Step(summary, (), policy)
    text = _flow(
        [
            (entry.kind, entry.id),
            ("at", iso(entry.at)),
            ("until", None if entry.until is None else iso(entry.until)),
            ("by", entry.by),
            ("reason", entry.reason),
        ]
    )
    expected = replace(policy, revoked=(*policy.revoked, entry))
    return _Step(summary, _append(document, "revoked", [text], "- "), expected)


@_step.register
def _restore(change: Restore, document: Document, policy: Policy) -> _Step:
    unwanted = [
        number
        for number, old in enumerate(policy.revoked)
        if (old.kind, old.id) == (change.kind, change.id) and _same_time(old.at, change.at_ns)
    ]
    kept = tuple(old for number, old in enumerate(policy.revoked) if number not in set(unwanted))
    summary = f"restore {change.kind} {safe(change.id, 80)}"
    return _Step(summary, _remove(document, "revoked", unwanted), replace(policy, revoked=kept))


def lockout_of(change: Lock) -> Lockout:
    """The entry that a change writes. Raises PolicyError where it makes no sense."""
    name = _locked_name(change.key, change.source_ip)
    entry = Lockout(
        key=change.key or None,
        source_ip=change.source_ip or None,
        at=_microseconds(change.at_ns),
        until=_microseconds(change.until_ns),
        rule=change.rule or None,
        incident=change.incident or None,
    )
    if entry.until <= entry.at:
        raise PolicyError(f"the lockout of {name} would end before it begins")
    return entry


@_step.register
def _lock(change: Lock, document: Document, policy: Policy) -> _Step:
    entry = lockout_of(change)
    name = _locked_name(entry.key, entry.source_ip)
    summary = f"lock out {name} until {iso(entry.until)}"
    for old in policy.lockouts:
        same = _same_subject(old, entry.key, entry.source_ip)
        if same and old.at <= entry.at and old.until >= entry.until:
            return _Step(summary, (), policy)
    splices = _append(document, "lockouts", [_lockout_text(entry)], "- ")
    return _Step(summary, splices, with_lockout(policy, entry))


@_step.register
def _lock_all(change: LockAll, document: Document, policy: Policy) -> _Step:
    entries = [lockout_of(lock) for lock in change.locks]
    expected = replace(policy, lockouts=(*policy.lockouts, *entries))
    texts = [_lockout_text(entry) for entry in entries]
    splices = _append(document, "lockouts", texts, "- ") if texts else []
    return _Step(f"lock out {len(entries)}", splices, expected)


def with_lockout(policy: Policy, entry: Lockout) -> Policy:
    """The policy with one more lockout."""
    return replace(policy, lockouts=(*policy.lockouts, entry))


def _lockout_text(entry: Lockout) -> str:
    return _flow(
        [
            ("key", entry.key),
            ("source_ip", entry.source_ip),
            ("at", iso(entry.at)),
            ("until", iso(entry.until)),
            ("rule", entry.rule),
            ("incident", entry.incident),
        ]
    )


@_step.register
def _unlock(change: Unlock, document: Document, policy: Policy) -> _Step:
    name = _locked_name(change.key, change.source_ip)
    end = _microseconds(change.at_ns)
    ended = _lasting(policy, change)
    if not ended:
        return _Step(f"unlock {name}", (), policy)
    unbegun = [number for number in ended if policy.lockouts[number].at >= end]
    splices = [*_remove(document, "lockouts", unbegun)]
    kept = []
    for number, old in enumerate(policy.lockouts):
        if number in unbegun:
            continue
        if number in ended:
            splices.append(_until(document, number, end))
            old = replace(old, until=end)
        kept.append(old)
    return _Step(f"unlock {name}", splices, replace(policy, lockouts=tuple(kept)))


def _lasting(policy: Policy, change: Unlock) -> list[int]:
    """The numbers of the lockouts that a change ends: those that last beyond its moment."""
    end = _microseconds(change.at_ns)
    return [
        number
        for number, old in enumerate(policy.lockouts)
        if _same_subject(old, change.key, change.source_ip) and old.until > end
    ]


def _until(document: Document, number: int, until: int) -> _Splice:
    """Let a lockout end at another time."""
    entry = _editable(document, (document.root.get("lockouts") or document.root).items[number])
    node = _editable(document, entry.get("until") or entry)
    return _Splice(node.start, node.end, quoted(iso(until)))


@_step.register
def _withdraw(change: Withdraw, document: Document, policy: Policy) -> _Step:
    name = _locked_name(change.key, change.source_ip)
    unwanted = [
        number
        for number, old in enumerate(policy.lockouts)
        if _same_subject(old, change.key, change.source_ip) and _same_time(old.at, change.at_ns)
    ]
    kept = tuple(old for number, old in enumerate(policy.lockouts) if number not in set(unwanted))
    splices = _remove(document, "lockouts", unwanted)
    return _Step(f"withdraw the lockout of {name}", splices, replace(policy, lockouts=kept))


@_step.register
def _relock(change: Relock, document: Document, policy: Policy) -> _Step:
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
    return _Step(f"lock {name} out again", splices, replace(policy, lockouts=tuple(lockouts)))


@_step.register
def _disable(change: Disable, document: Document, policy: Policy) -> _Step:
    summary = f"disable {safe(change.tool, 80)}"
    row = policy.tools.get(change.tool)
    if row is not None and not row.enabled:
        return _Step(summary, (), policy)
    since = _microseconds(change.since_ns)
    expected = _with_tool(policy, change.tool, replace(row or ToolPolicy(), enabled=False, since=since))
    if row is None:
        if not change.tool or len(scalar(change.tool)) > LONGEST_KEY:
            raise PolicyError(
                f"tool '{safe(change.tool, 80)}': a name of 1 to {LONGEST_KEY} characters is needed"
            )
        entry = f"{scalar(change.tool)}: {{enabled: false, since: {quoted(iso(since))}}}"
        return _Step(summary, _append(document, "tools", [entry], "", ADDED), expected)
    return _Step(summary, _switch(document, change.tool, "false", since), expected)


@_step.register
def _enable(change: Enable, document: Document, policy: Policy) -> _Step:
    summary = f"enable {safe(change.tool, 80)}"
    row = policy.tools.get(change.tool)
    if row is None and policy.deny_unlisted:
        raise PolicyError(
            f"tool '{safe(change.tool, 80)}' is not in the policy, which denies unlisted tools: "
            "add it under tools with what it may do"
        )
    if row is None or row.enabled:
        return _Step(summary, (), policy)
    if change.undoes_ns is not None and row == ToolPolicy(
        enabled=False, since=_microseconds(change.undoes_ns)
    ):
        lines = _added_tool(document, change.tool)
        if lines:
            rest = {name: old for name, old in policy.tools.items() if name != change.tool}
            return _Step(summary, lines, replace(policy, tools=MappingProxyType(rest)))
        if policy.deny_unlisted:
            raise PolicyError(
                f"tool '{safe(change.tool, 80)}' may not have been in the policy before it was disabled: "
                "enabling it would permit everything; edit the file by hand, or enable it on purpose"
            )
    since = _microseconds(change.since_ns)
    expected = _with_tool(policy, change.tool, replace(row, enabled=True, since=since))
    return _Step(summary, _switch(document, change.tool, "true", since), expected)


def _with_tool(policy: Policy, tool: str, row: ToolPolicy) -> Policy:
    return replace(policy, tools=MappingProxyType({**policy.tools, tool: row}))


def _added_tool(document: Document, tool: str) -> list[_Splice]:
    """The splices that remove a tool which `Disable` added on a line of its own; none where it did not."""
    text = document.text
    section_key, section = document.root.pair("tools") or (document.root, document.root)
    key, value = section.pair(tool) or (section, section)
    if section.flow or key.line != value.line or key.odd or value.odd:
        return []
    start, end = _line_start(text, key.start), _next_line(text, value.end)
    if not text[start:end].rstrip(_BREAKS).endswith("}" + ADDED):
        return []
    ranges = [(start, end)]
    above = (_line_start(text, section_key.start), _next_line(text, section_key.end))
    title = text[above[0] : above[1]].rstrip(_BREAKS)
    if len(section.pairs) == 1 and above[1] == start and title.endswith("tools:" + ADDED):
        ranges.append(above)
    return _cut_lines(text, ranges)


def _switch(document: Document, tool: str, enabled: str, since: int) -> list[_Splice]:
    """Set `enabled` and `since` of a tool that is in the file."""
    section = document.root.get("tools") or document.root
    key, row = section.pair(tool) or (section, section)
    for node in (document.root, section, row):
        _editable(document, node)
    moment = quoted(iso(since))
    both = f"enabled: {enabled}, since: {moment}"
    if row.null:
        if row.end > row.start:
            return [_Splice(row.start, row.end, f"{{{both}}}")]
        return [_behind_colon(document.text, key, f"{{{both}}}")]
    old_enabled, old_since = row.get("enabled"), row.get("since")
    for old in filter(None, (old_enabled, old_since)):
        _editable(document, old)
    indent = "" if row.flow else _indent(document, row)
    separator = ", " if row.flow else _newline(document) + indent
    splices = []
    if old_since is not None and old_since.start == old_since.end:
        splices.append(_behind_colon(document.text, (row.pair("since") or (row, row))[0], moment))
    elif old_since is not None:
        splices.append(_Splice(old_since.start, old_since.end, moment))
    if old_enabled is None:
        first = f"enabled: {enabled}" + ("" if old_since else f"{separator}since: {moment}")
        place = row.pairs[0][0].start if row.pairs else row.start + 1
        return [*splices, _Splice(place, place, first + (separator if row.pairs else ""))]
    splices.append(_Splice(old_enabled.start, old_enabled.end, enabled))
    if old_since is None and row.flow:
        splices.append(_Splice(old_enabled.end, old_enabled.end, f"{separator}since: {moment}"))
    elif old_since is None:
        line = _line_behind(document.text, old_enabled)
        splices.append(_new_line(document, line, f"{indent}since: {moment}"))
    return splices


def _spliced(document: Document, data: bytes, splices: Sequence[_Splice]) -> bytes:
    """Put the splices into the bytes: marks count characters, so what lies between is encoded to be measured."""
    text, out, index, place = document.text, [document.bom], 0, len(document.bom)
    for splice in sorted(splices, key=lambda splice: (splice.start, splice.end)):
        kept = place + len(text[index : splice.start].encode())
        out += [data[place:kept], splice.text.encode()]
        place = kept + len(text[splice.start : splice.end].encode())
        index = splice.end
    out.append(data[place:])
    return b"".join(out)


def _check(document: Document, before: bytes, after: bytes, step: _Step) -> None:
    bom = len(document.bom)
    head = bom + len(document.text[: min(splice.start for splice in step.splices)].encode())
    tail = len(document.text[max(splice.end for splice in step.splices) :].encode())
    untouched = after[:head] == before[:head] and (not tail or after[-tail:] == before[-tail:])
    try:
        meant = interpret(compose(after, document.name, POLICY_FILE)) == step.expected
    except PolicyError:
        meant = False
    if not (untouched and meant):
        line = document.text.count("\n", 0, step.splices[0].start) + 1
        raise PolicyError(
            safe(
                f"{document.name}:{line}: not changed: the file is written in a way that can't be edited safely; "
                f"edit it by hand ({step.summary})"
            )
        )


def _diff(before: bytes, after: bytes, name: str) -> SafeText:
    old, new = (data.decode("utf-8", "replace").split("\n") for data in (before, after))
    old, new = (lines[:-1] if lines[-1] == "" else lines for lines in (old, new))
    lines = difflib.unified_diff(old, new, name, name, n=3, lineterm="")
    # each line made safe by itself: the newlines between them are ours; a CR at the end is no news
    return SafeText("\n".join(safe(line.removesuffix("\r")) for line in lines))


def plan(data: bytes, change: Change | LockAll, name: str) -> Edit:
    """Plan a change of the policy file.

    Args:
        data: The file's bytes.
        name: The file's name, for the diff and for messages.

    Raises:
        PolicyError: The file is not valid, the change makes no sense, or the place is written in a way (aliases,
            anchors, tags) that can't be edited without risk. The message has the line.
    """
    document = compose(data, name, POLICY_FILE)
    policy = interpret(document)
    step = _step(change, document, policy)
    summary = safe(step.summary, 400)
    if not step.splices:
        return Edit(data, data, SafeText(""), summary, True)
    after = _spliced(document, data, step.splices)
    _check(document, data, after, step)
    return Edit(data, after, _diff(data, after, name), summary, False)


_UNDO: Final[dict[type, Callable[[Any, Policy], Change | None]]] = {
    Revoke: lambda change, _: Restore(change.kind, change.id, change.at_ns),
    Lock: lambda change, _: Withdraw(change.key, change.source_ip, change.at_ns),
    Unlock: lambda change, before: _undo_unlock(change, before),
    Disable: lambda change, _: Enable(change.tool, change.since_ns, change.since_ns),
    Enable: lambda change, _: Disable(change.tool, change.since_ns),
}


def _undo_unlock(change: Unlock, before: Policy) -> Change | None:
    entries = tuple(before.lockouts[number] for number in _lasting(before, change))
    begun = all(entry.at < _microseconds(change.at_ns) for entry in entries)
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
