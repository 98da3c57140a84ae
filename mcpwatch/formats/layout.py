"""How the fields of a record become an event: a layout says where they stand and what its words and units mean."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final, NamedTuple

from mcpwatch.event import AuditEvent
from mcpwatch.formats.fields import (
    ABSENT,
    ALIASES,
    BESIDE,
    EVENT_WORDS,
    FAILED_LOGINS,
    duration_of,
    status_of,
    text_of,
)
from mcpwatch.formats.paths import OUTER, Get, Path, first_of, word_of
from mcpwatch.formats.units import Units
from mcpwatch.formats.values import CONVERT, auth_of, called, name_of, params_of, single

FIELDS: Final = (*ALIASES, "duration", "ended")
"""What a mapping can say the place of: the fields of the schema, and what they are made from."""


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


class _Group(NamedTuple):
    """Fields that stand in one object of the record, so that it is looked up once for all.

    Attributes:
        first: The object's name; None for the record itself.
        gets: The slow way to each place, for records where it is no such object; all there is for any other path.
        together: Key and field of what says something together with others only.
        names: Key, field and what makes it that of the event, of what needs none if it is a text.
        others: The same of any other field, with all its keys, and whether it makes an audit record.
    """

    first: str | None
    gets: tuple[tuple[str, Get], ...]
    together: tuple[tuple[str, str], ...]
    names: tuple[tuple[str, str, Callable[[Any], Any]], ...]
    others: tuple[tuple[tuple[str, ...], str, Callable[[Any], Any] | None, bool], ...]


def _groups(fields: Mapping[str, tuple[Path, ...]]) -> tuple[_Group, ...]:
    own: dict[str, tuple[Path, ...]] = {}
    inner: dict[str, dict[str, tuple[Path, ...]]] = {}
    others: dict[str, Get] = {}
    for name, paths in fields.items():
        firsts = {path.names[:-1] for path in paths}
        first = firsts.pop() if len(firsts) == 1 and all(path.names for path in paths) else None
        if first == ():
            own[name] = paths
        elif first is not None and len(first) == 1 and first[0] != OUTER and (
            _agree([*paths, *(path for several in inner.get(first[0], {}).values() for path in several)])
        ):  # fmt: skip
            inner.setdefault(first[0], {})[name] = paths
        else:
            others[name] = first_of(paths)
    found = [_group(None, (), {name: _keys(paths) for name, paths in own.items()})] if own else []
    for object_name, members in inner.items():
        gets = tuple((path.names[-1], path.get) for paths in members.values() for path in paths)
        found.append(_group(object_name, gets, {name: _keys(paths) for name, paths in members.items()}))
    if others:
        found.append(_group(None, tuple(others.items()), {name: (name,) for name in others}))
    return tuple(found)


def _keys(paths: tuple[Path, ...]) -> tuple[str, ...]:
    return tuple(path.names[-1] for path in paths)


def _group(
    first: str | None, gets: tuple[tuple[str, Get], ...], fields: dict[str, tuple[str, ...]]
) -> _Group:
    alone = {name: keys[0] for name, keys in fields.items() if len(keys) == 1}
    return _Group(
        first,
        gets,
        tuple((key, name) for name, key in alone.items() if name not in CONVERT),
        tuple((key, name, CONVERT[name]) for name, key in alone.items() if name in _NAMES),
        tuple(
            (keys, name, CONVERT.get(name), name not in BESIDE)
            for name, keys in fields.items()
            if len(keys) > 1 or (name in CONVERT and name not in _NAMES)
        ),
    )


def _agree(paths: Iterable[Path]) -> bool:
    """Whether paths may be looked up together: `a.b` and `a."b"` are not the same."""
    roots: dict[str, frozenset[str]] = {}
    return all(roots.setdefault(path.names[-1], path.roots) == path.roots for path in paths)


class Layout:
    """Places and units made ready to read records with."""

    __slots__ = ("_codes", "_constants", "_durations", "_groups", "_joined", "_kinds", "_status", "_tells",
                 "_word", "units")  # fmt: skip

    def __init__(self, places: Places, units: Units) -> None:
        self.units = units
        self._status = dict(places.status)
        self._codes = {int(word): status for word, status in places.status.items() if _CODE.fullmatch(word)}
        self._kinds = dict(places.kinds)
        self._constants = dict(places.constants)
        self._groups = _groups(places.fields)
        # names of a record that go before: `a.b` as it stands before b in a
        self._joined = frozenset(
            root for paths in places.fields.values() for path in paths if len(path.names) == 2
            for root in path.roots if root != path.names[0]
        )  # fmt: skip
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
        straight = self._joined.isdisjoint(record)
        for first, gets, together, names, others in self._groups:
            inner: Any = record if first is None else record.get(first)
            if gets and (first is None or not straight or inner.__class__ is not dict):
                inner = {key: get(record) for key, get in gets}
            for key, name in together:
                value = inner.get(key)
                if value is not None:
                    known = True
                    if value.__class__ is not str or value not in ABSENT:
                        found[name] = value
            for key, name, convert in names:
                value = inner.get(key)
                if value is not None:
                    known = True
                    setattr(event, name, value if value.__class__ is str else convert(value))
            for keys, name, odd, tells in others:
                value = inner.get(keys[0]) if len(keys) == 1 else _first(inner, keys)
                if value is None:
                    continue
                known = known or tells
                if odd is not None:
                    setattr(event, name, odd(value))
                elif value.__class__ is not str or value not in ABSENT:
                    found[name] = value
        if not known:
            return None
        if self._constants:
            self._fill(event, found)
        self._tell(event, found)
        self._time(event, found)
        return event

    def word(self, record: dict[str, Any]) -> str | None:
        """The word that the record has for its outcome, where nothing is known of that word."""
        value = single(self._word(record)) if self._word is not None else None
        word = word_of(value) if value is not None else None
        # HTTP 1xx to 3xx are known to say nothing about a tool
        is_known = word in self._status or (word is not None and _SILENT_HTTP.fullmatch(word) is not None)
        return None if is_known else word

    def _fill(self, event: AuditEvent, found: dict[str, Any]) -> None:
        for name, constant in self._constants.items():
            if name in CONVERT:
                if text_of(getattr(event, name)) is None:
                    setattr(event, name, CONVERT[name](constant))
            elif name not in found and name not in ("event", "status"):
                found[name] = constant

    def _tell(self, event: AuditEvent, found: dict[str, Any]) -> None:
        """What was called, by which words, and how it ended."""
        get = found.get
        tool, params, method = get("tool"), get("params"), get("method")
        if tool.__class__ is not str:
            tool = name_of(tool)
        if method is not None and method.__class__ is not str:
            method = single(method)
        if params is not None:
            if params.__class__ is not dict:
                params = params_of(params)
            if params is not None and "name" in params:
                tool, params = called(method, tool, params)
            event.params = params
        event.tool = tool
        status = self._outcome(get("status"))
        word = get("event")
        kind = self._constants.get("event") if word is None else self._kind(single(word))
        if word is not None and word == get("method") and kind not in self._kinds.values():
            kind = None  # a method is the caller's word: `login_failed` is no failed login
        if kind is None:
            kind = "tool_call" if method == "tools/call" or text_of(tool) is not None else "request"
        elif kind == "auth" and status in ("unknown", "error") and _is_failed_login(word):
            status = "unauthenticated"
        event.event, event.status = kind, status
        if "auth" in found or "subject" in found:
            event.auth = auth_of(get("auth"), text_of(single(get("subject"))))

    def _outcome(self, said: Any) -> str:
        if said is None:
            return self._constants.get("status", "unknown")
        if said.__class__ is list:
            said = single(said)
        if self._status:
            if said.__class__ is int and said in self._codes:
                return self._codes[said]
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
                event.duration_ms = duration_of(single(found[name]), unit_ms)
                if event.duration_ms is not None:
                    break
        stamp = found.get("timestamp")
        if stamp.__class__ is list:
            stamp = single(stamp)
        if stamp.__class__ in _STAMPS:
            if self.units.plain:
                event.timestamp = stamp
            else:
                event.time_ns = self.units.time_of(stamp)
                event.timestamp = stamp if event.time_ns is not None else None
        if "ended" in found:
            self._end(event, single(found["ended"]))

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


def _first(inner: dict[str, Any], keys: tuple[str, ...]) -> Any:
    """What stands under the first of the keys that has something, as `first_of` has it."""
    nothing = None
    for key in keys:
        value = inner.get(key)
        if value is not None:
            if value.__class__ is not str or value not in ABSENT:
                return value
            nothing = value
    return nothing


_STAMPS: Final = (str, int, float)
_CODE: Final = re.compile(r"-?[1-9]\d{0,17}|0", re.ASCII)
_SILENT_HTTP: Final = re.compile(r"[123]\d\d", re.ASCII)
_NAMES: Final = frozenset({"key_id", "client_id", "session_id", "source_ip"})
"""Fields whose odd spellings the reader knows: it looks each up once."""


def _is_failed_login(word: Any) -> bool:
    word = single(word)
    return word.__class__ is str and word.strip().lower() in FAILED_LOGINS
