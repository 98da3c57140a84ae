"""Conditions on records: what `match` and `when` of a mapping file say.

A condition is a path and what must stand there: a value, one of several, or what is true of it
(`{starts: "tools/"}`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final, NamedTuple

from mcpwatch.formats.fields import ABSENT
from mcpwatch.formats.paths import Path, word_of

Test = Callable[[Any], bool]
"""Whether a value (None where there is none) is as it should be."""

KINDS_OF_VALUES: Final[dict[str, Test]] = {
    "text": lambda value: isinstance(value, str),
    "number": lambda value: isinstance(value, int | float) and not isinstance(value, bool),
    "object": lambda value: isinstance(value, dict),
    "list": lambda value: isinstance(value, list),
    "bool": lambda value: isinstance(value, bool),
}
"""What `{kind: …}` can ask for."""


class Condition(NamedTuple):
    """A condition on records.

    Attributes:
        path: Where it looks.
        test: What must hold there.
    """

    path: Path
    test: Test

    @property
    def roots(self) -> frozenset[str] | None:
        """The names of a record one of which it must have for the condition to hold; None: it may hold for any."""
        return None if self.test(None) else self.path.roots


def equals(words: Sequence[str]) -> Test:
    """One of these, as JSON writes it without quotes: `200`, `true`, `null`."""
    wanted = frozenset(words)
    return lambda value: (value if value.__class__ is str else word_of(value)) in wanted


def differs(words: Sequence[str]) -> Test:
    """None of these."""
    unwanted = frozenset(words)
    return lambda value: word_of(value) not in unwanted


def present(wanted: bool) -> Test:
    """Something there, or nothing: also where a log writes that there is nothing (`-`, `unknown`)."""
    return lambda value: (value is not None and not (value.__class__ is str and value in ABSENT)) is wanted


def starts(texts: Sequence[str]) -> Test:
    """A text that begins with one of these."""
    beginnings = tuple(texts)
    return lambda value: value.__class__ is str and value.startswith(beginnings)


def contains(texts: Sequence[str]) -> Test:
    """A text in which one of these stands."""
    return lambda value: value.__class__ is str and any(text in value for text in texts)


def all_hold(conditions: Sequence[Condition], record: dict[str, Any]) -> bool:
    """Whether the record meets every one."""
    for path, test in conditions:  # noqa: SIM110 - a generator would cost more than the test
        if not test(path.get(record)):
            return False
    return True
