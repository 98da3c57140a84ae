"""What `inspect` finds out about a log, for each of the formats that are met in it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from mcpwatch.event import AuditEvent, CallEnd
from mcpwatch.formats.fields import FIVE_FIELDS
from mcpwatch.formats.keyvalue import decoded, logfmt
from mcpwatch.formats.lenient import parse_json
from mcpwatch.formats.mapping import NOTHING_KNOWN, Mapping
from mcpwatch.formats.reader import Reader, lacking_fields
from mcpwatch.formats.sample import MAX_RECORDS
from mcpwatch.formats.shipped import shipped_mapping, shipped_names
from mcpwatch.formats.template import compile_template
from mcpwatch.formats.transport import MAX_LEVELS, bare, unwrap
from mcpwatch.monitor.pipeline import Reading
from mcpwatch.sources.block import Block
from mcpwatch.sources.saved import SavedLog

BETWEEN: Final = " > "
"""Stands between what records travel in and their format."""
_GENERIC: Final = "generic"


@dataclass(slots=True)
class FormatFound:
    """What the records of one format say.

    Attributes:
        name: Of the format, with what its records travel in.
        mapping: Its mapping; None for the native schema and home-made logs.
        records: How many there are, and
        asides: how many of those are no audit records, as the format knows.
        events: What they gave; the end of a call is none of its own.
        calls: How many of the events are tool calls.
        outcomes: How the events ended.
        nameless: Events that say nothing of who it was, not even an address: no rule that goes by callers sees them.
        first: The first tool call, as it was read.
    """

    name: str
    mapping: Mapping | None = None
    records: int = 0
    asides: int = 0
    events: int = 0
    calls: int = 0
    outcomes: Counter[str] = field(default_factory=Counter)
    nameless: int = 0
    first: AuditEvent | None = None
    _lacking_in_calls: Counter[str] = field(default_factory=Counter)
    _lacking_in_others: Counter[str] = field(default_factory=Counter)

    @property
    def of(self) -> int:
        """How many events the coverage is of: the tool calls, or all where there is none."""
        return self.calls or self.events

    @property
    def lacking(self) -> Counter[str]:
        """In how many of those a field is missing."""
        return self._lacking_in_calls if self.calls else self._lacking_in_others

    @property
    def coverage(self) -> tuple[tuple[str, int, int], ...]:
        """Of each of the five fields: (name, events that have it, events)."""
        return tuple((name, self.of - self.lacking[name], self.of) for name in FIVE_FIELDS)

    @property
    def advice(self) -> dict[str, str]:
        """What to switch on, for each field that most lack: field -> what the mapping says of it."""
        lacks = self.mapping.lacks if self.mapping is not None else {}
        return {
            name: said for name, said in lacks.items() if 2 * self.lacking[name] > self.of or not self.events
        }

    def add(self, event: AuditEvent) -> None:
        """Count an event; one that ends a call takes the place of that call's start."""
        if isinstance(event, CallEnd):
            self._count(event.start, -1)
            if self.first is event.start:
                self.first = event
        elif self.first is None and event.event == "tool_call":
            self.first = event
        self._count(event, 1)

    def _count(self, event: AuditEvent, count: int) -> None:
        self.events += count
        self.outcomes[event.status or "unknown"] += count
        named = event.session_id or event.client_id or event.key_id or event.subject or event.source_ip
        self.nameless += count * (not named)
        called = event.event == "tool_call"
        self.calls += count * called
        lacking = self._lacking_in_calls if called else self._lacking_in_others
        for name in lacking_fields(event):
            if name is not None:
                lacking[name] += count
        if event.tool is None:
            lacking["tool"] += count
        if event.params is None:
            lacking["params"] += count


@dataclass(slots=True)
class Inspection:
    """A log, read to its end.

    Attributes:
        formats: The formats met, those with most records first.
    """

    log: SavedLog
    reader: Reader
    formats: list[FormatFound]

    def words(self, name: str) -> dict[str, int]:
        """Words for outcomes of a format of which nothing is known, those met most often first."""
        inner = name.rpartition(BETWEEN)[2]
        said = [
            (word, count)
            for (of, word), count in self.reader.unknown_words.most_common()
            if of in (name, inner)
        ]
        return dict(said)


def inspect_log(log: SavedLog, how: Reading) -> Inspection:
    """Read a log to its end, and tell which format gave which event."""
    reader = Reader(log.name, mappings=how.mappings, format_name=how.format_name)
    by_line = Reader(log.name, mappings=how.mappings, format_name=how.format_name, coverage=False)
    found: dict[str, FormatFound] = {}
    for block in log.blocks():
        before = _counts(reader)
        events = reader.read(block)
        grown = _grown(before, reader)
        for name, (records, asides) in grown.items():
            one = found.get(name)
            if one is None:
                one = found[name] = FormatFound(name, _mapping(name, how.mappings))
            one.records += records
            one.asides += asides
        giving = _giving(grown)
        # line by line only where it is needed: it takes several times as long
        places = _formats(block, by_line) if len(giving) > 1 else {}
        for event in events:
            place = event.end_offset if isinstance(event, CallEnd) else event.offset
            name = places.get(place, "")
            found[name if name in found else giving[0]].add(event)
    ordered = sorted(found.values(), key=lambda one: (-one.records, one.name))
    return Inspection(log, reader, ordered)


_Counts = tuple[dict[str, int], dict[str, int]]


def _counts(reader: Reader) -> _Counts:
    return dict(reader.formats), dict(reader.asides)


def _grown(before: _Counts, reader: Reader) -> dict[str, tuple[int, int]]:
    """The formats of what was read since: how many records, and how many of those are asides."""
    formats, asides = before
    return {
        name: (count - formats.get(name, 0), reader.asides[name] - asides.get(name, 0))
        for name, count in reader.formats.items()
        if count != formats.get(name, 0)
    }


def _giving(grown: dict[str, tuple[int, int]]) -> list[str]:
    """Those that may have given events."""
    return [name for name, (records, asides) in grown.items() if records > asides] or list(grown)


def _formats(block: Block, reader: Reader) -> dict[int, str]:
    """The format that gave the events of each line of a block, by the line's offset."""
    found: dict[int, str] = {}
    for line in _lines(block):
        before = _counts(reader)
        reader.read(line)
        giving = _giving(_grown(before, reader))
        if giving:
            found[line.offset] = giving[0]
    return found


def _lines(block: Block) -> Iterator[Block]:
    """The lines of a block, each as one."""
    if block.oversize is not None:
        yield block
        return
    last = len(block.lines) - 1
    for index, line in enumerate(block.lines):
        yield Block(
            block.source, [line], block.offset_at(index), block.line_at(index),
            unterminated=block.unterminated and index == last, copy_of_rotation=block.copy_of_rotation,
            repeats=frozenset({0}) if index in block.repeats else frozenset(), written_ns=block.written_ns,
        )  # fmt: skip


def _mapping(name: str, own: Sequence[Mapping]) -> Mapping | None:
    inner = name.rpartition(BETWEEN)[2]
    for mapping in own:
        if mapping.name == inner:
            return mapping
    return shipped_mapping(inner) if inner in shipped_names() else None


@dataclass(frozen=True, slots=True)
class Unknown:
    """Records that no format knows by itself.

    Attributes:
        shape: What their lines are: `json`, `logfmt` or `text`.
        template: Of the lines, for `text`.
    """

    shape: str
    template: str
    records: list[dict[str, Any]]


_TEXTS: Final = tuple(
    (template, compile_template(template)) for template in ("{prefix}{record:json}", "{prefix}{pairs:logfmt}")
)
"""How JSON and pairs stand behind what a logging set-up puts before them."""


def unknown_records(log: SavedLog, how: Reading) -> Unknown:
    """The first records of a log that no format knows by itself, all of the shape that most of them have.

    Records of the native schema are known, and so are lines that a format passes over.
    """
    reader = Reader(log.name, mappings=how.mappings, format_name=how.format_name, coverage=False)
    found: dict[tuple[str, str], list[dict[str, Any]]] = {("json", ""): []}
    for block in log.blocks():
        for line in _lines(block):
            if line.oversize is not None:
                continue
            known, generic = reader.not_understood, _generic(reader)
            reader.read(line)
            if reader.not_understood > known or _generic(reader) > generic:
                shape, record = _record(line.lines[0])
                records = found.setdefault(shape, [])
                if record and len(records) < MAX_RECORDS:
                    records.append(record)
        if max(map(len, found.values())) >= MAX_RECORDS:
            break
    most = max(found, key=lambda shape: len(found[shape]))
    return Unknown(*most, found[most])


def can_be_suggested(found: Inspection) -> bool:
    """Whether there are records of which `unknown_records` makes something, as far as kept lines show.

    A kept line that was cut may no longer be whole JSON, but begins as such.
    """
    if any(one.name.rpartition(BETWEEN)[2] == _GENERIC for one in found.formats):
        return True
    heads = [item.head.encode() for item in found.reader.examples]
    return any(reason.endswith(NOTHING_KNOWN) for reason in found.reader.reasons) or any(
        _record(head)[1] is not None for head in heads
    )


def _generic(reader: Reader) -> int:
    return sum(count for name, count in reader.formats.items() if name.rpartition(BETWEEN)[2] == _GENERIC)


def _record(line: bytes) -> tuple[tuple[str, str], dict[str, Any] | None]:
    """The shape of a line, with its template, and its record if it holds one."""
    text = bare(line)
    for _ in range(MAX_LEVELS):
        found = unwrap(text)
        if found is None:
            break
        text = bare(found[1].text)
    try:
        value, _ = parse_json(text)
        return ("json", ""), value if isinstance(value, dict) else None
    except (ValueError, RecursionError):
        pass
    pairs = logfmt(text)
    if pairs is not None:
        return ("logfmt", ""), pairs[0]
    for template, read in _TEXTS:
        record = read(decoded(text))
        if record is not None and len(record) > 1:
            return ("text", template), dict(record)
    return ("text", ""), None
