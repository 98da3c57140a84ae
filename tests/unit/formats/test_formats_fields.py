"""Other names, words and units for the fields of a record."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mcpwatch.event import OUTCOMES, AuditEvent
from mcpwatch.formats.fields import (
    ALIASES,
    BESIDE,
    EVENT_WORDS,
    HTTP_STATUS,
    STATUS_WORDS,
    address_of,
    duration_of,
    look_up,
    number_of,
    scopes_of,
    status_of,
    text_of,
)
from tests.oracle import read


def event_of(**fields: Any) -> AuditEvent:
    (event,) = read([{"time": 1} | fields])
    return event


@pytest.mark.parametrize("name", ALIASES["tool"])
def test_every_name_of_the_tool_is_read(name: str) -> None:
    assert event_of(**{name: "t"}).tool == "t"


@pytest.mark.parametrize(
    ("field", "name"),
    [(field, name) for field in ("key_id", "client_id", "session_id", "subject", "source_ip", "server", "call_id")
     for name in ALIASES[field]],
)  # fmt: skip
def test_every_name_of_an_id_is_read_also_nested(field: str, name: str) -> None:
    assert getattr(event_of(**{name: "x"}), field) == "x"
    if "." in name:
        record: Any = "x"
        for part in reversed(name.split(".")):
            record = {part: record}
        assert getattr(event_of(**record), field) == "x"


@pytest.mark.parametrize(
    ("field", "name"),
    [(field, name) for field in ("definition_sha256", "hash", "prev_hash") for name in ALIASES[field]],
)
def test_every_name_of_a_hash_is_read(field: str, name: str) -> None:
    assert getattr(event_of(tool="t", **{name: "ab" * 32}), field) == "ab" * 32


@pytest.mark.parametrize("name", ALIASES["sequence"])
@pytest.mark.parametrize(
    ("value", "number"),
    [(0, 0), (7, 7), ("7", 7), (2**63 - 1, 2**63 - 1), (2**63, None), (-1, None), ("-1", None), (7.0, None),
     (True, None), ("", None), ("٧", None), ("9" * 19, None), ([7], None)],
)  # fmt: skip
def test_numbers_of_records(name: str, value: object, number: int | None) -> None:
    assert event_of(tool="t", **{name: value}).sequence == number


@pytest.mark.parametrize("field", sorted(BESIDE))
def test_a_number_or_a_hash_alone_makes_no_audit_record(field: str) -> None:
    """Other logs have them too."""
    for name in ALIASES[field]:
        assert read([{name: 7 if field == "sequence" else "ab" * 32}]) == []


@pytest.mark.parametrize("name", ["api_key", "apiKey", "key", "authorization", "token", "id", "request_id"])
def test_names_that_hold_keys_or_count_requests_are_no_ids(name: str) -> None:
    event = event_of(tool="t", **{name: "sk-live-123"})
    assert (event.key_id, event.call_id, event.session_id, event.subject) == (None, None, None, None)


@pytest.mark.parametrize(
    ("value", "outcome"),
    [
        *STATUS_WORDS.items(),
        *HTTP_STATUS.items(),
        *((str(code), outcome) for code, outcome in HTTP_STATUS.items()),
        (200, "unknown"), (201, "unknown"), ("204", "unknown"), (302, "unknown"), (400, "error"), (500, "error"),
        ("503", "error"), (True, "success"), (False, "error"), ("OK", "success"), ("Rate-Limited", "rate_limited"),
        (" timed out ", "timeout"), ("weird", "unknown"), ("", "unknown"), (None, "unknown"), ([], "unknown"),
        (0, "unknown"), (10**30, "unknown"), ("٢٠٠", "unknown"),
    ],
)  # fmt: skip
def test_outcomes(value: object, outcome: str) -> None:
    assert status_of(value) == outcome
    assert outcome in OUTCOMES


@pytest.mark.parametrize(
    ("value", "ms"),
    [
        (4, 4.0), (4.5, 4.5), ("4", 4.0), ("4.5", 4.5), ("4ms", 4.0), ("1.2s", 1200.0), ("412.7µs", 0.4127),
        ("412.7μs", 0.4127), ("5us", 0.005), ("7ns", 7e-6), ("1m2.5s", 62_500.0), ("1h", 3.6e6), ("1 h 2 m", 3.72e6),
        (0, 0.0), (-1, None), ("-1", None), (True, None), (None, None), ("fast", None), ("4 parsecs", None),
        (float("nan"), None), (float("inf"), None), (10**400, None), ("1.2.3", None), ("9" * 65, None), ([], None),
    ],
)  # fmt: skip
def test_durations(value: object, ms: float | None) -> None:
    assert duration_of(value) == (None if ms is None else pytest.approx(ms))


def test_durations_of_logs_in_seconds() -> None:
    assert event_of(tool="t", elapsed_seconds=1.5).duration_ms == 1500
    assert event_of(tool="t", elapsed_seconds="250ms").duration_ms == 250
    assert event_of(tool="t", duration_s=9, duration_ms=5).duration_ms == 5


@pytest.mark.parametrize(
    ("value", "address"),
    [
        ("10.1.2.3:56642", "10.1.2.3"), ("[2001:db8::1]:443", "2001:db8::1"), ("2001:db8::1", "2001:db8::1"),
        ("10.1.2.3", "10.1.2.3"), ("203.0.113.9, 10.0.0.1", "203.0.113.9"),
        ("10.0.0.1, 203.0.113.9", "203.0.113.9"), ("198.51.100.7, 203.0.113.9, 10.0.0.1", "203.0.113.9"),
        ("10.0.0.1, 10.0.0.2", "10.0.0.2"), ("x, y", "y"), ("localhost:80", "localhost"),
        (":80", None), ("[]:80", None), ("-", None), ("", None), (None, None), (",", None),
        ("host:name", "host:name"),
    ],
)  # fmt: skip
def test_addresses_lose_their_port(value: object, address: str | None) -> None:
    assert address_of(value) == address


@pytest.mark.parametrize(
    ("value", "scopes"),
    [
        ("read write", ["read", "write"]), ("read,write", ["read", "write"]), (["read"], ["read"]), ([], []),
        ("", None), ("-", None), (None, None), (["a", None, {}], ["a"]), (5, None),
    ],
)  # fmt: skip
def test_scopes(value: object, scopes: list[str] | None) -> None:
    assert scopes_of(value) == scopes


@given(st.one_of(st.none(), st.text(), st.integers(), st.floats(), st.booleans(), st.lists(st.text())))
def test_the_readers_of_fields_take_anything(value: object) -> None:
    for function in (text_of, status_of, duration_of, address_of, scopes_of, number_of):
        function(value)


@pytest.mark.parametrize(("word", "kind"), EVENT_WORDS.items())
def test_kinds(word: str, kind: str) -> None:
    assert event_of(event=word).event == kind
    assert event_of(event=f" {word.upper()} ").event == kind


@pytest.mark.parametrize(
    ("fields", "kind"),
    [({"tool": "t"}, "tool_call"), ({"method": "tools/list"}, "request"), ({"event": "boot"}, "request"),
     ({"event": "boot", "tool": "t"}, "tool_call"), ({"event": "tool_call"}, "tool_call")],
)  # fmt: skip
def test_the_kind_where_the_word_says_nothing(fields: dict[str, str], kind: str) -> None:
    assert event_of(**fields).event == kind


@pytest.mark.parametrize("word", ["auth_failure", "login_failed", "authentication_failed"])
def test_a_failed_login_is_one_by_its_word(word: str) -> None:
    assert event_of(event=word).status == "unauthenticated"
    assert event_of(event=word, status="failed").status == "unauthenticated"
    assert event_of(event=word, status="rate_limited").status == "rate_limited"


def test_a_json_rpc_tools_call_is_unwrapped() -> None:
    call = {"name": "file_read", "arguments": {"path": "/etc/passwd"}, "_meta": {}}
    event = event_of(method="tools/call", params=call)
    assert (event.event, event.tool, event.params) == ("tool_call", "file_read", {"path": "/etc/passwd"})
    assert event_of(method="tools/call", params={"name": "t"}).params is None
    text = event_of(method="tools/call", params='{"name":"t","arguments":{"a":1}}')
    assert (text.tool, text.params) == ("t", {"a": 1})


def test_parameters_called_name_stay_parameters() -> None:
    params = {"name": "Eve", "arguments": {}}
    event = event_of(tool="create_user", params=params)
    assert (event.tool, event.params) == ("create_user", params)
    more = {"name": "create_user", "arguments": {}, "path": "/etc"}
    assert event_of(tool="create_user", params=more).params == more


@pytest.mark.parametrize(
    ("value", "params"),
    [
        ({"a": 1}, {"a": 1}), ('{"a":1}', {"a": 1}), ("[1]", {"value": [1]}), ("{broken", {"value": "{broken"}),
        ("ls -la", {"value": "ls -la"}), ("", None), (None, None), ([1, 2], {"value": [1, 2]}), (5, {"value": 5}),
    ],
)  # fmt: skip
def test_parameters_of_any_shape(value: object, params: dict[str, Any] | None) -> None:
    assert event_of(tool="t", args=value).params == params


def test_clients_and_errors_as_objects() -> None:
    event = event_of(tool="t", client={"name": "claude", "version": "1"}, error={"code": 1, "message": "no"})
    assert (event.client_id, event.error) == ("claude", "no")


@pytest.mark.parametrize(
    ("name", "value"),
    [("a.b", 1), ("c.0.d", 2), ("c.1.d", None), ("c.x", None), ("dotted.name", 3), ("a.b.c", None), ("none", None),
     ("c.٠.d", None), ("c.999999999999.d", None)],
)  # fmt: skip
def test_dotted_paths(name: str, value: object) -> None:
    record = {"a": {"b": 1}, "c": [{"d": 2}], "dotted.name": 3, "dotted": {"name": 4}}
    assert look_up(record, name) == value
