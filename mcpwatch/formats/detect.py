"""Which mapping reads a record: decided record by record, because streams of several formats are normal.

Mappings that know their records by themselves come first, a user's before those that come with mcpwatch; where
several would read a record, the one that read the last. Home-made logs are read by names alone, after all others.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Final, NamedTuple

from mcpwatch.formats.mapping import GENERIC, NOTHING_KNOWN, Mapping, Reading
from mcpwatch.formats.otlp import records_of
from mcpwatch.formats.shapes import SHAPES
from mcpwatch.formats.twice import KEYS, RIVALS, keys_of, quoted

NATIVE: Final = "native"

Found = tuple[str, Sequence[Reading]]
"""The name of a format, and what it reads in a record."""

_SIGNALS: Final = frozenset(
    {
        "resourceSpans",
        "resourceLogs",
        "resourceMetrics",
        "resource_spans",
        "resource_logs",
        "resource_metrics",
    }
)
_TRANSPORTS: Final = (frozenset({"MESSAGE", "__REALTIME_TIMESTAMP"}), frozenset({"log", "stream", "time"}))
"""The names that every object of the journal and of Docker has: others are not looked at for what is in them."""

_CACHED_PLANS: Final = 4_096
_MAX_NAMES: Final = 64
_MAX_NAMES_LENGTH: Final = 2_048


class Plan(NamedTuple):
    """What is known about records with the same names.

    Attributes:
        native: They hold only names of the native schema.
        otlp: They hold what the exporters of OpenTelemetry write.
        transport: They may be what records travel in.
        candidates: The mappings that may claim them.
        last: The one that reads them if none does.
        rivals: They may name one field twice, by different names.
        watched: Format -> those of their names that must not stand twice.
    """

    native: bool
    otlp: bool
    transport: bool
    candidates: tuple[Mapping, ...]
    last: Mapping | None
    rivals: bool
    watched: dict[str, tuple[bytes, ...]]


class Detector:
    """The mappings that one source is read by.

    Args:
        own: A user's mappings.
        shipped: Those that come with mcpwatch.
        fallback: Reads what none of them claims; None: nothing does.
        native: The names of the native schema; records with no others are never a shipped mapping's.
        forced: The user's mappings were asked for by name: also one that does not know its records claims them.
    """

    def __init__(
        self,
        own: Iterable[Mapping],
        shipped: Iterable[Mapping],
        fallback: Mapping | None,
        native: frozenset[str],
        *,
        forced: bool = False,
    ) -> None:
        self._own = tuple(mapping for mapping in own if mapping.signed or forced)
        names = {mapping.name for mapping in self._own}
        self._all = self._own + tuple(m for m in shipped if m.signed and m.name not in names)
        self._lines = tuple(mapping for mapping in self._all if mapping.shape not in ("json", "otlp"))
        # all templates at once: of a line that nobody knows hardly one gets further than this
        self._needs = tuple(
            dict.fromkeys((template.needs, each) for each in self._lines for _, template in each.lines)
        )
        self._spans = tuple(mapping for mapping in self._all if mapping.shape == "otlp")
        self._fallback = fallback
        self._native = native
        self._plans: dict[tuple[str, ...], Plan] = {}
        self._unclaimed = f"not of the format {self._own[0].name}" if forced else NOTHING_KNOWN
        self._last: Mapping | None = None

    def plan(self, record: dict[str, Any]) -> Plan:
        """How records with these names are read."""
        names = tuple(record)
        plan = self._plans.get(names)
        if plan is None:
            plan = self._made(frozenset(names))
            # names are the log's to choose: neither their number nor their length may fill the memory
            if len(names) <= _MAX_NAMES and sum(map(len, names)) <= _MAX_NAMES_LENGTH:
                if len(self._plans) >= _CACHED_PLANS:
                    self._plans.clear()
                self._plans[names] = plan
        return plan

    def read(self, record: dict[str, Any], plan: Plan) -> Found | str:
        """The events of a JSON object, or why there is none."""
        candidates = plan.candidates
        reason = self._unclaimed
        if candidates:
            last = self._last
            if last is not None and len(candidates) > 1 and last in candidates:
                candidates = (last, *candidates)
            for mapping in candidates:
                if mapping.claims(record):
                    found = mapping.read(record)
                    if not isinstance(found, str):
                        self._last = mapping
                        return mapping.name, found
                    reason = f"{mapping.name}: {found}"
        if plan.last is not None:
            found = plan.last.read(record)
            if not isinstance(found, str):
                return NATIVE if plan.native else plan.last.name, found
        return reason

    def read_spans(self, record: dict[str, Any]) -> list[Found | str] | None:
        """The events of an object that holds many records, each by itself; None for any other object."""
        records = records_of(record)
        if records is None:
            return None
        return [self._first(self._spans, one) for one in records]

    def read_line(self, text: bytes) -> list[Found | str] | None:
        """The events of a line that is no JSON; None if no format knows it.

        Args:
            text: The line without what it travelled in.
        """
        decoded = text.decode("utf-8", "backslashreplace")
        split: dict[str, list[dict[str, Any]] | None] = {}
        reason: str | None = None
        for mapping in self._may_know(decoded):
            for record in _records(mapping, text, decoded, split):
                if not mapping.claims(record):
                    continue
                found = mapping.read(record)
                if not isinstance(found, str):
                    self._last = mapping
                    return [(mapping.name, found)]
                reason = f"{mapping.name}: {found}"
        return None if reason is None else [reason]

    def _may_know(self, line: str) -> Iterator[Mapping]:
        """The mappings that a line may be one of, the one that read the last record first."""
        last = self._last
        if last is not None and last in self._lines:
            yield last
        templates = {mapping for needs, mapping in self._needs if needs in line}
        for mapping in self._lines:
            if mapping.shape != "text" or (mapping in templates and mapping.may_hold(line)):
                yield mapping

    def _first(self, mappings: tuple[Mapping, ...], record: dict[str, Any]) -> Found | str:
        reason = self._unclaimed
        for mapping in mappings:
            if mapping.claims(record):
                found = mapping.read(record)
                if not isinstance(found, str):
                    return mapping.name, found
                reason = f"{mapping.name}: {found}"
        return reason

    def _made(self, names: frozenset[str]) -> Plan:
        native = names <= self._native
        known = self._own if native else self._all
        candidates = tuple(mapping for mapping in known if mapping.shape == "json" and mapping.fits(names))
        last = self._fallback
        watched = {mapping.name: quoted((KEYS | keys_of(mapping)) & names) for mapping in candidates}
        if last is not None:
            watched[NATIVE if native else last.name] = quoted(KEYS & names)
        if last is GENERIC:
            last = last.among(names)
        rivals = any(len(names & rivals) > 1 for rivals in RIVALS)
        several = bool(self._spans) and not names.isdisjoint(_SIGNALS)
        return Plan(
            native, several, any(own <= names for own in _TRANSPORTS), candidates, last, rivals, watched
        )


def _records(
    mapping: Mapping, text: bytes, decoded: str, split: dict[str, list[dict[str, Any]] | None]
) -> Sequence[dict[str, Any]]:
    """What a line is for a mapping.

    Args:
        split: Shape -> the records that it makes of the line, once somebody has asked for them.
    """
    if mapping.shape == "text":
        record = mapping.line(decoded)
        return () if record is None else (record,)
    if mapping.shape not in split:
        split[mapping.shape] = SHAPES[mapping.shape](text)
    return split[mapping.shape] or ()
