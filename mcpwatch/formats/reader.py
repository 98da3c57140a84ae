"""The reader of one source: raw lines in, audit events out, and an honest count of everything else."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Final, Literal

import msgspec

from mcpwatch.event import AuditEvent, Caller, Flag, Shape
from mcpwatch.formats.fields import ABSENT, FIVE_FIELDS, MAX_ID, address_of, text_of
from mcpwatch.formats.lenient import parse_json
from mcpwatch.formats.mapping import GENERIC, FieldMap, FormatError, read_record
from mcpwatch.formats.transport import MAX_LEVELS, Unwrapped, bare, unwrap
from mcpwatch.formats.twice import KEYS, keys_of, look_for_repeats, rivals
from mcpwatch.sources.block import Block
from mcpwatch.text import SafeText, redact_text, safe
from mcpwatch.times import SECOND, parse_rfc3339, parse_time

KEPT_EXAMPLES: Final = 200
"""How many lines that were not understood are kept for `inspect` and the sources screen."""
FUTURE_NS: Final = 60 * SECOND
FORMATS: Final = ("auto", "native", "generic")
"""Formats that need no mapping file. `auto` takes each record as it comes."""
OVERSIZE: Final = "line over 1 MiB"
"""Why a line that is too long is not understood: its key in `Reader.reasons`."""

_CACHED_MINUTES: Final = 10_000
_CACHED_CALLERS: Final = 50_000
_CACHED_SHAPES: Final = 4_096
# The parts of a timestamp behind its minute. A table look-up reads and checks a part at once.
_SECONDS: Final = {f"{second:02d}.": second * SECOND for second in range(60)}
_MILLIS: Final = {f"{part:03d}": part * 1_000_000 for part in range(1_000)}
_MICROS: Final = {"Z": 0} | {f"{part:03d}Z": part * 1_000 for part in range(1_000)}
_BRACE: Final = ord("{")
_BACKSLASH: Final = ord("\\")
_NATIVE_KEYS: Final = frozenset({"tool", "status", "key_id", "params", "auth"})


_Kind = Literal["tool_call", "request", "auth", "session_start", "session_end"]
# longer than every way of saying that there is none, shorter than what is cut
_Hash = Annotated[str, msgspec.Meta(min_length=max(map(len, ABSENT)) + 1, max_length=MAX_ID)]
_Outcome = Literal["success", "error", "denied", "unauthenticated", "rate_limited", "timeout", "unknown"]


class _Native(AuditEvent, forbid_unknown_fields=True, gc=False):
    """The native schema to the letter. A record with any other field, kind or outcome goes the long way."""

    event: _Kind = "tool_call"
    status: _Outcome = "unknown"
    error: Annotated[str, msgspec.Meta(min_length=1)] | None = None
    duration_ms: Annotated[float, msgspec.Meta(ge=0)] | None = None
    definition_sha256: _Hash | None = None
    sequence: Annotated[int, msgspec.Meta(ge=0, le=(1 << 63) - 1)] | None = None
    hash: _Hash | None = None
    prev_hash: _Hash | None = None


_decode: Final = msgspec.json.Decoder(_Native).decode


@dataclass(frozen=True, slots=True)
class NotUnderstood:
    """A line that was counted and kept, but could not be read."""

    line: int | None
    offset: int
    reason: str
    head: SafeText


class Reader:
    """Reads the lines of one source.

    Attributes:
        lines, understood, not_understood, blank, repeated, joined, events: The counters;
            lines = understood + not_understood + blank + repeated + joined.
        reasons: Why lines were not understood, and how many.
        examples: The newest of them.
        formats: How many records each format read.

    Args:
        coverage: Also count which of the five fields tool calls have; costs a tenth of the time.
    """

    def __init__(
        self,
        source: str,
        *,
        mappings: Sequence[FieldMap] = (),
        format_name: str = "auto",
        coverage: bool = True,
    ) -> None:
        known = {mapping.name: mapping for mapping in mappings}
        if format_name not in FORMATS and format_name not in known:
            choices = ", ".join((*FORMATS, *known))
            raise FormatError(f"unknown format {safe(format_name, 60)!r}; there are: {choices}")
        self.source = source
        self.mappings = tuple(mappings) if format_name == "auto" else ()
        self.fallback = known.get(format_name, GENERIC)
        self.strict = format_name == "native"
        self.native = format_name in ("auto", "native")
        self.lines = self.understood = self.not_understood = self.blank = 0
        self.repeated = self.joined = self.events = self.bad_utf8 = 0
        self.reasons: Counter[str] = Counter()
        self.formats: Counter[str] = Counter()
        self.examples: deque[NotUnderstood] = deque(maxlen=KEPT_EXAMPLES)
        self.calls = 0
        self.lacking = [0] * len(FIVE_FIELDS)
        self._watched = KEYS.union(*map(keys_of, known.values()))
        self._covers = coverage
        self._callers: dict[tuple[str | None, ...], Caller] = {}
        self._odd_callers: dict[tuple[str | None, ...], Caller] = {}
        self._shapes: dict[tuple[str | None, ...], Shape] = {}
        self._odd_shapes: dict[tuple[str | None, ...], Shape] = {}
        self._minutes: dict[str, int] = {}

    def read(self, block: Block, arrived_ns: int | None = None) -> list[AuditEvent]:
        """Turn a block into events, in order. `arrived_ns` is this machine's clock when live, else None."""
        if block.oversize is not None:
            self.lines += 1
            if block.repeats:
                self.repeated += 1
                return []
            reason = f"line of {block.oversize.length} bytes, over the limit of 1 MiB"
            self._give_up(OVERSIZE, block.lines[0], block, 0, reason)
            return []
        events = self._read_lines(block, arrived_ns)
        self.lines += len(block.lines)
        self.understood += len(events)
        self.events += len(events)
        if block.unterminated and events and events[-1].index == len(block.lines) - 1:
            events[-1].flags |= Flag.UNTERMINATED
        if arrived_ns is not None:
            for event in events:
                if event.time_ns is not None and event.time_ns > arrived_ns + FUTURE_NS:
                    event.flags |= Flag.FUTURE_TIME
        if self._covers:
            self._note_coverage(events)
        return events

    def _read_lines(self, block: Block, arrived_ns: int | None) -> list[AuditEvent]:
        """The hot loop: native records by the typed decoder, everything else the long way."""
        events: list[AuditEvent] = []
        append, decode = events.append, _decode
        callers, shapes, minutes = self._callers, self._shapes, self._minutes
        native = self.native and not self.mappings
        lines: Iterable[tuple[int, bytes]] = enumerate(block.lines)
        if block.repeats:
            lines = [(index, raw) for index, raw in lines if index not in block.repeats]
            self.repeated += len(block.lines) - len(lines)
        quick = 0
        event: AuditEvent | None
        for index, raw in lines:
            try:
                event = decode(raw) if native else None
            except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
                event = None
            if event is None or event.tool is None or event.timestamp is None:
                event = self._read_slowly(raw, block, index, arrived_ns)
                if event is None:
                    continue
            else:
                quick += 1
                # Searches for one byte are nearly free. An object that stands twice is a brace too many.
                brace = raw.find(_BRACE, 1)
                if event.params is not None and brace > 0:
                    brace = raw.find(_BRACE, brace + 1)
                if event.auth is not None and brace > 0:
                    brace = raw.find(_BRACE, brace + 1)
                if (
                    brace > 0
                    or _BACKSLASH in raw
                    or raw.count(b'"tool"') > 1
                    or raw.count(b'"status"') > 1
                    or raw.count(b'"key_id"') > 1
                ):
                    look_for_repeats(event, raw, _NATIVE_KEYS)
            auth = event.auth
            who: tuple[str | None, ...] = (event.key_id, event.client_id, event.session_id, event.source_ip)
            if auth is not None:
                who = (*who, auth.subject, auth.method)
            what = (event.event, event.tool, event.status)
            try:
                event.caller = callers[who]
                event.shape = shapes[what]
            except KeyError:
                self._introduce(event, who, what)
            event.origin = block
            event.index = index
            stamp: Any = event.timestamp
            try:
                # the usual shape, 2026-11-20T08:00:05.123456Z or .123Z, by tables; any other the long way
                event.time_ns = (
                    minutes[stamp[:17]] + _SECONDS[stamp[17:20]] + _MILLIS[stamp[20:23]] + _MICROS[stamp[23:]]
                )
            except (KeyError, TypeError):
                self._set_time(event, stamp, arrived_ns)
            append(event)
        self.formats["native"] += quick
        return events

    def _introduce(
        self, event: AuditEvent, who: tuple[str | None, ...], what: tuple[str | None, ...]
    ) -> None:
        """Give an event whose caller or kind is new, or is not written in the normal form, its caller and shape."""
        event.caller = caller = self._callers.get(who) or self._meet(who)
        event.shape = shape = self._shapes.get(what) or self._learn(what)
        event.event, event.tool, event.status = shape.kind, shape.tool, shape.status
        event.key_id, event.client_id, event.session_id = caller.key, caller.client, caller.session
        event.source_ip = caller.source_ip
        if event.auth is not None:
            event.auth.subject = caller.subject

    def _meet(self, who: tuple[str | None, ...]) -> Caller:
        """The caller that a record names. One in the normal form is kept where the loop looks first."""
        key, client, session, source_ip, subject, method = (*who, None, None)[:6]
        clean = (
            text_of(key),
            text_of(client),
            text_of(session),
            address_of(source_ip),
            text_of(subject),
            method,
        )
        kept = self._callers if clean[: len(who)] == who else self._odd_callers
        caller = kept.get(who)
        if caller is None:
            if len(kept) >= _CACHED_CALLERS:
                kept.clear()
            caller = kept[who] = Caller(*clean)
        return caller

    def _learn(self, what: tuple[str | None, ...]) -> Shape:
        """The kind of event that a record is. One in the normal form is kept where the loop looks first."""
        kind, tool, status = what
        name = text_of(tool)
        if name is None and tool is not None and kind == "tool_call":
            kind = "request"
        kept = self._shapes if name == tool else self._odd_shapes
        shape = kept.get(what)
        if shape is None:
            if len(kept) >= _CACHED_SHAPES:
                kept.clear()
            shape = kept[what] = Shape(kind or "request", name, status or "unknown")
        return shape

    @property
    def coverage(self) -> tuple[tuple[str, int, int], ...]:
        """Of each of the five fields: (name, tool calls that have it, tool calls)."""
        return tuple(
            (name, self.calls - lacking, self.calls)
            for name, lacking in zip(FIVE_FIELDS, self.lacking, strict=True)
        )

    @property
    def format_name(self) -> str:
        """The format that most records are in."""
        named = [(count, name) for name, count in self.formats.items() if count]
        return max(named)[1] if named else "none yet"

    def _read_slowly(self, raw: bytes, block: Block, index: int, arrived_ns: int | None) -> AuditEvent | None:
        """Read a record that is not native to the letter; count it when it can't be read."""
        text = bare(raw)
        if not text:
            self.blank += 1
            return None
        event = self._read_text(text, block.written_ns if arrived_ns is None else arrived_ns)
        if isinstance(event, str):
            self._give_up(event, raw, block, index)
            return None
        return event

    def _read_text(
        self, text: bytes, written_ns: int | None, around: str = "", level: int = 0
    ) -> AuditEvent | str:
        """The event of a record with what it travelled in, or why there is none.

        Args:
            around: The transports that were taken off it, each with ` > ` behind it, and
            level: how many they are.
        """
        found = unwrap(text, written_ns) if level < MAX_LEVELS else None
        if found is None:
            return self._read_record(text, around)
        name, inner = found
        inside = bare(inner.text)
        event: AuditEvent | str = inner.lack or "nothing in it"
        if inside:
            event = self._read_text(inside, written_ns, f"{around}{name} > ", level + 1)
        if not isinstance(event, str):
            return _filled(event, inner)
        if text.startswith(b"{"):
            # a mapping file may read the transport's own fields
            outer = self._read_record(text, around)
            if not isinstance(outer, str):
                return outer
        return f"in {name}: {event}"

    def _read_record(self, text: bytes, around: str) -> AuditEvent | str:
        if around and self.native and not self.mappings:
            try:
                event: AuditEvent = _decode(text)
            except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
                pass
            else:
                if event.tool is not None:
                    self.formats[around + "native"] += 1
                    look_for_repeats(event, text, _NATIVE_KEYS)
                    return event
        try:
            record, bad_utf8 = parse_json(text)
        except RecursionError:
            return "JSON nested too deep"
        except ValueError:
            return "not JSON"
        self.bad_utf8 += bad_utf8
        found = self._understand(record, around)
        if isinstance(found, AuditEvent):
            look_for_repeats(found, text, self._watched & record.keys())
            if rivals(record):
                found.flags |= Flag.DUPLICATE_KEYS
        return found

    def _understand(self, record: Any, around: str) -> AuditEvent | str:
        """The event of a JSON value, or why there is none."""
        if not isinstance(record, dict):
            return "JSON, but not an object"
        for mapping in self.mappings:
            if mapping.claims(record) and (event := read_record(record, mapping)) is not None:
                self.formats[around + mapping.name] += 1
                return event
        native = self.native and record.keys() <= _NATIVE_NAMES
        if self.strict and not native:
            return "not the native schema"
        event = read_record(record, self.fallback)
        if event is None:
            return "no field of it is known"
        self.formats[around + ("native" if native else self.fallback.name)] += 1
        return event

    def _give_up(self, reason: str, raw: bytes, block: Block, index: int, detail: str = "") -> None:
        self.not_understood += 1
        self.reasons[reason] += 1
        head = safe(redact_text(raw[:400].decode("utf-8", "backslashreplace")), 200)
        self.examples.append(
            NotUnderstood(block.line_at(index), block.offset_at(index), detail or reason, head)
        )

    def _set_time(self, event: AuditEvent, stamp: object, arrived_ns: int | None) -> None:
        found = parse_time(stamp)
        if found is not None:
            event.time_ns, naive = found
            if naive:
                event.flags |= Flag.NAIVE_TIME
            elif isinstance(stamp, str):
                self._remember(stamp)
        elif arrived_ns is not None:
            event.time_ns = arrived_ns
            event.flags |= Flag.INFERRED_TIME

    def _remember(self, stamp: str) -> None:
        """Cache the minute of a usual timestamp: a log stays in it for a while."""
        minute = stamp[:17]
        if stamp[10:11] != "T" or stamp[17:20] not in _SECONDS or not stamp.isascii():
            return
        found = parse_rfc3339(minute + "00Z")
        if found is not None:
            if len(self._minutes) >= _CACHED_MINUTES:
                self._minutes.clear()
            self._minutes[minute] = found[0]

    def _note_coverage(self, events: list[AuditEvent]) -> None:
        for event in events:
            if event.event == "tool_call":
                self.calls += 1
                if lacks_a_field(event):
                    for index, name in enumerate(lacking_fields(event)):
                        self.lacking[index] += name is not None


def _filled(event: AuditEvent, inner: Unwrapped) -> AuditEvent:
    """An event with what its transport knows in place of what it does not say itself."""
    if inner.time is not None and parse_time(event.timestamp) is None:
        event.timestamp = inner.time
    if event.server is None:
        event.server = text_of(inner.server)
    if inner.others:
        event.flags |= Flag.DUPLICATE_KEYS
    return event


def lacks_a_field(event: AuditEvent) -> bool:
    """Whether a tool call lacks one of the five fields; the quick form of `lacking_fields`."""
    return (
        event.duration_ms is None
        or event.params is None
        or event.status == "unknown"
        or event.time_ns is None
        or event.tool is None
        or bool(event.flags & Flag.INFERRED_TIME)
        or not (event.session_id or event.client_id or event.key_id or event.subject)
    )


def lacking_fields(event: AuditEvent) -> tuple[str | None, ...]:
    """The five fields in the order of `FIVE_FIELDS`, None where the record has it."""
    who = event.session_id or event.client_id or event.key_id or event.subject
    has = (
        event.time_ns is not None and not event.flags & Flag.INFERRED_TIME,
        event.tool is not None and event.params is not None,
        who is not None,
        event.status != "unknown",
        event.duration_ms is not None,
    )
    return tuple(None if there else name for there, name in zip(has, FIVE_FIELDS, strict=True))


_NATIVE_NAMES: Final = frozenset(field.encode_name for field in msgspec.structs.fields(AuditEvent))
