"""Shapes split a line into records, whole and without mixing up what a program and what its callers say."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mcpwatch.formats.keyvalue import MAX_PAIRS, read_pairs
from mcpwatch.formats.shapes import SHAPES
from mcpwatch.times import parse_rfc3339

TEXT = st.text(max_size=20)
KEY = st.from_regex(r"[A-Za-z_][A-Za-z0-9_.]{0,10}", fullmatch=True)


def only(shape: str, line: str) -> dict[str, Any]:
    records = SHAPES[shape](line.encode())
    assert records is not None
    (record,) = records
    return record


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("time=2026-11-22T03:14:07Z msg=up", {"time": "2026-11-22T03:14:07Z", "msg": "up"}),
        (r'a=1 msg="say \"hi\"\n\t\u00e9\x41\U0001f600"', {"a": "1", "msg": 'say "hi"\n\té' "A😀"}),
        ('gen_ai.tool.name=add src.addr=[::1]:443 x=', {"gen_ai.tool.name": "add", "src.addr": "[::1]:443", "x": ""}),
        ('event=a payload={"sql": "a = b, c=\\"d\\""} type=X', {
            "event": "a", "payload": '{"sql": "a = b, c=\\"d\\""}', "type": "X"}),
        ("event=a error=access denied: /etc ms=4", {"event": "a", "error": "access denied: /etc", "ms": "4"}),
        ("status=denied note=x status=success", {"status": "denied", "note": "x"}),
        ("ip=127.0.0.1:5, method=POST, path=/mcp", {"ip": "127.0.0.1:5", "method": "POST", "path": "/mcp"}),
        ('a=1 msg="not closed b=2', {"a": "1", "msg": "not closed b=2"}),
        ('a=1 data={"cut": "b=2', {"a": "1", "data": '{"cut": "b=2'}),
        ("a=1 set={x b=2", {"a": "1", "set": "{x", "b": "2"}),
    ],
)  # fmt: skip
def test_logfmt(line: str, expected: dict[str, str]) -> None:
    assert only("logfmt", line) == expected


@pytest.mark.parametrize(
    "line", ["", "text", "a=1", "text a=1 b=2", "=1 b=2", '{"a": "b=1 c=2"}', "GET /?a=1&b=2"]
)
def test_what_is_no_logfmt(line: str) -> None:
    assert SHAPES["logfmt"](line.encode()) is None


def go_quoted(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)


@given(st.dictionaries(KEY, TEXT, min_size=2))
def test_quoted_values_come_back_as_they_were_whatever_they_hold(pairs: dict[str, str]) -> None:
    """No value can pass for another pair."""
    line = " ".join(f"{key}={go_quoted(value)}" for key, value in pairs.items())
    assert read_pairs(line) == pairs


CEF = (
    r"CEF:0|Acme|Gate\|way|1.0|LOGIN_FAILED|Bad \\ login|7|"
    r"src=203.0.113.9 suser=ann msg=no \= way: a b cs1=x1 cs1Label=Key"
)


def test_cef() -> None:
    assert only("cef", CEF) == {
        "vendor": "Acme", "product": "Gate|way", "version": "1.0", "event": "LOGIN_FAILED", "name": "Bad \\ login",
        "severity": "7", "src": "203.0.113.9", "suser": "ann", "msg": "no = way: a b", "cs1": "x1", "cs1Label": "Key",
        "Key": "x1",
    }  # fmt: skip
    assert only("cef", "CEF:0|A|B|1|E|N|3|event=other name=x cn1=5 cn1Label=src src=1.2.3.4") == {
        "vendor": "A", "product": "B", "version": "1", "event": "E", "name": "N", "severity": "3",
        "cn1": "5", "cn1Label": "src", "src": "1.2.3.4",
    }  # fmt: skip
    assert only("cef", "CEF:0|A|B|1|E|N|3")["severity"] == "3"
    assert SHAPES["cef"](b"CEF:0|A|B|1") is None
    assert SHAPES["cef"](b"x " + CEF.encode()) is None


@given(st.dictionaries(KEY.filter(lambda key: "Label" not in key), TEXT, max_size=5))
def test_escaped_values_of_cef_come_back(pairs: dict[str, str]) -> None:
    def escaped(text: str) -> str:
        return text.replace("\\", "\\\\").replace("=", "\\=").replace("\n", "\\n").replace("\r", "\\r")

    line = "CEF:0|A|B|1|E|N|3|" + " ".join(f"{key}={escaped(value)}" for key, value in pairs.items())
    record = only("cef", line)
    for key, value in pairs.items():
        if key not in ("vendor", "product", "version", "event", "name", "severity"):
            assert record[key].split() == value.split()


@pytest.mark.parametrize(
    ("head", "delimiter"),
    [
        ("LEEF:1.0|A|B|1|LOGIN|", "\t"),
        ("LEEF:2.0|A|B|1|LOGIN|", "\t"),
        ("LEEF:2.0|A|B|1|LOGIN||", "\t"),
        ("LEEF:2.0|A|B|1|LOGIN|^|", "^"),
        ("LEEF:2.0|A|B|1|LOGIN|x5E|", "^"),
        ("LEEF:2.0|A|B|1|LOGIN|0x09|", "\t"),
    ],
)
def test_leef_and_its_delimiters(head: str, delimiter: str) -> None:
    line = head + delimiter.join(["src=203.0.113.9", "usrName=ann", "msg=a=b c|d", "event=other", "nothing"])
    assert only("leef", line) == {
        "vendor": "A", "product": "B", "version": "1", "event": "LOGIN",
        "src": "203.0.113.9", "usrName": "ann", "msg": "a=b c|d",
    }  # fmt: skip


COMMON = '203.0.113.9 - ann [22/Nov/2026:03:14:07 +0000] "POST /mcp?a=\\"b HTTP/1.1" 401 30'
ERROR = (
    "2026/11/22 03:14:07 [error] 24#24: *9 {}, client: 203.0.113.9, server: mcp, "
    'request: "POST /mcp HTTP/2.0", host: "h:1"'
)


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        (COMMON, {"line": "access", "remote_addr": "203.0.113.9", "user": "ann", "http_method": "POST",
                  "path": '/mcp?a=\\"b', "status": 401, "bytes": 30}),
        (COMMON + ' "-" "curl/7 (\\"x\\")"', {"user_agent": 'curl/7 (\\"x\\")', "referer": "-"}),
        (COMMON + ' "-" "curl/7" 0.004 "s1"', {"extra": '0.004 "s1"'}),
        ("mcp.example:443 " + COMMON, {"host": "mcp.example:443", "status": 401}),
        (COMMON.replace("203.0.113.9", "2001:db8::1"), {"remote_addr": "2001:db8::1"}),
        ('1.2.3.4 - - [22/Nov/2026:03:14:07 +0000] "\\x16\\x03" 400 -', {"request": "\\x16\\x03", "status": 400}),
        ('INFO:     203.0.113.9:59164 - "POST /mcp HTTP/1.1" 401 Unauthorized', {
            "line": "access", "level": "info", "remote_addr": "203.0.113.9", "remote_port": 59164, "path": "/mcp",
            "status": 401}),
        ('INFO:     ::1:59164 - "GET / HTTP/1.1" 404 Not Found', {"remote_addr": "::1", "remote_port": 59164}),
        ('INFO:      - "GET / HTTP/1.1" 200 OK', {"status": 200}),
        ('2026-11-22 03:14:07,489 INFO uvicorn.access 1.2.3.4:5 - "GET / HTTP/1.1" 200', {
            "time": "2026-11-22 03:14:07,489", "level": "info", "remote_addr": "1.2.3.4"}),
        (ERROR.format('limiting requests, excess: 1.4 by zone "m"'), {
            "line": "limited", "zone": "m", "remote_addr": "203.0.113.9", "server": "mcp", "path": "/mcp",
            "host": "h:1", "level": "error", "time": "2026-11-22T03:14:07"}),
        (ERROR.format('limiting connections by zone "m"'), {"line": "limited"}),
        (ERROR.format("delaying request, excess: 0.1, by zone \"m\""), {"line": "delayed"}),
        (ERROR.format("access forbidden by rule"), {"line": "forbidden"}),
        (ERROR.format('user "bob": password mismatch'), {"line": "login"}),
        (ERROR.format('user "bob" was not found in "/etc/h"'), {"line": "login"}),
        (ERROR.format("upstream timed out"), {"line": "error", "message": "upstream timed out"}),
        (ERROR.format('limiting requests, dry run, excess: 1.4 by zone "m"'), {"line": "error"}),
        (ERROR.format('open() "/srv/access forbidden by rule" failed'), {"line": "error"}),
        (ERROR.format('open() "/srv/user "a": password mismatch" failed'), {"line": "error"}),
        (ERROR.format('user "a, client: 6.6.6.6, server: ": password mismatch'), {
            "line": "login", "remote_addr": None}),
        (ERROR.format('user "a": password mismatch, client: 6.6.6.6, server: ": password mismatch'), {
            "line": "login", "remote_addr": None}),
        ("2026/11/22 03:14:07 [notice] 1#1: start worker", {"line": "error", "level": "notice"}),
    ],
)  # fmt: skip
def test_access_logs(line: str, expected: dict[str, Any]) -> None:
    record = only("accesslog", line)
    assert {name: record.get(name) for name in expected} == expected
    assert "time" not in record or parse_rfc3339(record["time"]) is not None


@pytest.mark.parametrize(
    "line",
    [
        "", "text", '- "GET / HTTP/1.1" 200', 'x said 1.2.3.4:5 - "GET / HTTP/1.1" 200 and more text 7',
        '{"a": "1.2.3.4:5 - "} - "GET / HTTP/1.1" 200',
        'ERROR: Error in tools/call: ToolError: no /x 6.6.6.6:1 - "POST /mcp HTTP/1.1" 401',
        'WARN no such thing as 6.6.6.6:1 - "POST /mcp HTTP/1.1" 401', COMMON.replace("Nov", "Nox"),
        "2026/11/22 03:14:07 text",
    ],
)  # fmt: skip
def test_what_is_no_access_log(line: str) -> None:
    assert SHAPES["accesslog"](line.encode()) is None


def test_a_path_that_looks_like_the_rest_of_the_line_is_a_path() -> None:
    record = only(
        "accesslog", '1.2.3.4 - - [22/Nov/2026:03:14:07 +0000] "GET /\\" 200 5 HTTP/1.1" 401 30 "-" "a"'
    )
    assert record["status"] == 401
    record = only(
        "accesslog", ERROR.format("access forbidden by rule").replace("/mcp", "/x, client: 9.9.9.9, ")
    )
    assert record["remote_addr"] == "203.0.113.9"


SPAN = {
    "traceId": "ab", "spanId": "cd", "name": "tools/call add", "kind": 2,
    "startTimeUnixNano": "1795327427037634943", "endTimeUnixNano": "1795327427053673794",
    "attributes": [
        {"key": "gen_ai.tool.name", "value": {"stringValue": "add"}},
        {"key": "n", "value": {"intValue": "5"}},
        {"key": "x", "value": {"doubleValue": 0.5}},
        {"key": "ok", "value": {"boolValue": True}},
        {"key": "l", "value": {"arrayValue": {"values": [{"stringValue": "a"}, {"intValue": 2}]}}},
        {"key": "o", "value": {"kvlistValue": {"values": [{"key": "k", "value": {"stringValue": "v"}}]}}},
        {"key": "none", "value": {}},
    ],
    "status": {},
    "events": [{"name": "x", "timeUnixNano": "5", "attributes": [{"key": "m", "value": {"stringValue": "e"}}]}],
}  # fmt: skip
RESOURCE = {"attributes": [{"key": "service.name", "value": {"stringValue": "demo"}}]}


def traces(*spans: Any) -> bytes:
    scoped = [{"scope": {"name": "fastmcp", "version": "4"}, "spans": list(spans)}]
    return json.dumps({"resourceSpans": [{"resource": RESOURCE, "scopeSpans": scoped}]}).encode()


def test_spans_become_plain_records() -> None:
    records = SHAPES["otlp"](
        traces(SPAN, SPAN | {"kind": "SPAN_KIND_CLIENT", "status": {"code": "STATUS_CODE_ERROR"}})
    )
    assert records is not None
    first, second = records
    assert first == SPAN | {
        "startTimeUnixNano": 1795327427037634943, "endTimeUnixNano": 1795327427053673794,
        "attributes": {
            "gen_ai.tool.name": "add", "n": 5, "x": 0.5, "ok": True, "l": ["a", 2], "o": {"k": "v"}, "none": None,
        },
        "status": {"code": 0}, "events": [{"name": "x", "timeUnixNano": 5, "attributes": {"m": "e"}}],
        "signal": "traces", "resource": {"service.name": "demo"}, "scope": {"name": "fastmcp", "version": "4"},
    }  # fmt: skip
    assert (second["kind"], second["status"]) == (3, {"code": 2})


def test_other_exporters_names_are_read() -> None:
    span = {
        "name": "a",
        "start_time_unix_nano": 5,
        "attributes": {"b": 1},
        "status": {"code": 2, "message": "m"},
    }
    line = {"resource_spans": [{"scope_spans": [{"spans": [span]}]}]}
    assert only("otlp", json.dumps(line)) == {
        "name": "a", "startTimeUnixNano": 5, "attributes": {"b": 1}, "status": {"code": 2, "message": "m"}, "kind": 0,
        "signal": "traces", "resource": {}, "scope": {},
    }  # fmt: skip


def test_log_records_become_plain_records() -> None:
    log = {
        "timeUnixNano": "0", "observedTimeUnixNano": "7", "severityText": "INFO", "eventName": "e",
        "body": {"kvlistValue": {"values": [{"key": "tool", "value": {"stringValue": "add"}}]}},
    }  # fmt: skip
    line = {"resourceLogs": [{"resource": RESOURCE, "scopeLogs": [{"logRecords": [log]}]}]}
    assert only("otlp", json.dumps(line)) == {
        "observedTimeUnixNano": 7, "severityText": "INFO", "eventName": "e", "body": {"tool": "add"},
        "signal": "logs", "resource": {"service.name": "demo"}, "scope": {},
    }  # fmt: skip


def test_metrics_hold_no_records_and_other_json_is_none() -> None:
    assert SHAPES["otlp"](b'{"resourceMetrics":[{"scopeMetrics":[]}]}') == []
    for line in (b"{}", b'{"resourceSpans":1}', b"[]", b"1", b'{"resourceSpans"', b"[" * 100_000):
        assert SHAPES["otlp"](line) is None


WRONG = st.recursive(
    st.none() | st.booleans() | st.integers() | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(
        st.sampled_from(["resource", "attributes", "scope", "scopeSpans", "spans", "key", "value", "stringValue",
                         "arrayValue", "kvlistValue", "values", "status", "kind", "code", "events", "body",
                         "startTimeUnixNano", "timeUnixNano", "intValue"]), inner, max_size=4),
    max_leaves=25,
)  # fmt: skip


@given(st.lists(WRONG, max_size=3), st.lists(WRONG, max_size=3))
def test_otlp_with_wrong_types_never_raises(spans: list[Any], resources: list[Any]) -> None:
    for line in (
        traces(*spans),
        json.dumps({"resourceSpans": resources, "resourceLogs": resources}).encode(),
    ):
        records = SHAPES["otlp"](line)
        assert records is not None
        assert all(isinstance(record["attributes"], dict) for record in records if "attributes" in record)


PIECES = [
    b"CEF:0|", b"LEEF:2.0|", b"|", b"a=", b'"', b"\\", b" - ", b"[22/Nov/2026:03:14:07 +0000]", b"1.2.3.4:5 ", b" ",
    b"= ", b'"GET / HTTP/1.1"', b" 200 ", b"2026/11/22 03:14:07 [error] 1#1: ", b", client: ", b'{"', b"\xff",
    b"cs1Label=", b"\\u", b"[", b"\\=", b", host: \"",
]  # fmt: skip
BEGINS = [
    b"", b"CEF:0|a|b|c|d|e|f|", b'1.2.3.4 - - [22/Nov/2026:06:08:07 +0000] "', b"INFO: ", b"LEEF:2.0|a|b|c|d|",
    b"2026/11/22 06:09:04 [error] 1#1: *9 ", b"a=1 b=",
]  # fmt: skip


@pytest.mark.parametrize("shape", SHAPES)
@settings(deadline=None)
@given(st.binary(max_size=80) | st.lists(st.sampled_from(PIECES + BEGINS), max_size=14).map(b"".join))
def test_a_shape_never_raises(shape: str, line: bytes) -> None:
    records = SHAPES[shape](line)
    assert records is None or all(isinstance(name, str) for record in records for name in record)


@pytest.mark.parametrize("shape", SHAPES)
def test_lines_made_to_be_slow_are_not(shape: str) -> None:
    """No character is read again and again: a quadratic reader would be at this for minutes."""
    for begin in BEGINS:
        for part in PIECES:
            SHAPES[shape](begin + part * ((1 << 16) // len(part)))


def test_a_line_of_very_many_pairs_gives_the_first_of_them() -> None:
    found = read_pairs(" ".join(f"k{number}={number}" for number in range(50_000)))
    assert found is not None
    assert len(found) == MAX_PAIRS
