"""What a record says twice: one key that stands there two times, or one field under two names with two values.

Every JSON parser has its own answer to two equal keys, most keep the last, some the first: so a record can be made
that says one thing to the server or its log shipper and another to whoever watches. mcpwatch keeps the last, as most
do, says so by `Flag.DUPLICATE_KEYS`, and shows what else was said.
"""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Callable, Collection, Iterable
from typing import Any, Final

from mcpwatch.event import AuditEvent, Flag
from mcpwatch.formats.fields import ALIASES, status_of, text_of
from mcpwatch.formats.lenient import parse_json, repaired, visible
from mcpwatch.formats.mapping import Mapping
from mcpwatch.formats.transport import MAX_LEVELS, bare, unwrap
from mcpwatch.text import redact

Twice = tuple[str, tuple[str, ...]]
"""A name (or names, `tool, toolName`), and what was said under it, in order, redacted; not yet safe to show."""

# who does what, and how it ended: what verdicts hang on
_FIELDS: Final = ("tool", "params", "status", "key_id", "auth")
KEYS: Final = frozenset(name for field in _FIELDS for name in ALIASES[field])
"""Names of the fields that verdicts hang on: of these none may stand twice in a record."""

_MAX_VALUE: Final = 400
# \u0041 to \u007a: letters and the underscore, which no writer has a reason to escape, least of all in a name
_ESCAPED_LETTER: Final = re.compile(rb"\\u00[4-7][0-9a-fA-F]")


def _tools_differ(first: str, second: str) -> bool:
    # a gateway's prefixed name beside the plain one is the same tool: github__create_issue, create_issue
    return not (first.endswith(second) or second.endswith(first))


def _outcomes_differ(first: str, second: str) -> bool:
    # `error` beside 403 is one outcome in coarse and in fine words; a success beside a refusal is not
    said = {status_of(first), status_of(second)} - {"unknown"}
    return "success" in said and len(said) > 1


_RIVALS: Final[dict[str, tuple[tuple[str, ...], Callable[[str, str], bool]]]] = {
    "tool": (ALIASES["tool"], _tools_differ),
    # `decision`, `success` and `status_code` speak of something else than the outcome often enough
    "status": (("status", "outcome", "result_status"), _outcomes_differ),
    # key_name is what people call the key
    "key_id": (("key_id", "keyId", "api_key_id", "apiKeyId"), str.__ne__),
}
"""Field -> its names that mean exactly the same, and whether two values of them contradict each other."""


def keys_of(mapping: Mapping) -> frozenset[str]:
    """The same for the records of a mapping, with the names by which it tells how they are read."""
    return mapping.places(*_FIELDS)


def quoted(names: Iterable[str]) -> tuple[bytes, ...]:
    """Names as they stand in a record."""
    return tuple(b'"%s"' % name.encode("utf-8", "surrogatepass") for name in names)


def may_repeat(raw: bytes, names: Iterable[bytes]) -> bool:
    """Whether a key of these may stand twice in a record: quick, and right when it says no.

    Args:
        raw: The record.
        names: Those that must not, and that it has, as `quoted` gives them.
    """
    if b"\\u00" in raw and _ESCAPED_LETTER.search(raw) is not None:
        return True
    for name in names:  # noqa: SIM110 - a generator would cost more than the search
        if raw.count(name) > 1:
            return True
    return False


def repeated_keys(text: str) -> tuple[Twice, ...]:
    """The keys that stand more than once in a JSON object itself, each with all its values."""
    outermost: list[tuple[str, Any]] = []

    def remember(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        outermost[:] = pairs  # inner objects end first: the last call is the object itself
        return dict(pairs)

    try:
        if not isinstance(
            json.loads(repaired(text), strict=False, parse_int=str, object_pairs_hook=remember), dict
        ):
            return ()
    except (ValueError, RecursionError):
        return ()
    said: dict[str, list[Any]] = {}
    for name, value in outermost:
        said.setdefault(name, []).append(value)
    return tuple((name, tuple(map(shown, values))) for name, values in said.items() if len(values) > 1)


RIVALS: Final = tuple(frozenset(names) for names, _ in _RIVALS.values())
"""The names that mean the same, field by field."""


def rivals(record: dict[str, Any]) -> tuple[Twice, ...]:
    """The fields that a record names by two names with values that contradict each other."""
    found = []
    for names, differ in _RIVALS.values():
        said = [(name, text) for name in names if (text := text_of(record.get(name))) is not None]
        if any(differ(said[0][1], text) for _, text in said[1:]):
            found.append((", ".join(name for name, _ in said), tuple(shown(text) for _, text in said)))
    return tuple(found)


def shown(value: Any) -> str:
    """A value as it is told of, redacted and cut."""
    found = redact(value)
    return (found if isinstance(found, str) else json.dumps(found, default=str))[:_MAX_VALUE]


def repeats(text: bytes, names: Collection[bytes]) -> bool:
    """Whether one of the keys of these names, as `quoted` gives them, stands twice in a record."""
    if not may_repeat(text, names):
        return False
    twice = (name for name, _ in repeated_keys(visible(text)[0]))
    return any(name in names for name in quoted(twice))


def look_for_repeats(event: AuditEvent, text: bytes, names: Collection[bytes]) -> None:
    """Flag an event one of whose keys of these names, as `quoted` gives them, stands twice in its record."""
    if repeats(text, names):
        event.flags |= Flag.DUPLICATE_KEYS


def said_twice(event: AuditEvent) -> tuple[Twice, ...]:
    """What the record of an event with `Flag.DUPLICATE_KEYS` says twice.

    Each is a name, or several that mean the same (`tool, toolName`), and all that was said under it, in order: the
    last counts for one name, the first for several. Redacted; still to be made safe.
    """
    text = bare(event.origin.lines[event.index])
    found: list[Twice] = []
    for _ in range(MAX_LEVELS):
        wrapped = unwrap(text)
        if wrapped is None:
            break
        _, inner = wrapped
        if inner.others:
            messages = (*inner.others, inner.text)
            found.append(("message", tuple(shown(visible(message)[0]) for message in messages)))
        text = bare(inner.text)
    found += repeated_keys(visible(text)[0])
    with contextlib.suppress(ValueError, RecursionError):
        record, _ = parse_json(text)
        found += rivals(record) if isinstance(record, dict) else ()
    return tuple(found)
