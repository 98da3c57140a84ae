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
from functools import partial
from typing import Any, Final, Literal

from mcpwatch import credentials
from mcpwatch.policy import notable
from mcpwatch.policy.effort import Effort
from mcpwatch.policy.notable import Own
from mcpwatch.policy.params import MAX_DEPTH, MAX_JSON, TEXT_NAMES, TOO_MUCH, plain_name

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
ALL: Final = SECRET | HOSTILE | SENSITIVE | TAMPER

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
_HOSTILE: Final[tuple[tuple[re.Pattern[str], re.Pattern[str] | None, str], ...]] = (
    (re.compile(r"[\x1b\x90\x98\x9b\x9d-\x9f]"), None, "a terminal escape sequence"),
    (
        re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1a\x1c-\x1f\x7f-\x8f\x91-\x97\x99\x9a\x9c]"),
        None,
        "a control character",
    ),
    (re.compile("[\u202a-\u202e\u2066-\u206f]"), None, "a change of writing direction"),
    (
        re.compile(f"[{_ZERO_WIDTH}]"),
        re.compile(rf"[{_LETTERS}./\\~][{_ZERO_WIDTH}]++[{_LETTERS}/\\]"),
        "a zero-width character inside a word",
    ),
    (
        re.compile(f"[{_ZERO_WIDTH}]"),
        re.compile(f"[{_ZERO_WIDTH}]{{4}}"),
        "a run of zero-width characters",
    ),
    (re.compile("[\U000e0000-\U000e007f]"), None, "invisible tag characters"),
    (re.compile("[\ud800-\udfff]"), None, "half a surrogate pair"),
    (
        re.compile("[\ufe00-\ufe0f\U000e0100-\U000e01ef]"),
        re.compile("[\ufe00-\ufe0f\U000e0100-\U000e01ef]{5}"),
        "a run of variation selectors",
    ),
)
"""What is hostile: a character of it, how several of them must stand if one alone means nothing, and what it is."""
_ODD: Final = re.compile(
    r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f"
    f"\u202a-\u202e\u2066-\u206f{_ZERO_WIDTH}\ufe00-\ufe0f\ud800-\udfff\U000e0000-\U000e01ef]"
)
# The flags of England, Scotland, Wales and the like are a black flag and a region's code in tag characters.
_BLACK_FLAG: Final = "\U0001f3f4"
_FLAGS: Final = re.compile(_BLACK_FLAG + "[\U000e0030-\U000e0039\U000e0061-\U000e007a]{3,6}\U000e007f")

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
    if _BLACK_FLAG in text:
        text = _FLAGS.sub("", text)
    # most patterns are asked of the few different characters instead of a text that may be as long as a line
    characters = "".join(set(text))
    for character, pattern, what in _HOSTILE:
        if character.search(characters) and (pattern is None or pattern.search(text)):
            yield "hostile", what


def _notable(text: str, look: int, own: Own) -> Iterator[tuple[Kind, str]]:
    paths: set[str] = set()
    if look in (_PATCH, _ANYHOW):
        paths.update(map(notable.plain, set(_PATCHED.findall(text))))
    if look in (_VALUE, _COMMAND, _ANYHOW):
        paths.update(notable.paths_in(text, bare=look != _VALUE))
    for path in notable.telling(paths, own):
        yield from notable.found(path, own)
    if look in (_COMMAND, _ANYHOW) and _CRONTAB.search(text):
        yield "tampering", "scheduled jobs"


def _found(text: str, look: int, own: Own) -> Iterator[tuple[Kind, str]]:
    possible = _possible(text, own.words)
    if possible & SECRET:
        for secret in credentials.find(text):
            yield "secret", secret.kind
    yield from _hostile(text)
    if possible & _FILES:
        yield from _notable(text, look, own)


class _Object(list[tuple[str, Any]]):
    """A JSON object with all its members: which of two equal names counts, readers don't agree on."""


def _from_json(text: str) -> object | None:
    """The object or array that a text holds as JSON, or None."""
    if len(text) > MAX_JSON or text.lstrip()[:1] not in ("{", "["):
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


def _texts(params: object, effort: Effort | None = None) -> Iterator[tuple[str, str | None, int]]:
    """Each text in a call's parameters, as (name, text, how to look at it); the text is None where it is too much."""
    left = effort if effort is not None else Effort()
    left.values += 1  # the parameters as a whole are no value
    # (name, value, how to look at it, depth, inside JSON text already)
    waiting: deque[tuple[str, object, int, int, bool]] = deque([("", params, _VALUE, -1, False)])
    while waiting:
        name, value, look, depth, parsed = waiting.popleft()
        left.values -= 1
        if left.values < 0 or depth > MAX_DEPTH:
            yield name, None, look
            return
        if isinstance(value, str):
            inner = None if parsed else _from_json(value)
            if inner is None:
                yield name, value, look
            else:
                # looked at next, as no more than one of them should be held: they are larger than their text
                waiting.appendleft((name, inner, look, depth + 1, True))
        elif (members := _members(value)) is not None:
            for key, item in members:
                text = key if isinstance(key, str) else ""
                inside = f"{name}.{text[:_MAX_KEY]}" if name else text[:_MAX_KEY]
                yield inside, text, _VALUE
                waiting.append((inside, item, _LOOKS.get(plain_name(text), _VALUE), depth + 1, parsed))
                if len(waiting) > left.values:
                    break
        elif isinstance(value, list | tuple | set | frozenset):
            for number, item in enumerate(value):
                waiting.append((f"{name}.{number}" if name else str(number), item, look, depth + 1, parsed))
                if len(waiting) > left.values:
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
        elif text:
            found = dict.fromkeys(_found(text, look, mine))
            result += [Mark(kind, name, what, text) for kind, what in found]
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
_FILES: Final = SENSITIVE | TAMPER
_NO_OWN: Final = notable.own_files(())
_ESCAPED_BLANK: Final = re.compile(r"\\[nrt]")
_JSON_STARTS: Final = frozenset("{[ \t\r\n")


def bits_of(text: str, own: tuple[str, ...] = ()) -> int:
    """The kinds of marks that one text can have, as bits: `SECRET | HOSTILE | SENSITIVE | TAMPER`; 0 for nearly all.

    Whatever `marks` finds in the text has its bit set, under whichever name the text stands. Depends on the text
    and `own` alone, so callers can keep the answer. Cheap for plain text: a few searches and its set of words.
    """
    if not text:
        return 0
    if text[0] in _JSON_STARTS and (inner := _from_json(text)) is not None:
        return bits_in(inner, partial(bits_of, own=own))
    bits = 0
    for kind, _ in _found(text, _ANYHOW, notable.own_files(own) if own else _NO_OWN):
        bits |= BITS[kind]
    return bits


def _possible(text: str, own_words: frozenset[bytes] | None) -> int:
    """Which marks other than hostile ones a text may have. Never wrong about those that it may not have."""
    words = notable.words_of(text)
    if "%" in text or "\\" in text or not text.isascii():
        words += notable.words_of(notable.plain(text))
        if "\\" in text:
            words += notable.words_of(_ESCAPED_BLANK.sub(" ", text))
    possible = 0
    if not _ANCHOR_WORDS.isdisjoint(words) or any(anchor in text for anchor in _GLUED_ANCHORS):
        possible |= SECRET
    if own_words is None or not (notable.WORDS.isdisjoint(words) and own_words.isdisjoint(words)):
        possible |= _FILES
    return possible


def is_hostile(text: str) -> bool:
    """Whether there is a hostile mark in one text, or in the JSON that it holds."""
    return any(inner is None or any(_hostile(inner)) for _, inner, _ in _texts(text))


def bits_in(params: object, of: Callable[[str], int] = bits_of, effort: Effort | None = None) -> int:
    """The kinds of marks that a call's parameters can have: `marks` finds none whose bit isn't set.

    Args:
        params: Any JSON value.
        of: `bits_of`, or something that answers as it does and remembers.
        effort: What is left for the values of the call, where these are not all of them.
    """
    bits = 0
    for _, text, _ in _texts(params, effort):
        # behind what is too much anything may stand
        bits |= ALL if text is None else of(text)
        if bits == ALL:
            break
    return bits
