"""The reader never raises, counts every line once, and reads a record the same on its fast and its slow way."""

from __future__ import annotations

import gc
import json
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from mcpwatch.detection.engine import Engine
from mcpwatch.event import OUTCOMES, AuditEvent, Caller, Flag
from mcpwatch.formats.fields import ABSENT, BESIDE
from mcpwatch.formats.mappingfile import FormatError
from mcpwatch.formats.reader import KEPT_EXAMPLES, Reader, lacking_fields, lacks_a_field
from mcpwatch.incidents.export import dump, event_record
from mcpwatch.policy.model import Policy, ToolPolicy
from mcpwatch.sources.block import Block, Oversize
from mcpwatch.times import SECOND, parse_time
from tests.oracle import block_of, read

NOW = 1_795_132_800 * SECOND
STAMP = "2026-11-20T08:00:05.123456Z"
FIELDS = (
    "event", "tool", "params", "status", "error", "duration_ms", "key_id", "client_id", "session_id",
    "source_ip", "scopes", "server", "call_id", "time_ns", "flags", "subject",
)  # fmt: skip


def seen(event: AuditEvent) -> dict[str, Any]:
    """What anybody can see of an event."""
    values = {name: getattr(event, name) for name in FIELDS}
    caller, shape = event.caller, event.shape
    values["caller"] = (
        caller.key,
        caller.client,
        caller.session,
        caller.source_ip,
        caller.subject,
        caller.method,
    )
    values["shape"] = (shape.kind, shape.tool, shape.status)
    return values


def one(line: dict[str, Any] | bytes | str, **options: Any) -> AuditEvent:
    (event,) = Reader("a", **options).read(block_of([line]))
    return event


def reader_of(*lines: bytes) -> tuple[Reader, list[AuditEvent]]:
    reader = Reader("a")
    return reader, reader.read(block_of(lines))


def adds_up(reader: Reader, lines: int) -> None:
    assert reader.lines == lines
    counted = (reader.understood, reader.not_understood, reader.blank, reader.repeated, reader.joined)
    assert sum(counted) == lines
    assert sum(reader.reasons.values()) == reader.not_understood
    assert sum(reader.formats.values()) == reader.understood
    assert len(reader.examples) == min(reader.not_understood, KEPT_EXAMPLES)


json_values: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3),
    max_leaves=6,
)
names = st.sampled_from(
    [
        "timestamp", "time", "tool", "params", "args", "status", "success", "key_id", "session", "auth",
        "scopes", "duration", "method", "event", "type", "client", "error", "call_id", "time_ns", "origin",
    ]
)  # fmt: skip
any_record = st.dictionaries(names, json_values | st.sampled_from(sorted(ABSENT))).map(
    lambda record: json.dumps(record).encode()
)


@settings(max_examples=400, deadline=None)
@given(st.lists(st.binary(max_size=30).filter(lambda line: b"\n" not in line) | any_record, max_size=12))
def test_whatever_the_bytes_every_line_is_counted_once(lines: list[bytes]) -> None:
    reader, events = reader_of(*lines)
    adds_up(reader, len(lines))
    assert len(events) == reader.events == reader.understood
    for event in events:
        assert event.status in OUTCOMES
        assert event.event in {"tool_call", "request", "auth", "session_start", "session_end"}
        assert event.time_ns is None or isinstance(event.time_ns, int)
        dump(event_record(event, None, reveal=True))
    Engine(Policy(tools={"t": ToolPolicy(allowed_paths=())}, deny_unlisted=True)).observe(events)


plain = st.text(max_size=12)
absent = st.sampled_from([*sorted(ABSENT), None])
ident = plain | absent | st.sampled_from(["192.0.2.1:80", "[2001:db8::1]:443", "1.1.1.1, 2.2.2.2"])
hashes = st.sampled_from(["ab" * 32, "sha256:" + "AB" * 32, "x" * 512, "x" * 513, "x" * 9, "x" * 10])
native_records = st.fixed_dictionaries(
    {"timestamp": st.sampled_from([STAMP, "2026-11-20T08:00:05Z", 1_795_132_800, 1.5e12, "soon", None])},
    optional={
        "event": st.sampled_from(["request", "auth", "session_start", "session_end"]),
        "tool": st.text(min_size=1, max_size=12),
        "params": st.none() | st.dictionaries(plain, json_values, max_size=3),
        "status": st.sampled_from(sorted(OUTCOMES)),
        "error": st.none() | plain,
        "duration_ms": st.none() | st.floats(allow_nan=False, allow_infinity=False) | st.integers(),
        "key_id": ident,
        "client_id": ident,
        "session_id": ident,
        "source_ip": ident,
        "scopes": st.none() | st.lists(plain, max_size=3),
        "auth": st.none()
        | st.fixed_dictionaries(
            {}, optional={"method": st.none() | plain, "subject": ident, "issued_at": st.integers(0, 2**40)}
        ),
        "server": st.text(min_size=1, max_size=12).filter(lambda name: name not in ABSENT),
        "call_id": st.text(min_size=1, max_size=12).filter(lambda name: name not in ABSENT),
        "definition_sha256": ident | hashes,
        "sequence": st.none() | st.integers(-1, 2**64) | st.sampled_from([2**63 - 1, 2**63]),
        "hash": ident | hashes,
        "prev_hash": ident | hashes,
    },
).filter(lambda record: any(value is not None for name, value in record.items() if name not in BESIDE))


def same(left: Any, right: Any) -> bool:
    return repr(left) == repr(right)  # NaN equals nothing, not even itself


@settings(max_examples=500, deadline=None)
@given(native_records)
@example({"timestamp": STAMP, "tool": "t", "duration_ms": -1.0})
@example({"timestamp": STAMP, "tool": "t", "error": ""})
@example({"timestamp": STAMP, "tool": "t", "sequence": -1, "hash": "", "prev_hash": "anonymous"})
@example({"timestamp": STAMP, "tool": "t", "sequence": 2**63, "definition_sha256": "x" * 513})
@example({"timestamp": STAMP, "tool": "t", "params": {"big": 2**70, "small": -(2**70), "inf": 1e308}})
def test_the_fast_way_and_the_slow_way_read_native_records_alike(record: dict[str, Any]) -> None:
    line = json.dumps(record).encode()
    fast, slow = one(line), one(line, format_name="generic")
    assert same(seen(fast), seen(slow))


@settings(deadline=None)
@given(st.lists(native_records, max_size=8))
def test_what_a_record_says_does_not_depend_on_the_records_before_it(records: list[dict[str, Any]]) -> None:
    """The caches of callers, kinds and times are invisible, also for records of another spelling."""
    together = read(records)
    assert same([seen(event) for event in together], [seen(one(record)) for record in records])


def test_sessions_that_come_once_are_not_kept_and_a_caller_who_comes_again_stays_the_same(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A new session for each call, for weeks, costs no memory; the engine goes by one object for each caller."""

    def call(session: str) -> bytes:
        return json.dumps(
            {"timestamp": STAMP, "tool": "query", "status": "success", "session_id": session}
        ).encode()

    monkeypatch.setattr("mcpwatch.formats.reader.CALLERS_KEPT_FOR", 5_000)
    reader = Reader("log")
    steady = set()
    for turn in range(30):
        lines = [call("steady"), *(call(f"{turn}-{number}") for number in range(1_000))]
        steady.add(reader.read(block_of(lines))[0].caller)
    assert len(steady) == 1
    gc.collect()
    sessions = {found.session for found in gc.get_objects() if isinstance(found, Caller)}
    assert sum(session is not None and "-" in session for session in sessions) <= 12_000


seconds = st.sampled_from(
    [
        "2026-11-20T08:00:05",
        "2026-11-20T08:00:60",
        "2026-13-20T08:00:05",
        "2026-11-20 08:00:05",
        "1970-01-01T00:00:00",
    ]
)
fractions = st.sampled_from(
    ["", ".1", ".12", ".123", ".123456", ".1234567", ".123456789", ".12345x", ".", ",5", ".000000", ".١٢٣٤٥٦"]
)
zones = st.sampled_from(["Z", "z", "", "+01:00", "-0330", "+01", " UTC", "+25:00", "ZZ", " "])
stamps = st.builds(lambda *parts: "".join(parts), seconds, fractions, zones)


@settings(max_examples=300, deadline=None)
@given(
    st.lists(stamps | st.sampled_from([0, 12.5, 1e11, 1e14, 1e17, -1, True, "1795132800.25"]), max_size=20)
)
@example(
    [STAMP, STAMP + "Z", STAMP[:-1] + "x", STAMP[:-1], STAMP.replace("T", "t"), STAMP.replace("5.1", "5,1")]
)
def test_times_are_those_of_the_one_parser_however_often_they_come(times: list[Any]) -> None:
    events = read([{"timestamp": time, "tool": "t"} for time in [*times, *times]])
    for event, time in zip(events, [*times, *times], strict=True):
        found = parse_time(time) if not isinstance(time, bool) else None
        assert event.time_ns == (found[0] if found else None)
        assert bool(event.flags & Flag.NAIVE_TIME) == bool(found and found[1])
        assert not event.flags & Flag.INFERRED_TIME


def test_live_a_record_without_time_has_its_arrival_time_and_says_so() -> None:
    reader = Reader("a")
    events = reader.read(block_of([{"tool": "t"}, {"tool": "t", "timestamp": "soon"}]), NOW)
    assert [(event.time_ns, event.flags) for event in events] == [(NOW, Flag.INFERRED_TIME)] * 2


@pytest.mark.parametrize(("ahead", "flag"), [(60, Flag(0)), (61, Flag.FUTURE_TIME)])
def test_live_a_time_more_than_60_s_ahead_is_flagged_and_kept(ahead: int, flag: Flag) -> None:
    (event,) = Reader("a").read(block_of([{"tool": "t", "timestamp": NOW // SECOND + ahead}]), NOW)
    assert (event.time_ns, event.flags) == (NOW + ahead * SECOND, flag)
    assert one({"tool": "t", "timestamp": NOW // SECOND + ahead}).flags == 0


@pytest.mark.parametrize("field", ["key_id", "client_id", "session_id", "source_ip", "tool"])
@pytest.mark.parametrize("spelling", [None, "", "-", "unknown", "anonymous"])
def test_absent_has_many_spellings(field: str, spelling: str | None) -> None:
    record = {"timestamp": STAMP, "tool": "t", "key_id": "k", "status": "success"} | {field: spelling}
    for name in ("auto", "generic"):
        event = one(record, format_name=name)
        assert getattr(event, field) is None
        assert event.event == ("request" if field == "tool" else "tool_call")


@pytest.mark.parametrize("field", ["definition_sha256", "hash", "prev_hash", "sequence"])
@pytest.mark.parametrize("spelling", [None, "", "-", "unknown", "null"])
def test_a_record_may_have_no_number_and_no_hash(field: str, spelling: str | None) -> None:
    """The first of a chain often says so in words."""
    record = {"timestamp": STAMP, "tool": "t", "status": "success"} | {field: spelling}
    for name in ("auto", "generic"):
        assert getattr(one(record, format_name=name), field) is None


@pytest.mark.parametrize("field", ["server", "call_id", "subject"])
@pytest.mark.parametrize("spelling", [None, "", "-", "unknown", "anonymous"])
def test_absent_has_many_spellings_in_other_logs_too(field: str, spelling: str | None) -> None:
    assert getattr(one({"time": STAMP, "tool_name": "t", field: spelling}), field) is None


@pytest.mark.parametrize(
    "line",
    [
        b'"text"', b"12", b"null", b"true", b"[]", b'[{"tool":"t"}]', b"{}", b'{"foo":1}', b"{", b"tool=t",
        b'{"tool":"t"} {"tool":"t"}', b"\xff\xfe", b'{"tool":null}',
    ],
)  # fmt: skip
def test_what_is_no_record_is_counted_kept_and_listed(line: bytes) -> None:
    reader, events = reader_of(b'{"tool":"t"}', line, b'{"tool":"t"}')
    adds_up(reader, 3)
    assert [event.line for event in events] == [1, 3]
    (example,) = reader.examples
    assert (example.line, example.offset) == (2, 13)
    assert example.reason
    assert example.head.isprintable()


@pytest.mark.parametrize("line", [b"", b"\0\0\0", b" \t\r", b"\0\0\r", b"\xef\xbb\xbf"])
def test_lines_of_nothing_are_blank(line: bytes) -> None:
    reader, events = reader_of(line)
    assert (reader.blank, events) == (1, [])


@pytest.mark.parametrize("prefix", [b"\0\0\0", b"\xef\xbb\xbf", b"\0\xef\xbb\xbf", b"  "])
@pytest.mark.parametrize("ending", [b"", b"\r"])
def test_nuls_a_bom_and_carriage_returns_around_a_record_do_not_matter(prefix: bytes, ending: bytes) -> None:
    reader, (event,) = reader_of(prefix + b'{"timestamp":1,"tool":"t","session_id":"s"}' + ending)
    assert (event.tool, event.session_id, event.time_ns) == ("t", "s", SECOND)
    adds_up(reader, 1)


@pytest.mark.parametrize("depth", [1_000, 5_000, 200_000])
@pytest.mark.parametrize("record", ['{"tool":"t","params":%s}', '{"tool":"t","status":%s}', "%s"])
@pytest.mark.parametrize(("left", "right"), ["[]", ('{"a":', "}")])
def test_a_depth_bomb_is_one_line_not_understood(record: str, depth: int, left: str, right: str) -> None:
    reader, _ = reader_of((record % (left * depth + "1" + right * depth)).encode(), b'{"tool":"t"}')
    adds_up(reader, 2)
    assert reader.understood >= 1


@pytest.mark.parametrize("time", ["timestamp", "ts"])
@pytest.mark.parametrize("depth", range(100, 900, 50))
def test_what_can_be_read_can_be_judged_and_written(depth: int, time: str) -> None:
    line = f'{{"{time}":1,"tool":"t","session_id":"s","params":{{"path":{"[" * depth + "]" * depth}}}}}'
    (event,) = read([line])
    Engine(Policy(tools={"t": ToolPolicy(allowed_paths=("/a/",))})).observe([event])
    for reveal in (True, False):
        assert dump(event_record(event, None, reveal=reveal)).isascii()


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("NaN", "nan"), ("1e999", "inf"), ("-Infinity", "-inf"), (str(2**64), str(2**64)),
        (str(-(2**70)), str(-(2**70))), ("9" * 400, "9" * 400), ("9" * 5000, "'" + "9" * 5000 + "'"),
        ('"\\ud800"', "'\\ud800'"), ('"a\tb"', "'a\\tb'"), ("1e300", "1e+300"),
    ],
)  # fmt: skip
def test_numbers_and_text_that_parsers_refuse_or_change_are_kept_as_they_are(text: str, value: str) -> None:
    for name in ("auto", "generic"):
        event = one(f'{{"timestamp":1,"tool":"t","params":{{"x":{text}}}}}', format_name=name)
        assert event.params is not None
        assert repr(event.params["x"]) == value
        assert dump(event_record(event, None, reveal=True)).isascii()


@pytest.mark.parametrize(
    "field", ["timestamp", "duration_ms", "status", "tool", "session_id", "call_id", "scopes"]
)
@pytest.mark.parametrize(
    "text", ["NaN", "1e999", "-1e999", "9" * 5000, str(2**70), '"\\ud800"', "[]", "{}", "true"]
)
def test_odd_values_in_any_field_break_nothing(field: str, text: str) -> None:
    for event in read([f'{{"timestamp":1,"tool":"t","key_id":"k","{field}":{text}}}'.encode()]):
        Engine(Policy()).observe([event])
        assert dump(event_record(event, None, reveal=False)).isascii()


def test_of_a_field_that_stands_twice_the_last_counts() -> None:
    line = b'{"timestamp":1,"tool":"safe","tool":"shell_execute","status":"denied","status":"success"}'
    for name in ("auto", "generic"):
        event = one(line, format_name=name)
        assert (event.tool, event.status) == ("shell_execute", "success")


def test_bad_utf8_is_read_counted_and_visible() -> None:
    reader, events = reader_of(b'{"timestamp":1,"tool":"a\xffb","params":{"\xc0\xaf":"\xed\xa0\x80"}}')
    (event,) = events
    assert event.tool == "a\\xffb"
    assert event.params == {"\\xc0\\xaf": "\\xed\\xa0\\x80"}
    assert reader.bad_utf8 == 1
    adds_up(reader, 1)


@pytest.mark.parametrize("name", ["time_ns", "flags", "origin", "index", "caller", "shape"])
def test_a_log_line_sets_nothing_that_only_the_reader_sets(name: str) -> None:
    for value in (1, "x", {"key": "admin"}, [1]):
        event = one({"timestamp": 1, "tool": "t", "key_id": "k", name: value})
        assert (event.time_ns, event.flags, event.index, event.source) == (SECOND, 0, 0, "a.jsonl")
        assert (event.caller.key, event.shape.tool) == ("k", "t")


def test_an_oversize_line_is_one_line_not_understood() -> None:
    reader = Reader("a")
    assert reader.read(Block("a", [b'{"tool":'], 7, 3, Oversize(2_000_000, "00"))) == []
    adds_up(reader, 1)
    (example,) = reader.examples
    assert (example.line, example.offset) == (3, 7)
    assert "2000000 bytes" in example.reason


def test_only_the_unterminated_line_itself_is_flagged() -> None:
    block = block_of([{"tool": "t"}, {"tool": "t"}])
    block.unterminated = True
    assert [event.flags for event in Reader("a").read(block)] == [0, Flag.UNTERMINATED]
    block = block_of([{"tool": "t"}, '{"tool": '])
    block.unterminated = True
    assert [event.flags for event in Reader("a").read(block)] == [0]


def test_events_know_their_line_and_offset() -> None:
    lines = [b"", b'{"tool":"t"}', b"junk", b'{"timestamp":1,"tool":"t"}']
    block = block_of(lines)
    block.offset, block.line = 100, 7
    assert [(event.line, event.offset) for event in Reader("a").read(block)] == [(8, 101), (10, 119)]
    block.line = None
    assert [event.line for event in Reader("a").read(block)] == [None, None]


def test_equal_callers_and_kinds_are_the_same_objects() -> None:
    first, second = read([{"timestamp": 1, "tool": "t", "key_id": "k"}] * 2)
    assert first.caller is second.caller
    assert first.shape is second.shape


@given(native_records)
def test_the_quick_look_for_missing_fields_is_the_list_of_them(record: dict[str, Any]) -> None:
    event = one(record)
    if event.event == "tool_call":
        assert lacks_a_field(event) == any(name is not None for name in lacking_fields(event))


def test_coverage_counts_the_five_fields_of_tool_calls() -> None:
    whole = {"timestamp": 1, "tool": "t", "params": {}, "key_id": "k", "status": "success", "duration_ms": 1}
    reader = Reader("a")
    reader.read(block_of([whole, whole | {"params": None, "status": "unknown"}, {"event": "request"}]))
    assert reader.coverage == (
        ("time", 2, 2), ("tool and parameters", 1, 2), ("client", 2, 2), ("status", 1, 2), ("duration", 2, 2),
    )  # fmt: skip


def test_formats_are_counted_and_the_most_frequent_is_named() -> None:
    reader, _ = reader_of(b'{"timestamp":1,"tool":"t"}', *[b'{"ts":1,"toolName":"t"}'] * 2)
    assert dict(reader.formats) == {"native": 1, "generic": 2}
    assert reader.format_name == "generic"
    assert Reader("a").format_name == "none yet"


def test_only_native_means_only_native() -> None:
    reader = Reader("a", format_name="native")
    native: list[dict[str, Any]] = [
        {"timestamp": 1, "tool": "t"},
        {"timestamp": 1, "event": "auth", "key_id": "k"},
        {"tool": "t"},
    ]
    assert len(reader.read(block_of([*native, {"ts": 1, "toolName": "t"}, {"timestamp": 1, "x": 1}]))) == 3
    adds_up(reader, 5)


def test_lines_that_were_read_before_are_counted_and_not_read_again() -> None:
    lines = [{"timestamp": 1, "tool": name} for name in "abcd"]
    block = block_of([*lines, b"junk", b""])
    block.repeats = frozenset({0, 2, 4, 5})
    reader = Reader("a")
    assert [(event.tool, event.line) for event in reader.read(block)] == [("b", 2), ("d", 4)]
    adds_up(reader, 6)
    assert (reader.repeated, reader.not_understood, reader.blank) == (4, 0, 0)
    oversize = Block("a", [b"{"], 0, 1, Oversize(2_000_000, "00"), repeats=frozenset({0}))
    assert reader.read(oversize) == []
    adds_up(reader, 7)
    assert reader.repeated == 5


def test_an_unknown_format_is_named_with_those_there_are() -> None:
    with pytest.raises(FormatError, match=r"nativ'.*auto, native, generic"):
        Reader("a", format_name="nativ")
