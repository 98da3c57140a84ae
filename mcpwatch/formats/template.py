"""Templates: what a line of text says, described by one with names in the places of what changes.

    {prefix}Tool '{tool}' failed after {ms:number}ms: {error:rest}

A template stands for a whole line; what is not in braces must be there to the letter, `{{` and `}}` are braces.

| place            | takes                                                                                       |
|------------------|---------------------------------------------------------------------------------------------|
| `{name}`         | text up to the first of what follows it in the template, or to the end                      |
| `{name:word}`    | the same, without blanks; up to a blank where a place follows at once                       |
| `{name:number}`  | digits, with a sign and a fraction                                                          |
| `{name:time}`    | a time in one of the usual spellings, given as RFC 3339                                     |
| `{name:json}`    | a JSON object or array to its end; to the end of the line where it is cut off or damaged    |
| `{name:logfmt}`  | `key=value` pairs to the end; their keys are names of the record                            |
| `{name:rest}`    | everything to the end                                                                       |
| `{prefix}`       | what a logging set-up puts before a message, or nothing; gives `time` and `level`           |
| `{?…}`           | a part that may be missing; it is taken where it is there                                   |

A line is read in time linear in its length, whatever it holds: no place is ever tried a second time.
"""

from __future__ import annotations

import re
from typing import Final, NamedTuple

from mcpwatch.formats.cutjson import json_end
from mcpwatch.formats.keyvalue import read_pairs
from mcpwatch.formats.lenient import parse_json
from mcpwatch.formats.moments import read_moment

MAX_PREFIX: Final = 160
"""Longest prefix, in characters: more is no beginning of a line but a message."""
MAX_OPTIONAL: Final = 4
"""Most parts of a template that may be missing."""

_PLACE: Final = re.compile(r"\{\{|\}\}|\{\?|\{([^{}:?]*)(?::([^{}]*))?\}|[{}]|[^{}]+")
_NAME: Final = re.compile(r"[A-Za-z_@][\w.@-]{0,127}", re.ASCII)
_NUMBER: Final = re.compile(r"[+-]?\d{1,40}(?:\.\d{1,40})?", re.ASCII)
_WORD: Final = re.compile(r"\S+")
_KINDS: Final = ("text", "word", "number", "time", "json", "logfmt", "rest", "prefix")

_MAY_FOLLOW: Final = {"text": ("is",), "word": ("is", "rest")}
"""What must stand behind a place that ends where the next part begins."""

_GIVEN: Final[dict[str, tuple[str, ...]]] = {"is": (), "logfmt": (), "prefix": ("time", "level")}
"""What a part gives, where that is not what stands in a place under its name."""
# what names a method of MCP or holds a sentence is a message already, and the rest of it what a caller said
_NOT_IN_PREFIX: Final = re.compile(
    r"[\"'`{}=]|(?<![\w/.])(?:tools|resources|prompts|completion|logging|sampling|roots|tasks)/[a-z]"
    r"|(?<!\w)(?:[a-z]+ ){4}"
)
_FIRST_DIGIT: Final = re.compile(r"(?<![\w/:.-])\d", re.ASCII)
_LEVEL: Final = re.compile(
    r"(?<![\w.])(?:trace|debug|info|notice|warn|warning|error|err|critical|fatal|audit)(?![\w.])",
    re.IGNORECASE,
)
# where pairs begin, for a prefix right before them: no prefix has an equals sign
_FIRST_KEY: Final = re.compile(r"[A-Za-z_@][^\s=\"'{}\[\],;|:]{0,127}=")


class _Part(NamedTuple):
    """A piece of a template: text that stands there to the letter (kind `is`), or a place."""

    kind: str
    text: str
    """The text, or the name of the place."""


_OPTION: Final = _Part("option", "")
"""Where a part stood that may be missing: what is before it and what is behind it need not stand together."""


class _Step(NamedTuple):
    """A part, ready to read with; a place that goes to where a text begins is one step with that text.

    Attributes:
        text: The text, or the name of the place.
        until: The text that follows such a place; empty for any other.
        follows: The kind of what comes behind; empty at the end.
    """

    kind: str
    text: str
    until: str
    follows: str


class Template(NamedTuple):
    """A template that lines can be read with: called with a line it gives what stands in its places, or None.

    Attributes:
        forms: The template with each choice of its optional parts; those with most of them first.
        needs: A text that stands in each of its lines: where it does not, nobody need try.
        places: The names that it can give; those of a place for `key=value` pairs are the line's to choose.
    """

    forms: tuple[tuple[_Step, ...], ...]
    needs: str
    places: frozenset[str]

    def __call__(self, line: str) -> dict[str, str] | None:
        """What stands in its places; None where the line is another."""
        for steps in self.forms:
            found: dict[str, str] = {}
            if _matches(steps, 0, line, 0, found):
                return found
        return None


def compile_template(template: str) -> Template:
    """Make a template of what a mapping file says.

    Raises:
        ValueError: The template can't be used; the message says what is wrong with it.
    """
    every, forms = _forms(template.strip())
    for parts in forms:
        _check(parts)
    places: set[str] = set()
    for part in (part for parts in forms for part in parts):
        places.update(_GIVEN.get(part.kind, (part.text,)))
    return Template(tuple(map(_steps, forms)), _needed(every), frozenset(places))


def _needed(parts: list[_Part]) -> str:
    """The longest text that stands in all lines of these parts."""
    texts = [part.text for part in parts if part.kind == "is"]
    if not texts and parts[-1].kind == "logfmt":
        return "="
    if not texts and [part.kind for part in parts[:2]] == ["prefix", "json"]:
        return "{"
    return max(texts, key=len, default="")


def _forms(template: str) -> tuple[list[_Part], list[list[_Part]]]:
    """What no line may lack, and the template with each choice of its optional parts (those with most first)."""
    every: list[_Part] = []
    forms: list[list[_Part]] = [[]]
    before: list[list[_Part]] | None = None  # the forms as they were before the optional part that is open
    options = 0
    for piece in _PLACE.finditer(template):
        sign = piece.group()
        if sign == "{?":
            if before is not None:
                raise ValueError("{?…} can't stand in another {?…}")
            options += 1
            if options > MAX_OPTIONAL:
                raise ValueError(f"more than {MAX_OPTIONAL} parts {{?…}}: write two templates")
            before = [list(parts) for parts in forms]
        elif sign == "}" and before is not None:
            forms, before = [form for pair in zip(forms, before, strict=True) for form in pair], None
            every.append(_OPTION)
        elif sign in ("{", "}"):
            raise ValueError(f"a {sign} without its other half: a brace itself is written {sign * 2}")
        else:
            part = _part(sign[0] if sign in ("{{", "}}") else sign, piece[1], piece[2])
            for parts in (*forms, every) if before is None else forms:
                _add(parts, part)
    if before is not None:
        raise ValueError("{? without its }")
    return every, forms


def _part(text: str, name: str | None, kind: str | None) -> _Part:
    if name is None:
        return _Part("is", text)
    if kind is None:
        kind = "prefix" if name == "prefix" else "text"
    if kind not in _KINDS:
        raise ValueError(f"{text}: no such kind of place; there are: {', '.join(_KINDS)}")
    if _NAME.fullmatch(name) is None:
        raise ValueError(f"{text}: a place needs a name of letters, digits, . _ and -")
    return _Part(kind, name)


def _add(parts: list[_Part], part: _Part) -> None:
    if part.kind == "is" and parts and parts[-1].kind == "is":
        parts[-1] = _Part("is", parts[-1].text + part.text)
    else:
        parts.append(part)


def _check(parts: list[_Part]) -> None:
    """Make sure that each place can be told from the next."""
    names = [part.text for part in parts if part.kind not in ("is", "prefix", "logfmt")]
    for name in names:
        if names.count(name) > 1:
            raise ValueError(f"{{{name}}} stands twice")
    for index, part in enumerate(parts):
        after = parts[index + 1] if index + 1 < len(parts) else None
        if part.kind == "prefix" and index:
            raise ValueError("{prefix} must stand at the beginning")
        if part.kind in ("rest", "logfmt") and after is not None:
            raise ValueError(f"{{{part.text}:{part.kind}}} goes to the end: nothing can follow it")
        if after is not None and after.kind not in _MAY_FOLLOW.get(part.kind, ("is", *_KINDS)):
            raise ValueError(
                f"nothing stands between {{{part.text}}} and {{{after.text}}}: where does it end?"
            )
        if part.kind == "prefix" and (after is None or after.kind not in ("is", "json", "logfmt")):
            raise ValueError("{prefix} must be followed by a text, or by a place for json or logfmt")
    if not any(part.text.strip() if part.kind == "is" else part.kind in ("json", "logfmt") for part in parts):
        raise ValueError("every line would fit: there must be a text by which its lines are known")


def _steps(parts: list[_Part]) -> tuple[_Step, ...]:
    steps = []
    at = 0
    while at < len(parts):
        kind, text = parts[at]
        at += 1
        until = ""
        if kind in ("text", "word", "prefix") and at < len(parts) and parts[at].kind == "is":
            until = parts[at].text
            at += 1
        steps.append(_Step(kind, text, until, parts[at].kind if at < len(parts) else ""))
    return tuple(steps)


def _matches(steps: tuple[_Step, ...], index: int, line: str, at: int, found: dict[str, str]) -> bool:
    """Whether the line from `at` on is what the steps from `index` on say; puts what stands in places into found."""
    for kind, name, until, follows in steps[index:] if index else steps:
        if kind == "is":
            if not line.startswith(name, at):
                return False
            at += len(name)
        elif until:
            if follows:
                limit = at + MAX_PREFIX + len(until) if kind == "prefix" else len(line)
                end = line.find(until, at, limit)
            else:  # the last of the template ends the line
                end = _ending(kind, line, until, at)
            if end < 0 or not _takes(kind, name, line, at, end, found):
                return False
            at = end + len(until)
        elif kind == "json":
            return _reads_json(steps, index, line, at, found)
        else:
            at = _place_end(kind, name, follows, line, at, found)
            if at < 0:
                return False
        index += 1
    return at == len(line)


def _ending(kind: str, line: str, text: str, at: int) -> int:
    """Where the text begins that ends the line; a prefix goes to where it stands first."""
    if kind == "prefix":
        return line.find(text, at, at + MAX_PREFIX + len(text))
    end = len(line) - len(text)
    return end if end >= at and line.endswith(text) else -1


def _takes(kind: str, name: str, line: str, at: int, end: int, found: dict[str, str]) -> bool:
    """Whether a place takes this piece of the line, which ends where what follows it begins."""
    value = line[at:end]
    if kind == "prefix":
        return _reads_prefix(value, line[end], found)
    if kind == "word" and (not value or value.split(None, 1)[0] != value):
        return False
    found[name] = value
    return True


def _place_end(kind: str, name: str, after: str, line: str, at: int, found: dict[str, str]) -> int:
    """Read a place that says itself where it ends; where that is, or -1.

    Args:
        after: The kind of the part behind it; empty at the end.
    """
    if kind == "prefix":
        end = _start_of(after, line, at)
        return end if end >= 0 and _reads_prefix(line[at:end], line[end], found) else -1
    if kind == "logfmt":
        pairs = read_pairs(line, at)
        for key, value in (pairs or {}).items():
            found.setdefault(key, value)
        return len(line) if pairs else -1
    if kind == "time":
        moment = read_moment(line, at)
        if moment is None:
            return -1
        found[name] = moment.time
        return moment.end
    if kind in ("number", "word"):
        taken = (_NUMBER if kind == "number" else _WORD).match(line, at)
        if taken is None:
            return -1
        found[name] = taken.group()
        return taken.end()
    found[name] = line[at:]
    return len(line)


def _reads_json(steps: tuple[_Step, ...], index: int, line: str, at: int, found: dict[str, str]) -> bool:
    name = steps[index].text
    if line[at : at + 1] not in ("{", "["):
        return False
    end = json_end(line, at)
    if end is not None:
        tried = {**found, name: line[at:end]}
        if _matches(steps, index + 1, line, end, tried):
            found.update(tried)
            return True
        if _is_json(line[at:end]):
            return False
    # cut off or damaged: whatever else there is belongs to it, as far as anybody can tell
    found[name] = line[at:]
    return True


def _is_json(text: str) -> bool:
    try:
        parse_json(text.encode("utf-8", "surrogatepass"))
    except (ValueError, RecursionError):
        return False
    return True


def _start_of(kind: str, line: str, at: int) -> int:
    """Where what follows a prefix begins: a JSON object or array, or pairs. -1: nowhere near."""
    if kind == "logfmt":
        key = _FIRST_KEY.search(line, at, at + MAX_PREFIX + 128)
        return key.start() if key is not None and key.start() - at <= MAX_PREFIX else -1
    return line.find("{", at, at + MAX_PREFIX + 1)


def _reads_prefix(text: str, behind: str, found: dict[str, str]) -> bool:
    """Whether a text is what a logging set-up puts before a message; notes its time and its level.

    Args:
        behind: The message's first character.
    """
    if len(text) > MAX_PREFIX or _NOT_IN_PREFIX.search(text) is not None:
        return False
    if text[-1:].isalnum() and behind.isalnum():  # in the middle of a word
        return False
    for digit in _FIRST_DIGIT.finditer(text):
        moment = read_moment(text, digit.start())
        if moment is not None:
            found.setdefault("time", moment.time)
            break
    level = _LEVEL.search(text)
    if level is not None:
        found.setdefault("level", level.group().lower())
    return True
