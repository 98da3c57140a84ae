"""The file that holds an exception: made, compared with what stands there, and proved to mean what was asked for.

The file is one that mcpwatch writes whole. One that holds anything else is somebody's own: to that nothing is added,
and the lines are shown to be put in by hand.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Final, Literal, NamedTuple

from mcpwatch.detection.rule import Rule, RuleError
from mcpwatch.detection.rulefile import RULE_FILE, parse
from mcpwatch.detection.rulefiles import files_in
from mcpwatch.detection.tuning import Tuning, tuned
from mcpwatch.documents import read as documents
from mcpwatch.documents.tree import Node, compose
from mcpwatch.filter import Filter, FilterError
from mcpwatch.filter import parse as parse_filter
from mcpwatch.filter import quote as filter_quote
from mcpwatch.policy.edit import quoted
from mcpwatch.policy.model import PolicyError
from mcpwatch.response.exception import Effect, Entry, Fields, in_words
from mcpwatch.response.plan import ResponseError
from mcpwatch.text import SafeText, safe

_MAX_LINE: Final = 100_000
_HEAD: Final = "# kept by mcpwatch until somebody else edits it\n"


@dataclass(frozen=True, slots=True)
class ExceptionPlan:
    """An exception as it is shown and, if the operator agrees, as it is written.

    Attributes:
        what: One line: `session-rate: up to 60 for client ci-bot`.
        lines: The file as it will be, or the lines to put in by hand.
        path: The file; None where nothing can be written, and
        by_hand: says why and what to do with the lines.
        before: What stands in the file, None where there is none.
    """

    rule: str
    what: SafeText
    lines: tuple[SafeText, ...]
    effect: Effect
    path: Path | None
    by_hand: SafeText | None
    before: bytes | None
    after: bytes


def _row(entry: Entry) -> str:
    fields = ", ".join(f"{name}: {quoted(value)}" for name, value in entry.fields)
    lines = [f"  - fields: {{{fields}}}"]
    if entry.limit is not None:
        lines.append(f"    {entry.op}: {entry.limit}")
    lines += [f"    author: {quoted(entry.author)}", f"    reason: {quoted(entry.reason)}"]
    if entry.expires is not None:
        lines.append(f"    expires: {entry.expires}")
    return "\n".join(lines) + "\n"


def render(rule: str, entries: Sequence[Entry]) -> bytes:
    """A file that tunes a rule.

    Raises:
        PolicyError: An id holds half a character, which no file can.
    """
    parts = [f"{_HEAD}tune: {rule}\n"]
    for section in ("thresholds", "exceptions"):
        rows = [_row(entry) for entry in entries if entry.section == section]
        if rows:
            parts += [f"{section}:\n", *rows]
    return "".join(parts).encode()


def written_here(data: bytes, rule: str) -> tuple[Entry, ...] | None:
    """The entries of a file that holds nothing but what mcpwatch writes; None for any other."""
    try:
        root = compose(data, "", RULE_FILE).root
        entries = tuple(_entries(root))
        return entries if render(rule, entries) == data else None
    except (RuleError, PolicyError, LookupError, ValueError):
        return None


def _entries(root: Node) -> Iterator[Entry]:
    for section in ("thresholds", "exceptions"):
        rows = root.get(section)
        for row in rows.items if rows is not None else ():
            values = {key.text: value for key, value in row.pairs}
            op: Literal["gt", "gte"] | None = None
            if section == "thresholds":
                op = "gt" if "gt" in values else "gte"
            yield Entry(
                fields=tuple((key.text, value.text) for key, value in values["fields"].pairs),
                author=values["author"].text,
                reason=values["reason"].text,
                expires=date.fromisoformat(values["expires"].text) if "expires" in values else None,
                op=op,
                limit=int(values[op].text) if op is not None else None,
            )


class _Place(NamedTuple):
    """Where an entry goes: into a file of which all entries are known, or by hand, and why."""

    path: Path
    before: bytes | None
    entries: tuple[Entry, ...]
    by_hand: str | None

    def has(self, section: str) -> bool:
        """Whether the file has such a list already."""
        return re.search(rf"^{section}\s*:".encode(), self.before or b"", re.MULTILINE) is not None


def _place(folder: Path, rule: str) -> _Place:
    """The file that tunes a rule; where there is none, the one that would. Raises ResponseError."""
    path = folder / _name(rule)
    try:
        found = files_in(folder)
    except RuleError as error:
        raise ResponseError(str(error)) from None
    for other in found:
        try:
            data = documents.read(other, RULE_FILE)
        except (RuleError, FileNotFoundError):
            data = b""
        if other != path and not _tunes(data, rule):
            continue
        if other.is_symlink():
            return _Place(other, data, (), "is a link, through which nothing is written")
        entries = written_here(data, rule) if other == path else None
        return _Place(other, data, entries or (), None if entries else "is written by hand and stays so")
    return _Place(path, None, (), None)


def _name(rule: str) -> str:
    return f"tune-{rule}.yaml"


def _tunes(data: bytes, rule: str) -> bool:
    if b"tune" not in data:
        return False
    try:
        named = compose(data, "", RULE_FILE).root.get("tune")
    except RuleError:
        return False
    return named is not None and named.text == rule


def plan(
    rule: Rule, entry: Entry, effect: Effect, *, folder: Path | None, refusal: str | None = None
) -> ExceptionPlan:
    """Work out what is written, or what is shown where nothing can be.

    Args:
        folder: The site's rule files; None where there are none.
        refusal: Why nothing may be written, or None.

    Raises:
        ResponseError: There is no such exception: what would be written would not mean what was asked for.
    """
    try:
        alone = render(rule.id, (entry,))
        _prove(rule, entry, alone)
        if folder is None:
            how = f"nothing is written without --rules: save it as FOLDER/{_name(rule.id)} and use --rules FOLDER"
            return _shown(rule, entry, effect, alone, how)
        place = _place(folder, rule.id)
        if place.by_hand is not None:
            there = place.has(entry.section)
            lines = _row(entry) if there else f"{entry.section}:\n{_row(entry)}"
            under = f" under '{entry.section}:'" if there else ""
            how = f"{place.path} {place.by_hand}: put these lines{under} into it"
            return _shown(rule, entry, effect, lines.encode(), how)
        kept = (each for each in place.entries if not entry.replaces(each))
        after = render(rule.id, (entry, *kept))
        _prove(rule, entry, after)
    except PolicyError as error:
        raise ResponseError(str(error)) from None
    if refusal is not None:
        return _shown(rule, entry, effect, after, f"{place.path} is not written: {refusal}")
    return _shown(rule, entry, effect, after, None, place)


def _shown(
    rule: Rule, entry: Entry, effect: Effect, after: bytes, by_hand: str | None, place: _Place | None = None
) -> ExceptionPlan:
    about = in_words(entry.fields)
    what = f"not about {about}" if entry.limit is None else f"a limit of {entry.limit} for {about}"
    return ExceptionPlan(
        rule=rule.id,
        what=safe(f"{rule.id}: {what}", 400),
        lines=tuple(safe(line, _MAX_LINE) for line in after.decode().splitlines()),
        effect=effect,
        path=place.path if place is not None else None,
        by_hand=safe(by_hand, 400) if by_hand is not None else None,
        before=place.before if place is not None else None,
        after=after,
    )


def _prove(rule: Rule, entry: Entry, data: bytes) -> None:
    """See that a file reads back as what was asked for. Raises ResponseError."""
    try:
        found = parse(data, _name(rule.id))
        assert isinstance(found, Tuning)
        tuned(rule, found)
        meant = _filter_of(entry.fields)
    except (RuleError, FilterError) as error:
        raise ResponseError(f"can't be written: {safe(error)}") from None
    rows = found.exceptions if entry.limit is None else found.limits.thresholds
    if not rows or rows[0].fields != meant:
        raise ResponseError("can't be written: an id of it would be read as something else")


def _filter_of(fields: Fields) -> Filter:
    return parse_filter(" ".join(sorted(f"{name}:{filter_quote(value)}" for name, value in fields)))
