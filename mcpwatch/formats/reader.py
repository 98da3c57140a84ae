"""The reader of one source: raw lines in, audit events out, and an honest count of everything else."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Annotated, Any, Final, Literal

import msgspec

from mcpwatch.event import AuditEvent, CallEnd, Caller, Flag, Shape
from mcpwatch.formats.detect import NATIVE, Detector, Found, Plan
from mcpwatch.formats.fields import (
    ABSENT,
    FIVE_FIELDS,
    MAX_DURATION_MS,
    MAX_ID,
    address_of,
    plain_name,
    text_of,
)
from mcpwatch.formats.lenient import parse_json
from mcpwatch.formats.mapping import GENERIC, Mapping, Reading
from mcpwatch.formats.mappingfile import FORMATS, FormatError
from mcpwatch.formats.pairing import Pairing
from mcpwatch.formats.shipped import shipped_mapping, shipped_mappings, shipped_names
from mcpwatch.formats.transport import MAX_LEVELS, Fragments, Unwrapped, bare, unwrap
from mcpwatch.formats.twice import look_for_repeats, quoted, repeats, rivals
from mcpwatch.sources.block import Block
from mcpwatch.text import SafeText, redact_text, safe
from mcpwatch.times import SECOND, parse_rfc3339, parse_time

KEPT_EXAMPLES: Final = 200
"""How many lines that were not understood are kept for `inspect` and the sources screen."""
FUTURE_NS: Final = 60 * SECOND
OVERSIZE: Final = "line over 1 MiB"
"""Why a line that is too long is not understood: its key in `Reader.reasons`."""

_CACHED_MINUTES: Final = 10_000
_CACHED_CALLERS: Final = 32_768
CALLERS_KEPT_FOR: Final = 100_000
"""A caller is known again for so many lines at least; after twice as many in which it was not met it is forgotten."""
_CACHED_SHAPES: Final = 4_096
_KEPT_WORDS: Final = 200
# The parts of a timestamp behind its minute. A table look-up reads and checks a part at once.
_SECONDS: Final = {f"{second:02d}.": second * SECOND for second in range(60)}
_MILLIS: Final = {f"{part:03d}": part * 1_000_000 for part in range(1_000)}
_MICROS: Final = {"Z": 0} | {f"{part:03d}Z": part * 1_000 for part in range(1_000)}
_BRACE: Final = ord("{")
_TOO_DEEP: Final = object()
_BACKSLASH: Final = ord("\\")
_NATIVE_KEYS: Final = quoted(("tool", "status", "key_id", "params", "auth"))


_Kind = Literal["tool_call", "request", "auth", "session_start", "session_end"]
# longer than every way of saying that there is none, shorter than what is cut
_Told = Annotated[str, msgspec.Meta(min_length=max(map(len, ABSENT)) + 1)]
_Hash = Annotated[str, msgspec.Meta(min_length=max(map(len, ABSENT)) + 1, max_length=MAX_ID)]
_Outcome = Literal["success", "error", "denied", "unauthenticated", "rate_limited", "timeout", "unknown"]


class _Native(AuditEvent, forbid_unknown_fields=True, gc=False):
    """The native schema to the letter. A record with any other field, kind or outcome goes the long way."""

    event: _Kind = "tool_call"
    status: _Outcome = "unknown"
    error: _Told | None = None
    duration_ms: Annotated[float, msgspec.Meta(ge=0, lt=MAX_DURATION_MS)] | None = None
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
        nameless: Tool calls that name no caller, of which rules see nothing; only counted with coverage.
        asides: How many of those are no audit records, as the format knows.
        unknown_words: Words for outcomes of which nothing is known, each with its format; the first 200.
        pairing: The calls that began and have not ended.
        fragments: The records of which only pieces have come.

    Args:
        mappings: A user's, which go before the shipped ones.
        coverage: Also count which of the five fields tool calls have; costs a tenth of the time.

    Raises:
        FormatError: There is no format of that name.
    """

    def __init__(
        self,
        source: str,
        *,
        mappings: Sequence[Mapping] = (),
        format_name: str = "auto",
        coverage: bool = True,
    ) -> None:
        self.source = source
        self._own = tuple(mappings)
        self._named = _named(self._own, format_name)
        self.strict = format_name == NATIVE
        self.native = format_name in ("auto", NATIVE)
        # nothing is shipped that claims a record with the native names and no others
        self._quick = self.native and (
            self.strict or not any(mapping.signed and mapping.fits(_NATIVE_NAMES) for mapping in mappings)
        )
        self.lines = self.understood = self.not_understood = self.blank = 0
        self.repeated = self.joined = self.events = self.bad_utf8 = 0
        self.reasons: Counter[str] = Counter()
        self.formats: Counter[str] = Counter()
        self.asides: Counter[str] = Counter()
        self.unknown_words: Counter[tuple[str, str]] = Counter()
        self.examples: deque[NotUnderstood] = deque(maxlen=KEPT_EXAMPLES)
        self.pairing = Pairing()
        self.fragments = Fragments()
        self.calls = self.nameless = 0
        self.lacking = [0] * len(FIVE_FIELDS)
        self._covers = coverage
        self._expects_native = True
        self._callers: dict[tuple[str | None, ...], Caller] = {}
        self._odd_callers: dict[tuple[str | None, ...], Caller] = {}
        self._earlier_callers: dict[tuple[str | None, ...], Caller] = {}
        self._turn_at = CALLERS_KEPT_FOR
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
        if self.lines >= self._turn_at:
            # those that come again are found among the earlier ones; sessions that are over are not kept for ever
            self._turn_at = self.lines + CALLERS_KEPT_FOR
            self._earlier_callers = self._callers | self._odd_callers
            self._callers, self._odd_callers = {}, {}
        events = self._read_lines(block, arrived_ns)
        self.lines += len(block.lines)
        last = len(block.lines) - 1
        if block.unterminated and events and events[-1].origin is block and events[-1].index == last:
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
        # a log that holds none is not decoded twice: the long way reads native records too, and says so
        native = self._quick and self._expects_native
        known = self.formats[NATIVE]
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
                self._read_slowly(raw, block, index, arrived_ns, append)
                continue
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
        self.formats[NATIVE] += quick
        if block.lines:
            self._expects_native = self.formats[NATIVE] > known
        self.understood += quick
        self.events += quick
        return events

    def _place(self, event: AuditEvent, block: Block, index: int, arrived_ns: int | None) -> None:
        """Set what only the reader knows of an event: what the hot loop does in its own lines."""
        auth = event.auth
        who: tuple[str | None, ...] = (event.key_id, event.client_id, event.session_id, event.source_ip)
        if auth is not None:
            who = (*who, auth.subject, auth.method)
        what = (event.event, event.tool, event.status)
        try:
            event.caller = self._callers[who]
            event.shape = self._shapes[what]
        except KeyError:
            self._introduce(event, who, what)
        event.origin = block
        event.index = index
        if event.time_ns is None:
            stamp: Any = event.timestamp
            try:
                event.time_ns = (
                    self._minutes[stamp[:17]]
                    + _SECONDS[stamp[17:20]]
                    + _MILLIS[stamp[20:23]]
                    + _MICROS[stamp[23:]]
                )
            except (KeyError, TypeError):
                self._set_time(event, stamp, arrived_ns)

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
                self._earlier_callers = kept.copy()
                kept.clear()
            caller = kept[who] = self._earlier_callers.get(who) or Caller(*clean)
        return caller

    def _learn(self, what: tuple[str | None, ...]) -> Shape:
        """The kind of event that a record is. One in the normal form is kept where the loop looks first."""
        kind, tool, status = what
        name = plain_name(text_of(tool))
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

    def _read_slowly(
        self,
        raw: bytes,
        block: Block,
        index: int,
        arrived_ns: int | None,
        append: Callable[[AuditEvent], None],
    ) -> None:
        """Read a line that is not native to the letter, and count it."""
        text = bare(raw)
        if not text:
            self.blank += 1
            return
        found = self._read_text(text, block.written_ns if arrived_ns is None else arrived_ns)
        if found is None:
            self.joined += 1
            return
        if isinstance(found, str):
            self._give_up(found, raw, block, index)
            return
        cut = block.unterminated and index == len(block.lines) - 1
        is_new = not found
        for event, phase, key, by_order, _ in found:
            self._place(event, block, index, arrived_ns)
            if cut:
                event.flags |= Flag.UNTERMINATED
            given: AuditEvent | None = event
            if phase is not None:
                given = self.pairing.take(event, phase, key, by_order=by_order)
            if given is None:
                continue
            append(given)
            if not isinstance(given, CallEnd):
                self.events += 1
                is_new = True
        if is_new:
            self.understood += 1
        else:
            self.joined += 1

    def _read_text(
        self, text: bytes, written_ns: int | None, around: str = "", level: int = 0
    ) -> Sequence[Reading] | str | None:
        """The events of a line with what it travelled in, or why there is none; None for a piece of a later one.

        Args:
            around: The transports that were taken off it, each with ` > ` behind it, and
            level: how many they are.
        """
        record: Any = None
        if text[0] == _BRACE:
            # an object is parsed once, and its names tell whether it is a transport's
            record = self._parsed(text, around)
            if isinstance(record, Reading):
                return (record,)
            if isinstance(record, dict):
                plan = self._detector.plan(record)
                if not plan.transport:
                    return self._understand(record, plan, text, around)
        unwrapped = unwrap(text, written_ns) if level < MAX_LEVELS else None
        if unwrapped is None:
            return self._read_record(text, around, record)
        name, piece = unwrapped
        inner = self.fragments.join(piece)
        if inner is None:
            return None
        inside = bare(inner.text)
        found: Sequence[Reading] | str | None = inner.lack or "nothing in it"
        if inside:
            found = self._read_text(inside, written_ns, f"{around}{name} > ", level + 1)
        if found is None:
            return None
        if not isinstance(found, str):
            return [_filled(reading, inner) for reading in found]
        # a mapping may read the transport's own fields, and some lines look like a transport; what is around a
        # container's line is neither, though the `time` in it looks like a record's
        outer = self._read_record(text, around, record) if piece.stream is None else found
        return outer if not isinstance(outer, str) else f"in {name}: {found}"

    def _parsed(self, text: bytes, around: str) -> Any:
        """What a text is as JSON, None for what is none; of a record that is native to the letter its reading."""
        if around and self._quick:
            try:
                event: AuditEvent = _decode(text)
            except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
                pass
            else:
                if event.tool is not None:
                    self.formats[around + NATIVE] += 1
                    look_for_repeats(event, text, _NATIVE_KEYS)
                    return Reading(event)
        try:
            value, bad_utf8 = parse_json(text)
        except RecursionError:
            return _TOO_DEEP
        except ValueError:
            return None
        self.bad_utf8 += bad_utf8
        return value

    def _read_record(self, text: bytes, around: str, record: Any) -> Sequence[Reading] | str:
        """The events of a text without a transport, which is this record if it is an object."""
        if isinstance(record, dict):
            return self._understand(record, self._detector.plan(record), text, around)
        if record is None and text[0] != _BRACE:
            record = self._parsed(text, "")
        if record is None:
            return self._read_line(text, around)
        return "JSON nested too deep" if record is _TOO_DEEP else "JSON, but not an object"

    def _understand(
        self, record: dict[str, Any], plan: Plan, text: bytes, around: str
    ) -> Sequence[Reading] | str:
        """The events of a JSON object, or why there is none."""
        detector = self._detector
        if self.strict and not plan.native:
            return "not the native schema"
        if plan.otlp:
            several = detector.read_spans(record)
            if several is not None:
                return self._counted(several, around, "otlp")
        found = detector.read(record, plan)
        if isinstance(found, str):
            return found
        name, readings = found
        if readings and (repeats(text, plan.watched[name]) or (plan.rivals and rivals(record))):
            for reading in readings:
                reading.event.flags |= Flag.DUPLICATE_KEYS
        return self._noted(around + name, readings)

    def _read_line(self, text: bytes, around: str) -> Sequence[Reading] | str:
        """The events of a line that is no JSON, or why there is none."""
        found = self._detector.read_line(text)
        if found is None:
            return "not JSON"
        readings = self._counted(found, around, "")
        try:
            text.decode()
        except UnicodeDecodeError:
            self.bad_utf8 += not isinstance(readings, str)
        return readings

    def _counted(self, several: Sequence[Found | str], around: str, shape: str) -> Sequence[Reading] | str:
        """The events of the records of a line, which are counted; why there is none if no record was understood.

        Args:
            shape: What the line is, where it holds no record that a format knows.
        """
        known = [found for found in several if not isinstance(found, str)]
        if several and not known:
            return str(several[0])
        others = len(several) - len(known) + (not several)
        if others:
            # beside records that are read, what is not is no line that was not understood
            self.formats[around + shape] += others
            self.asides[around + shape] += others
        readings: list[Reading] = []
        for name, read in known:
            readings.extend(self._noted(around + name, read))
        return readings

    def _noted(self, name: str, readings: Sequence[Reading]) -> Sequence[Reading]:
        """The same readings, and the record that holds them counted."""
        self.formats[name] += 1
        if not readings:
            self.asides[name] += 1
        for reading in readings:
            if reading.word is not None:
                word = (name, reading.word[:60])
                if word in self.unknown_words or len(self.unknown_words) < _KEPT_WORDS:
                    self.unknown_words[word] += 1
        return readings

    @cached_property
    def _detector(self) -> Detector:
        """Made when the first record needs it: a native log never reads a mapping file."""
        if self._named is not None:
            return Detector((self._named,), (), None, frozenset(), forced=True)
        if self.strict or not self.native:
            return Detector((), (), GENERIC, _NATIVE_NAMES if self.native else frozenset())
        return Detector(self._own, shipped_mappings(), GENERIC, _NATIVE_NAMES)

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
            if event.__class__ is CallEnd:
                self._cover(event.start, -1)  # how it was counted when it began
                self._cover(event, 1)
            elif event.event == "tool_call":
                self.calls += 1
                if lacks_a_field(event):
                    self.nameless += _names_nobody(event)
                    for index, name in enumerate(lacking_fields(event)):
                        self.lacking[index] += name is not None

    def _cover(self, event: AuditEvent, count: int) -> None:
        if event.event == "tool_call":
            self.calls += count
            for index, name in enumerate(lacking_fields(event)):
                self.lacking[index] += count * (name is not None)


def _names_nobody(event: AuditEvent) -> bool:
    who = event.key_id or event.client_id or event.session_id or event.source_ip or event.subject
    return who is None


def _named(own: Sequence[Mapping], name: str) -> Mapping | None:
    """The mapping that was asked for by name; None for the formats that need none. Raises FormatError."""
    if name in FORMATS:
        return None
    for mapping in own:
        if mapping.name == name:
            return mapping
    if name in shipped_names():
        return shipped_mapping(name)
    choices = ", ".join((*FORMATS, *(mapping.name for mapping in own), *shipped_names()))
    raise FormatError(f"unknown format {safe(name, 60)!r}; there are: {choices}")


def _filled(reading: Reading, inner: Unwrapped) -> Reading:
    """A reading with what its transport knows in place of what its event does not say itself."""
    event = reading.event
    if inner.time is not None and event.time_ns is None and parse_time(event.timestamp) is None:
        event.timestamp = inner.time
    if event.server is None:
        event.server = text_of(inner.server)
    if inner.others:
        event.flags |= Flag.DUPLICATE_KEYS
    if reading.phase is None:
        return reading
    # ids count from 1 in every server, and several may log into one stream
    return reading._replace(pair_key=(*reading.pair_key, inner.server))


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
