"""What a judge remembers: of small values what it found, of a call with large ones what it may still cost."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from mcpwatch.policy.effort import Effort
from mcpwatch.policy.params import NEITHER, PATH, URL
from mcpwatch.policy.verdict import Finding

MAX_NAME: Final = 256
"""Longest name of a tool or a parameter that is remembered."""
_MAX_CACHED: Final = 8_192
_MAX_CACHED_TOGETHER: Final = 65_536
_MAX_CACHED_TEXT: Final = 200

Known = dict[tuple[str, object], "int | Bad"]
"""What is known of a (name, value): the bits of the aspects it was fine in and of its marks, or what is not fine."""

_PLAIN_URL: Final = re.compile(r"(https?://[A-Za-z0-9.-]+(?::[0-9]+)?/)[A-Za-z0-9_./?&=%+-]*\Z")
_PLAIN_PATH: Final = re.compile(r"(/(?:[A-Za-z0-9_-][A-Za-z0-9_.-]*/)*)[A-Za-z0-9_-][A-Za-z0-9_.-]*\Z")
_PLAIN_WORDS: Final = re.compile(r"[A-Za-z0-9 _+*=(),-]*\Z")
WORDS: Final = (NEITHER, "")
"""The kin of mere words."""
_SPECIAL: Final = re.compile(r"runcated|/(?:proc|dev)/")


def kin_of(value: object) -> tuple[int, str] | None:
    """What decides about a plain value: the site of a URL, the folder of a path, nothing of mere words.

    Values of one kin are all fine or all not, since none has a character that could be read in another way. A log
    names a new file in every other call, and seldom a new folder.

    Returns:
        (role, site or folder); a tuple, so that no value of a log is ever equal to it. None for other values.
    """
    if type(value) is not str or len(value) > _MAX_CACHED_TEXT or _SPECIAL.search(value) is not None:
        return None
    for role, plain in ((PATH, _PLAIN_PATH), (URL, _PLAIN_URL)):
        match = plain.match(value)
        if match is not None:
            return role, match[1]
    return WORDS if _PLAIN_WORDS.match(value) else None


@dataclass(frozen=True, slots=True)
class Bad:
    """What is not fine about a parameter, and the bits of the aspects and marks that were seen in it."""

    seen: int
    findings: tuple[Finding, ...]


class Call:
    """One call while it is judged: what is known of its large parameters, and what they may still cost.

    Whether a value is large depends on nothing but the call, so that its verdict never depends on the calls before.

    Attributes:
        judge: Of which tool it is, and
        params: with which parameters; a call is known again by both.
        effort: What is left for its paths and URLs,
        search: and for what stands out in its texts.
        known: What was found of its parameters, by name.
    """

    __slots__ = ("effort", "judge", "known", "params", "search")

    def __init__(self, judge: object, params: Mapping[str, object]) -> None:
        self.judge = judge
        self.params = params
        self.effort = Effort()
        self.search = Effort()
        self.known: dict[object, int | Bad] = {}


class Memory:
    """The bound on what the judges of all tools keep together: a log may name any number of tools."""

    __slots__ = ("_all", "_size", "call")

    def __init__(self) -> None:
        self._all: list[Known] = []
        self._size = 0
        self.call: Call | None = None
        """The newest call with something that is too large to be kept."""

    def new(self) -> Known:
        """A place for what is known of the values of one tool."""
        known: Known = {}
        self._all.append(known)
        return known

    def put(self, known: Known, item: tuple[str, object], result: int | Bad) -> None:
        """Remember what was found of a value, in one of those places."""
        if self._size >= _MAX_CACHED_TOGETHER:
            for each in self._all:
                each.clear()
            self._size = 0
        elif len(known) >= _MAX_CACHED:
            self._size -= len(known)
            known.clear()
        known[item] = result
        self._size += 1


def is_small(name: object, value: object) -> bool:
    """Whether a parameter is remembered beyond its call: one that is cheap to keep, and to judge anew."""
    if not isinstance(name, str) or len(name) > MAX_NAME:
        return False
    if isinstance(value, str):
        return len(value) <= _MAX_CACHED_TEXT
    return (
        value is None or isinstance(value, bool | float) or (isinstance(value, int) and abs(value) < 1 << 63)
    )
