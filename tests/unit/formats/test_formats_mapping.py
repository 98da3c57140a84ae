"""A mapping reads what its file says: each key by an example, and nothing it meets makes it raise."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mcpwatch.event import KINDS, OUTCOMES, AuditEvent, CallEnd, Flag
from mcpwatch.formats.mapping import GENERIC, Mapping, Reading
from mcpwatch.formats.mappingfile import parse_mapping
from mcpwatch.formats.reader import Reader, lacking_fields
from mcpwatch.incidents.export import dump, event_record
from mcpwatch.times import SECOND
from tests.oracle import block_of

NOW = 1_795_161_605 * SECOND
"""2026-11-20T08:00:05Z"""

NESTED = """
name: hive
title: Hive broker, batches of agent runs
match: {hive: {starts: "2."}, runs: {kind: list}}
each: runs[].steps[]
fields:
  timestamp: at
  ended: done
  tool: use.toolName
  params: use.argsJson
  status: result.code
  error: result.notes[0]
  client_id: ^.agentName
  session_id: ^.^.batch.id
  source_ip: ^.^.batch.peer
  subject: ^.^.batch.labels[key=user].value
units: {timestamp: ms}
status: {"0": success, "13": denied, "4": timeout}
constants: {server: hive-1}
variants:
  - when: {use: {present: false}}
    ignore: true
"""
BATCH: dict[str, Any] = {
    "hive": "2.4",
    "batch": {"id": "b-7", "peer": "192.0.2.1:4711", "labels": [
        {"key": "team", "value": "x"}, {"key": "user", "value": "dana"},
    ]},
    "runs": [
        {"agentName": "planner", "steps": [
            {"at": 1_795_161_605_000, "done": 1_795_161_605_250, "result": {"code": 0},
             "use": {"toolName": "file_read", "argsJson": '{"path": "/x"}'}},
            {"thought": "hm"},
        ]},
        {"agentName": "writer", "steps": [
            {"at": 1_795_161_606_000, "done": 1_795_161_606_004, "use": {"toolName": "file_write", "argsJson": "{}"},
             "result": {"code": 13, "notes": ["not yours", "never"]}},
        ]},
    ],
}  # fmt: skip


def mapping(text: str) -> Mapping:
    return parse_mapping(text.encode(), "m.yaml", "m")


def reader(text: str, **options: Any) -> Reader:
    return Reader("a", mappings=[mapping(text)], **options)


def events(text: str, *records: Any, now: int | None = None) -> list[AuditEvent]:
    found = reader(text)
    read = found.read(block_of(records), now)
    assert found.not_understood == 0, found.reasons
    return read


def event(text: str, record: Any, now: int | None = None) -> AuditEvent:
    (found,) = events(text, record, now=now)
    return found


def test_a_product_with_nested_arrays_takes_less_than_25_lines_and_lacks_nothing() -> None:
    assert len(NESTED.strip().splitlines()) < 25
    found = reader(NESTED)
    read = found.read(block_of([BATCH]))
    assert [(e.tool, e.params, e.status, e.duration_ms, e.client_id, e.time_ns) for e in read] == [
        ("file_read", {"path": "/x"}, "success", 250, "planner", NOW),
        ("file_write", {}, "denied", 4, "writer", NOW + SECOND),
    ]
    for each in read:
        assert (each.session_id, each.source_ip, each.subject) == ("b-7", "192.0.2.1", "dana")
        assert (each.server, each.event) == ("hive-1", "tool_call")
        assert not any(lacking_fields(each))
    assert read[1].error == "not yours"
    assert (found.understood, found.events, found.formats["hive"]) == (1, 2, 1)
    assert {(e.line, e.offset) for e in read} == {(1, 0)}


FIELDS = "match: {k: 1}\nfields: {tool: tool, timestamp: t, %s}\n"


@pytest.mark.parametrize(
    ("says", "record", "name", "value"),
    [
        (FIELDS % "status: s", {"s": "ok"}, "status", "success"),
        (FIELDS % "status: s" + "status: {ok: denied}", {"s": "ok"}, "status", "denied"),
        (FIELDS % "status: s" + "status: {7: timeout}", {"s": 7}, "status", "timeout"),
        (FIELDS % "status: s" + "status: {true: denied}", {"s": True}, "status", "denied"),
        (FIELDS % "status: s", {"s": 200}, "status", "unknown"),
        (FIELDS % "status: s", {"s": [403]}, "status", "unknown"),
        (FIELDS % "status: s", {"s": ["403"]}, "status", "denied"),
        (FIELDS % "status: [a, b]", {"a": "-", "b": "ok"}, "status", "success"),
        (FIELDS % "event: e" + "kinds: {hello: session_start}", {"e": "hello"}, "event", "session_start"),
        (FIELDS % "event: e" + "kinds: {hello: session_start}", {"e": "login"}, "event", "auth"),
        (FIELDS % "event: e", {"e": "login_failed"}, "status", "unauthenticated"),
        (FIELDS % "server: s" + "constants: {server: acme}", {}, "server", "acme"),
        (FIELDS % "server: s" + "constants: {server: acme}", {"s": "own"}, "server", "own"),
        (FIELDS % "server: s" + "constants: {server: acme}", {"s": "-"}, "server", "acme"),
        (FIELDS % "status: s" + "constants: {status: denied}", {}, "status", "denied"),
        (FIELDS % "status: s" + "constants: {status: denied}\nstatus: {denied: success}", {}, "status", "denied"),
        (FIELDS % "status: s" + "constants: {event: auth}", {}, "event", "auth"),
        (FIELDS % "status: s" + "constants: {status: denied}", {"s": "-"}, "status", "denied"),
        (FIELDS % "params: p", {"p": "-"}, "params", None),
        (FIELDS % "subject: u", {"u": "dana"}, "subject", "dana"),
        (FIELDS % "source_ip: [x, y]", {"x": "", "y": "192.0.2.1:80"}, "source_ip", "192.0.2.1"),
        (FIELDS % "source_ip: headers.X-IP", {"headers": {"x-ip": ["192.0.2.1"]}}, "source_ip", "192.0.2.1"),
        (FIELDS % "client_id: c", {"c": {"name": "bot"}}, "client_id", "bot"),
        (FIELDS % "client_id: c", {"c": 7}, "client_id", "7"),
        (FIELDS % "key_id: c", {"c": "anonymous"}, "key_id", None),
        (FIELDS % "key_id: c", {"c": ["k1", "k2"]}, "key_id", "k1"),
        (FIELDS % "scopes: c", {"c": "a b"}, "scopes", ["a", "b"]),
        (FIELDS % "error: c", {"c": {"message": "no"}}, "error", "no"),
        (FIELDS % "error: c", {"c": "-"}, "error", None),
        (FIELDS % "params: p", {"p": '{"a": 1}'}, "params", {"a": 1}),
        (FIELDS % "params: p", {"p": '{"a": 1, "b": "cut o'}, "params", {"a": 1, "…": "[truncated]"}),
        (FIELDS % "params: p", {"p": "[REDACTED]"}, "params", {"value": "[REDACTED]"}),
        (FIELDS % "params: p", {"p": {"name": "x", "arguments": {"b": 2}}}, "params", {"b": 2}),
        (FIELDS % "params: p", {"p": {"name": "y", "arguments": {}}}, "params", {"name": "y", "arguments": {}}),
        (FIELDS % "duration: d", {"d": 1.5}, "duration_ms", 1.5),
        (FIELDS % "duration: d" + "units: {duration: s}", {"d": 1.5}, "duration_ms", 1500),
        (FIELDS % "duration: d" + "units: {duration: ns}", {"d": 1_500_000}, "duration_ms", 1.5),
        (FIELDS % "duration: d" + "units: {duration: min}", {"d": "2"}, "duration_ms", 120_000),
        (FIELDS % "duration: d" + "units: {duration: s}", {"d": "4ms"}, "duration_ms", 4),
        (FIELDS % "duration_s: d", {"d": 2}, "duration_ms", 2000),
        (FIELDS % "duration_ms: d" + "units: {duration: s}", {"d": 2}, "duration_ms", 2),
        (FIELDS % "ended: e", {"e": "2026-11-20T08:00:05.25Z"}, "duration_ms", 250),
        (FIELDS % "ended: e, duration_ms: d", {"e": "2026-11-20T08:00:06Z", "d": 3}, "duration_ms", 3),
        (FIELDS % "ended: e", {"e": "2026-11-20T08:00:04Z"}, "duration_ms", None),
        (FIELDS % "call_id: c", {"c": 12}, "call_id", "12"),
    ],
)  # fmt: skip
def test_what_a_file_says_is_done(says: str, record: dict[str, Any], name: str, value: object) -> None:
    found = event(says, {"k": 1, "tool": "x", "t": "2026-11-20T08:00:05Z"} | record)
    assert getattr(found, name) == value
    assert found.time_ns == NOW


@pytest.mark.parametrize(
    ("record", "key", "client"),
    [
        ({"who": {"key": "k", "client": "c"}}, "k", "c"),
        ({"who": {"key": "k", "client": "c"}, "who.key": "whole"}, "whole", "c"),
        ({"who.key": "whole", "who.client": "c"}, "whole", "c"),
        ({"who": '{"key": "k", "client": "c"}'}, "k", "c"),
        ({"who": [{"key": "k"}], "who.client": "c"}, None, "c"),
        ({"who": {"key": None, "client": "-"}}, None, None),
        ({"who": "k"}, None, None),
        ({}, None, None),
    ],
)
def test_fields_that_stand_in_one_object_are_found_as_each_by_itself(
    record: dict[str, Any], key: str | None, client: str | None
) -> None:
    found = event(FIELDS % "key_id: who.key, client_id: who.client", {"k": 1, "tool": "x", "t": 1} | record)
    assert (found.key_id, found.client_id) == (key, client)


@pytest.mark.parametrize(
    ("says", "stamp", "time", "flags"),
    [
        ("", NOW // SECOND, NOW, 0),
        ("units: {timestamp: s}", 5, 5 * SECOND, 0),
        ("units: {timestamp: ms}", "5.5", 5_500_000, 0),
        ("units: {timestamp: us}", 5, 5_000, 0),
        ("units: {timestamp: ns}", NOW + 7, NOW + 7, 0),
        ("units: {timestamp: ns}", str(NOW + 7), NOW + 7, 0),
        ("units: {timestamp: s}", "1795161605.25", NOW + SECOND // 4, 0),
        ("units: {timestamp: ms}", "2026-11-20T08:00:05Z", NOW, 0),
        ("", "2026-11-20 08:00:05", NOW, Flag.NAIVE_TIME),
        ("zone: Europe/Berlin", "2026-11-20 09:00:05,5", NOW + SECOND // 2, 0),
        ("zone: Europe/Berlin", "2026-07-20 10:00:05", NOW - 123 * 86_400 * SECOND, 0),
        ("zone: Europe/Berlin", "2026-11-20T08:00:05Z", NOW, 0),
        ("zone: UTC", "2026-11-20 08:00:05", NOW, 0),
        ("units: {timestamp: s}", -1, None, 0),
        ("units: {timestamp: s}", 1e300, None, 0),
        ("units: {timestamp: s}", 10**18, None, 0),
        ("units: {timestamp: s}", True, None, 0),
    ],
)
def test_units_and_zones_of_times_are_those_of_the_file(
    says: str, stamp: object, time: int | None, flags: int
) -> None:
    found = event(FIELDS % "server: s" + says, {"k": 1, "tool": "x", "t": stamp})
    assert (found.time_ns, found.flags) == (time, flags)


def test_local_times_are_those_of_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    import time

    monkeypatch.setenv("TZ", "America/New_York")
    time.tzset()
    try:
        found = event(FIELDS % "server: s" + "zone: local", {"k": 1, "tool": "x", "t": "2026-11-20 03:00:05"})
    finally:
        monkeypatch.undo()
        time.tzset()
    assert (found.time_ns, found.flags) == (NOW, 0)


def test_a_record_that_only_knows_its_end_began_as_long_before_as_it_took() -> None:
    says = "match: {k: 1}\nfields: {tool: tool, ended: msec, duration_s: took}\n"
    found = event(says, {"k": 1, "tool": "x", "msec": "1795161605.500", "took": 0.5})
    assert (found.time_ns, found.duration_ms) == (NOW, 500)
    assert event(says, {"k": 1, "tool": "x", "msec": "1795161605"}).time_ns == NOW


def test_a_tools_name_in_base64_is_read_as_the_header_means_it() -> None:
    says = FIELDS % "server: s"
    for name, tool in (
        ("=?base64?cmVhZF9maWxl?=", "read_file"),
        ("=?base64?w6lsw6h2ZQ==?=", "élève"),
        ("=?base64?%%%?=", "=?base64?%%%?="),
        ("=?base64?/w==?=", "=?base64?/w==?="),
        ("=?base64?LQ==?=", None),
    ):
        found = event(says, {"k": 1, "tool": name, "t": 1})
        assert (found.tool, found.shape.tool) == (tool, tool)
        assert found.event == ("tool_call" if tool else "request")


PARSED = """
match: {k: 1}
fields: {tool: mcp_tool, server: mcp_server, timestamp: t, call_id: id}
parse:
  target: ["mcp__{mcp_server}__{mcp_tool:rest}", "tool {mcp_tool}"]
  detail.text: "id={id:word}"
"""


@pytest.mark.parametrize(
    ("record", "tool", "server", "call"),
    [
        ({"target": "mcp__files__read__all"}, "read__all", "files", None),
        ({"target": "tool read"}, "read", None, None),
        ({"target": ["tool read"], "detail": {"text": "id=c1"}}, "read", None, "c1"),
        ({"target": "mcp__files__read", "mcp_tool": "own"}, "own", "files", None),
        ({"target": "mcp__files__read", "mcp_tool": None}, "read", "files", None),
        ({"target": "else", "mcp_tool": "own"}, "own", None, None),
        ({"target": 7, "mcp_tool": "own"}, "own", None, None),
    ],
)
def test_a_text_is_taken_apart_and_what_the_record_says_itself_goes_first(
    record: dict[str, Any], tool: str, server: str | None, call: str | None
) -> None:
    found = event(PARSED, {"k": 1, "t": 1} | record)
    assert (found.tool, found.server, found.call_id) == (tool, server, call)


VARIANTS = """
match: {k: {present: true}}
fields: {timestamp: t, tool: name, status: s, error: why, event: type}
status: {n: denied}
kinds: {hi: session_start}
variants:
  - when: {type: http_request, s: n}
    constants: {event: auth, status: unauthenticated}
  - when: {msg: {starts: "starting "}}
    ignore: true
  - when: {type: other}
    fields: {tool: other.name, error: []}
    status: {n: timeout}
    kinds: {other: request}
"""


@pytest.mark.parametrize(
    ("record", "expected"),
    [
        ({"name": "a", "s": "n", "why": "x"}, ("tool_call", "a", "denied", "x")),
        ({"type": "http_request", "s": "n"}, ("auth", None, "unauthenticated", None)),
        ({"type": "http_request", "s": "ok"}, ("request", None, "success", None)),
        (
            {"type": "other", "name": "a", "other": {"name": "b"}, "s": "n", "why": "x"},
            ("request", "b", "timeout", None),
        ),
        ({"type": "hi"}, ("session_start", None, "unknown", None)),
    ],
)  # fmt: skip
def test_the_first_variant_whose_conditions_hold_is_laid_over_the_rest(
    record: dict[str, Any], expected: tuple[Any, ...]
) -> None:
    found = event(VARIANTS, {"k": 1, "t": 1} | record)
    assert (found.event, found.tool, found.status, found.error) == expected


def test_lines_of_the_product_that_are_no_audit_records_are_understood_and_no_events() -> None:
    found = reader(VARIANTS)
    assert found.read(block_of([{"k": 1, "msg": "starting server"}, {"k": 1, "t": 1, "name": "x"}]))
    assert (found.lines, found.understood, found.events) == (2, 2, 1)
    assert (found.asides, found.formats["m"]) == ({"m": 1}, 2)


def test_a_record_that_is_claimed_and_in_which_nothing_is_found_is_not_understood() -> None:
    found = reader("match: {k: 1}\nfields: {tool: name}")
    assert found.read(block_of([{"k": 1, "x": 1}])) == []
    assert found.reasons == {"m: no field of it is known": 1}
    assert found.examples[0].line == 1


def test_words_for_outcomes_of_which_nothing_is_known_are_counted() -> None:
    says = "match: {k: 1}\nfields: {tool: tool, status: s}\nstatus: {meh: unknown}"
    found = reader(says)
    found.read(
        block_of([{"k": 1, "tool": "x", "s": word} for word in ("odd", "odd", "ok", 200, "meh", None)])
    )
    # of HTTP 200 it is known that it says nothing
    assert found.unknown_words == {("m", "odd"): 2}


PAIRS = """
match: {phase: [begin, end]}
fields: {timestamp: t, tool: name, params: args, status: s, error: why}
pair: [conn, [id, reply_to]]
pair_by: %s
variants:
  - when: {phase: begin}
    phase: start
  - when: {phase: end}
    phase: end
"""
BEGIN: dict[str, Any] = {
    "phase": "begin",
    "t": NOW // SECOND,
    "conn": "c",
    "id": 1,
    "name": "x",
    "args": {"a": 1},
}
END: dict[str, Any] = {
    "phase": "end",
    "t": NOW // SECOND + 2,
    "conn": "c",
    "reply_to": 1,
    "s": "denied",
    "why": "no",
}


@pytest.mark.parametrize(("by", "flags"), [("id", 0), ("order", Flag.PAIRED_BY_ORDER)])
def test_two_lines_of_a_call_are_one_event_and_an_end_of_it(by: str, flags: int) -> None:
    found = reader(PAIRS % by)
    start, end = found.read(block_of([BEGIN, END]))
    assert isinstance(end, CallEnd)
    assert end.start is start
    assert (start.status, end.status, end.error, end.params) == ("unknown", "denied", "no", {"a": 1})
    assert (start.time_ns, end.time_ns, end.duration_ms, end.flags) == (NOW, NOW, 2000, flags)
    assert (found.lines, found.understood, found.joined, found.events) == (2, 1, 1, 1)
    assert found.coverage[3] == ("status", 1, 1)
    assert found.coverage[4] == ("duration", 1, 1)


def test_calls_of_several_connections_and_servers_are_told_apart() -> None:
    other = END | {"conn": "d"}
    first, second = reader(PAIRS % "id"), reader(PAIRS % "id")
    assert not any(isinstance(each, CallEnd) for each in first.read(block_of([BEGIN, other])))
    lines = [b"Nov 20 08:00:05 %s mcp[1]: %s" % (host, json.dumps(line).encode())
             for host, line in ((b"one", BEGIN), (b"two", END))]  # fmt: skip
    assert not any(isinstance(each, CallEnd) for each in second.read(block_of(lines)))
    assert first.pairing.open == second.pairing.open == 1


def test_a_half_without_what_names_its_call_stands_for_itself() -> None:
    nameless = {key: value for key, value in BEGIN.items() if key not in ("id", "conn")}
    found = reader(PAIRS % "id")
    (event,) = found.read(block_of([nameless, {**END, "reply_to": None, "conn": None}]))[:1]
    assert (event.tool, found.pairing.open, found.joined) == ("x", 0, 0)


def test_the_last_line_of_a_saved_file_is_flagged_also_when_it_is_half_a_call() -> None:
    block = block_of([BEGIN])
    block.unterminated = True
    (event,) = reader(PAIRS % "id").read(block)
    assert event.flags == Flag.UNTERMINATED


TEXT = """
name: plain
shape: text
lines:
  called: ["{time:time} call {tool} {args:json}", "{time:time} call {tool}"]
  refused: "{time:time} refused {who:word}"
  noise: "- {what:rest}"
fields: {timestamp: time, tool: tool, params: args, client_id: who}
variants:
  - when: {line: refused}
    constants: {event: auth, status: unauthenticated}
  - when: {line: noise}
    ignore: true
"""


def test_lines_of_text_are_read_by_templates_and_are_known_by_their_names() -> None:
    found = reader(TEXT)
    read = found.read(
        block_of(
            [
                '2026-11-20T08:00:05Z call read {"path": "/x"}',
                "2026-11-20T08:00:06Z call list",
                "2026-11-20T08:00:07Z refused eve",
                "- ready",
                "something else",
                b"2026-11-20T08:00:08Z call r\xff",
            ]
        )
    )
    assert [(e.event, e.tool, e.params, e.status, e.client_id) for e in read] == [
        ("tool_call", "read", {"path": "/x"}, "unknown", None),
        ("tool_call", "list", None, "unknown", None),
        ("auth", None, None, "unauthenticated", "eve"),
        ("tool_call", "r\\xff", None, "unknown", None),
    ]
    assert (found.understood, found.not_understood, found.asides["plain"], found.bad_utf8) == (5, 1, 1, 1)


@pytest.mark.parametrize(
    ("shape", "line"),
    [
        ("logfmt", "time=2026-11-20T08:00:05Z tool=read args.path=/x status=ok"),
        ("cef", "CEF:0|Acme|Gate|1|call|called|3|rt=2026-11-20T08:00:05Z tool=read status=ok"),
    ],
)
def test_other_shapes_are_records_like_any(shape: str, line: str) -> None:
    says = f"shape: {shape}\nmatch: {{tool: {{present: true}}}}\nfields: {{tool: tool, status: status}}"
    found = event(says, line, NOW)
    assert (found.tool, found.status) == ("read", "success")


def test_too_many_elements_are_one_line_not_understood() -> None:
    found = reader("match: {k: 1}\nfields: {tool: t}\neach: calls[]")
    assert found.read(block_of([{"k": 1, "calls": [{"t": "x"}] * 10_001}])) == []
    assert found.reasons == {"m: more than 10000 elements in calls[]": 1}
    assert len(found.read(block_of([{"k": 1, "calls": [{"t": "x"}] * 10_000}]))) == 10_000


def test_no_elements_are_no_events_and_understood() -> None:
    found = reader("match: {k: 1}\nfields: {tool: t}\neach: calls[]")
    assert found.read(block_of([{"k": 1, "calls": []}, {"k": 1}])) == []
    assert (found.understood, found.asides["m"]) == (2, 2)


json_values: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8)
    | st.sampled_from(["-", "tools/call", '{"name": "t", "arguments": {}}', "=?base64?eA==?=", "4ms", "auth"]),
    lambda inner: st.lists(inner, max_size=3)
    | st.dictionaries(
        st.sampled_from(
            ["name", "arguments", "id", "t", "s", "a", "steps", "at", "done", "use", "toolName", "agentName"]
        ),
        inner, max_size=4,
    ),
    max_leaves=12,
)  # fmt: skip
every_name = st.sampled_from(
    ["hive", "runs", "batch", "k", "t", "name", "s", "type", "msg", "phase", "conn", "id", "target", "tool", "d", "e",
     "timestamp", "params", "status", "method", "event", "auth", "client", "error", "duration", "session", "scopes"]
)  # fmt: skip
WHOLE = """
match: {k: {present: true}}
fields:
  timestamp: [t, timestamp]
  ended: [e, ended]
  duration: [d, duration]
  duration_s: d
  event: [event, type]
  method: method
  tool: [tool, name]
  params: params
  status: [s, status]
  error: error
  key_id: id
  client_id: client
  session_id: session
  subject: name
  source_ip: conn
  scopes: scopes
  auth: auth
  server: target
  call_id: id
  sequence: d
  hash: s
units: {timestamp: ms, duration: min}
zone: Asia/Kathmandu
"""
MAPPINGS = [mapping(text) for text in (NESTED, PARSED, VARIANTS, PAIRS % "id", PAIRS % "order", WHOLE)]


def normal(found: AuditEvent) -> None:
    """What everybody may take for granted about an event that a mapping made."""
    assert found.event in KINDS
    assert found.status in OUTCOMES
    assert found.time_ns is None or isinstance(found.time_ns, int)
    assert found.duration_ms is None or 0 <= found.duration_ms < float("inf")
    assert found.params is None or isinstance(found.params, dict)
    assert found.scopes is None or all(isinstance(scope, str) for scope in found.scopes)
    for name in (
        "tool",
        "error",
        "key_id",
        "client_id",
        "session_id",
        "source_ip",
        "server",
        "call_id",
        "hash",
        "subject",
    ):
        value = getattr(found, name)
        assert value is None or (isinstance(value, str) and value not in ("", "-", "unknown", "anonymous")), (
            name
        )


@settings(max_examples=100, deadline=None)
@given(st.lists(st.dictionaries(every_name, json_values, max_size=8), max_size=6), st.booleans())
def test_whatever_the_records_every_mapping_gives_normal_events(
    records: list[dict[str, Any]], live: bool
) -> None:
    lines = [json.dumps(record).encode() for record in records]
    for each in (*MAPPINGS, None):
        found = Reader("a", mappings=[each] if each else [], format_name=each.name if each else "auto")
        read = found.read(block_of(lines), NOW if live else None)
        for one in read:
            normal(one)
            dump(event_record(one, None, reveal=True))
        assert found.lines == len(lines) == found.understood + found.not_understood + found.joined
        assert found.events == sum(not isinstance(one, CallEnd) for one in read)
        assert sum(found.reasons.values()) == found.not_understood


@settings(max_examples=120, deadline=None)
@given(st.dictionaries(every_name, json_values, max_size=8))
def test_a_mapping_that_is_read_directly_never_raises_and_gives_events_or_a_reason(
    record: dict[str, Any],
) -> None:
    for each in (*MAPPINGS, GENERIC):
        each.claims(record)
        found = each.read(record)
        assert isinstance(found, str) or all(isinstance(one, Reading) for one in found)


@settings(max_examples=60, deadline=None)
@given(st.dictionaries(every_name, json_values, max_size=8))
def test_knowing_the_names_of_a_record_changes_nothing_but_the_time_it_takes(record: dict[str, Any]) -> None:
    assert repr(GENERIC.among(frozenset(record)).read(record)) == repr(GENERIC.read(record))
