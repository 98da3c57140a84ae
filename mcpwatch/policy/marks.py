"""What stands out in the text of a call, whatever the policy says of it.

Credentials, text that hides or steers something, and paths of files that hold secrets or that steer agents and
hosts. Whether the tool reads or writes such a file, and whether that matters, is for others to decide. The text
of a call is hostile: everything here takes any of it, never raises, and takes time linear in its length.
"""

from __future__ import annotations

import json
import re
from collections import deque
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final, Literal

from mcpwatch import credentials
from mcpwatch.policy import notable
from mcpwatch.policy.notable import Own
from mcpwatch.policy.params import MAX_DEPTH, MAX_VALUES, TEXT_NAMES, TOO_MUCH, plain_name

Kind = Literal["secret", "hostile", "sensitive", "tampering"]

# Plain bits, as enum arithmetic is too slow for every value of a log.
SECRET: Final = 1
HOSTILE: Final = 2
SENSITIVE: Final = 4
TAMPER: Final = 8
BITS: Final[Mapping[Kind, int]] = {
    "secret": SECRET,
    "hostile": HOSTILE,
    "sensitive": SENSITIVE,
    "tampering": TAMPER,
}
"""The bit that stands for each kind of mark."""

_MAX_JSON: Final = 65_536
_MAX_KEY: Final = 128


@dataclass(frozen=True, slots=True)
class Mark:
    """Something that stands out in one value of a call.

    Attributes:
        name: The parameter, with dots down to nested ones (`edits.0.path`). Untrusted text.
        what: What it is, in words of this program's own.
        value: The text that holds it, as logged: untrusted, and perhaps a secret. Empty when there is too much.
    """

    kind: Kind
    name: str
    what: str
    value: str


_ZERO_WIDTH: Final = "\u200b-\u200d\u2060-\u2064\ufeff\u180e"
# Scripts that have no use for zero-width characters inside a word, unlike Persian, Khmer or the scripts of India.
_LETTERS: Final = "0-9A-Za-z_\u00c0-\u024f\u0370-\u052f\u1e00-\u1fff"
_HOSTILE: Final[tuple[tuple[re.Pattern[str], str], ...]] = (
    (re.compile(r"[\x1b\x90\x98\x9b\x9d-\x9f]"), "a terminal escape sequence"),
    (
        re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1a\x1c-\x1f\x7f-\x8f\x91-\x97\x99\x9a\x9c]"),
        "a control character",
    ),
    (re.compile("[\u202a-\u202e\u2066-\u206f]"), "a change of writing direction"),
    (
        re.compile(rf"[{_LETTERS}./\\~][{_ZERO_WIDTH}]+[{_LETTERS}/\\]"),
        "a zero-width character inside a word",
    ),
    (re.compile(f"[{_ZERO_WIDTH}]{{4}}"), "a run of zero-width characters"),
    (re.compile("[\U000e0000-\U000e007f]"), "invisible tag characters"),
    (re.compile("[\ud800-\udfff]"), "half a surrogate pair"),
    (re.compile("[\ufe00-\ufe0f\U000e0100-\U000e01ef]{5}"), "a run of variation selectors"),
)
_ODD: Final = re.compile(
    r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f"
    f"\u202a-\u202e\u2066-\u206f{_ZERO_WIDTH}\ufe00-\ufe0f\ud800-\udfff\U000e0000-\U000e01ef]"
)
# The flags of England, Scotland, Wales and the like are a black flag and a region's code in tag characters.
_FLAGS: Final = re.compile("\U0001f3f4[\U000e0030-\U000e0039\U000e0061-\U000e007a]{3,6}\U000e007f")

# How a value is searched for paths, by the name of its parameter.
_PROSE: Final = 0
_VALUE: Final = 1
_COMMAND: Final = 2
_PATCH: Final = 3
_ANYHOW: Final = 4

_LOOKS: Final[Mapping[str, int]] = {
    # what a file is to hold, what somebody asks: there a path is only talked about
    **dict.fromkeys(TEXT_NAMES, _PROSE),
    "pattern": _VALUE,
    **dict.fromkeys(
        ("command", "cmd", "commands", "cmdline", "command_line", "script", "code", "sql"), _COMMAND
    ),
    **dict.fromkeys(("expression", "args", "argv", "arguments", "shell", "bash", "input", "stdin"), _COMMAND),
    **dict.fromkeys(("diff", "patch"), _PATCH),
}
_PATCHED: Final = re.compile(
    r"^(?:\+\+\+|---|\*\*\* (?:Add|Update|Delete) File:|\*\*\* Move to:|rename to)[ \t]+([^\t\r\n]+)",
    re.MULTILINE,
)
_CRONTAB: Final = re.compile(r"(?<![\w./-])crontab(?![\w./-])(?!\s+-l\b)")


def _hostile(text: str) -> Iterator[tuple[Kind, str]]:
    if (text.isascii() and text.isprintable()) or _ODD.search(text) is None:
        return
    text = _FLAGS.sub("", text)
    for pattern, what in _HOSTILE:
        if pattern.search(text):
            yield "hostile", what


def _notable(text: str, look: int, own: Own) -> Iterator[tuple[Kind, str]]:
    if look in (_PATCH, _ANYHOW):
        for path in _PATCHED.findall(text):
            yield from notable.found(notable.plain(path), own)
    if look in (_VALUE, _COMMAND, _ANYHOW):
        for path in notable.paths_in(text, bare=look != _VALUE):
            yield from notable.found(path, own)
    if look in (_COMMAND, _ANYHOW) and _CRONTAB.search(text):
        yield "tampering", "scheduled jobs"


def _found(text: str, look: int, own: Own) -> Iterator[tuple[Kind, str]]:
    for secret in credentials.find(text):
        yield "secret", secret.kind
    yield from _hostile(text)
    yield from _notable(text, look, own)


class _Object(list[tuple[str, Any]]):
    """A JSON object with all its members: which of two equal names counts, readers don't agree on."""


def _from_json(text: str) -> object | None:
    """The object or array that a text holds as JSON, or None."""
    if len(text) > _MAX_JSON or text.lstrip()[:1] not in ("{", "["):
        return None
    try:
        value: object = json.loads(text, object_pairs_hook=_Object)
    except (ValueError, RecursionError):
        return None
    return value


def _members(value: object) -> Iterable[tuple[object, object]] | None:
    if isinstance(value, Mapping):
        return value.items()
    return value if isinstance(value, _Object) else None


def _texts(params: object) -> Iterator[tuple[str, str | None, int]]:
    """Each text in a call's parameters, as (name, text, how to look at it); the text is None where it is too much."""
    budget = MAX_VALUES + 1  # the parameters as a whole are no value
    # (name, value, how to look at it, depth, inside JSON text already)
    waiting: deque[tuple[str, object, int, int, bool]] = deque([("", params, _VALUE, -1, False)])
    while waiting:
        name, value, look, depth, parsed = waiting.popleft()
        budget -= 1
        if budget < 0 or depth > MAX_DEPTH:
            yield name, None, look
            return
        if isinstance(value, str):
            inner = None if parsed else _from_json(value)
            if inner is None:
                yield name, value, look
            else:
                waiting.append((name, inner, look, depth + 1, True))
        elif (members := _members(value)) is not None:
            for key, item in members:
                text = key if isinstance(key, str) else ""
                inside = f"{name}.{text[:_MAX_KEY]}" if name else text[:_MAX_KEY]
                yield inside, text, _VALUE
                waiting.append((inside, item, _LOOKS.get(plain_name(text), _VALUE), depth + 1, parsed))
                if len(waiting) > budget:
                    break
        elif isinstance(value, list | tuple | set | frozenset):
            for number, item in enumerate(value):
                waiting.append((f"{name}.{number}" if name else str(number), item, look, depth + 1, parsed))
                if len(waiting) > budget:
                    break


def marks(params: object, *, own: Collection[str] = ()) -> tuple[Mark, ...]:
    """What stands out in the parameters of a call: in values, nested ones too, in names, and in JSON inside text.

    Paths are looked for in most values, but not in what is prose by its parameter's name (`content`, `query`).
    More than `MAX_VALUES` values, or more than `MAX_DEPTH` deep, is a hostile mark itself and ends the search.

    Args:
        params: Any JSON value.
        own: Full paths of files or folders that are tampered with when written: the policy, the logs.
    """
    mine = notable.own_files(tuple(own))
    result: list[Mark] = []
    for name, text, look in _texts(params):
        if text is None:
            result.append(Mark("hostile", name, TOO_MUCH, ""))
        else:
            result += [Mark(kind, name, what, text) for kind, what in dict.fromkeys(_found(text, look, mine))]
    return tuple(result)


def _anchors() -> tuple[frozenset[bytes], tuple[str, ...]]:
    """What every credential holds one of: a whole word, or a text that may run on as a longer word."""
    parted: set[bytes] = set()
    glued: list[str] = []
    for anchor in credentials.ANCHORS:
        whole = re.match(r"[^A-Za-z0-9]*([A-Za-z0-9]+)[^A-Za-z0-9]", anchor)
        if whole:
            parted.add(whole[1].lower().encode())
        else:
            glued.append(anchor)
    return frozenset(parted), tuple(glued)


_ANCHOR_WORDS, _GLUED_ANCHORS = _anchors()
_TRIGGERS: Final = _ANCHOR_WORDS | notable.WORDS
_JSON_STARTS: Final = frozenset("{[ \t\r\n")


@lru_cache(maxsize=64)
def _triggers(own: tuple[str, ...]) -> frozenset[bytes] | None:
    """Words that a plain text holds one of if it has a mark and no glued anchor; None where any text could."""
    words = notable.own_files(own).words
    return None if words is None else _TRIGGERS | words


def bits_of(text: str, own: tuple[str, ...] = ()) -> int:
    """The kinds of marks that one text can have, as bits: `SECRET | HOSTILE | SENSITIVE | TAMPER`; 0 for nearly all.

    Whatever `marks` finds in the text has its bit set, under whichever name the text stands. Depends on the text
    and `own` alone, so callers can keep the answer. Cheap for plain text: a few searches and its set of words.
    """
    if not text:
        return 0
    if "%" in text or "\\" in text or text[0] in _JSON_STARTS:
        return _bits(text, own)
    words = notable.words_of(text)
    if not text.isascii():
        words += notable.words_of(notable.plain(text))
    triggers = _triggers(own) if own else _TRIGGERS
    if triggers is None or not triggers.isdisjoint(words):
        return _bits(text, own)
    for anchor in _GLUED_ANCHORS:
        if anchor in text:
            return _bits(text, own)
    return HOSTILE if any(_hostile(text)) else 0


def _bits(text: str, own: tuple[str, ...]) -> int:
    mine = notable.own_files(own)
    bits = 0
    for _, inner, _ in _texts(text):
        if inner is None:
            bits |= HOSTILE
        else:
            for kind, _ in _found(inner, _ANYHOW, mine):
                bits |= BITS[kind]
    return bits


def bits_in(params: object, of: Callable[[str], int] = bits_of) -> int:
    """The kinds of marks that a call's parameters can have: `marks` finds none whose bit isn't set.

    Args:
        params: Any JSON value.
        of: `bits_of`, or something that answers as it does and remembers.
    """
    bits = 0
    for _, text, _ in _texts(params):
        bits |= HOSTILE if text is None else of(text)
    return bits
