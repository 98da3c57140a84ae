"""A first mapping file can be read, reads its sample better than names alone do, and gives nothing away."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mcpwatch.event import AuditEvent, CallEnd
from mcpwatch.formats.keyvalue import logfmt
from mcpwatch.formats.mappingfile import parse_mapping
from mcpwatch.formats.reader import Reader
from mcpwatch.formats.suggest import suggest
from mcpwatch.sources.block import Block
from mcpwatch.times import parse_rfc3339

SECRET = "sk-live-4f9aC1x8Qe7LmN2pRt6vWz3y"


def nested(number: int) -> dict[str, Any]:
    """A made-up product: several calls in one record, camelCase, a caller around them."""
    calls = [
        {"fn": "read_page", "parameters": {"path": "/a", "tool": "x"}, "verdict": "fine", "tookMs": 4.5,
         "invocationId": f"abcdef{number:08d}"},
        {"fn": "write_page", "parameters": {"path": "/b"}, "verdict": "refused by policy", "tookMs": 5,
         "invocationId": f"abcdeg{number:08d}"},
    ]  # fmt: skip
    return {"meta": {"when": f"2026-11-22T03:14:{number:02d}Z"}, "who": {"userName": "ann", "ip": "203.0.113.9:55"},
            "conversation": f"c{number % 3}", "calls": calls}  # fmt: skip


def flat(number: int) -> dict[str, Any]:
    return {"@t": 1795317247 + number, "op": "tools/call", "fnName": "add", "kwargs": {"a": 1}, "rc": number % 2,
            "secs": 0.25, "principal": "bob", "apiKey": SECRET, "kind": "invoke"}  # fmt: skip


def envelope(number: int) -> dict[str, Any]:
    return {
        "stamp": {"begin": f"2026-11-22T03:14:{number:02d}Z", "finished": f"2026-11-22T03:14:{number:02d}.250Z"},
        "type": "rpc", "rpc": {"method": "tools/call", "params": {"name": "add", "arguments": {"name": "x"}}},
        "disposition": "OK" if number % 2 else "E_DENIED", "caller.app": "bot", "wasBlocked": False,
        "data": json.dumps({"response": {"tool": "other", "status": "failed"}}),
    }  # fmt: skip


def read(records: list[dict[str, Any]], text: str | None = None) -> tuple[Reader, list[AuditEvent]]:
    mappings = [parse_mapping(text.encode(), "mine.yaml", "mine")] if text is not None else []
    reader = Reader("a", mappings=mappings)
    return reader, reader.read(Block("a", [json.dumps(record).encode() for record in records], 0, 1))


@pytest.mark.parametrize(
    ("make", "first"),
    [
        (nested, {"tool": "read_page", "params": {"path": "/a", "tool": "x"}, "status": "success", "duration_ms": 4.5,
                  "session_id": "c0", "source_ip": "203.0.113.9", "subject": "ann", "call_id": "abcdef00000000"}),
        (flat, {"tool": "add", "params": {"a": 1}, "status": "success", "duration_ms": 250.0, "subject": "bob",
                "key_id": None}),
        (envelope, {"tool": "add", "params": {"name": "x"}, "status": "denied", "duration_ms": 250.0,
                    "client_id": "bot"}),
    ],
)  # fmt: skip
def test_a_sample_is_read_with_its_suggestion_and_better_than_by_names(
    make: Any, first: dict[str, Any]
) -> None:
    records = [make(number) for number in range(20)]
    text = suggest(records, "mine")
    assert text is not None
    reader, events = read(records, text)
    assert reader.formats["mine"] == 20
    assert {name: getattr(events[0], name) for name in first} == first
    for name, have, of in reader.coverage:
        assert have == of == len(events), name
    expected = parse_rfc3339("2026-11-22T03:14:07Z" if make is flat else "2026-11-22T03:14:00Z")
    assert expected is not None
    assert events[0].time_ns == expected[0]
    before, _ = read(records)
    assert sum(have for _, have, _ in before.coverage) < sum(have for _, have, _ in reader.coverage)


def test_several_calls_in_one_record_are_several_events() -> None:
    records = [nested(number) for number in range(20)]
    text = suggest(records, "mine")
    assert text is not None
    assert "each: calls[]\n" in text
    _, events = read(records, text)
    assert [event.status for event in events] == ["success", "denied"] * 20


def test_a_log_of_pairs() -> None:
    lines = [
        f'at=2026-11-22T03:14:{number:02d}Z fn=add who=ann took=4ms went=fine args="{{\\"a\\":1}}"'
        for number in range(9)
    ]
    records = [record for line in lines for record in logfmt(line.encode()) or ()]
    text = suggest(records, "mine", shape="logfmt")
    assert text is not None
    reader = Reader("a", mappings=[parse_mapping(text.encode(), "mine.yaml", "mine")])
    event, *others = reader.read(Block("a", [line.encode() for line in lines], 0, 1))
    assert (event.tool, event.params, event.subject, event.duration_ms, len(others)) == (
        "add",
        {"a": 1},
        "ann",
        4.0,
        8,
    )


def test_words_that_say_nothing_are_left_open_and_http_is_no_success() -> None:
    records = [nested(number) | {"calls": [{"fn": "x", "verdict": word}]} for number, word in enumerate(
        ["fine", "zonk", "200", "timed out", "throttled"])]  # fmt: skip
    text = suggest(records, "mine")
    assert text is not None
    assert 'put under status: "zonk"' in text
    _, events = read(records, text)
    assert [event.status for event in events] == ["success", "unknown", "unknown", "timeout", "rate_limited"]


@pytest.mark.parametrize(
    ("name", "outcomes"), [("failed", ["success", "error"]), ("success", ["error", "success"])]
)
def test_flags_are_read_by_what_they_are_called(name: str, outcomes: list[str]) -> None:
    records = [{"ts": 1795317247, "fn": "x", name: flag} for flag in (False, True)]
    text = suggest(records, "mine")
    assert text is not None
    assert [event.status for event in read(records, text)[1]] == outcomes


def test_a_suggestion_gives_no_secret_away_and_takes_none_for_a_name() -> None:
    records = [
        flat(number) | {"token_id": SECRET, "user": "x", "note": f"Bearer {SECRET}"} for number in range(5)
    ]
    text = suggest(records, "mine")
    assert text is not None
    assert SECRET not in text
    assert "key_id" not in text
    text = suggest([flat(number) | {"error": f"refused: Bearer {SECRET}"} for number in range(5)], "mine")
    assert text is not None
    assert "  error: error" in text
    assert SECRET[:12] not in text


def test_a_signature_is_more_than_a_word_that_others_use() -> None:
    """Records of another log that have only the kind in common are not claimed."""
    text = suggest([flat(number) for number in range(5)], "mine")
    assert text is not None
    reader, _ = read([{"kind": "invoke", "tool": "x", "timestamp": "2026-11-22T03:14:07Z"}], text)
    assert reader.formats["mine"] == 0


def halves(number: int, said: str, **more: Any) -> list[dict[str, Any]]:
    """A call in two lines, of which the first says that it started."""
    time = f"2026-11-22T03:14:{number:02d}"
    return [{"time": time + ".100Z", "msg": "tool call started", "tool": "add", **more},
            {"time": time + ".350Z", "msg": said, "tool": "add", **more}]  # fmt: skip


@pytest.mark.parametrize("named", [True, False])
def test_calls_in_two_lines_are_counted_once_and_end_as_their_second_line_says(named: bool) -> None:
    ends = ["tool call succeeded", "tool call failed", "tool call timed out with an error"]
    records = [
        record
        for number in range(9)
        for record in halves(number, ends[number % 3], **({"request_id": f"r{number}"} if named else {}))
    ]
    text = suggest(records, "mine")
    assert text is not None
    assert ("pair: [request_id]" in text, "pair_by: order" in text) == (named, not named)
    reader, events = read(records, text)
    assert (reader.joined, reader.events, reader.pairing.open) == (9, 9, 0)
    ended = [event for event in events if isinstance(event, CallEnd)]
    assert [event.status for event in ended] == ["success", "error", "error"] * 3
    assert {event.duration_ms for event in ended} == {250.0}


def test_two_lines_with_nothing_in_common_are_told() -> None:
    records = [record for number in range(3) for record in halves(number, "tool call failed")]
    for record in records[1::2]:
        del record["tool"]
    text = suggest(records, "mine")
    assert text is not None
    assert "logged in two lines, start and end, with nothing in common" in text
    assert "variants" not in text


def test_sessions_that_start_and_end_are_no_calls_in_two_lines() -> None:
    records = [{"ts": 1795317247 + n, "event": f"session {word}", "id": f"s{n}"}
               for n in range(4) for word in ("started", "ended")]  # fmt: skip
    text = suggest(records, "mine")
    assert text is not None
    assert "pair" not in text


def test_an_outcome_at_the_top_of_an_answer_is_found_but_not_what_a_tool_answered_inside() -> None:
    def record(result: dict[str, Any], **more: Any) -> dict[str, Any]:
        return {"ts": 1795317247, "fn": "x", "result": result, **more}

    text = suggest([record({"code": 0}), record({"code": 7, "why": "not allowed"})], "mine")
    assert text is not None
    assert "  status: result.code" in text
    assert "  error: result.why" in text
    assert 'put under status: "0", "7"' in text
    text = suggest([record({"rows": {"status": "failed"}})], "mine")
    assert text is not None
    assert "status" not in text
    text = suggest([record({"status": "failed"}, outcome="ok")], "mine")
    assert text is not None
    assert "  status: outcome" in text


@pytest.mark.parametrize(
    ("name", "value", "open_"), [("took", 4.5, True), ("took", "4ms", False), ("took_ms", 4.5, False)]
)
def test_a_unit_that_nothing_tells_is_said_to_be_a_guess(name: str, value: Any, open_: bool) -> None:
    text = suggest([{"ts": 1795317247, "fn": "x", name: value}], "mine")
    assert text is not None
    assert ("nothing says what took counts" in text) == open_


def test_records_without_a_tool_or_a_time_give_no_suggestion() -> None:
    assert suggest([], "mine") is None
    assert suggest([{"a": 1, "b": {"c": "d"}}], "mine") is None


def test_names_and_words_of_any_script() -> None:
    records = [{"\U00016800": {"ts": "2026-11-22T03:14:07Z"}, "fn": "x", "status": "\U0001f600 done"}] * 2
    text = suggest(records, "mine")
    assert text is not None
    _, events = read(records, text)
    assert (events[0].tool, events[0].status) == ("x", "success")
    assert events[0].time_ns is not None


NAMES = st.sampled_from(
    ["ts", "time", "tool", "fn", "args", "status", "ok", "took", "a.b", 'q"', "x[0]", "^", "yes", "calls", "user",
     "é", "\x1b", "key", "type", "1", "-", "null", "name", "a b", ": ", "# c", "session"]
) | st.text(max_size=4)  # fmt: skip
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8)
    | st.sampled_from(["2026-11-22T03:14:07Z", "add", "tools/call", "denied", "4ms", '{"a":{"tool":"x"}}', "a\nb"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=4),
    max_leaves=12,
)  # fmt: skip


@settings(deadline=None, max_examples=50)
@given(st.lists(st.dictionaries(NAMES, VALUES, max_size=6), min_size=1, max_size=4), NAMES)
def test_whatever_the_sample_is_the_suggestion_can_be_read(records: list[dict[str, Any]], name: str) -> None:
    text = suggest(records, "mine")
    if text is not None:
        mapping = parse_mapping(text.encode("utf-8"), "mine.yaml", "mine")
        assert mapping.signed
        assert all(line.isprintable() for line in text.splitlines())
        for record in records:
            mapping.claims(record)
            mapping.read(record)
