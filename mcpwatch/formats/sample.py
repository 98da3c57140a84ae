"""What stands where in a sample of records: every place in them, with some of its values."""

from __future__ import annotations

import re
from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import orjson

from mcpwatch.formats.fields import ABSENT
from mcpwatch.text import safe

MAX_RECORDS: Final = 5_000
"""Most records of a sample."""
MAX_SPOTS: Final = 2_000
MAX_VALUES: Final = 60
"""Most different values that are kept of one place."""
_MAX_DEPTH: Final = 6
_MAX_ELEMENTS: Final = 20
_MAX_NAME: Final = 80
_PLAIN_NAME: Final = re.compile(r"[^.\[\]\"^]+")
_WORD_STARTS: Final = re.compile(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])|[^A-Za-z0-9]+")


@dataclass(slots=True)
class Spot:
    """A place in records.

    Attributes:
        path: As a mapping file writes it; relative to the element of the list that it stands in, if any.
        inside: That list, `calls[]`; empty for a place of the record itself.
        name: Its last name, in small letters with underscores: `startTime` is start_time.
        around: The names above it, likewise, the nearest last.
        seen: How many records (or elements) have something there.
        values: Different values, each with how often it was met, in the order in which they came.
        objects: The values there are objects.
    """

    path: str
    inside: str
    name: str
    around: tuple[str, ...]
    seen: int = 0
    values: dict[Hashable, int] = field(default_factory=dict)
    objects: bool = False

    @property
    def root(self) -> str:
        """How a path from the record itself gets there, as far as the first list."""
        return self.inside.removesuffix("[]") if self.inside else self.path


def spots_of(records: Sequence[dict[str, Any]]) -> list[Spot]:
    """The places of a sample, in the order in which they were met. Empty values don't count."""
    spots: dict[tuple[str, str], Spot] = {}
    for record in records[:MAX_RECORDS]:
        for found, value in _walk(record, "", "", (), 0):
            key = (found.inside, found.path)
            spot = spots.get(key)
            if spot is None:
                if len(spots) >= MAX_SPOTS:
                    continue
                spot = spots[key] = found
            spot.seen += 1
            if isinstance(value, dict | list):
                spot.objects = spot.objects or isinstance(value, dict)
            elif value in spot.values or len(spot.values) < MAX_VALUES:
                spot.values[value] = spot.values.get(value, 0) + 1
    return list(spots.values())


def _walk(
    record: dict[str, Any], prefix: str, inside: str, around: tuple[str, ...], depth: int
) -> Iterator[tuple[Spot, Any]]:
    for name, value in record.items():
        if value is None or value in ("", [], {}) or (isinstance(value, str) and value in ABSENT):
            continue
        if not name or len(name) > _MAX_NAME or safe(name) != name or '"' in name:
            continue
        written = name if _PLAIN_NAME.fullmatch(name) else f'"{name}"'
        path = f"{prefix}.{written}" if prefix else written
        inner = _inner(value)
        called = snake(name)
        yield Spot(path, inside, called, around), inner if isinstance(inner, dict) else value
        if depth >= _MAX_DEPTH:
            continue
        if isinstance(inner, dict):
            yield from _walk(inner, path, inside, (*around, called), depth + 1)
        elif isinstance(inner, list) and not inside and all(isinstance(item, dict) for item in inner):
            for item in inner[:_MAX_ELEMENTS]:
                yield from _walk(item, "", path + "[]", (*around, called), depth + 1)


def _inner(value: Any) -> Any:
    """The value itself; of JSON in a text what it holds."""
    if isinstance(value, str) and value[:1] in ("{", "["):
        try:
            found = orjson.loads(value)
        except (ValueError, RecursionError):
            return value
        return found if isinstance(found, dict | list) else value
    return value


def snake(name: str) -> str:
    """A name in small letters, its words apart by underscores."""
    return _WORD_STARTS.sub("_", name).strip("_").lower()
