"""Incidents and events as JSON and plain lines: stable keys, ASCII, times in UTC, secrets hidden."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mcpwatch.detection.hit import Hit, Severity
from mcpwatch.incidents.export import dump, event_record, incident_line, incident_record
from mcpwatch.incidents.fold import Change, Fold
from mcpwatch.incidents.incident import Incident
from mcpwatch.policy.model import Alerts
from mcpwatch.times import SECOND
from tests.oracle import read

NS = 1_795_161_605 * SECOND  # 2026-11-20T08:00:05Z
KEYS = [
    "type", "schema", "id", "rule", "title", "severity", "subject", "count", "first_seen", "last_seen", "peak",
    "limit", "reason", "outcomes", "tags", "evidence",
]  # fmt: skip


def incident(rule: str = "session-rate", who: str = "s1", count: int = 3, reason: str = "") -> Incident:
    folded = Fold(Alerts())
    folded.add(
        Hit(rule, (("session", who),), NS + n, Severity.MEDIUM, "denied" if n else "success", reason, 6 + n,
            "audit.jsonl", 12 + n, 3456, )
        for n in range(count)
    )  # fmt: skip
    (only,) = folded
    return only


def test_an_incident_has_exactly_the_documented_keys() -> None:
    record = incident_record(incident(), Alerts())
    assert list(record) == KEYS
    assert (record["type"], record["schema"]) == ("incident", "mcpwatch/1")
    assert record["id"] == "INC-5R3JIASZOBTCFJZK"
    assert (record["severity"], record["subject"]) == ("medium", {"session": "s1"})
    assert (record["count"], record["peak"], record["limit"]) == (3, 8, "more than 5 calls in 60 s")
    assert record["outcomes"] == {"denied": 2, "success": 1}
    assert record["first_seen"] == record["last_seen"] == "2026-11-20T08:00:05.000000Z"
    assert record["evidence"][0] == {
        "source": "audit.jsonl", "line": 12, "offset": 3456, "time": "2026-11-20T08:00:05.000000Z",
    }  # fmt: skip
    assert record["title"] and record["reason"] and record["tags"]


def test_stateless_rules_have_no_peak_and_say_their_reason() -> None:
    record = incident_record(incident("path-outside", reason="outside /app/data/"), Alerts())
    assert list(record) == [name for name in KEYS if name != "peak"]
    assert record["reason"] == "outside /app/data/"


def test_change_and_count_since_are_added_only_where_there_is_one() -> None:
    record = incident_record(incident(), Alerts(), change="opened", count_since=NS)
    assert set(record) - set(KEYS) == {"change", "count_since"}
    assert record["count_since"] == "2026-11-20T08:00:05.000000Z"


def test_limits_are_those_of_the_policy() -> None:
    record = incident_record(incident(), Alerts(session_calls_per_minute=2))
    assert record["limit"] == "more than 2 calls in 60 s"
    assert "the limit is more than 2 calls in 60 s" in record["reason"]


@given(st.text(max_size=40), st.text(max_size=40))
def test_json_is_one_ascii_line_that_reads_back(who: str, reason: str) -> None:
    record = incident_record(incident("shell-execute", who, reason=reason), Alerts(), change="final")
    text = dump(record)
    assert text.isascii() and text.isprintable()
    assert json.loads(text) == record


@given(st.text(max_size=40), st.text(max_size=200))
def test_plain_lines_are_printable_without_tabs_or_colour(who: str, reason: str) -> None:
    line = incident_line(Change("opened", incident("shell-execute", who, reason=reason)), Alerts())
    assert line.isprintable()


def test_a_plain_line_says_when_how_bad_what_who_and_why() -> None:
    line = incident_line(Change("count", incident()), Alerts())
    assert line == (
        "2026-11-20T08:00:05.000000Z MEDIUM   count    INC-5R3JIASZOBTCFJZK session-rate s1 x3: "
        "8 calls within the window; the limit is more than 5 calls in 60 s"
    )


SECRET = "sk-live-0123456789abcdef"


def record_of(reveal: bool = False, **fields: Any) -> dict[str, Any]:
    (event,) = read([{"timestamp": 1_795_161_605, "tool": "t"} | fields])
    return event_record(event, "low", reveal=reveal)


@pytest.mark.parametrize(
    "fields",
    [
        {"params": {"api_key": "plain-looking"}},
        {"params": {"header": f"Bearer {SECRET}"}},
        {"params": {"deep": [{"password": "plain-looking"}]}},
        {"error": f"refused {SECRET}"},
    ],
)
def test_secrets_are_hidden_unless_revealed(fields: dict[str, Any]) -> None:
    hidden, shown = dump(record_of(**fields)), dump(record_of(reveal=True, **fields))
    assert "plain-looking" not in hidden and SECRET not in hidden
    assert "plain-looking" in shown or SECRET in shown


def test_an_event_has_what_is_known_and_nothing_else() -> None:
    record = record_of(status="denied", key_id="k", auth={"subject": "eve"}, call_id="c")
    assert record == {
        "type": "event", "schema": "mcpwatch/1", "time": "2026-11-20T08:00:05.000000Z", "event": "tool_call",
        "tool": "t", "tier": "low", "status": "denied", "key_id": "k", "subject": "eve", "call_id": "c",
        "source": "a.jsonl", "line": 1, "offset": 0,
    }  # fmt: skip


def test_an_event_without_time_has_none() -> None:
    assert "time" not in record_of(timestamp=None)


@given(st.sampled_from(["NaN", "Infinity", "-Infinity", "1e999"]), st.booleans())
def test_numbers_that_json_lacks_become_text(number: str, reveal: bool) -> None:
    line = f'{{"timestamp":1,"tool":"t","params":{{"x":[{number}]}}}}'
    (event,) = read([line])
    text = dump(event_record(event, None, reveal=reveal))
    assert re.search(r'"x":\["-?(nan|inf)"\]', text)


def test_dump_refuses_what_is_no_json_rather_than_write_it() -> None:
    with pytest.raises(ValueError, match="JSON"):
        dump({"x": float("nan")})
