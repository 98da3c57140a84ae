"""What records travel in is taken off, stands in for what they do not say, and is never seen where it is not."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mcpwatch.event import AuditEvent, Flag
from mcpwatch.formats.mappingfile import parse_mapping
from mcpwatch.formats.reader import Reader
from mcpwatch.formats.transport import TRANSPORTS, Unwrapped, unwrap
from mcpwatch.formats.twice import said_twice
from mcpwatch.sources.block import Block
from mcpwatch.sources.saved import open_saved
from mcpwatch.times import iso, parse_rfc3339

STAMP = "2026-11-22T03:14:07.123456Z"
RECORD = b'{"timestamp":"%s","tool":"file_read","session_id":"s"}' % STAMP.encode()
TIMELESS = b'{"tool":"file_read","session_id":"s"}'


def ns(text: str) -> int:
    found = parse_rfc3339(text)
    assert found is not None
    return found[0]


NOW = ns("2026-11-22T04:00:00Z")


def journal(message: Any, **fields: Any) -> bytes:
    """An entry with the fields that journalctl always writes."""
    always = {
        "__CURSOR": "s=1;i=2", "__REALTIME_TIMESTAMP": "1795317247123456", "__MONOTONIC_TIMESTAMP": "1",
        "_BOOT_ID": "c9", "_HOSTNAME": "bastion", "_SYSTEMD_UNIT": "mcp.service", "SYSLOG_IDENTIFIER": "python",
    }  # fmt: skip
    return json.dumps(always | fields | {"MESSAGE": message}).encode()


def one(line: bytes, now: int | None = None, written: int | None = None, **options: Any) -> AuditEvent:
    (event,) = Reader("a", **options).read(Block("a", [line], 0, 1, written_ns=written), now)
    return event


def why_not(line: bytes) -> str:
    """Why a line is not understood."""
    reader = Reader("a")
    assert reader.read(Block("a", [line], 0, 1)) == []
    assert (reader.lines, reader.not_understood) == (1, 1)
    (reason,) = reader.reasons
    return reason


# as rsyslog 8.2302, logger (util-linux 2.38) and systemd 252 wrote them
HEADERS = [
    (b"<34>1 2026-11-22T03:14:07.123456Z bastion mcp 77 ID47 - ", "syslog 5424", "bastion/mcp"),
    (b"<13>1 2026-11-22T03:14:07.123456+00:00 bastion mcp - - -  ", "syslog 5424", "bastion/mcp"),
    (b"<34>1 2026-11-22T03:14:07.123456Z bastion mcp - - - \xef\xbb\xbf", "syslog 5424", "bastion/mcp"),
    (b'<13>1 2026-11-22T04:14:07.123456+01:00 bastion mcp 77 - [timeQuality tzKnown="1" isSynced="0"] ',
     "syslog 5424", "bastion/mcp"),
    (b'<13>1 2026-11-22T03:14:07.123456Z bastion mcp 77 - [a@1 x="\\]\\"{" y="\\\\"][b@2] ',
     "syslog 5424", "bastion/mcp"),
    (b"2026-11-22T03:14:07.123456+00:00 bastion mcp[77]: ", "syslog 3164", "bastion/mcp"),
    (b"<13>2026-11-22T03:14:07.123456+00:00 fe80::1 mcp: @cee:", "syslog 3164", "fe80::1/mcp"),
]  # fmt: skip
OLD = [
    (b"<34>Nov 22 03:14:07 bastion mcp[77]: ", "bastion/mcp"),
    (b"Nov 22 03:14:07 bastion mcp[77]: ", "bastion/mcp"),
    (b"Nov 22 03:14:07 bastion mcp: @cee: ", "bastion/mcp"),
    (b"<13>Nov 22 03:14:07 mcp: ", "mcp"),
    (b"Nov 22 03:14:07 10.0.0.7 mcp/audit:", "10.0.0.7/mcp/audit"),
]


@pytest.mark.parametrize(("header", "name", "server"), HEADERS)
def test_a_header_is_taken_off_and_fills_what_the_record_leaves_out(
    header: bytes, name: str, server: str
) -> None:
    reader = Reader("a")
    first, second = reader.read(Block("a", [header + RECORD, header + TIMELESS], 0, 1))
    assert reader.formats == {f"{name} > native": 2, "native": 0}
    assert reader.format_name == f"{name} > native"
    for event in (first, second):
        assert (event.tool, event.session_id, event.server) == ("file_read", "s", server)
        assert (event.time_ns, event.flags) == (ns(STAMP), 0)
    said = RECORD.replace(b"{", b'{"server":"own",', 1).replace(b"03:14", b"02:00")
    event = one(header + said)
    assert (event.server, event.time_ns) == ("own", ns("2026-11-22T02:00:07.123456Z"))


@pytest.mark.parametrize(("header", "server"), OLD)
def test_an_old_header_has_no_year_and_no_zone(header: bytes, server: str) -> None:
    """Its year is that of the last such day before it was written; UTC is assumed, and flagged as for any time."""
    for now, written in ((NOW, None), (None, NOW)):
        event = one(header + TIMELESS, now, written)
        assert (event.time_ns, event.flags, event.server) == (
            ns("2026-11-22T03:14:07Z"), Flag.NAIVE_TIME, server,
        )  # fmt: skip
    event = one(header + RECORD, NOW)
    assert (event.time_ns, event.flags) == (ns(STAMP), 0)
    assert one(header + TIMELESS).time_ns is None


@pytest.mark.skipif(shutil.which("logger") is None, reason="no logger (util-linux) on this machine")
@pytest.mark.parametrize(
    ("options", "name"),
    [
        (["--rfc5424"], "syslog 5424"),
        (["--rfc5424=notime"], "syslog 5424"),
        (["--rfc5424=notq,nohost"], "syslog 5424"),
        (["--rfc3164"], "syslog 3164"),
        (["--rfc3164", "--id=77"], "syslog 3164"),
    ],
)
def test_what_logger_writes_is_unwrapped(options: list[str], name: str) -> None:
    nowhere = ["--no-act", "--stderr", "--udp", "--server", "127.0.0.1"]
    command = ["logger", *nowhere, "--tag", "mcp", *options, TIMELESS.decode()]
    (line,) = subprocess.run(command, capture_output=True, check=True).stderr.splitlines()
    reader = Reader("a")
    (event,) = reader.read(Block("a", [line], 0, 1, written_ns=time.time_ns()))
    assert (event.tool, reader.format_name) == ("file_read", f"{name} > native")
    assert event.server is not None
    assert event.server.endswith("mcp")
    assert (event.time_ns is None) == (options == ["--rfc5424=notime"])


@pytest.mark.parametrize(
    ("time", "written", "expected"),
    [
        ("Dec 31 23:59:59", "2027-01-01T00:00:03Z", "2026-12-31T23:59:59Z"),
        ("Jan  1 00:00:01", "2026-12-31T23:59:58Z", "2027-01-01T00:00:01Z"),  # a sender whose clock is ahead
        ("Nov 24 05:00:00", "2026-11-22T04:00:00Z", "2025-11-24T05:00:00Z"),
        ("Feb 29 12:00:00", "2027-03-01T00:00:00Z", "2024-02-29T12:00:00Z"),
        ("Feb 30 12:00:00", "2027-03-01T00:00:00Z", None),
        ("Nov 22 25:00:00", "2026-11-22T04:00:00Z", None),
    ],
)
def test_the_year_of_a_time_without_one(time: str, written: str, expected: str | None) -> None:
    event = one(f"<13>{time} h mcp: ".encode() + TIMELESS, written=ns(written))
    assert event.time_ns == (ns(expected) if expected else None)


def test_a_saved_file_tells_the_year_by_when_it_was_written(tmp_path: Path) -> None:
    path = tmp_path / "syslog"
    path.write_bytes(b"Nov 22 03:14:07 h mcp: " + TIMELESS + b"\n")
    os.utime(path, ns=(NOW, ns("2019-12-01T00:00:00Z")))
    (log,) = open_saved([path])
    (event,) = [event for block in log.blocks() for event in Reader("a").read(block)]
    assert event.time_ns == ns("2019-11-22T03:14:07Z")


def test_a_journal_entry_is_unwrapped() -> None:
    for message in (TIMELESS.decode(), list(TIMELESS), TIMELESS.decode() + "\n"):
        reader = Reader("a")
        (event,) = reader.read(Block("a", [journal(message)], 0, 1))
        assert (event.tool, event.server, event.flags) == ("file_read", "bastion/mcp", 0)
        assert event.time_ns == ns(STAMP)
        assert reader.format_name == "journal > native"
    event = one(journal(RECORD.decode().replace("03:14", "02:00")))
    assert event.time_ns == ns("2026-11-22T02:00:07.123456Z")
    assert one(journal(TIMELESS.decode(), _SYSTEMD_UNIT=None, _HOSTNAME=None)).server == "python"
    assert one(journal(TIMELESS.decode(), _SYSTEMD_UNIT=["a.service", "b.service"])).server == "bastion/b"
    assert one(journal(list(b'{"tool":"a\xffb"}'))).tool == "a\\xffb"


def test_a_journal_entry_with_several_messages_says_so() -> None:
    """The last counts, like the last of equal keys; both are told."""
    event = one(journal(['{"tool":"safe"}', '{"tool":"shell"}']))
    assert (event.tool, event.flags & Flag.DUPLICATE_KEYS) == ("shell", Flag.DUPLICATE_KEYS)
    assert said_twice(event) == (("message", ('{"tool":"safe"}', '{"tool":"shell"}')),)
    event = one(journal(['{"tool":"safe"}', list(b'{"tool":"shell"}')]))
    assert event.flags & Flag.DUPLICATE_KEYS


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (journal(None), "in journal: journal entry without its message: write it out with journalctl --all"),
        (journal({}), "in journal: journal entry whose message is no text"),
        (journal([300]), "in journal: journal entry whose message is no text"),
        (journal(""), "in journal: nothing in it"),
        (journal([]), "in journal: nothing in it"),
        (journal("text"), "in journal: not JSON"),
        (journal("[1]"), "in journal: JSON, but not an object"),
        (b"<34>1 2026-11-22T03:14:07Z h mcp 77 - -", "in syslog 5424: nothing in it"),
        (b"<34>1 2026-11-22T03:14:07Z h mcp 77 - - started", "in syslog 5424: not JSON"),
        (b"Nov 22 03:14:07 h sshd[1]: Accepted publickey", "in syslog 3164: not JSON"),
        (b"Nov 22 03:14:07 h sshd[1]:", "in syslog 3164: nothing in it"),
        # the text of a program is not a program and its text: nobody chooses the header by what is logged
        (b"Nov 22 03:14:07 mcp: note: " + RECORD, "in syslog 3164: not JSON"),
        (b"Nov 22 03:14:07 h mcp: note: " + RECORD, "in syslog 3164: not JSON"),
        (b"<13>Nov 22 03:14:07 h mcp: " + b'{"a":' * 100_000, "in syslog 3164: JSON nested too deep"),
    ],
)
def test_what_is_no_record_inside_is_not_understood_and_says_in_what(line: bytes, reason: str) -> None:
    assert why_not(line) == reason


@pytest.mark.parametrize(
    "record",
    [
        {"MESSAGE": '{"tool":"x"}'},
        {"MESSAGE": '{"tool":"x"}', "__REALTIME_TIMESTAMP": 1795317247123456},
        {"MESSAGE": '{"tool":"x"}', "__REALTIME_TIMESTAMP": "soon"},
        {"MESSAGE": '{"tool":"x"}', "__REALTIME_TIMESTAMP": "1795317247123456", "session_id": "s"},
        {"__REALTIME_TIMESTAMP": "1795317247123456", "message": '{"tool":"x"}'},
    ],
)
def test_a_record_with_a_key_of_the_journals_is_no_journal_entry(record: dict[str, Any]) -> None:
    """Nobody may put another record into the place of a record: the journal has no lower-case names."""
    line = json.dumps({"timestamp": STAMP, "tool": "real"} | record).encode()
    assert one(line).tool == "real"
    assert unwrap(line) is None
    bare = json.dumps(record).encode()
    assert unwrap(bare) is None


@pytest.mark.parametrize("inner", [b"Nov 22 03:14:07 h mcp: {}", b"<34>1 - - - - - - {}", RECORD])
def test_text_inside_a_record_is_never_unwrapped(inner: bytes) -> None:
    event = one(json.dumps({"timestamp": 1, "tool": "t", "params": {"text": inner.decode()}}).encode())
    assert (event.tool, event.params) == ("t", {"text": inner.decode()})


def test_transports_in_transports_are_taken_off_up_to_three() -> None:
    line, time = TIMELESS, "2026-11-22T01:00:00Z"
    wraps = [
        b"2026-11-22T01:00:00Z inner mcp: ",
        b"<34>1 2026-11-22T02:00:00Z middle mcp - - - ",
        b"2026-11-22T03:00:00Z outer mcp: ",
        b"2026-11-22T03:30:00Z outermost mcp: ",
    ]
    for level, header in enumerate(wraps, 1):
        line = header + line
        if level <= 3:
            event = one(line)
            assert (event.tool, event.time_ns, event.server) == ("file_read", ns(time), "inner/mcp")
        else:
            assert why_not(line).endswith("not JSON")
    reader = Reader("a")
    reader.read(Block("a", [journal((wraps[0] + b'{"toolName":"t"}').decode())], 0, 1))
    assert reader.format_name == "journal > syslog 3164 > generic"


def test_a_mapping_file_reads_inside_and_may_read_the_journals_own_fields() -> None:
    inside = parse_mapping(
        b"match: {call: {present: true}}\nfields: {tool: call.name}\n", "acme.yaml", "acme"
    )
    line = HEADERS[0][0] + b'{"call":{"name":"t"}}'
    for reader in (Reader("a", mappings=[inside]), Reader("a", mappings=[inside], format_name="acme")):
        (event,) = reader.read(Block("a", [line], 0, 1))
        assert (event.tool, reader.format_name) == ("t", "syslog 5424 > acme")
    own = parse_mapping(
        b"match: {MCP_TOOL: {present: true}}\nfields: {tool: MCP_TOOL, timestamp: __REALTIME_TIMESTAMP}\n",
        "units.yaml", "units",
    )  # fmt: skip
    reader = Reader("a", mappings=[own])
    (event,) = reader.read(Block("a", [journal("called", MCP_TOOL="t")], 0, 1))
    assert (event.tool, reader.format_name, event.time_ns) == ("t", "units", ns(STAMP))


def test_only_native_means_only_native_inside_too() -> None:
    header = HEADERS[0][0]
    reader = Reader("a", format_name="native")
    assert len(reader.read(Block("a", [header + RECORD, header + b'{"toolName":"t"}'], 0, 1))) == 1
    assert reader.not_understood == 1


@pytest.mark.parametrize("transport", TRANSPORTS, ids=lambda transport: transport.name)
@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=60), st.integers(-(2**70), 2**70) | st.none())
def test_an_unwrapper_never_raises_and_its_time_is_a_time(
    transport: Any, rest: bytes, now: int | None
) -> None:
    beginnings = [bytes([byte]) for byte in transport.begins] + [
        header for header, *_ in HEADERS + OLD if header[:1] in transport.begins
    ]
    for begin in beginnings:
        found: Unwrapped | None = transport.unwrap(begin + rest, now)
        if found is not None and found.time is not None and transport.name == "journal":
            assert iso(ns(found.time)) == found.time


def test_headers_made_to_be_slow_are_not() -> None:
    """Every pattern reads a character a bounded number of times: twice the length, about twice the work."""
    parts = [b"[a ", b'x="\\', b'["', b"[[", b"a=", b"<", b": ", b"h ", b'[a x="y"]', b"\\]", b'" ']
    for begin in (b"<34>1 - h mcp - - ", b"<34>1 ", b"<13>Nov 22 03:14:07 ", b"2026-11-22T03:14:07Z "):
        for part in parts:
            line = begin + part * (1_000_000 // len(part))
            unwrap(line, NOW)
