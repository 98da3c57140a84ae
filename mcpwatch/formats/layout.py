"""How the fields of a record become an event: a layout says where they stand and what its words and units mean."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, tzinfo
from typing import Any, Final, Literal, NamedTuple

from mcpwatch.event import AuditEvent, Auth
from mcpwatch.formats.fields import (
    ABSENT,
    ALIASES,
    BESIDE,
    EVENT_WORDS,
    FAILED_LOGINS,
    address_of,
    duration_of,
    number_of,
    scopes_of,
    status_of,
    text_of,
)
from mcpwatch.formats.paths import OUTER, Get, Path, first_of, json_in, word_of
from mcpwatch.times import SECOND, parse_epoch, parse_time

FIELDS: Final = (*ALIASES, "duration", "ended")
"""What a mapping can say the place of: the fields of the schema, and what they are made from."""
TIME_UNITS: Final = {"s": SECOND, "ms": 1_000_000, "us": 1_000, "ns": 1}
DURATION_UNITS: Final = {"ns": 1e-6, "us": 1e-3, "ms": 1.0, "s": 1e3, "min": 6e4, "h": 3.6e6}


@dataclass(frozen=True, slots=True)
class Units:
    """How the times and durations of a log are meant.

    Attributes:
        time_ns: Nanoseconds in one of what its timestamps count; None: told by their size.
        zone: Of times that say none: a zone, or `local` for that of this machine; None is UTC, and flagged.
        duration_ms: Milliseconds in one of what its field `duration` counts.
    """

    time_ns: int | None = None
    zone: tzinfo | Literal["local"] | None = None
    duration_ms: float = 1.0

    @property
    def plain(self) -> bool:
        """Whether timestamps are read as those of any other log."""
        return self.time_ns is None and self.zone is None

    def time_of(self, value: Any) -> int | None:
        """A moment, ns since the epoch."""
        if self.time_ns is not None:
            number = _number(value)
            if number is not None:
                return _counted(number, self.time_ns)
        parsed = parse_time(value)
        if parsed is None:
            return None
        moment, naive = parsed
        return _from_zone(moment, self.zone) if naive and self.zone is not None else moment


def _number(value: Any) -> int | float | None:
    if isinstance(value, str):
        text = value.strip()
        if not text.isascii() or len(text) > 24 or not text.replace(".", "", 1).isdigit():
            return None
        return float(text) if "." in text else int(text)
    return value if isinstance(value, int | float) and not isinstance(value, bool) else None


def _counted(number: int | float, unit_ns: int) -> int | None:
    if not 0 <= number < 1e20:
        return None
    whole = int(number)
    moment = whole * unit_ns + (round((number - whole) * unit_ns) if number != whole else 0)
    # parse_epoch takes what is this large for nanoseconds, and knows the last of them
    return moment if moment < 10**17 else parse_epoch(moment)


def _from_zone(moment: int, zone: tzinfo | Literal["local"]) -> int | None:
    try:
        clock = datetime.fromtimestamp(moment // SECOND, UTC)
        there = clock.replace(tzinfo=None if zone == "local" else zone)
        return int(there.timestamp()) * SECOND + moment % SECOND
    except (OverflowError, ValueError, OSError):
        return None


@dataclass(frozen=True, slots=True)
class Places:
    """What a mapping, or one of its variants, says about fields.

    Attributes:
        fields: Field -> where it stands; the first place that holds something counts. No place, laid over others,
            takes theirs away.
        constants: Field -> what it is where the record says nothing.
        status: Further words for outcomes.
        kinds: Further words for kinds of events.
    """

    fields: Mapping[str, tuple[Path, ...]] = field(default_factory=dict)
    constants: Mapping[str, str] = field(default_factory=dict)
    status: Mapping[str, str] = field(default_factory=dict)
    kinds: Mapping[str, str] = field(default_factory=dict)

    def under(self, upper: Places) -> Places:
        """These with others laid over them: a constant of those goes before a place of these."""
        fields = {name: paths for name, paths in self.fields.items() if name not in upper.constants}
        return Places(
            {name: paths for name, paths in {**fields, **upper.fields}.items() if paths},
            {**self.constants, **upper.constants},
            {**self.status, **upper.status},
            {**self.kinds, **upper.kinds},
        )

    def among(self, names: frozenset[str]) -> Places:
        """Only the places that can hold something in a record with these names."""
        found = {
            name: kept
            for name, paths in self.fields.items()
            if (kept := tuple(path for path in paths if not names.isdisjoint(path.roots)))
        }
        return replace(self, fields=found)


class _Slot(NamedTuple):
    """Where a value goes.

    Attributes:
        key: Its name in the object that it is looked up in.
        name: Of its field.
        convert: Makes it that of the event; None where it says something together with others only.
        as_is: A text needs no converting.
        tells: It makes an audit record.
    """

    key: str
    name: str
    convert: Callable[[Any], Any] | None
    as_is: bool
    tells: bool


class _Group(NamedTuple):
    """Fields that stand in one object of the record, so that it is looked up once for all.

    Attributes:
        first: The object's name; None for the record itself.
        joined: Names of the record that would go before: `a.b` as it stands before b in a.
        gets: The slow way to each, for records where it is no such object; all there is for any other path.
    """

    first: str | None
    joined: frozenset[str]
    gets: tuple[tuple[str, Get], ...]
    slots: tuple[_Slot, ...]


def _groups(fields: Mapping[str, tuple[Path, ...]]) -> tuple[_Group, ...]:
    own: list[_Slot] = []
    inner: dict[str, list[tuple[_Slot, Path]]] = {}
    others: list[tuple[_Slot, Get]] = []
    for name, paths in fields.items():
        path = paths[0]
        names = path.names if len(paths) == 1 else ()
        slot = _Slot(
            names[-1] if names else name, name, _CONVERT.get(name), name in _NAMES, name not in BESIDE
        )
        if len(names) == 1:
            own.append(slot)
        elif len(names) == 2 and names[0] != OUTER and _agrees(path, inner.get(names[0], ())):
            inner.setdefault(names[0], []).append((slot, path))
        else:
            others.append((slot._replace(key=name), first_of(paths)))
    found = [_Group(None, frozenset(), (), tuple(own))] if own else []
    for first, members in inner.items():
        joined = frozenset().union(*(path.roots for _, path in members)) - {first}
        gets = tuple((slot.key, path.get) for slot, path in members)
        found.append(_Group(first, joined, gets, tuple(slot for slot, _ in members)))
    if others:
        gets = tuple((slot.key, get) for slot, get in others)
        found.append(_Group(None, frozenset(), gets, tuple(slot for slot, _ in others)))
    return tuple(found)


def _agrees(path: Path, others: Iterable[tuple[_Slot, Path]]) -> bool:
    """Whether a path may be looked up with others: `a.b` and `a."b"` are not the same."""
    return all(path.names[-1] != slot.key or path.roots == other.roots for slot, other in others)


class Layout:
    """Places and units made ready to read records with."""

    __slots__ = ("_constants", "_durations", "_groups", "_kinds", "_status", "_tells", "_word", "units")

    def __init__(self, places: Places, units: Units) -> None:
        self.units = units
        self._status = dict(places.status)
        self._kinds = dict(places.kinds)
        self._constants = dict(places.constants)
        self._groups = _groups(places.fields)
        self._word = first_of(places.fields["status"]) if "status" in places.fields else None
        self._durations = tuple(
            (name, unit)
            for name, unit in (("duration_ms", 1.0), ("duration", units.duration_ms), ("duration_s", 1e3))
            if name in places.fields
        )
        # what is known to be a login or the end of a session says something without any field
        self._tells = not self._constants.keys().isdisjoint(("event", "status", "tool"))

    def read(self, record: dict[str, Any]) -> AuditEvent | None:
        """The event of a record, all but who and what it is for the reader; None if no field of it is there.

        The time is left in `timestamp` for the reader, unless only the layout knows how it is meant.
        """
        event = AuditEvent()
        found: dict[str, Any] = {}
        known = self._tells
        for first, joined, gets, slots in self._groups:
            inner: Any = record
            if first is not None:
                inner = record.get(first)
                if inner.__class__ is not dict or not record.keys().isdisjoint(joined):
                    inner = {key: get(record) for key, get in gets}
            elif gets:
                inner = {key: get(record) for key, get in gets}
            for key, name, convert, as_is, tells in slots:
                value = inner.get(key)
                if value is None:
                    continue
                known = known or tells
                if convert is None:
                    if value.__class__ is not str or value not in ABSENT:
                        found[name] = value
                elif as_is and value.__class__ is str:
                    setattr(event, name, value)
                else:
                    setattr(event, name, convert(value))
        if not known:
            return None
        if self._constants:
            self._fill(event, found)
        self._tell(event, found)
        self._time(event, found)
        return event

    def word(self, record: dict[str, Any]) -> str | None:
        """The word that the record has for its outcome, where nothing is known of that word."""
        value = _single(self._word(record)) if self._word is not None else None
        word = word_of(value) if value is not None else None
        # HTTP 1xx to 3xx are known to say nothing about a tool
        is_known = word in self._status or (word is not None and _SILENT_HTTP.fullmatch(word) is not None)
        return None if is_known else word

    def _fill(self, event: AuditEvent, found: dict[str, Any]) -> None:
        for name, constant in self._constants.items():
            if name in _CONVERT:
                if text_of(getattr(event, name)) is None:
                    setattr(event, name, _CONVERT[name](constant))
            elif name not in found and name not in ("event", "status"):
                found[name] = constant

    def _tell(self, event: AuditEvent, found: dict[str, Any]) -> None:
        """What was called, by which words, and how it ended."""
        get = found.get
        tool, params, method = get("tool"), get("params"), get("method")
        if tool.__class__ is not str:
            tool = _name(tool)
        if method is not None and method.__class__ is not str:
            method = _single(method)
        if params is not None:
            if params.__class__ is not dict:
                params = _params(params)
            if params is not None and "name" in params:
                tool, params = _call(method, tool, params)
            event.params = params
        event.tool = tool
        status = self._outcome(get("status"))
        word = get("event")
        kind = self._constants.get("event") if word is None else self._kind(_single(word))
        if kind is None:
            kind = "tool_call" if method == "tools/call" or text_of(tool) is not None else "request"
        elif kind == "auth" and status in ("unknown", "error") and _is_failed_login(word):
            status = "unauthenticated"
        event.event, event.status = kind, status
        if "auth" in found or "subject" in found:
            event.auth = _auth(get("auth"), text_of(_single(get("subject"))))

    def _outcome(self, said: Any) -> str:
        if said is None:
            return self._constants.get("status", "unknown")
        if said.__class__ is list:
            said = _single(said)
        if self._status:
            status = self._status.get(said if said.__class__ is str else word_of(said))  # type: ignore[arg-type]
            if status is not None:
                return status
        return status_of(said)

    def _kind(self, word: Any) -> str | None:
        if self._kinds:
            kind = self._kinds.get(word_of(word) or "")
            if kind is not None:
                return kind
        return EVENT_WORDS.get(word.strip().lower()) if word.__class__ is str else None

    def _time(self, event: AuditEvent, found: dict[str, Any]) -> None:
        """When it began, and how long it took."""
        for name, unit_ms in self._durations:
            if name in found:
                event.duration_ms = duration_of(_single(found[name]), unit_ms)
                if event.duration_ms is not None:
                    break
        stamp = found.get("timestamp")
        if stamp.__class__ is list:
            stamp = _single(stamp)
        if stamp.__class__ in _STAMPS:
            if self.units.plain:
                event.timestamp = stamp
            else:
                event.time_ns = self.units.time_of(stamp)
                event.timestamp = stamp if event.time_ns is not None else None
        if "ended" in found:
            self._end(event, _single(found["ended"]))

    def _end(self, event: AuditEvent, stamp: Any) -> None:
        ended = self.units.time_of(stamp)
        if ended is None:
            return
        began = event.time_ns if event.time_ns is not None else self.units.time_of(event.timestamp)
        if began is None:
            event.timestamp = stamp
            taken = round((event.duration_ms or 0.0) * 1e6)
            event.time_ns = ended - taken if 0 <= taken <= ended else ended
        elif event.duration_ms is None and ended >= began:
            event.duration_ms = (ended - began) / 1e6


_STAMPS: Final = (str, int, float)
_SILENT_HTTP: Final = re.compile(r"[123]\d\d", re.ASCII)
_NAMES: Final = frozenset({"key_id", "client_id", "session_id", "source_ip"})
"""Fields whose odd spellings the reader knows: it looks each up once."""


def _is_failed_login(word: Any) -> bool:
    word = _single(word)
    return word.__class__ is str and word.strip().lower() in FAILED_LOGINS


def _single(value: Any) -> Any:
    """Of a list of texts, as of the values of a header, the first."""
    if value.__class__ is list:
        return value[0] if value and value[0].__class__ is str else None
    return value


def _name(value: Any) -> Any:
    """A name as it stands: the reader knows the odd spellings of each, and looks each up once."""
    if value.__class__ is list:
        value = _single(value)
    return value if value.__class__ is str else text_of(value)


def _text(value: Any) -> str | None:
    return text_of(_single(value))


def _address(value: Any) -> str | None:
    value = _single(value)
    return value if value.__class__ is str else address_of(value)


def _client(value: Any) -> Any:
    return text_of(value.get("name") or value.get("id")) if isinstance(value, dict) else _name(value)


def _error(value: Any) -> str | None:
    value = _single(value)
    if isinstance(value, dict):
        value = value.get("message")
    return value if isinstance(value, str) and value not in ABSENT else None


_CONVERT: Final[dict[str, Callable[[Any], Any]]] = {
    "error": _error,
    "key_id": _name,
    "client_id": _client,
    "session_id": _name,
    "source_ip": _address,
    "scopes": scopes_of,
    "server": _text,
    "call_id": _text,
    "definition_sha256": _text,
    "sequence": number_of,
    "hash": _text,
    "prev_hash": _text,
}
"""The fields whose value says all by itself, and how it becomes that of the event."""


def _params(value: object) -> dict[str, Any] | None:
    """Parameters as an object. JSON in a text is parsed, also if it was cut off; others stand under `value`."""
    if isinstance(value, str):
        inner = json_in(value)
        if inner is None:
            return {"value": value} if value else None
        value = inner
    if isinstance(value, dict):
        return value
    return None if value is None else {"value": value}


def _call(
    method: str | None, tool: str | None, params: dict[str, Any]
) -> tuple[str | None, dict[str, Any] | None]:
    """Unwrap the parameters of a JSON-RPC `tools/call`, which hold the tool's name and its arguments."""
    if params.keys() <= {"name", "arguments", "_meta", "task"}:
        name, called = text_of(params["name"]), text_of(tool)
        if name is not None and (called == name or (called is None and method == "tools/call")):
            return name, _params(params.get("arguments"))
    return tool, params


def _auth(value: object, subject: str | None) -> Auth | None:
    if isinstance(value, dict):
        own = text_of(value.get("subject"))
        times = [value.get(name) for name in ("issued_at", "expires_at")]
        issued, expires = (time if isinstance(time, str | int | float) else None for time in times)
        method = value.get("method")
        return Auth(method if isinstance(method, str) else None, own or subject, issued, expires)
    return Auth(subject=subject) if subject is not None else None
