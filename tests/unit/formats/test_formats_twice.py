"""A record that says two things at once is read like every parser reads it, and caught."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mcpwatch.event import AuditEvent, Flag
from mcpwatch.formats.mappingfile import parse_mapping
from mcpwatch.formats.reader import Reader
from mcpwatch.formats.twice import KEYS, may_repeat, quoted, repeated_keys, said_twice
from mcpwatch.sources.block import Block

STAMP = '"timestamp":"2026-11-20T08:00:05.123456Z"'
TOOL = '"tool":"file_read","params":{"path":"/app/x"},"status":"denied","key_id":"k1","auth":{"method":"jwt"}'


def one(line: str | bytes, **options: Any) -> AuditEvent:
    raw = line if isinstance(line, bytes) else line.encode()
    (event,) = Reader("a", **options).read(Block("a", [raw], 0, 1))
    return event


def caught(event: AuditEvent) -> bool:
    return bool(event.flags & Flag.DUPLICATE_KEYS)


FORGERIES = [
    ('"tool":"shell"', ("tool", ("file_read", "shell"))),
    ('"tool" : "shell"', ("tool", ("file_read", "shell"))),
    ('"\\u0074ool":"shell"', ("tool", ("file_read", "shell"))),
    ('"t\\u006Fol":"shell"', ("tool", ("file_read", "shell"))),
    ('"tool":null', ("tool", ("file_read", "null"))),
    ('"status":"success"', ("status", ("denied", "success"))),
    ('"key_id":"k2"', ("key_id", ("k1", "k2"))),
    ('"key\\u005fid":"k2"', ("key_id", ("k1", "k2"))),
    ('"params":{"path":"/etc/passwd"}', ("params", ('{"path": "/app/x"}', '{"path": "/etc/passwd"}'))),
    ('"params":null', ("params", ('{"path": "/app/x"}', "null"))),
    ('"auth":{"method":"none"}', ("auth", ("[redacted]", "[redacted]"))),
]


@pytest.mark.parametrize("name", ["auto", "generic", "native"])
@pytest.mark.parametrize("first", [True, False])
@pytest.mark.parametrize(("forged", "said"), FORGERIES)
def test_a_key_that_stands_twice_is_caught_and_both_values_are_told(
    forged: str, said: tuple[str, tuple[str, str]], first: bool, name: str
) -> None:
    line = f"{{{forged},{STAMP},{TOOL}}}" if first else f"{{{STAMP},{TOOL},{forged}}}"
    event = one(line, format_name=name)
    ((key, values),) = said_twice(event)
    assert key == said[0]
    # nothing before an object is no second reading of it
    assert caught(event) or (first and forged.endswith("null"))
    if key != "auth":
        assert values == (said[1][::-1] if first else said[1])
    last = json.loads(line)
    assert (event.tool, event.status, event.key_id, event.params) == tuple(
        last[field] for field in ("tool", "status", "key_id", "params")
    )


def test_it_is_caught_in_what_a_record_travels_in_too() -> None:
    record = f'{{{STAMP},{TOOL},"tool":"shell"}}'
    for line in (
        f"<34>1 2026-11-22T03:14:07Z h mcp 7 - - {record}",
        json.dumps({"__REALTIME_TIMESTAMP": "1795317247123456", "MESSAGE": record}),
        "\0\0\ufeff " + record + "\r",
    ):
        event = one(line)
        assert caught(event)
        assert said_twice(event) == (("tool", ("file_read", "shell")),)


def test_it_is_caught_among_other_names_and_in_a_mapped_log() -> None:
    assert caught(one('{"toolName":"a","toolName":"b"}'))
    assert caught(one('{"ts":1,"toolName":"a","outcome":"ok","outcome":"denied"}'))
    mapping = parse_mapping(
        b"match: {call: {kind: object}}\nfields: {tool: call.name, timestamp: t}", "a", "acme"
    )
    event = one('{"t":1,"call":{"name":"a"},"call":{"name":"b"}}', mappings=[mapping])
    assert (event.tool, caught(event)) == ("b", True)
    assert not caught(one('{"t":1,"call":{"name":"a"},"x":1}', mappings=[mapping]))


def test_the_names_that_tell_how_a_record_is_read_must_not_stand_twice_either() -> None:
    """Else a record could be passed over by one reader and be a call to the other."""
    text = b"""
match: {kind: [call, note]}
fields: {tool: name, timestamp: t}
variants:
  - when: {level: debug}
    ignore: true
"""
    mapping = parse_mapping(text, "a", "acme")
    for forged in ('"kind":"note","kind":"call"', '"kind":"call","level":"debug","level":"info"'):
        assert caught(one(f'{{"t":1,"name":"a",{forged}}}', mappings=[mapping]))
    assert not caught(one('{"t":1,"name":"a","kind":"call","level":"info"}', mappings=[mapping]))


@pytest.mark.parametrize(
    "line",
    [
        f"{{{STAMP},{TOOL}}}",
        f'{{{STAMP},"tool":"t","params":{{"tool":"x","status":"y","key_id":"z","params":{{"auth":{{}}}}}}}}',
        f'{{{STAMP},"tool":"t","params":{{"text":"\\"tool\\": \\"x\\", \\"tool\\""}},"error":"{{\\"status\\":1}}"}}',
        f'{{{STAMP},"tool":"tool","status":"unknown","key_id":"key_id","error":"status"}}',
        f'{{{STAMP},"tool":"t","error":"\\u0041\\u0042 \\u0074ool"}}',
        '{"ts":1,"toolName":"t","meta":{"toolName":"x"}}',
    ],
)
def test_the_same_name_inside_or_in_a_text_is_no_repetition(line: str) -> None:
    for name in ("auto", "generic"):
        event = one(line, format_name=name)
        assert not caught(event)
        assert said_twice(event) == ()


@pytest.mark.parametrize(
    ("record", "said"),
    [
        ({"tool": "a", "toolName": "b"}, ("tool, toolName", ("a", "b"))),
        ({"tool_name": "x", "mcp_tool_name": "y"}, ("tool_name, mcp_tool_name", ("x", "y"))),
        ({"tool": "t", "status": "ok", "outcome": "denied"}, ("status, outcome", ("ok", "denied"))),
        ({"tool": "t", "key_id": "a", "apiKeyId": "b"}, ("key_id, apiKeyId", ("a", "b"))),
    ],
)
def test_two_names_of_one_field_with_two_values_are_the_same_trick(
    record: dict[str, Any], said: tuple[str, tuple[str, str]]
) -> None:
    event = one(json.dumps(record))
    assert caught(event)
    assert said_twice(event) == (said,)


@pytest.mark.parametrize(
    "record",
    [
        {"tool": "github__create_issue", "mcp_tool_name": "create_issue"},
        {"tool": "t", "toolName": "t"},
        {"tool": "t", "toolName": "-"},
        {"tool": "t", "status": "error", "status_code": 403},
        {"tool": "t", "status": "error", "outcome": "denied"},
        {"tool": "t", "status": "success", "outcome": "whatever"},
        {"tool": "t", "decision": "allow", "status": "error"},
        {"tool": "t", "key_id": "key_0001", "key_name": "billing"},
    ],
)
def test_two_names_that_agree_or_mean_something_else_are_fine(record: dict[str, Any]) -> None:
    event = one(json.dumps(record))
    assert not caught(event)
    assert said_twice(event) == ()


names = st.sampled_from(["tool", "status", "key_id", "params", "auth", "server", "error"])
values = st.sampled_from(
    ['"x"', '"tool"', "null", '{"tool":"y","status":1}', '"\\"status\\":"', '"{"', "[{}]"]
)


@settings(max_examples=200, deadline=None)
@given(st.lists(st.tuples(names, values, st.sampled_from([":", " : ", ":\t"])), max_size=8))
def test_the_quick_look_misses_nothing(pairs: list[tuple[str, str, str]]) -> None:
    """By all ways of reading: flagged if and only if one of the keys that verdicts hang on stands twice."""
    line = "{" + ",".join([STAMP, *(f'"{name}"{colon}{value}' for name, value, colon in pairs)]) + "}"
    watched = [name for name, _, _ in pairs if name in KEYS]
    twice = len(watched) != len(set(watched))
    for name in ("auto", "generic"):
        reader = Reader("a", format_name=name)
        for event in reader.read(Block("a", [line.encode()], 0, 1)):
            assert caught(event) == twice
            assert {key for key, _ in said_twice(event)} >= {n for n in watched if watched.count(n) > 1}


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=80) | st.text(max_size=40).map(str.encode))
def test_whatever_the_text_looking_never_raises(data: bytes) -> None:
    repeated_keys(data.decode("utf-8", "replace"))
    may_repeat(data, quoted(KEYS))


@pytest.mark.parametrize("depth", [500, 200_000])
def test_what_is_too_deep_to_look_into_is_no_crash(depth: int) -> None:
    assert repeated_keys('{"a":' * depth + "1" + "}" * depth) == ()
