"""A mapping: knows the records of one format, and reads the events in them.

The formats that come with mcpwatch, those of its users and the reader of home-made logs (`GENERIC`) are all
mappings; `mcpwatch.formats.mappingfile` makes them from files.
"""

from __future__ import annotations

from collections.abc import Mapping as Table
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, Final, Literal, NamedTuple

from mcpwatch.event import AuditEvent
from mcpwatch.formats.conditions import Condition, all_hold
from mcpwatch.formats.fields import ALIASES, text_of
from mcpwatch.formats.layout import Layout, Places
from mcpwatch.formats.paths import MAX_ELEMENTS, OUTER, Each, Get, Path, TooMany, compile_path
from mcpwatch.formats.template import Template
from mcpwatch.formats.units import Units

Phase = Literal["start", "end"]
"""Which line of a call that is logged in two."""

LINE: Final = "line"
"""The name under which a record of a text log has the name of its line."""

NOTHING_KNOWN: Final = "no field of it is known"
"""Why a record without one field that is known is not understood."""


class Reading(NamedTuple):
    """An event of a record.

    Attributes:
        phase: Which half of a call it is; None for a whole one.
        pair_key: What both halves have in common.
        by_order: They have nothing in common that tells them from others.
        word: The word for the outcome, where there is one and nothing is known of it.
    """

    event: AuditEvent
    phase: Phase | None = None
    pair_key: tuple[str | None, ...] = ()
    by_order: bool = False
    word: str | None = None


@dataclass(frozen=True, eq=False)
class Variant:
    """How the records are read that meet some conditions.

    Attributes:
        ignore: They are no audit records.
    """

    when: tuple[Condition, ...]
    places: Places
    units: Units
    ignore: bool = False
    phase: Phase | None = None

    @cached_property
    def layout(self) -> Layout:
        """Where their fields stand; made when the first of them is read."""
        return Layout(self.places, self.units)


@dataclass(frozen=True, eq=False)
class Mapping:
    """How the records of one format are known and read.

    Attributes:
        title: What people call the format.
        shape: What its lines are: `json`, `text`, or another that splits a line into records.
        lines: Of a text format: the templates of its lines, each with a name.
        match: What holds for all of its records.
        each: Where their events stand, if a record holds several.
        parse: Texts that are taken apart, and the templates for each.
        variants: The ways of reading them; the first whose conditions hold counts, and the last has none.
        pair: The places whose values the two lines of a call have in common.
        by_order: There is nothing that names a call.
        lacks: What to switch on so that the product logs a field, by field.
        settings: Settings of the product that are recommended, as Markdown.
    """

    name: str
    variants: tuple[Variant, ...]
    title: str = ""
    shape: str = "json"
    lines: tuple[tuple[str, Template], ...] = ()
    match: tuple[Condition, ...] = ()
    each: Each | None = None
    parse: tuple[tuple[Path, tuple[Template, ...]], ...] = ()
    pair: tuple[Get, ...] = ()
    by_order: bool = False
    lacks: Table[str, str] = field(default_factory=dict)
    settings: str = ""

    @property
    def signed(self) -> bool:
        """Whether it knows its records by itself; else it reads only what it is told to read."""
        return bool(self.match or self.lines)

    def fits(self, names: frozenset[str]) -> bool:
        """Whether a record with these names can be one of its own: quick, and right when it says no."""
        return all(one.roots is None or not names.isdisjoint(one.roots) for one in self.match)

    def claims(self, record: dict[str, Any]) -> bool:
        """Whether the record is of this format."""
        return all_hold(self.match, record)

    def line(self, text: str) -> dict[str, Any] | None:
        """The record of a line of text; None if none of the templates fits."""
        for name, template in self.lines:
            if template.needs in text:
                found = template(text)
                if found is not None:
                    found[LINE] = name
                    return found
        return None

    def may_hold(self, text: str) -> bool:
        """Whether a line of text can hold a record of its own: quick, and right when it says no."""
        for name in self._asked:
            if name not in text:
                return "\\" in text  # JSON may hold it with escapes
        return True

    @cached_property
    def _asked(self) -> tuple[str, ...]:
        """The names that it asks for and that are no place of its templates: the line itself must hold them."""
        places = {LINE}.union(*(template.places for _, template in self.lines))
        asked = (one.path.names for one in self.match if one.roots is not None)
        return tuple(
            names[-1]
            for names in asked
            if names and not names[-1].isdigit() and (len(names) > 1 or names[0] not in places)
        )

    def read(self, record: dict[str, Any]) -> Sequence[Reading] | str:
        """The events of a record that it claims, in order; none for one that is no audit record.

        They lack what the reader knows: where they come from, and mostly their time.

        Returns:
            The events, or why there is none where one should be.
        """
        if self.each is None:
            found = self._read(record)
            return found if isinstance(found, str) else () if found is None else (found,)
        try:
            elements = self.each.elements(record)
        except TooMany:
            return f"more than {MAX_ELEMENTS} elements in {self.each.text}"
        readings = [self._read(element) for element in elements]
        events = [each for each in readings if isinstance(each, Reading)]
        return NOTHING_KNOWN if not events and NOTHING_KNOWN in readings else events

    def _read(self, record: dict[str, Any]) -> Reading | str | None:
        if self.parse:
            record = self._parsed(record)
        for variant in self.variants:
            if not variant.when or all_hold(variant.when, record):
                break
        if variant.ignore:
            return None
        event = variant.layout.read(record)
        if event is None:
            return NOTHING_KNOWN
        word = None
        if event.status == "unknown" and variant.phase != "start":
            word = variant.layout.word(record)
        if variant.phase is None:
            return Reading(event, None, (), False, word)
        key = tuple(text_of(get(record)) for get in self.pair)
        if not self.by_order and not any(key):
            return Reading(event, word=word)  # without what names it it can't be told from others
        return Reading(event, variant.phase, (self.name, *key), self.by_order, word)

    def _parsed(self, record: dict[str, Any]) -> dict[str, Any]:
        """The record with what stands in its texts; what it says itself under the same name goes first."""
        record = dict(record)
        for path, templates in self.parse:
            text = path.get(record)
            if isinstance(text, list):
                text = text[0] if text else None
            if not isinstance(text, str):
                continue
            for template in templates:
                found = template(text)
                if found is not None:
                    for name, value in found.items():
                        if record.get(name) is None and name != OUTER:
                            record[name] = value
                    break
        return record

    def among(self, names: frozenset[str]) -> Mapping:
        """The same for records with just these names, quicker. For one without `each` and `parse`."""
        variants = tuple(replace(one, places=one.places.among(names)) for one in self.variants)
        return replace(self, variants=variants)

    def places(self, *fields: str) -> frozenset[str]:
        """The names of a record that these fields can be read from, and those that tell how it is read."""
        roots = [path.roots for variant in self.variants for name in fields
                 for path in variant.places.fields.get(name, ())]  # fmt: skip
        roots += [
            one.path.roots for one in (*self.match, *(one for each in self.variants for one in each.when))
        ]
        roots += [path.roots for path, _ in self.parse]
        if self.each is not None:
            roots.append(self.each.roots)
        return frozenset().union(*roots)


def _generic() -> Mapping:
    places = Places({name: tuple(map(compile_path, names)) for name, names in ALIASES.items()})
    return Mapping("generic", (Variant((), places, Units()),), "records by the usual names")


GENERIC: Final = _generic()
"""The reader of home-made logs: fields by all the names that are usual."""
