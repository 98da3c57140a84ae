"""The filter language: which events to show, or which events a rule is about.

    tool:shell_execute tier>=high client:acme* -status:success path:/etc "free text"

Terms side by side must all hold; `and`, `or`, `not`, `-` and parentheses say it otherwise. A filter is parsed
once and then asked for every event, so everything about a term is decided while parsing, and an answer takes
time linear in the size of the event: no regular expression is ever made from what somebody typed.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from itertools import islice
from math import inf, nextafter
from types import MappingProxyType
from typing import Any, Final, Literal, NamedTuple, cast

from mcpwatch.errors import Misused
from mcpwatch.event import KINDS, OUTCOMES, AuditEvent
from mcpwatch.text import safe
from mcpwatch.times import DAY, HOUR, MINUTE, SECOND, parse_rfc3339

MAX_TEXT: Final = 2_000
MAX_TERMS: Final = 100
MAX_NESTING: Final = 32
MAX_COMPLETIONS: Final = 50
_MAX_VALUES: Final = 1 << 20  # more values than a line of 1 MiB can hold, so padding hides nothing

FieldKind = Literal["text", "contains", "prefix", "ordered", "number", "time"]
Part = Literal["kind", "caller", "event"]
"""Part of an event: many events have the same kind (kind, tool, tier, status) and the same caller."""
KIND: Final[tuple[Part, ...]] = ("kind",)
KIND_AND_CALLER: Final[tuple[Part, ...]] = ("kind", "caller")
_Test = Callable[[Any], bool]
_TIERS: Final = ("low", "medium", "high")
_WORDS: Final = frozenset({"and", "or", "not"})


class FilterError(Misused, ValueError):
    """The filter text can't be understood.

    Attributes:
        position: Where in the text, from 0. The message counts from 1, as people do.
    """

    def __init__(self, problem: str, position: int, advice: str = "") -> None:
        super().__init__(f"{problem} at {position + 1}" + (f"; {advice}" if advice else ""))
        self.position = position


def _param_strings(event: AuditEvent) -> Iterator[str]:
    waiting: list[object] = [event.params]
    for _ in range(_MAX_VALUES):
        if not waiting:
            return
        value = waiting.pop()
        if isinstance(value, str):
            yield value
        elif isinstance(value, dict):
            waiting.extend(value.values())
        elif isinstance(value, list | tuple):
            waiting.extend(value)


@dataclass(frozen=True, slots=True)
class Field:
    """Something of an event that a filter can name.

    Attributes:
        kind: How its values compare: whole text with globs, text that contains or begins with what was given,
            one of `values` in their order, a number, a time.
        get: Takes the event and its tier, gives the value, None where there is none. For `contains` and
            `prefix` it gives any number of strings.
        values: All there are, in order, where that is known.
        aliases: Other names: those of the log schema and of OpenTelemetry.
        part: Which part of an event decides its value.
    """

    name: str
    kind: FieldKind
    get: Callable[[AuditEvent, str | None], object]
    help: str
    examples: tuple[str, ...]
    values: tuple[str, ...] = ()
    aliases: tuple[str, ...] = ()
    part: Part = "event"


def _params(event: AuditEvent, _tier: str | None) -> Iterator[str]:
    return _param_strings(event)


_ROWS: Final = (
    Field("tool", "text", lambda e, _: e.tool, "name of the tool", ("tool:shell_execute", "tool:file_*"), (),
          ("gen_ai.tool.name",), "kind"),
    Field("tier", "ordered", lambda _, tier: tier, "risk tier of the tool", ("tier>=medium",), _TIERS, (), "kind"),
    Field("status", "text", lambda e, _: e.status, "outcome", ("-status:success",), tuple(sorted(OUTCOMES)), (),
          "kind"),
    Field("kind", "text", lambda e, _: e.event, "kind of event", ("kind:auth",), tuple(sorted(KINDS)), ("event",),
          "kind"),
    Field("key", "text", lambda e, _: e.key_id, "key id", ("key:key_0007",), (), ("key_id",), "caller"),
    Field("client", "text", lambda e, _: e.client_id, "client id", ("client:acme*",), (), ("client_id",), "caller"),
    Field("session", "text", lambda e, _: e.session_id, "session id", ("session:s-81c2",), (),
          ("session_id", "mcp.session.id"), "caller"),
    Field("subject", "text", lambda e, _: e.subject, "authenticated subject", ("subject:*@example.com",), (),
          ("enduser.id",), "caller"),
    Field("ip", "text", lambda e, _: e.source_ip, "source address", ("ip:10.*",), (),
          ("source_ip", "client.address"), "caller"),
    Field("server", "text", lambda e, _: e.server, "MCP server", ("server:files",), (), ("service.name",)),
    Field("source", "text", lambda e, _: e.source, "log that it came from", ("source:audit.jsonl",)),
    Field("call", "text", lambda e, _: e.call_id, "id of the call", ("call:c-1f3a",), (),
          ("call_id", "gen_ai.tool.call.id")),
    Field("path", "prefix", _params, "a parameter begins with this", ("path:/etc",)),
    Field("url", "prefix", _params, "a parameter begins with this", ("url:https://api.",)),
    Field("param", "contains", _params, "a parameter contains this", ('param:"rm -rf"',), (),
          ("gen_ai.tool.call.arguments",)),
    Field("error", "contains", lambda e, _: (e.error,), "the error contains this", ("error:timeout",), (),
          ("error.message",)),
    Field("duration", "number", lambda e, _: e.duration_ms, "execution time; ms, s, m",
          ("duration>=100ms", "duration>2s"), (), ("duration_ms",)),
    Field("time", "time", lambda e, _: e.time_ns, "time, UTC", ("time>=08:30", "time<2026-11-22T03:14:07Z")),
)  # fmt: skip

FIELDS: Final[Mapping[str, Field]] = MappingProxyType({row.name: row for row in _ROWS})
"""Every field by its name."""

_BY_ANY_NAME: Final = {name: row for row in _ROWS for name in (row.name, *row.aliases)}


def _free_strings(event: AuditEvent) -> Iterator[object]:
    yield from (event.tool, event.key_id, event.client_id, event.session_id)
    yield from (event.subject, event.source_ip, event.error)
    yield from _param_strings(event)


@dataclass(frozen=True, slots=True)
class Term:
    """One condition on an event. Without a field: free text.

    Attributes:
        literal: The value was quoted although it holds `*` or `?`, which therefore stand for themselves.
    """

    of: Field | None
    op: str
    value: str
    literal: bool
    test: Callable[[AuditEvent, str | None], bool] = field(compare=False, repr=False)

    def match(self, event: AuditEvent, tier: str | None) -> bool:
        """Whether the condition holds."""
        return self.test(event, tier)

    def __str__(self) -> str:
        if self.of is None:
            return self.value if _is_word(self.value) else _in_quotes(self.value)
        bare = not self.literal and _BARE.fullmatch(self.value)
        return self.of.name + self.op + (self.value if bare else _in_quotes(self.value))


@dataclass(frozen=True, slots=True)
class Not:
    """The opposite."""

    part: Node

    def match(self, event: AuditEvent, tier: str | None) -> bool:
        """Whether the part does not hold."""
        return not self.part.match(event, tier)

    def __str__(self) -> str:
        return f"-({self.part})" if isinstance(self.part, AllOf | AnyOf) else f"-{self.part}"


@dataclass(frozen=True, slots=True)
class AllOf:
    """Every part must hold; with no parts, it always does."""

    parts: tuple[Node, ...]

    def match(self, event: AuditEvent, tier: str | None) -> bool:
        """Whether every part holds."""
        return all(part.match(event, tier) for part in self.parts)

    def __str__(self) -> str:
        return " ".join(f"({part})" if isinstance(part, AnyOf) else str(part) for part in self.parts)


@dataclass(frozen=True, slots=True)
class AnyOf:
    """One part must hold."""

    parts: tuple[Node, ...]
    tests: tuple[Callable[[AuditEvent, str | None], bool], ...] = field(init=False, compare=False, repr=False)

    def __post_init__(self) -> None:
        # what looks for several texts in the same strings goes through them once: a line of 1 MiB holds many
        wanted: dict[str, list[str]] = {}
        tests: list[Callable[[AuditEvent, str | None], bool]] = []
        for part in self.parts:
            if (
                isinstance(part, Term)
                and part.of is not None
                and part.of.kind == "contains"
                and part.op == ":"
            ):
                wanted.setdefault(part.of.name, []).append(part.value)
            else:
                tests.append(part.match)
        tests += [_contains_any(FIELDS[name], values) for name, values in wanted.items()]
        object.__setattr__(self, "tests", tuple(tests))

    def match(self, event: AuditEvent, tier: str | None) -> bool:
        """Whether some part holds."""
        return any(test(event, tier) for test in self.tests)

    def __str__(self) -> str:
        return " or ".join(map(str, self.parts))


Node = Term | Not | AllOf | AnyOf


@dataclass(frozen=True, slots=True)
class Filter:
    """A parsed filter. Two are equal when they are built alike, however they were typed.

    `str()` writes it in one canonical way, which shows how it was understood and parses to an equal filter.

    Attributes:
        text: What was typed.
    """

    text: str = field(compare=False)
    root: Node

    def match(self, event: AuditEvent, tier: str | None) -> bool:
        """Whether the event passes. Never raises.

        Args:
            event: A normalised event.
            tier: Risk tier of its tool: `high`, `medium`, `low`, or None where it has none.
        """
        return self.root.match(event, tier)

    @property
    def parts(self) -> frozenset[Part]:
        """The parts of an event that it looks at; free text looks at all of it."""
        return frozenset(_parts(self.root))

    def settle(self, example: AuditEvent, tier: str | None, known: Collection[Part]) -> Filter | bool:
        """What is left to ask of events that have the known parts in common with an example.

        True or False where those parts decide for all of them.
        """
        left = _settle(self.root, example, tier, known)
        return left if isinstance(left, bool) else Filter(self.text, left)

    def __str__(self) -> str:
        canonical = str(self.root)
        # it may be longer by the blanks that `(a)(b)` can do without, and must not outgrow what parses
        return canonical if len(canonical) <= MAX_TEXT else self.text


def _parts(node: Node) -> Iterator[Part]:
    if isinstance(node, Term):
        yield node.of.part if node.of is not None else "event"
    elif isinstance(node, Not):
        yield from _parts(node.part)
    else:
        for part in node.parts:
            yield from _parts(part)


def _settle(node: Node, example: AuditEvent, tier: str | None, known: Collection[Part]) -> Node | bool:
    if isinstance(node, Term):
        return node.match(example, tier) if node.of is not None and node.of.part in known else node
    if isinstance(node, Not):
        left = _settle(node.part, example, tier, known)
        return not left if isinstance(left, bool) else Not(left)
    # one part can decide for the whole: a true one in AnyOf, a false one in AllOf
    decisive = isinstance(node, AnyOf)
    open_parts: list[Node] = []
    for part in node.parts:
        left = _settle(part, example, tier, known)
        if left is decisive:
            return decisive
        if not isinstance(left, bool):
            open_parts.append(left)
    return _join(type(node), open_parts) if open_parts else not decisive


def _fits(piece: str, value: str, at: int) -> bool:
    if "?" not in piece:
        return value.startswith(piece, at)
    return len(value) - at >= len(piece) and all(
        wanted in ("?", found) for wanted, found in zip(piece, value[at : at + len(piece)], strict=True)
    )


def _finder(piece: str) -> Callable[[str, int, int], int]:
    """Make a `str.find` for a piece in which `?` is any character, linear whatever the text."""
    if "?" not in piece:
        return lambda value, start, end: value.find(piece, start, end)
    wild = sum(1 << at for at, char in enumerate(piece) if char == "?")
    masks = dict.fromkeys(piece, wild)
    for at, char in enumerate(piece):
        masks[char] |= 1 << at
    done = 1 << (len(piece) - 1)

    def find(value: str, start: int, end: int) -> int:
        state = 0  # bit k: the last k + 1 characters fit the first k + 1 of the piece
        for at in range(start, end):
            state = (state << 1 | 1) & masks.get(value[at], wild)
            if state & done:
                return at - len(piece) + 1
        return -1

    return find


def _glob(pattern: str) -> Callable[[str], bool]:
    """Make a test of whole texts against a pattern with `*` and `?`.

    Each piece between stars is looked for once, behind the one before: the first place is always good enough,
    so nothing is ever tried twice.
    """
    first, *rest = pattern.split("*")
    if not rest:
        return lambda value: len(value) == len(first) and _fits(first, value, 0)
    last = rest.pop()
    middle = [(_finder(piece), len(piece)) for piece in rest if piece]

    def match(value: str) -> bool:
        at, end = len(first), len(value) - len(last)
        if at > end or not _fits(first, value, 0) or not _fits(last, value, end):
            return False
        for find, size in middle:
            found = find(value, at, end)
            if found < 0:
                return False
            at = found + size
        return True

    return match


def _shown(value: str) -> str:
    return f"'{safe(value, 60)}'"


def _did_you_mean(word: str, known: Iterable[str]) -> str:
    near = get_close_matches(word[:40].lower(), known, n=1, cutoff=0.5)
    return f"did you mean {near[0]!r}?" if near else ""


def _text_test(row: Field, value: str, literal: bool, position: int) -> _Test:
    wanted = value.casefold()
    globbing = not literal and ("*" in value or "?" in value)
    if row.values and not globbing and wanted not in row.values:
        advice = _did_you_mean(value, row.values) or f"use {', '.join(row.values)}"
        raise FilterError(f"unknown {row.name} {_shown(value)}", position, advice)
    if not globbing:
        return lambda found: isinstance(found, str) and found.casefold() == wanted
    fits = _glob(wanted)
    return lambda found: isinstance(found, str) and fits(found.casefold())


def _contains(wanted: Collection[str], strings: Iterable[object]) -> bool:
    """Whether a string holds one of some texts; a blank in those stands for any run of blanks."""
    # all of them at once, as there may be a hundred thousand
    text = "\0".join(string for string in strings if isinstance(string, str)).casefold()
    folded = [each.casefold() for each in wanted]
    if any(each in text for each in folded):
        return True
    spaced = [each for each in folded if " " in each and all(word in text for word in each.split())]
    if not spaced:
        return False
    even = f" {' '.join(text.split())} "
    return any(each in even for each in spaced)


def _contains_test(_row: Field, value: str, _literal: bool, _position: int) -> _Test:
    return lambda found: _contains((value,), found)


def _contains_any(row: Field, values: Collection[str]) -> Callable[[AuditEvent, str | None], bool]:
    get = row.get
    return lambda event, tier: _contains(values, cast("Iterable[object]", get(event, tier)))


def _prefix_test(_row: Field, value: str, _literal: bool, _position: int) -> _Test:
    wanted = value.casefold()
    # a folded character never is shorter than itself, so the head of the text is enough
    return lambda found: any(text[: len(wanted)].casefold().startswith(wanted) for text in found)


_TEXT_TESTS: Final[Mapping[str, Callable[[Field, str, bool, int], _Test]]] = {
    "text": _text_test,
    "contains": _contains_test,
    "prefix": _prefix_test,
}

_Scale = Callable[[Any], "float | None"]
"""Puts a field's value on the scale on which it is compared; None where it has no place there."""


def _tier_span(value: str, position: int) -> tuple[float, float, _Scale]:
    ranks = {name: rank for rank, name in enumerate(_TIERS)}
    rank = ranks.get(value.lower())
    if rank is None:
        raise FilterError(f"unknown tier {_shown(value)}", position, "use low, medium or high")
    return rank, rank + 1, lambda tier: ranks.get(tier) if isinstance(tier, str) else None


_NUMBER: Final = re.compile(r"(\d{1,12}(?:\.\d{1,6})?)(ms|s|m)?", re.ASCII)
_UNITS: Final = {None: 1, "ms": 1, "s": 1_000, "m": 60_000}


def _number_span(value: str, position: int) -> tuple[float, float, _Scale]:
    found = _NUMBER.fullmatch(value.lower())
    if found is None:
        raise FilterError(f"no duration {_shown(value)}", position, "write 100ms, 2s or 1m")
    low = float(found[1]) * _UNITS[found[2]]
    return low, nextafter(low, inf), lambda ms: ms if isinstance(ms, int | float) else None


_OF_DAY: Final = re.compile(r"([01]?\d|2[0-3]):([0-5]\d)(?::([0-5]\d))?", re.ASCII)
_FRACTION: Final = re.compile(r"[.,](\d+)")
_NO_SECONDS: Final = re.compile(r"[^:]*:\d\d(?:\Z|[^:\d].*)", re.DOTALL)


def _time_span(value: str, position: int) -> tuple[float, float, _Scale]:
    of_day = _OF_DAY.fullmatch(value)
    if of_day is not None:
        low = int(of_day[1]) * HOUR + int(of_day[2]) * MINUTE + int(of_day[3] or 0) * SECOND
        width = SECOND if of_day[3] else MINUTE
        return low, low + width, lambda ns: ns % DAY if isinstance(ns, int) else None
    moment = parse_rfc3339(value)
    if moment is None:
        advice = "write 08:30, 08:30:15 or 2026-11-22T08:30:00Z"
        raise FilterError(f"no time {_shown(value)}", position, advice)
    fraction = _FRACTION.search(value)
    width = 10 ** max(0, 9 - len(fraction[1])) if fraction else SECOND
    if _NO_SECONDS.fullmatch(value):
        width = MINUTE
    return moment[0], moment[0] + width, lambda ns: ns if isinstance(ns, int) else None


_SPANS: Final[Mapping[str, Callable[[str, int], tuple[float, float, _Scale]]]] = {
    "ordered": _tier_span,
    "number": _number_span,
    "time": _time_span,
}
# What is given is a span, from low up to but not including high: 08:30 is that whole minute.
_COMPARISONS: Final[Mapping[str, Callable[[float, float, float], bool]]] = {
    ":": lambda found, low, high: low <= found < high,
    ">=": lambda found, low, high: found >= low,
    "<=": lambda found, low, high: found < high,
    ">": lambda found, low, high: found >= high,
    "<": lambda found, low, high: found < low,
}


def _span_test(row: Field, op: str, value: str, position: int) -> _Test:
    low, high, scale = _SPANS[row.kind](value, position)
    compare = _COMPARISONS[op]

    def test(found: object) -> bool:
        place = scale(found)
        return place is not None and compare(place, low, high)

    return test


def _field_term(row: Field, op: str, value: str, literal: bool, position: int) -> Term:
    op = ":" if op == "=" else op
    positive = ":" if op == "!=" else op
    get = row.get
    if row.kind in _TEXT_TESTS:
        literal = literal and row.kind == "text" and ("*" in value or "?" in value)
        test = _TEXT_TESTS[row.kind](row, value, literal, position)
    else:
        literal = False
        test = _span_test(row, positive, value, position)
    if op == "!=":
        return Term(row, op, value, literal, lambda event, tier: not test(get(event, tier)))
    return Term(row, op, value, literal, lambda event, tier: test(get(event, tier)))


def _free_term(value: str) -> Term:
    wanted = value.casefold()
    return Term(
        None,
        "",
        value,
        False,
        lambda event, _: any(
            isinstance(text, str) and wanted in text.casefold() for text in _free_strings(event)
        ),
    )


_TOKEN: Final = re.compile(
    r"""(?P<space>\s+)|(?P<mark>[()-])
    |(?P<head>(?P<name>[A-Za-z_]+(?:\.[A-Za-z_]+)*)(?P<op>!=|>=|<=|[:=<>]))?
     (?:"(?P<quoted>(?:[^"\\]|\\.?)*+)(?P<close>"?)|(?P<bare>[^\s()"][^\s()]*)?)""",
    re.VERBOSE | re.DOTALL,
)
_BARE: Final = re.compile(r'[^\s()"][^\s()]*')
_ESCAPED: Final = re.compile(r'\\(["\\])')


def _in_quotes(value: str) -> str:
    return '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'


def _is_word(value: str) -> bool:
    """Whether free text can stand without quotes."""
    token = _TOKEN.match(value)
    return token is not None and token["bare"] == value and value.lower() not in _WORDS


def quote(value: str) -> str:
    """Write a value so that, after `field:`, it stands for exactly itself."""
    plain = _BARE.fullmatch(value) and "*" not in value and "?" not in value
    return value if plain else _in_quotes(value)


class _Token(NamedTuple):
    position: int
    mark: str
    """`(`, `)`, `-`, `and`, `or`, `not`, `end`, or `term`."""
    term: Term | None = None


def _read_term(token: re.Match[str]) -> Term:
    quoted, name, op = token["quoted"], token["name"], token["op"]
    value = _ESCAPED.sub(r"\1", quoted) if quoted is not None else token["bare"] or ""
    if quoted is not None and not token["close"]:
        raise FilterError("quote is never closed", token.start("quoted") - 1)
    if name is None:
        if not value:
            raise FilterError("nothing between the quotes", token.start())
        return _free_term(value)
    row = _BY_ANY_NAME.get(name.lower())
    if row is None and "." in name and quoted is None and value:
        return _free_term(token[0])  # host:port
    if row is None:
        advice = _did_you_mean(name, _BY_ANY_NAME) or "put it in quotes to search for it as text"
        raise FilterError(f"unknown field {_shown(name)}", token.start(), advice)
    if row.kind in _TEXT_TESTS and op not in (":", "=", "!="):
        raise FilterError(f"{name!r} can't be compared with {op!r}", token.start("op"), "use ':' or '!='")
    if not value and quoted is None:
        raise FilterError(f"no value after {token['head']!r}", token.end())
    return _field_term(row, op, value, quoted is not None, token.end("head"))


def _tokens(text: str) -> Iterator[_Token]:
    position = terms = 0
    while position < len(text):
        token = _TOKEN.match(text, position)
        assert token is not None  # every character begins one of the alternatives
        if token["mark"]:
            yield _Token(position, token["mark"])
        elif not token["space"]:
            word = token[0].lower()
            if word in _WORDS:
                yield _Token(position, word)
            else:
                terms += 1
                if terms > MAX_TERMS:
                    raise FilterError(f"more than {MAX_TERMS} terms", position)
                yield _Token(position, "term", _read_term(token))
        position = token.end()
    yield _Token(len(text), "end")


def _join(kind: type[AllOf] | type[AnyOf], parts: list[Node]) -> Node:
    if len(parts) == 1:
        return parts[0]
    # `(a b) c` means what `a b c` means, and so is the same filter
    flat = [inner for part in parts for inner in (part.parts if isinstance(part, kind) else (part,))]
    return kind(tuple(flat))


def _any_of(tokens: list[_Token], depth: int) -> Node:
    parts = [_all_of(tokens, depth)]
    while tokens[-1].mark == "or":
        tokens.pop()
        parts.append(_all_of(tokens, depth))
    return _join(AnyOf, parts)


def _all_of(tokens: list[_Token], depth: int) -> Node:
    parts = [_one(tokens, depth)]
    while tokens[-1].mark not in ("or", ")", "end"):
        if tokens[-1].mark == "and":
            tokens.pop()
        parts.append(_one(tokens, depth))
    return _join(AllOf, parts)


def _one(tokens: list[_Token], depth: int) -> Node:
    token = tokens.pop()
    if token.term is not None:
        return token.term
    if depth == MAX_NESTING and token.mark in ("-", "not", "("):
        raise FilterError(f"nested deeper than {MAX_NESTING}", token.position)
    if token.mark in ("-", "not"):
        return Not(_one(tokens, depth + 1))
    if token.mark == "(":
        inner = _any_of(tokens, depth + 1)
        if tokens.pop().mark != ")":
            raise FilterError("'(' is never closed", token.position)
        return inner
    if token.mark == "end":
        raise FilterError("a term is missing", token.position)
    raise FilterError(f"a term is missing before {token.mark!r}", token.position)


def parse(text: str) -> Filter:
    """Read a filter. Blank text lets everything pass.

    Raises:
        FilterError: It can't be understood, or is too long, too large or nested too deep.
    """
    if len(text) > MAX_TEXT:
        raise FilterError(f"filter is longer than {MAX_TEXT} characters", MAX_TEXT)
    tokens = list(_tokens(text))[::-1]
    if len(tokens) == 1:
        return Filter(text, AllOf(()))
    root = _any_of(tokens, 0)
    if tokens[-1].mark == ")":
        raise FilterError("')' closes nothing", tokens[-1].position)
    return Filter(text, root)


def word_start(text: str, cursor: int) -> int:
    """Where the word at the cursor begins: what a completion replaces is `text[word_start:cursor]`."""
    typed = text[:cursor]
    position = 0
    while position < len(typed):
        token = _TOKEN.match(typed, position)
        assert token is not None  # every character begins one of the alternatives
        if token.end() == len(typed) and not token["space"] and not token["mark"]:
            return position
        position = token.end()
    return len(typed)


def complete(text: str, cursor: int, values: Callable[[str], Iterable[str]]) -> list[str]:
    """What the word at the cursor could become: field names with their `:`, or a field with a value.

    Each completion replaces the whole word (see `word_start`). Values that can't be shown as they are, and so
    can't be typed, are left out.

    Args:
        text: The filter as typed so far; it need not parse.
        cursor: Characters of it that are before the cursor.
        values: Gives the values of a field by its name, likeliest first; not asked where all are known.
    """
    word = text[word_start(text, cursor) : cursor]
    token = _TOKEN.fullmatch(word)
    if token is None or token["name"] is None:
        return [f"{name}:" for name in FIELDS if name.startswith(word.lower())]
    row = _BY_ANY_NAME.get(token["name"].lower())
    if row is None:
        return []
    typed = _ESCAPED.sub(r"\1", token["quoted"] or token["bare"] or "").casefold()
    fitting = (
        token["head"] + quote(value)
        for value in row.values or values(row.name)
        if value.casefold().startswith(typed) and safe(value) == value
    )
    return list(islice(fitting, MAX_COMPLETIONS))


def _help() -> str:
    width = max(map(len, FIELDS))
    lines = [f"{row.name:<{width}}  {row.help}: {', '.join(row.examples)}" for row in FIELDS.values()]
    lines += [
        "",
        "Terms side by side must all hold; otherwise say and, or, not, -term, ( ).",
        'Other words, and anything in "quotes", are looked for in names, addresses, errors and parameters.',
        "Case does not matter. * is any text, ? any character; in quotes they are themselves.",
        "tier, duration and time also take = != >= <= > <; a time is its whole minute or second.",
        "key:* has a key, -key:* has none.",
    ]
    return "\n".join(lines)


HELP: Final = _help()
"""The language on one screen."""
