"""Paths into records: `meta.when`, `attributes."mcp.session.id"`, `tags[key=tool].value`, `calls[]`.

A path is compiled once, when the first record needs it, to a function that costs little more than looking a name up.
It gives what stands there, or None; whatever the record is, it never raises.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Final, NamedTuple

from mcpwatch.formats.cutjson import parse_cut_json
from mcpwatch.formats.fields import ABSENT
from mcpwatch.formats.lenient import parse_json

OUTER: Final = "^"
"""The name under which an element of a list finds the record that it stands in."""
SCALAR: Final = "value"
"""The name under which an element of a list that is no object stands."""
CUT: Final = ("…", "[truncated]")
"""The entry of an object of which there was more before the text that holds it was cut off."""
MAX_ELEMENTS: Final = 10_000
"""Most elements of one record that are read one by one."""

_MAX_STEPS: Final = 32
_MAX_INDEX: Final = 9_999
_MAX_TEXT: Final = 1 << 20
_MAX_DEPTH: Final = 100
# one step: a name, a name in quotes, or something in brackets
_STEP: Final = re.compile(
    r'(?P<name>[^.\[\]"]+)|"(?P<quoted>[^"]+)"|\[(?:(?P<index>-?\d{1,9})|(?P<key>[^=\[\]]+)=(?P<word>[^\[\]]*))?\]'
)

_NAMES: Final = re.compile(r'[^.\[\]"]+(?:\.[^.\[\]"]+)*+')  # what most paths are

Get = Callable[[Any], Any]


class PathError(ValueError):
    """A path can't be understood. The message says why."""


class TooMany(Exception):
    """A record holds more elements than are read one by one."""


class _Step(NamedTuple):
    """One step: into the entry of a name, to the element of a number, or to the one whose `name` is `word`."""

    name: str = ""
    quoted: bool = False
    number: int | None = None
    word: str | None = None
    each: bool = False

    @property
    def joins(self) -> bool:
        """Whether it may be a part of a longer name with dots in it."""
        return bool(self.name) and self.word is None and not self.quoted and self.name != OUTER


@dataclass(frozen=True)
class Path:
    """A path that can be followed."""

    text: str
    steps: tuple[_Step, ...] = field(repr=False)

    @cached_property
    def get(self) -> Get:
        """Gives what stands there in a record, or None."""
        return _compiled(self.steps)

    @cached_property
    def roots(self) -> frozenset[str]:
        """The names of the record itself of which one must be there for the path to lead anywhere."""
        return _roots(self.steps)

    @cached_property
    def names(self) -> tuple[str, ...]:
        """Its names, where it is nothing but names, and none of a header."""
        return tuple(step.name for step in self.steps) if _is_plain(self.steps) else ()


def first_of(paths: tuple[Path, ...]) -> Get:
    """What stands at the first of the places that holds something.

    A place where a log writes that there is nothing (`-`, `unknown`) counts if no other holds more.
    """
    if len(paths) == 1:
        return paths[0].get
    gets = tuple(path.get for path in paths)

    def get(record: Any) -> Any:
        nothing = None
        for one in gets:
            value = one(record)
            if value is not None:
                if value.__class__ is not str or value not in ABSENT:
                    return value
                nothing = value
        return nothing

    return get


def compile_path(text: str) -> Path:
    """Make a path of what a mapping file says. Raises PathError."""
    steps = _steps(text)
    if any(step.each for step in steps):
        raise PathError("[] stands for many elements: that goes only with `each`")
    return Path(text, steps)


@dataclass(frozen=True, slots=True)
class Each:
    """A compiled path to many elements."""

    text: str
    lists: tuple[Get, ...]
    roots: frozenset[str]

    def elements(self, record: dict[str, Any]) -> list[dict[str, Any]]:
        """The elements, each an object that also holds what is around it under `^`.

        Raises:
            TooMany: There are more than `MAX_ELEMENTS`.
        """
        found = [record]
        for get in self.lists:
            inner: list[dict[str, Any]] = []
            for outer in found:
                inner.extend(_elements(get(outer), outer, MAX_ELEMENTS - len(inner)))
            found = inner
        return found


def compile_each(text: str) -> Each:
    """Compile a path with at least one `[]`, the last of them at its end. Raises PathError."""
    steps = _steps(text)
    if not steps[-1].each:
        raise PathError("it must end in [], for example calls[]")
    lists, part = [], list[_Step]()
    for step in steps:
        if not step.each:
            part.append(step)
            continue
        if not part:
            raise PathError("before [] there must be a name")
        lists.append(_compiled(tuple(part)))
        part = []
    first = tuple(steps[: next(index for index, step in enumerate(steps) if step.each)])
    return Each(text, tuple(lists), _roots(first))


def _elements(value: Any, outer: dict[str, Any], room: int) -> Iterator[dict[str, Any]]:
    if isinstance(value, str):
        value = json_in(value)
    found = value if isinstance(value, list) else [value] if isinstance(value, dict) else []
    if len(found) > room:
        raise TooMany
    for item in found:
        yield {**item, OUTER: outer} if isinstance(item, dict) else {SCALAR: item, OUTER: outer}


def _steps(text: str) -> tuple[_Step, ...]:
    if _NAMES.fullmatch(text) is not None and text.count(".") < _MAX_STEPS:
        return tuple(map(_Step, text.split(".")))
    found: list[_Step] = []
    at = 0
    while at < len(text) and len(found) <= _MAX_STEPS:
        match = _STEP.match(text, at)
        if match is None:
            raise PathError(f"at character {at + 1} there must be a name, a name in quotes, or [...]")
        bracket = text[at] == "["
        if bracket and not found:
            raise PathError("a path begins with a name")
        found.append(_step(match))
        at = match.end()
        if at < len(text) and text[at] != "[":
            if text[at] != "." or at + 1 == len(text) or text[at + 1] == "[":
                raise PathError(f"at character {at + 1} there must be a dot and a name, or [...]")
            at += 1
    if not found:
        raise PathError("a path must not be empty")
    if len(found) > _MAX_STEPS:
        raise PathError(f"more than {_MAX_STEPS} steps")
    return tuple(found)


def _step(match: re.Match[str]) -> _Step:
    if match["name"] is not None:
        return _Step(match["name"])
    if match["quoted"] is not None:
        return _Step(match["quoted"], quoted=True)
    if match["index"] is not None:
        index = int(match["index"])
        if abs(index) > _MAX_INDEX:
            raise PathError(f"a number in brackets is at most {_MAX_INDEX}")
        return _Step(number=index)
    if match["key"] is not None:
        return _Step(match["key"], word=match["word"])
    return _Step(each=True)


def _choices(steps: tuple[_Step, ...], at: int) -> list[tuple[str, int]]:
    """The names that may be meant from a step on, longest first, each with the step behind it."""
    end = at + 1
    if steps[at].joins:
        while end < len(steps) and steps[end].joins:
            end += 1
    return [(".".join(step.name for step in steps[at:stop]), stop) for stop in range(end, at, -1)]


def _roots(steps: tuple[_Step, ...]) -> frozenset[str]:
    return frozenset(name for name, _ in _choices(steps, 0))


def _compiled(steps: tuple[_Step, ...]) -> Get:
    behind: Get | None = None
    compiled: dict[int, Get | None] = {len(steps): None}
    for at in range(len(steps) - 1, -1, -1):
        step = steps[at]
        behind = compiled[at + 1]
        if step.number is not None:
            compiled[at] = _at_index(step.number, behind)
        elif step.word is not None:
            compiled[at] = _picked(step.name, step.word, behind)
        else:
            choices = [(name, compiled[stop]) for name, stop in _choices(steps, at)]
            header = at > 0 and _holds_headers(steps[at - 1])
            compiled[at] = _named(choices, header)
    found = compiled[0]
    assert found is not None
    return _straight(steps, 0, compiled) if _is_plain(steps) else found


def _is_plain(steps: tuple[_Step, ...]) -> bool:
    """Whether there are only names, none of which is that of a header."""
    return all(step.name and step.word is None for step in steps) and not any(map(_holds_headers, steps[:-1]))


def _holds_headers(step: _Step) -> bool:
    return step.word is None and step.name.lower().endswith("headers")


def _straight(steps: tuple[_Step, ...], at: int, slow: dict[int, Get | None]) -> Get:
    """Down plain names, through objects, as nearly always; where anything else is met the slow way goes on."""
    name = steps[at].name
    if at + 1 == len(steps):
        return lambda record: record.get(name)
    behind, otherwise = _straight(steps, at + 1, slow), slow[at]
    assert otherwise is not None
    joined = [choice for choice, _ in _choices(steps, at)[:-1]]
    if len(joined) > 1:
        others = frozenset(joined)

        def get_far(record: Any) -> Any:
            inner = record.get(name)
            if inner.__class__ is dict and record.keys().isdisjoint(others):
                return behind(inner)
            return otherwise(record)

        return get_far
    whole = joined[0] if joined else None
    last = steps[at + 1].name if at + 2 == len(steps) else None

    def get(record: Any) -> Any:
        inner = record.get(name)
        if inner.__class__ is dict and whole not in record:
            return inner.get(last) if last is not None else behind(inner)
        return record.get(whole) if inner is None else otherwise(record)

    return get


def _named(choices: list[tuple[str, Get | None]], header: bool) -> Get:
    """Into the entry of a name; into the element of a list where the name is a number."""
    last, behind = choices[-1]
    index = int(last) if last.isascii() and last.isdigit() and len(last) < 5 else None

    def get(value: Any) -> Any:
        if value.__class__ is str:
            value = json_in(value)
        if value.__class__ is dict:
            for name, then in choices:
                found = value.get(name)
                if found is None and header:
                    found = _folded(value, name)
                if found is not None:
                    if then is not None:
                        found = then(found)
                    if found is not None:
                        return found
        elif index is not None and value.__class__ is list and index < len(value):
            return value[index] if behind is None else behind(value[index])
        return None

    return get


def _at_index(index: int, behind: Get | None) -> Get:
    def get(value: Any) -> Any:
        if value.__class__ is str:
            value = json_in(value)
        if value.__class__ is not list or not -len(value) <= index < len(value):
            return None
        return value[index] if behind is None else behind(value[index])

    return get


def _picked(name: str, word: str, behind: Get | None) -> Get:
    """To the first object of a list that has a value under a name."""

    def get(value: Any) -> Any:
        if value.__class__ is str:
            value = json_in(value)
        if value.__class__ is list:
            for item in value:
                if item.__class__ is dict and word_of(item.get(name)) == word:
                    return item if behind is None else behind(item)
        return None

    return get


def _folded(headers: dict[str, Any], name: str) -> Any:
    """The header of a name, which is written in whatever case."""
    wanted = name.lower()
    return next((value for key, value in headers.items() if key.lower() == wanted), None)


def word_of(value: object) -> str | None:
    """A value as JSON writes it, without quotes: what a mapping file calls it by. None for lists and objects."""
    if value.__class__ is str:
        return value
    if value is None or isinstance(value, bool):
        return _SPELLED[value]
    if isinstance(value, int | float):
        try:
            return str(value)
        except ValueError:  # more digits than Python writes
            return None
    return None


_SPELLED: Final[dict[object, str]] = {None: "null", True: "true", False: "false"}

_parsed: tuple[str, Any] = ("", None)


def json_in(text: str) -> Any:
    """The object or list that a text holds as JSON, also one that was cut off; None for any other text.

    At most 1 MiB and 100 levels. The last one is remembered: several paths lead into the same text.
    """
    global _parsed
    before = _parsed
    if before[0] is text:
        return before[1]
    start = text.lstrip()[:1] if text[:1].isspace() else text[:1]
    if start not in ("{", "[") or not start or len(text) > _MAX_TEXT:
        return None
    try:
        value, _ = parse_json(text.encode("utf-8", "surrogatepass"))
    except RecursionError:
        value = None
    except ValueError:
        value = parse_cut_json(text)
        # of "[redacted]" nothing is read: that is a text, and no list
        value = _marked(value) if value else None
    if not isinstance(value, dict | list) or _deep(value, text):
        value = None
    _parsed = (text, value)
    return value


def _marked(value: Any) -> Any:
    """What was read of a text that was cut off, with a mark in the object that its end stood in."""
    inner = value
    while isinstance(inner, dict | list):
        last = (
            next(reversed(inner.values()), None) if isinstance(inner, dict) else inner[-1] if inner else None
        )
        if not isinstance(last, dict):
            break
        inner = last
    if isinstance(inner, dict):
        inner[CUT[0]] = CUT[1]
    return value


def _deep(value: Any, text: str) -> bool:
    if text.count("{") + text.count("[") <= _MAX_DEPTH:
        return False
    level = [value]
    for _ in range(_MAX_DEPTH):
        level = [
            inner
            for item in level
            for inner in (item.values() if isinstance(item, dict) else item)
            if isinstance(inner, dict | list)
        ]
        if not level:
            return False
    return True
