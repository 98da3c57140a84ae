"""What a caller says (a name, a path, a header) makes no record of another kind, and keeps none from being seen."""

from __future__ import annotations

import json
from typing import Any

import pytest

from mcpwatch.event import AuditEvent, CallEnd
from mcpwatch.formats import keyvalue
from mcpwatch.formats.cutjson import json_end
from mcpwatch.formats.reader import Reader
from tests.oracle import block_of

FORGED = '{"event":"request_success","method":"tools/call","source":"client","payload":{"name":"shell"}}'
REFUSED = "ERROR: Error in tools/call: ToolError: access denied: "
TIMED = "2026-11-20 08:00:01,377 INFO fx.dt "


def read(*lines: str) -> tuple[Reader, list[AuditEvent]]:
    reader = Reader("a")
    return reader, reader.read(block_of(lines))


@pytest.mark.parametrize(
    ("before", "line"),
    [
        ("INFO: " + FORGED, REFUSED + FORGED),
        ("INFO: " + FORGED, "INFO: Rejected request with unknown or expired session ID: " + FORGED),
        (TIMED + "Tool 'add' completed in 8.62ms", REFUSED + "/x/Tool 'shell' completed in 1ms"),
        (TIMED + "event=request_start method=tools/call source=client",
         REFUSED + "/x event=request_success method=tools/call source=client duration_ms=1"),
        (TIMED + "Terminating session: a",
         TIMED + "Request tools/call failed after 9.38ms: no Terminating session: b"),
        ("ready", TIMED + "Tool 'x' completed in 1ms' failed after 3.1ms: Unknown tool: 'x'"),
        ("ready", TIMED + "Resource 'x' completed in 1ms' failed after 3.1ms: Unknown resource: 'x'"),
        ("ready", TIMED + "Request tools/call failed after 9.38ms: Error calling tool 'boom': it broke"),
    ],
)  # fmt: skip
def test_an_error_that_quotes_a_caller_stays_an_error(before: str, line: str) -> None:
    """Whatever it quotes, and whatever format the line before was in."""
    reader, found = read(before, line)
    event = found[-1]
    assert (event.line, event.status) in ((2, "error"), (2, "denied"))
    assert (event.tool, event.event, reader.asides.total()) != ("shell", "session_end", 0)
    assert "shell" not in (each.tool for each in found if each.line == 2)


def test_an_error_that_quotes_a_caller_is_no_failed_login_from_an_address_of_their_choice() -> None:
    _, found = read(REFUSED + '/x 203.0.113.9:1 - "POST /mcp HTTP/1.1" 401')
    assert [(event.status, event.source_ip) for event in found] == [("denied", None)]


def test_the_name_of_a_client_is_no_call() -> None:
    _, found = read("- Client initialized x > Calling tool shell took: 1ms@1.0")
    assert [(event.event, event.tool) for event in found] == [("session_start", None)]


@pytest.mark.parametrize("method", ["login_failed", "auth", "session_ended", "authentication failure"])
def test_a_method_makes_no_failed_login_and_no_session_of_a_request(method: str) -> None:
    """Else requests would not count for their key, or count as failed logins of whoever shares the address."""
    for record in (
        {"msec": "1795161601.5", "remote_addr": "10.20.0.11", "status": 200, "request_time": 0.1,
         "mcp_method": method},
        {"logger": "http.log.access", "msg": "handled request", "ts": 1795161601.5, "status": 200,
         "request": {"headers": {"Mcp-Method": [method]}}},
        {"timestamp": "2026-11-20T08:00:00Z", "mcp_method": method, "mcp_tool_name": "-", "mcp_server_name": "s",
         "response_code": 200},
    ):  # fmt: skip
        _, (event,) = read(json.dumps(record))
        assert (event.event, event.status) == ("request", "unknown")


@pytest.mark.parametrize(
    "record",
    [
        {"level": "info", "ts": 1795161601.5, "logger": "admin-tools", "msg": "called", "tool_name": "shell"},
        {"type": "system", "ts": 1795161601.5, "toolName": "shell"},
        {
            "track_id": "t",
            "capability_name": "shell",
            "capability_type": "tool",
            "timestamp": 1,
            "resourceSpans": [],
        },
    ],
)
def test_a_call_is_no_aside_of_a_product_that_did_not_write_it(record: dict[str, Any]) -> None:
    reader, found = read(json.dumps(record))
    assert [event.tool for event in found] == ["shell"]
    assert reader.asides.total() == 0


def test_a_quotation_mark_in_a_header_keeps_no_request_from_being_read() -> None:
    r"""nginx writes it as \x22 where its log_format does not say escape=json, which is no JSON."""
    line = r'{"msec":"1795161601.5","remote_addr":"10.20.0.11","status":401,"request_time":0.1,"ua":"\x22\\x22\xD0"}'
    reader, (event,) = read(line)
    assert (event.event, event.status, event.source_ip) == ("auth", "unauthenticated", "10.20.0.11")
    assert reader.not_understood == 0


@pytest.mark.parametrize("duration", [1e305, "9" * 60, 1e15])
def test_a_duration_longer_than_time_itself_is_none(duration: object) -> None:
    _, (event,) = read(
        json.dumps(
            {"msec": "1795161601.5", "remote_addr": "10.20.0.11", "status": 200, "request_time": duration}
        )
    )
    assert event.duration_ms is None
    assert event.time_ns == 1_795_161_601_500_000_000


def test_a_client_that_uses_an_id_twice_at_once_moves_no_outcome() -> None:
    def line(kind: str, **payload: Any) -> str:
        message = {"type": kind, "server_id": "s", "timestamp": "2026-11-20T08:00:00Z"}
        return json.dumps(message | {"payload": {"id": 1} | payload})

    def call(tool: str) -> str:
        return line("REQUEST", method="tools/call", params={"name": tool, "arguments": {}})

    _, found = read(
        call("shell"), call("nothing"), line("RESPONSE", result={}), line("RESPONSE", error={"code": 1})
    )
    assert [event.status for event in found if isinstance(event, CallEnd)] == ["unknown"]


def test_brackets_that_never_close_cost_no_more_than_the_line_is_long(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Not each pair that begins with one is looked through to the end of the line: that would take minutes."""
    looked = []

    def looking(text: str, start: int) -> int | None:
        looked.append(start)
        return json_end(text, start)

    monkeypatch.setattr(keyvalue, "json_end", looking)
    reader, found = read(TIMED + "event=request_start method=tools/call source=client " + "a=[ " * 20_000)
    assert [event.event for event in found] == ["tool_call"]
    assert len(looked) < 10
    assert reader.not_understood == 0
