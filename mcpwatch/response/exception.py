"""Exceptions: what an operator can say that a rule is not about, and what of its hits that would have silenced."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from typing import Final, Literal, NamedTuple

from mcpwatch.detection.hit import Subject
from mcpwatch.detection.rule import Correlation, Rule
from mcpwatch.policy.load import MAX_COUNT
from mcpwatch.policy.model import Alerts
from mcpwatch.response.plan import ResponseError
from mcpwatch.text import SafeText, safe

DAYS: Final = 30
"""How long an exception lasts unless somebody says otherwise."""
MAX_DAYS: Final = 3_650

FIELDS: Final = ("key", "client", "session", "subject", "ip", "tool")
"""The filter fields by which exceptions are made here: caller and tool."""
FIELD_OF: Final[Mapping[str, str]] = {"source_ip": "ip"}
"""The filter field of a kind of subject, where it has another name."""

Fields = tuple[tuple[str, str], ...]
"""Filter fields with the value that each must have. The values are raw, untrusted text."""

_WORDS: Final = {"ip": "address"}
_LASTING: Final = ("key", "subject", "client")
_NEVER: Final = "never"
_DAYS: Final = re.compile(r"([1-9]\d{0,3})d", re.ASCII)


@dataclass(slots=True)
class Seen:
    """Hits of a rule on calls of one caller and tool.

    Attributes:
        values: Of `FIELDS`, None where there is none.
        critical: How many of the hits are critical.
        peaks: Hits by what stood in their window.
    """

    subject: Subject
    values: tuple[str | None, ...]
    hits: int
    critical: int
    peaks: Mapping[int, int]

    def value(self, field: str) -> str | None:
        """What they have there."""
        return self.values[FIELDS.index(field)]

    def has(self, fields: Fields) -> bool:
        """Whether the fields fit; as in filters, small and capital letters are the same."""
        found = ((self.value(name), value) for name, value in fields)
        return all(own is not None and own.casefold() == value.casefold() for own, value in found)


@dataclass(frozen=True, slots=True)
class Choice:
    """One way to quiet a rule.

    Attributes:
        what: In words: `client ci-bot calling build`.
        limit: The limit that such events are to have; None makes an exception of them.
    """

    what: SafeText
    fields: Fields
    limit: int | None = None


@dataclass(frozen=True, slots=True)
class Entry:
    """One exception, or one threshold, as it stands in a file.

    Attributes:
        op, limit: Of a threshold; None makes it an exception.
        expires: Last day of an exception, None for good.
    """

    fields: Fields
    author: str
    reason: str
    expires: date | None = None
    op: Literal["gt", "gte"] | None = None
    limit: int | None = None

    @property
    def section(self) -> str:
        """The list that it belongs into."""
        return "exceptions" if self.limit is None else "thresholds"

    def replaces(self, other: Entry) -> bool:
        """Whether both are about the same events, of which a file can say one thing only."""
        return self.section == other.section and _folded(self.fields) == _folded(other.fields)


class Effect(NamedTuple):
    """What would have been quiet.

    Attributes:
        hits: Of the rule in this run.
        silenced: How many of them.
        critical: How many of those are critical.
        at_least: It may be more.
    """

    hits: int
    silenced: int
    critical: int
    at_least: bool


def counting(rule: Rule) -> Correlation | None:
    """What a rule that fires above a limit counts; None for all others."""
    found = rule.correlation
    return found if found is not None and found.type != "temporal_ordered" else None


def choices(rule: Rule, subject: Subject, seen: Sequence[Seen], alerts: Alerts) -> tuple[Choice, ...]:
    """What one could say to quiet a rule about a subject: the narrowest first, a higher limit before all.

    Args:
        seen: The rule's hits on that subject.

    Raises:
        ResponseError: There is nobody whom an exception could name.
    """
    own = tuple((FIELD_OF.get(kind, kind), value) for kind, value in subject if kind != "gap")
    if not own:
        raise ResponseError("this incident is about a log, and not about a caller")
    by_name = dict(own)
    common = {name: value for name in FIELDS if (value := _common(name, seen)) is not None} | by_name
    found: list[Fields] = []
    if by_name.keys() != {"session"}:
        found.append(
            _ordered(by_name | {name: common[name] for name in ("client", "tool") if name in common})
        )
    elif "client" in common:
        # a session never comes again: who works in it does
        found.append(_ordered({name: common[name] for name in ("client", "tool") if name in common}))
    found += [own, *(((name, common[name]),) for name in ("client", "tool") if name in common)]
    limits = [_limit(rule, own, common, seen, alerts)] if counting(rule) is not None else []
    unique = [*limits, *(Choice(in_words(fields), fields) for fields in dict.fromkeys(found))]
    writable = tuple(choice for choice in unique if choice is not None and _stands_for_itself(choice.fields))
    # whoever takes an id that can't be written must not lead to an exception for everybody
    if all(dict(choice.fields).keys() == {"tool"} for choice in writable):
        raise ResponseError(f"{in_words(own)} would stand for others too: * and ? are patterns")
    return writable


def _common(name: str, seen: Sequence[Seen]) -> str | None:
    """What all hits have in common there."""
    values = {each.value(name) for each in seen}
    return values.pop() if len(values) == 1 else None


def _limit(
    rule: Rule, own: Fields, common: Mapping[str, str], seen: Sequence[Seen], alerts: Alerts
) -> Choice | None:
    """The limit that the subject stays below, for what of it lasts."""
    count = counting(rule)
    assert count is not None
    fields = own
    if dict(own).keys() == {"session"}:
        fields = next(((name, common[name]),) for name in (*_LASTING, "session") if name in common)
    peak = max((peak for each in seen for peak in each.peaks), default=count.limit.of(alerts))
    limit = peak + (count.op == "gte")
    if limit > MAX_COUNT:
        return None
    return Choice(safe(f"a limit of {limit} for {in_words(fields)}"), fields, limit)


def _ordered(values: Mapping[str, str]) -> Fields:
    return tuple((name, values[name]) for name in FIELDS if name in values)


def _stands_for_itself(fields: Fields) -> bool:
    """Whether no value would be read as a pattern: whoever is called `*` is not everybody."""
    return not any("*" in value or "?" in value for _, value in fields)


def in_words(fields: Fields) -> SafeText:
    """Fields as people say them: `client ci-bot calling build`."""
    who = [f"{_WORDS.get(name, name)} {safe(value, 60)}" for name, value in fields if name != "tool"]
    tool = dict(fields).get("tool")
    if tool is None:
        return safe(" with ".join(who), 300)
    return safe(f"{' with '.join(who) or 'anybody'} calling {safe(tool, 60)}", 300)


def _folded(fields: Fields) -> frozenset[tuple[str, str]]:
    return frozenset((name, value.casefold()) for name, value in fields)


def effect(rule: Rule, entry: Entry, seen: Iterable[Seen], hits: int) -> Effect:
    """What of the rule's hits would have been quiet.

    Args:
        seen: The rule's hits, as far as they are kept.
        hits: All of them.
    """
    silenced = critical = kept = 0
    for each in seen:
        kept += each.hits
        if not each.has(entry.fields):
            continue
        if entry.limit is None:
            silenced, critical = silenced + each.hits, critical + each.critical
        else:
            need = entry.limit + (entry.op == "gt")
            quiet = sum(count for peak, count in each.peaks.items() if peak < need)
            silenced, critical = silenced + quiet, critical + min(quiet, each.critical)
    # events that are excepted are not counted any more, so that others may stay below the limit
    at_least = kept < hits or (entry.limit is None and rule.correlation is not None and silenced < hits)
    return Effect(hits, silenced, critical, at_least)


def entry_of(rule: Rule, choice: Choice, reason: str, term: str, *, author: str, today: date) -> Entry:
    """The entry that somebody asks for.

    Args:
        term: Of an exception, its last day (`2026-12-22`, `30d`, `never`); of a threshold, the limit.

    Raises:
        ResponseError: The term or the reason can't be used.
    """
    reason = " ".join(reason.split())
    if safe(reason, 500) != reason:
        raise ResponseError("the reason must be printable text of at most 500 characters")
    author = safe(author, 100)
    if choice.limit is None:
        return Entry(choice.fields, author, reason, _last_day(term.strip(), today))
    limit = int(term) if re.fullmatch(r"[1-9]\d{0,5}", term.strip(), re.ASCII) else 0
    if not 0 < limit <= MAX_COUNT:
        raise ResponseError(f"the limit must be a whole number from 1 to {MAX_COUNT}")
    count = counting(rule)
    assert count is not None
    return Entry(choice.fields, author, reason, op=count.op, limit=limit)


def first_term(choice: Choice, today: date) -> str:
    """The term that is proposed."""
    return str(today + timedelta(DAYS)) if choice.limit is None else str(choice.limit)


def _last_day(term: str, today: date) -> date | None:
    if term == _NEVER:
        return None
    days = _DAYS.fullmatch(term)
    try:
        last = today + timedelta(int(days[1])) if days is not None else date.fromisoformat(term)
    except (ValueError, OverflowError):
        last = today
    if not 0 < (last - today).days <= MAX_DAYS:
        raise ResponseError(
            f"expires: write a day after today such as {today + timedelta(DAYS)}, 30d, or never"
        )
    return last
