"""The formats that come with mcpwatch read the logs of their products, each its own and no other's."""

from __future__ import annotations

import functools
import itertools
import json
import random
import time
from collections import Counter
from collections.abc import Iterator

import pytest

from mcpwatch.formats.fields import FIVE_FIELDS
from mcpwatch.formats.mapping import Mapping
from mcpwatch.formats.otlp import records_of
from mcpwatch.formats.reader import lacking_fields
from mcpwatch.formats.shapes import SHAPES
from mcpwatch.formats.shipped import shipped_mapping, shipped_mappings, shipped_names
from mcpwatch.formats.transport import bare, unwrap
from tests.formats_table import LINES, ONLY_FORCED, lines_of, names, read, record, sample

FORMATS = names()
AUTO = [name for name in FORMATS if name not in ONLY_FORCED]
HTTP_ONLY = {
    "access-log": '10.20.0.11 - - [20/Nov/2026:08:00:01 +0000] "POST /mcp HTTP/1.1" STATUS 403 "-" "x"',
    "agentgateway": '{"time":"2026-11-20T08:00:01Z","src.addr":"10.20.0.11:1","http.status":STATUS,"duration":"4ms",'
    '"mcp.method.name":"tools/call","gen_ai.tool.name":"a"}',
    "agentgateway-text": "2026-11-20T08:00:01Z\tinfo\trequest gateway=g src.addr=10.20.0.11:1 http.status=STATUS "
    "mcp.method.name=tools/call gen_ai.tool.name=a duration=4ms",
    "caddy": '{"level":"info","ts":1795161601.5,"logger":"http.log.access","msg":"handled request","request":'
    '{"remote_ip":"10.20.0.11","headers":{"Mcp-Method":["tools/call"],"Mcp-Name":["a"]}},"status":STATUS}',
    "envoy-ai-gateway": '{"start_time":"2026-11-20T08:00:01Z","response_code":STATUS,"mcp.tool.name":"a",'
    '"downstream_remote_address":"10.20.0.11:1"}',
    "kuadrant": '{"timestamp":"2026-11-20T08:00:01Z","response_code":STATUS,"mcp_method":"tools/call",'
    '"mcp_tool_name":"a","mcp_server_name":"s"}',
    "nginx-json": '{"msec":"1795161601.5","remote_addr":"10.20.0.11","status":STATUS,"request_time":0.1,'
    '"mcp_method":"tools/call","mcp_name":"a"}',
    "uvicorn-json": '{"name":"uvicorn.access","message":"10.20.0.11:1 - \\"POST /mcp HTTP/1.1\\" STATUS"}',
}
"""Formats of which only the HTTP status tells an outcome: a line of each."""
HOME_MADE = (
    b'{"timestamp":"2026-11-20T08:00:00Z","tool":"file_read","params":{"path":"/a"},"status":"success"}',
    b'{"time":"2026-11-20 08:00:05,123","toolName":"fetch","arguments":{"url":"https://a/"},"outcome":"OK"}',
    b'{"id":"1","timestamp":"2026-11-20T08:00:00Z","method":"tools/call","toolName":"a","args":{},"success":true}',
    b'{"ts":1795161600,"msg":"tool call","tool":"a","status":"ok","request_time":0.1,"remote_addr":"::1"}',
    b'{"event":"tool_call","method":"tools/call","source":"agent-7","tool":"a","status":"error"}',
    b'{"event":"request_success","method":"tools/call","source":"api","tool":"a","status":"ok"}',
    b'{"start_time":"2026-11-20T08:00:00Z","response_code":200,"tool":"a","status":"ok"}',
    b'{"type":"tool_call","outcome":"success","component":"x","user":"dana","tool":"a"}',
    b'{"type":"user","timestamp":"2026-11-20T08:00:00Z","tool":"a","status":"ok"}',
    b'{"@timestamp":"2026-11-20T08:00:00Z","name":"my.server","levelname":"INFO","tool":"a","duration_ms":3}',
    b'{"timestamp":"2026-11-20T08:00:00Z","event_type":"tool_call","actor":"dana","tool":"a","decision":"allow"}',
    b'{"level":"info","ts":1795161600.5,"logger":"server","msg":"called","tool":"a","status":"ok"}',
    b'{"level":"info","ts":1795161600.5,"logger":"admin","msg":"called","tool":"a","status":"ok"}',
)
"""Logs that people wrote themselves, near to those of products."""
LEFT_OVER = {
    "claude-desktop": ["INFO:mcp.server.lowlevel.server:Something from the server itself"],
    "cursor": ["fc_0849005ca377ba75"],
    "fastmcp-logging": ["b", "  Missing required argument [type=missing_argument]"],
    "fastmcp-timing": [
        "a",
        "  Input should be a valid integer [type=int_parsing]",
    ],
}
"""What stands between the lines of a format and is none of it: the rest of a message, what a server prints."""
ADVICE = (("time",), ("tool", "params"), ("client",), ("status",), ("duration",))
"""The keys of `lacks` that have to do with each of the five fields."""
LOCAL = {
    "access-log", "contextforge-text", "cursor", "fastmcp-errors", "fastmcp-logging", "fastmcp-logging-2.10",
    "fastmcp-structured-text", "fastmcp-timing", "lasso", "mcp-sdk",
}  # fmt: skip
"""Formats with times that have no zone: nginx's error log among the access logs."""
NO_RECORDS = (
    b"Traceback (most recent call last):", b'  File "/app/server.py", line 3, in <module>', b"KeyError: 'tool'",
    b"INFO:     Started server process [6697]", b"2026-11-20 08:00:00,123 INFO my.server ready in 3.2ms",
    b"2026-11-20 08:00:00.123 | INFO     | server:main:7 - Arguments: {}", b"tool=a status=ok",
    b"2026-11-20T08:00:00Z info request id=7 tool=a", b"- Calling home", b"> Waiting",
    b"[2026-11-20T08:00:00Z] [INFO] [main] ready", b"2026-11-20 08:00:00 [info] ready",
    b"[11/20/26 08:00:00] INFO     {\"event\": \"request_start\", \"method\": logging.py:122", b'"tools/call"}',
)  # fmt: skip
"""Lines of servers that are no records."""


@pytest.fixture(autouse=True)
def _utc(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Times without a zone are those of this machine's zone, which is not to matter here."""
    monkeypatch.setenv("TZ", "UTC")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


_alone = functools.cache(sample)


def _records(mapping: Mapping, line: bytes) -> list[dict[str, object]]:
    """What a mapping would be shown of a line, whatever other formats say."""
    text = bare(line)
    found = unwrap(text)
    if found is not None and not text.startswith(b"{"):
        text = bare(found[1].text)
    try:
        parsed = json.loads(text)
    except ValueError:
        parsed = None
    if mapping.shape == "text":
        one = mapping.line(text.decode()) if parsed is None else None
        return [] if one is None else [one]
    if mapping.shape == "json":
        return [parsed] if isinstance(parsed, dict) else []
    if mapping.shape == "otlp":
        return records_of(parsed) or []
    return (SHAPES[mapping.shape](text) or []) if parsed is None else []


def test_every_shipped_format_has_lines_and_no_lines_are_without_one() -> None:
    assert tuple(FORMATS) == shipped_names()


@pytest.mark.parametrize("name", FORMATS)
def test_its_lines_give_the_events_that_stand_beside_them(name: str) -> None:
    """Fields, outcomes and times, with two-line calls put together."""
    expected = json.loads((LINES / f"{name}.expected.json").read_text())
    assert [record(event) for event in sample(name).events] == expected


@pytest.mark.parametrize("name", FORMATS)
def test_the_first_line_tells_the_format(name: str) -> None:
    found = read(name, lines_of(name)[:1], name if name in ONLY_FORCED else "auto")
    assert found.reader.format_name.rpartition(" > ")[2] == name


@pytest.mark.parametrize("name", FORMATS)
def test_every_line_is_read_or_is_no_line_of_the_format(name: str) -> None:
    """What is left over are continuations of messages, and what a server prints between them."""
    reader = sample(name).reader
    assert [found.head for found in reader.examples] == LEFT_OVER.get(name, [])
    assert {each.rpartition(" > ")[2] for each, count in reader.formats.items() if count} <= {name, "otlp"}


@pytest.mark.parametrize(
    "mapping", [each for each in shipped_mappings() if each.signed], ids=lambda each: each.name
)
def test_it_claims_no_line_of_another_product_and_none_that_is_home_made(mapping: Mapping) -> None:
    """Asked alone, so that no other format takes the line from it."""
    others = [line for name in FORMATS if name not in (mapping.name, *ONLY_FORCED) for line in lines_of(name)]
    wrong = [
        line
        for line in (*others, *HOME_MADE, *NO_RECORDS)
        if any(mapping.claims(found) for found in _records(mapping, line))
    ]
    assert wrong == []


@pytest.mark.parametrize("name", AUTO)
def test_asked_for_by_name_it_reads_its_own_lines_and_nothing_else(name: str) -> None:
    expected = json.loads((LINES / f"{name}.expected.json").read_text())
    assert [record(event) for event in read(name, lines_of(name), name).events] == expected
    others = [line for other in AUTO if other != name for line in lines_of(other)]
    others = [
        line for line in others if b"resourceMetrics" not in line
    ]  # both formats of OpenTelemetry know them
    forced = read(name, others, name)
    assert (forced.reader.understood, forced.events) == (0, ())


@pytest.mark.parametrize("name", FORMATS)
def test_half_a_line_and_a_damaged_one_harm_nothing(name: str) -> None:
    """They are counted, nothing is raised, and the whole lines around them are read."""
    chance = random.Random(name)
    for line in lines_of(name):
        cuts = [line[: chance.randrange(len(line) + 1)] for _ in range(3)]
        for _ in range(3):
            at = chance.randrange(len(line))
            cuts.append(line[:at] + bytes([chance.randrange(256)]) + line[at + 1 :])
        found = read(name, [*cuts, line], name if name in ONLY_FORCED else "auto").reader
        assert (
            found.lines
            == found.understood + found.not_understood + found.blank + found.joined
            == len(cuts) + 1
        )
        assert found.formats


def test_home_made_logs_stay_home_made() -> None:
    reader = read("home", HOME_MADE).reader
    assert {name for name, count in reader.formats.items() if count} == {"native", "generic"}
    assert reader.understood == len(HOME_MADE)


def test_lines_that_are_no_records_are_none_in_any_format() -> None:
    found = read("stderr", NO_RECORDS)
    assert (found.reader.not_understood, found.events) == (len(NO_RECORDS), ())


@pytest.mark.parametrize("seed", range(8))
def test_a_mixture_is_read_as_its_parts_are(seed: int) -> None:
    """Eight shuffles of all formats, each log in its own order: every event as when its log is read alone."""
    chance = random.Random(seed)
    owners = [name for name in AUTO for _ in lines_of(name)]
    chance.shuffle(owners)
    lines = {name: iter(lines_of(name)) for name in AUTO}
    mixed = read("mixed", [next(lines[owner]) for owner in owners])
    where = {name: [at for at, owner in enumerate(owners, 1) if owner == name] for name in AUTO}
    expected = [
        found | {"line": where[name][found["line"] - 1]}
        for name in AUTO
        for found in map(record, _alone(name).events)
    ]
    assert [record(event) for event in mixed.events] == sorted(expected, key=lambda each: each["line"])
    formats: Counter[str] = sum((Counter(_alone(name).reader.formats) for name in AUTO), Counter())
    assert +Counter(mixed.reader.formats) == +formats


@pytest.mark.parametrize(
    ("name", "status"),
    list(itertools.product(HTTP_ONLY, (200, 202, 204, 302, 400, 401, 403, 404, 429, 500, 503, 504))),
)
def test_http_alone_never_makes_a_success(name: str, status: int) -> None:
    """Servers answer denied, unknown and failed tools with 200."""
    found = read(name, [HTTP_ONLY[name].replace("STATUS", str(status)).encode()])
    [event] = found.events
    assert found.reader.formats[name] == 1
    known = {401: "unauthenticated", 403: "denied", 429: "rate_limited", 504: "timeout"}
    assert event.status == known.get(status, "unknown" if status < 400 else "error")
    assert status != 401 or event.tool is not None or event.event == "auth"


@pytest.mark.parametrize("name", FORMATS)
def test_what_a_product_does_not_log_has_advice(name: str) -> None:
    """For each of the five fields that most of its calls lack."""
    calls = [event for event in sample(name).events if event.event == "tool_call"]
    lacks = shipped_mapping(name).lacks
    keys = dict(zip(FIVE_FIELDS, ADVICE, strict=True))
    lacking = Counter(field for event in calls for field in lacking_fields(event) if field is not None)
    without = [field for field, count in lacking.items() if count * 2 > len(calls)]
    assert [field for field in without if not any(key in lacks for key in keys[field])] == []


def test_times_without_a_zone_are_those_of_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """In the logs of programs that write them so, as Python's logging does; all others say their zone."""
    before = {name: [event.time_ns for event in sample(name).events] for name in FORMATS}
    monkeypatch.setenv("TZ", "Europe/Berlin")
    time.tzset()
    moved = {name for name in FORMATS if [event.time_ns for event in sample(name).events] != before[name]}
    assert moved == LOCAL
    line = b"2026-11-20 09:30:00,500 INFO timing Tool 'file_read' completed in 500.00ms"
    [event] = read("x", [line]).events
    assert event.time_ns == 1_795_163_400_000_000_000


@pytest.mark.parametrize("name", FORMATS)
def test_it_has_a_title_of_its_own(name: str) -> None:
    assert shipped_mapping(name).title not in ("", name)


def test_words_that_a_caller_chose_do_not_make_a_refusal() -> None:
    """Only a message that begins so says that access was denied: a parameter that is repeated in it does not."""
    start = b'{"event": "request_start", "method": "tools/call", "source": "client"}'
    end = start.replace(b"start", b"error").replace(b"}", b', "error": "no such file: access denied"}')
    [event] = read("x", [start, end]).events
    assert event.status == "error"


def test_a_client_span_beside_a_server_span_counts_once() -> None:
    lines = lines_of("otlp-client-traces")
    assert read("clients", lines).events == ()
