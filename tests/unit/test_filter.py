"""What is promised about the filter language: what it means, what it refuses, and that it always ends."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from mcpwatch.event import KINDS, OUTCOMES, AuditEvent, Auth
from mcpwatch.filter import (
    FIELDS,
    HELP,
    KIND,
    KIND_AND_CALLER,
    MAX_COMPLETIONS,
    MAX_NESTING,
    MAX_TERMS,
    MAX_TEXT,
    FilterError,
    Part,
    complete,
    parse,
    quote,
    word_start,
)
from mcpwatch.sources.block import Block
from mcpwatch.times import SECOND

EVENT = AuditEvent(
    event="tool_call",
    tool="shell_execute",
    params={"cmd": "rm -rf /", "opts": {"cwd": ["/etc/ssh", {"u": "https://api.openai.com/v1"}], "n": 7}},
    status="denied",
    error="Permission refused",
    duration_ms=1_500.0,
    key_id="key_0007",
    client_id="acme-bot",
    session_id="s-81c2",
    source_ip="10.1.2.3",
    auth=Auth(subject="Alice@Example.com"),
    server="files",
    call_id="c-1",
    time_ns=1_763_625_600 * SECOND + SECOND // 2,  # 2025-11-20T08:00:00.5Z
    origin=Block("audit.jsonl", [b"{}"], 0, 1),
)
EMPTY = AuditEvent()


def holds(text: str, event: AuditEvent = EVENT, tier: str | None = "high") -> bool:
    return parse(text).match(event, tier)


@pytest.mark.parametrize(
    "text",
    [
        *("", "  ", "tool:shell_execute", "tool:SHELL_Execute", "Tool=shell_*", "tool:*ell?exec*", "tool!=x"),
        *("tier:high", "tier>=medium", "tier>low", "tier<=high", "tier!=low", "tier=HIGH"),
        *("status:denied", "-status:success", "status:d*", "kind:tool_call", "event:tool_call"),
        *("key:key_0007", "key_id:key_*", "client:acme*", "session:s-81c2", "subject:alice@example.com"),
        *("ip:10.*", "ip:10.1.2.3", "server:files", "source:*.jsonl", "call:c-1", "call_id:c-1"),
        *("path:/etc", "path:/etc/SSH", "url:https://api.openai.com", 'param:"-rf /"', "param:OPENAI"),
        *("error:refused", "duration:1500", "duration=1.5s", "duration>=100ms", "duration>1s", "duration<2s"),
        *("duration<=1500ms", "duration!=3", "duration>0.01m"),
        *(
            "time:08:00",
            "time:8:00",
            "time:08:00:00",
            "time>=08:00",
            "time<=08:00",
            "time<08:01",
            "time>07:59",
        ),
        *("time>=2025-11-20T08:00:00Z", "time<2025-11-20T08:00:01Z", "time:2025-11-20T09:00:00+01:00"),
        *("time:2025-11-20T08:00:00.5Z", "time:2025-11-20T09:00+01:00", 'time:"2025-11-20 08:00:00"'),
        *(
            "shell",
            '"rm -rf"',
            "KEY_0007",
            "acme",
            "81c2",
            "alice",
            "10.1.2",
            "PERMISSION",
            "openai",
            "::1 or acme",
        ),
        *("key:*", "-key:other", "not key:other", "NOT key:other", "- key:other"),
        *(
            "shell acme",
            "shell and acme",
            "nothing or acme",
            "nothing or shell acme",
            "(nothing or shell) acme",
        ),
        *("--shell", "-(shell nothing)", "not (nothing or never)", "not nothing shell", "-nothing -never"),
        *('"and" or shell', "shell (acme)", "shell(acme)", "s-81c2"),
    ],
)
def test_what_the_event_answers_to(text: str) -> None:
    assert holds(text)


@pytest.mark.parametrize(
    "text",
    [
        *(
            "tool:shell",
            "tool:hell_execute",
            "tool:?hell",
            'tool:"shell_*"',
            "tool:*shell",
            "tool!=shell_execute",
        ),
        *(
            "tier<high",
            "tier:low",
            "tier>high",
            "status:success",
            "-status:denied",
            "kind:auth",
            "client:bot",
        ),
        *(
            "path:etc",
            "path:/ssh",
            "path:/et*",
            "url:http://",
            'param:"rm  -rf"',
            "error:timeout",
            'error:"n  r"',
        ),
        *("duration<1500", "duration>1500", "duration!=1500", "duration:1499", "time<08:00", "time>08:00"),
        *(
            "time:08:01",
            "time>2025-11-20T08:00:00Z",
            "time:2025-11-20T08:00:01Z",
            "time:2025-11-20T08:00:00.6Z",
        ),
        *("files", "nothing", "c-1", "shell nothing", "shell and -acme", "nothing or never", "-shell"),
        *("not shell nothing", "(nothing or shell) never", "and_", '"and"', '"or"', "key:key_0007 -shell"),
    ],
)
def test_what_the_event_does_not_answer_to(text: str) -> None:
    assert not holds(text)


@pytest.mark.parametrize(
    ("text", "first", "width"),
    [
        ("2025-11-20T08:00Z", 1_763_625_600_000, 60_000),
        ("2025-11-20T08:00:05Z", 1_763_625_605_000, 1_000),
        ("2025-11-20T08:00:05.25Z", 1_763_625_605_250, 10),
        ("08:00", 1_763_625_600_000, 60_000),
        ("08:00:05", 1_763_625_605_000, 1_000),
    ],
)
def test_a_time_is_as_wide_as_it_is_precise(text: str, first: int, width: int) -> None:
    for ms, within in ((first - 1, False), (first, True), (first + width - 1, True), (first + width, False)):
        event = AuditEvent(time_ns=ms * 1_000_000)
        assert holds(f"time:{text}", event) is within
        assert holds(f"time>{text}", event) is (ms >= first + width)
        assert holds(f"time<{text}", event) is (ms < first)


def test_and_binds_closer_than_or_and_not_closest() -> None:
    assert str(parse("a or b c")) == str(parse("a or (b and c)"))
    assert parse("a or b c") == parse("a or (b c)") != parse("(a or b) c")
    assert parse("not a b") == parse("(-a) b") != parse("not (a b)")


@pytest.mark.parametrize("name", FIELDS)
def test_an_absent_value_meets_no_condition_and_so_every_negated_one(name: str) -> None:
    value = {"status": "error", "kind": "auth", "tier": "low", "duration": "0", "time": "00:00"}.get(
        name, "x"
    )
    assert not parse(f"{name}:{value}").match(EMPTY, None) or name == "source"
    assert parse(f"{name}!={value}").match(EMPTY, None)
    assert parse(f"-{name}:{value}").match(EMPTY, None)


def test_a_lone_star_asks_whether_there_is_a_value() -> None:
    assert holds("key:*")
    assert not holds("key:*", EMPTY)
    assert holds("key:*", AuditEvent(key_id=""))


def test_quotes_take_away_every_special_meaning() -> None:
    odd = AuditEvent(tool='a "b" \\ * (c) or -d', session_id="and")
    assert holds(f"tool:{quote(str(odd.tool))}", odd)
    assert holds('tool:"a \\"b\\" \\\\ * (c) or -d"', odd)
    assert holds('"* (c) or -d"', odd)
    assert holds('"and"', odd)
    assert holds('tool:"C:\\dir"', AuditEvent(tool="C:\\dir"))
    assert not holds('tool:"a*"', AuditEvent(tool="abc"))
    assert holds('tool:""', AuditEvent(tool=""))


@given(st.text(st.characters(exclude_categories=()), max_size=50))
@example("a*b?")
@example("\\")
@example(" \\")
@example('\\"')
@example('"')
def test_a_quoted_value_stands_for_itself_alone(value: str) -> None:
    found = parse(f"client:{quote(value)}")
    assert found.match(AuditEvent(client_id=value), None)
    assert not found.match(AuditEvent(client_id=value + "x"), None)


@pytest.mark.parametrize(
    ("text", "message", "position"),
    [
        ("tol:x", "unknown field 'tol' at 1; did you mean 'tool'?", 0),
        ("a  clent:x", "unknown field 'clent' at 4; did you mean 'client'?", 3),
        ("http://x", "unknown field 'http' at 1; put it in quotes to search for it as text", 0),
        ("tool: x", "no value after 'tool:' at 6", 5),
        ("tool:(a)", "no value after 'tool:' at 6", 5),
        ("tool>=x", "'tool' can't be compared with '>=' at 5; use ':' or '!='", 4),
        ("status:sucess", "unknown status 'sucess' at 8; did you mean 'success'?", 7),
        ("kind:zzz", "unknown kind 'zzz' at 6; use auth, request, session_end, session_start, tool_call", 5),
        ("tier>=hi", "unknown tier 'hi' at 7; use low, medium or high", 6),
        ("duration>fast", "no duration 'fast' at 10; write 100ms, 2s or 1m", 9),
        ("time>25:00", "no time '25:00' at 6; write 08:30, 08:30:15 or 2026-11-22T08:30:00Z", 5),
        ('a "b', "quote is never closed at 3", 2),
        ('tool:"b\\"', "quote is never closed at 6", 5),
        ('""', "nothing between the quotes at 1", 0),
        ("a (b or c", "'(' is never closed at 3", 2),
        ("a) b", "')' closes nothing at 2", 1),
        ("()", "a term is missing before ')' at 2", 1),
        ("or a", "a term is missing before 'or' at 1", 0),
        ("a and or b", "a term is missing before 'or' at 7", 6),
        ("a or", "a term is missing at 5", 4),
        ("-", "a term is missing at 2", 1),
        ("tier:\x1b[2J", "unknown tier '\\e[2J' at 6; use low, medium or high", 5),
    ],
)
def test_a_wrong_filter_says_what_where_and_what_to_write(text: str, message: str, position: int) -> None:
    with pytest.raises(FilterError) as refused:
        parse(text)
    assert str(refused.value) == message
    assert refused.value.position == position


def test_size_and_nesting_are_bounded() -> None:
    parse("a" * MAX_TEXT)
    parse("a " * MAX_TERMS)
    parse("(" * MAX_NESTING + "a" + ")" * MAX_NESTING)
    parse("-" * MAX_NESTING + "a")
    for text in (
        "a" * (MAX_TEXT + 1),
        "a " * (MAX_TERMS + 1),
        "(" * (MAX_NESTING + 1) + "a" + ")" * (MAX_NESTING + 1),
        "-" * (MAX_NESTING + 1) + "a",
        "not " * (MAX_NESTING + 1) + "a",
        "(" * MAX_TEXT,
    ):
        with pytest.raises(FilterError):
            parse(text)


PIECES = st.sampled_from(
    [
        *(
            "tool:",
            "tier>=",
            "status:",
            "kind!=",
            "time<",
            "duration>",
            "path:",
            "x:",
            "-",
            "(",
            ")",
            " ",
            '"',
            "\\",
        ),
        *(
            "and",
            "or",
            "not",
            "shell_execute",
            "high",
            "denied",
            "08:30",
            "100ms",
            "*",
            "?",
            "a",
            "/etc",
            "é",
            "\ud800",
        ),
    ]
)
TYPED = st.lists(PIECES, max_size=30).map("".join) | st.text(
    st.characters(exclude_categories=()), max_size=60
)
WORDS = st.sampled_from(
    ["shell", '"rm -rf"', "acme", "nothing", '"and"', '"a\\"\\\\"', "a*b"]
) | st.sampled_from([example for row in FIELDS.values() for example in row.examples]).map(
    lambda term: term.removeprefix("-")
)
FILTERS = st.recursive(
    WORDS,
    lambda inner: st.one_of(
        st.tuples(inner, inner).map(" ".join),
        st.tuples(inner, inner).map(" and ".join),
        st.tuples(inner, inner).map(" or ".join),
        inner.map("({})".format),
        inner.map("-({})".format),
        inner.map("not ({})".format),
    ),
    max_leaves=12,
)
TEXTS = (
    st.none()
    | st.text(st.characters(exclude_categories=()), max_size=20)
    | st.sampled_from(["shell", "/etc", "a"])
)
JSON = st.recursive(
    TEXTS | st.booleans() | st.integers() | st.floats(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=10,
)
EVENTS = st.builds(
    AuditEvent,
    event=st.none() | st.sampled_from(sorted(KINDS)),
    status=st.none() | st.sampled_from(sorted(OUTCOMES)),
    tool=TEXTS,
    key_id=TEXTS,
    client_id=TEXTS,
    error=TEXTS,
    params=st.none() | st.dictionaries(st.text(max_size=5), JSON, max_size=3),
    duration_ms=st.none() | st.floats(),
    time_ns=st.none() | st.integers(-(10**20), 10**20),
    auth=st.none() | st.builds(Auth, subject=TEXTS),
)
TIERS = st.sampled_from([None, "low", "medium", "high", "odd"])
NAMES = st.sampled_from([None, "", "shell_execute", "acme-bot", "key_0007", "s-81c2", "10.1.2.3", "files"])
SETTLED = st.builds(
    AuditEvent,
    event=st.sampled_from(sorted(KINDS)),
    status=st.sampled_from(sorted(OUTCOMES)),
    tool=NAMES,
    key_id=NAMES,
    client_id=NAMES,
    session_id=NAMES,
    source_ip=NAMES,
    server=NAMES,
    error=TEXTS,
    params=st.none() | st.dictionaries(st.text(max_size=5), TEXTS, max_size=2),
    duration_ms=st.none() | st.floats(),
    auth=st.none() | st.builds(Auth, subject=NAMES),
)
OF_PART = {
    "kind": ("event", "tool", "status"),
    "caller": ("key_id", "client_id", "session_id", "source_ip", "auth"),
}


def alike(event: AuditEvent, example: AuditEvent, known: Iterable[str]) -> AuditEvent:
    """An event with the known parts of an example; where all are known, the example."""
    if "event" in known:
        return example
    return replace(event, **{name: getattr(example, name) for part in known for name in OF_PART[part]})


@given(TYPED)
def test_whatever_is_typed_is_a_filter_or_a_filter_error_on_one_line(text: str) -> None:
    try:
        parse(text)
    except FilterError as error:
        assert str(error).isprintable()
        assert 0 <= error.position <= len(text)


@given(TYPED | FILTERS)
def test_a_filter_written_out_parses_to_an_equal_one(text: str) -> None:
    try:
        found = parse(text)
    except FilterError:
        return
    again = parse(str(found))
    assert again == found
    assert str(again) == str(found)
    assert found.text == text


def test_a_filter_of_full_length_still_can_be_written_out() -> None:
    text = "(a or b)" * 49 + '"' + "c" * (MAX_TEXT - 394) + '"'
    assert len(text) == MAX_TEXT
    assert parse(str(parse(text))) == parse(text)


@given(FILTERS, EVENTS, TIERS)
def test_every_event_gets_an_answer_and_not_is_the_opposite(
    text: str, event: AuditEvent, tier: str | None
) -> None:
    answer = holds(text, event, tier)
    assert holds(f"not ({text})", event, tier) is not answer
    assert holds(f"-({text})", event, tier) is not answer
    assert holds(f"({text}) nothing-like-it", event, tier) <= answer
    assert holds(f"({text}) or nothing-like-it", event, tier) >= answer


@given(st.sampled_from(["tier", "duration", "time"]), EVENTS, TIERS, st.data())
def test_comparisons_agree_with_each_other(name: str, event: AuditEvent, tier: str | None, data: Any) -> None:
    values = {"tier": ["low", "medium", "high"], "duration": ["0", "1ms", "2s"], "time": ["00:00", "12:30"]}
    value = data.draw(st.sampled_from(values[name]))
    less, equal, more = (holds(f"{name}{op}{value}", event, tier) for op in "<=>")
    assert less + equal + more <= 1
    assert holds(f"{name}<={value}", event, tier) is (less or equal)
    assert holds(f"{name}>={value}", event, tier) is (more or equal)
    assert holds(f"{name}!={value}", event, tier) is not equal


@given(st.text("ab*?", max_size=8), st.text("ab?", max_size=10))
@example("*a?b*", "aaaab")
@example("a*a", "a")
@example("*ab?a*", "ababba")
@example("*ab*ba*", "aba")
@example("*a?*?a*", "aba")
def test_globs_mean_what_the_obvious_regular_expression_means(pattern: str, value: str) -> None:
    oracle = re.compile("".join({"*": ".*", "?": "."}.get(char, char) for char in pattern), re.DOTALL)
    if pattern:
        assert holds(f"tool:{pattern}", AuditEvent(tool=value)) is (oracle.fullmatch(value) is not None)


@pytest.mark.parametrize(
    "pattern",
    [
        "*a*a*a*a*a*a*a*a*a*a*b",
        "*" + "a" * 900 + "b*",
        "*" + "a?" * 400 + "b*",
        "?" * 900 + "*b",
        "*?" * 400 + "b",
    ],
)
def test_no_glob_goes_wild_on_a_long_value(pattern: str) -> None:
    """With backtracking these would not end."""
    assert not holds(f"tool:{pattern}", AuditEvent(tool="a" * 300_000))


def test_strings_are_found_however_deep_or_late_they_are_in_the_parameters() -> None:
    deep: Any = "/etc/shadow"
    for _ in range(100_000):
        deep = [deep]
    assert holds("path:/etc", AuditEvent(params={"x": deep}))
    assert holds("path:/etc", AuditEvent(params={"x": ["/etc/shadow", *["pad"] * 500_000]}))
    assert holds("path:/etc", AuditEvent(params={"x": [*["pad"] * 500_000, "/etc/shadow"]}))


def test_parameters_that_contain_themselves_end_too() -> None:
    loop: dict[str, Any] = {}
    loop["again"] = loop
    assert not holds("path:/etc", AuditEvent(params=loop))


def nothing(_name: str) -> Iterable[str]:
    return ()


def some(name: str) -> Iterable[str]:
    return {"session": ["s-1", "S-2", "a b", "star*", "x\x1b[2J"], "client": ["acme"]}.get(name, [])


@pytest.mark.parametrize(
    ("text", "completions"),
    [
        ("to", ["tool:"]),
        ("-st", ["status:"]),
        ("a (se", ["session:", "server:"]),
        ("", [f"{name}:" for name in FIELDS]),
        ("tool:x ", [f"{name}:" for name in FIELDS]),
        ("zzz", []),
        ("zzz:a", []),
        ("status:s", ["status:success"]),
        ("-status!=UN", ["status!=unauthenticated", "status!=unknown"]),
        ("tier>=", ["tier>=low", "tier>=medium", "tier>=high"]),
        ("kind:to", ["kind:tool_call"]),
        ("session:s", ["session:s-1", "session:S-2", 'session:"star*"']),
        ('session:"a ', ['session:"a b"']),
        ("session_id:a", ['session_id:"a b"']),
        ("session:x", []),
        ("(client:", ["client:acme"]),
        ('"free te', []),
    ],
)
def test_the_word_at_the_cursor_is_completed(text: str, completions: list[str]) -> None:
    assert complete(text, len(text), some) == completions
    start = word_start(text, len(text))
    for completion in completions:
        if not completion.endswith(":"):
            parse(completion)
        assert text[start:] == "" or completion[0].lower() == text[start].lower()


def test_only_what_is_before_the_cursor_counts() -> None:
    assert complete("to status:x", 2, nothing) == ["tool:"]
    assert word_start("a status:x", 8) == 2


def test_completions_are_few_however_many_values_there_are() -> None:
    assert len(complete("tool:", 5, lambda _: (f"t{number}" for number in range(10**9)))) == MAX_COMPLETIONS


@given(TYPED, st.integers(0, 70))
def test_completing_never_raises_and_gives_what_can_be_shown(text: str, cursor: int) -> None:
    for completion in complete(text, cursor, lambda _: [text, "a"]):
        assert completion.isprintable()


@pytest.mark.parametrize("row", FIELDS.values(), ids=lambda row: row.name)
def test_every_field_is_in_the_help_with_examples_that_parse(row: Any) -> None:
    assert row.examples
    for text in row.examples:
        parse(text)
        assert text in HELP
    assert any(line.startswith(f"{row.name} ") for line in HELP.splitlines())


def test_the_help_fits_a_screen() -> None:
    assert len(HELP.splitlines()) <= 24
    assert max(map(len, HELP.splitlines())) <= 100


class TestSettle:
    """Many events have the same kind and the same caller: what these decide about a filter is worked out once."""

    KNOWN = st.sampled_from([(), ("kind",), ("caller",), ("kind", "caller"), ("kind", "caller", "event")])

    @settings(max_examples=400, deadline=None)
    @given(FILTERS, SETTLED, SETTLED, TIERS, KNOWN)
    def test_what_is_left_gives_the_same_answer(
        self, text: str, example: AuditEvent, other: AuditEvent, tier: str | None, known: tuple[Part, ...]
    ) -> None:
        """The example has the known parts in common with the event, and nothing else."""
        event = alike(other, example, known)
        found = parse(text)
        left = found.settle(example, tier, known)
        answer = left if isinstance(left, bool) else left.match(event, tier)
        assert answer is found.match(event, tier)

    @given(FILTERS, SETTLED, TIERS, KNOWN)
    def test_what_is_left_asks_for_nothing_that_is_known(
        self, text: str, example: AuditEvent, tier: str | None, known: tuple[Part, ...]
    ) -> None:
        found = parse(text)
        left = found.settle(example, tier, known)
        if isinstance(left, bool):
            return
        assert left.parts <= found.parts - (set(known) - {"event"})
        assert parse(str(left)) == left
        assert left.settle(example, tier, known) == left

    @given(FILTERS, SETTLED, TIERS)
    def test_what_only_known_parts_decide_is_decided(
        self, text: str, example: AuditEvent, tier: str | None
    ) -> None:
        found = parse(text)
        if found.parts <= {"kind", "caller"}:
            assert found.settle(example, tier, KIND_AND_CALLER) is found.match(example, tier)
        if found.parts <= {"kind"}:
            assert found.settle(example, tier, KIND) is found.match(example, tier)

    @pytest.mark.parametrize(
        ("text", "left"),
        [
            ("tool:shell_execute key:a error:x", "key:a error:x"),
            ("tool:other error:x", False),
            ("tool:shell_execute or error:x", True),
            ("tool:other or error:x", "error:x"),
            ("-(tool:other key:a)", True),
            ("-(tool:shell_execute key:a)", "-key:a"),
            ("(tool:shell_execute or key:a) (tier:low or param:x) call:c", "param:x call:c"),
            ("tier>=medium status:denied kind:tool_call", True),
            ('"shell_execute"', "shell_execute"),
            ("", True),
        ],
    )
    def test_one_part_can_decide_for_the_whole(self, text: str, left: str | bool) -> None:
        found = parse(text).settle(EVENT, "high", KIND)
        assert (found if isinstance(found, bool) else str(found)) == left


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("", set()), ("tool:a tier:low status:error kind:auth", {"kind"}), ("-(key:a or ip:b)", {"caller"}),
        ("client:a session:b subject:c", {"caller"}), ("tool:a or key:b", {"kind", "caller"}),
        ("server:a", {"event"}), ("path:/etc", {"event"}), ("tool:a word", {"kind", "event"}),
        ("duration>1s", {"event"}), ("time>08:00", {"event"}), ("source:a call:b error:c", {"event"}),
    ],
)  # fmt: skip
def test_the_parts_of_an_event_that_a_filter_looks_at(text: str, parts: set[str]) -> None:
    """Free text looks at all of it, which no example can stand for."""
    assert parse(text).parts == parts


@pytest.mark.parametrize(
    ("name", "field"),
    [
        ("gen_ai.tool.name", "tool"), ("mcp.session.id", "session"), ("enduser.id", "subject"),
        ("client.address", "ip"), ("service.name", "server"), ("gen_ai.tool.call.id", "call"),
        ("gen_ai.tool.call.arguments", "param"), ("error.message", "error"), ("event", "kind"),
    ],
)  # fmt: skip
def test_names_of_opentelemetry_are_fields(name: str, field: str) -> None:
    """Quoted or not, in any case, and written out under the short name."""
    value = "auth" if field == "kind" else "x"
    assert parse(f"{name}:{value}") == parse(f"{name.upper()}:{value}") == parse(f"{field}:{value}")
    assert parse(f'{name}:"{value}"') == parse(f"{field}:{value}")
    assert str(parse(f"{name}!={value}")) == f"{field}!={value}"


@pytest.mark.parametrize("text", ["api.example.com:443", "10.example.com:443", "www.example.com:8080/x"])
def test_a_host_with_a_port_is_text(text: str) -> None:
    assert parse(text) == parse(f'"{text}"')
    assert holds(text, AuditEvent(params={"url": f"https://{text}/"}))
    assert not holds(text, AuditEvent(params={"url": "https://api.example.com/"}))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("gen_ai.tool.name>=x", "can't be compared"),
        ("api.example.com:", "unknown field"),
        ('api.example.com:"x"', "unknown field"),
    ],
)
def test_what_looks_like_a_dotted_name_and_is_none(text: str, message: str) -> None:
    with pytest.raises(FilterError, match=message):
        parse(text)
