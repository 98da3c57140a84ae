"""What containers log travels in is taken off, pieces are put together, and no other line is mistaken for theirs."""

from __future__ import annotations

import json
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mcpwatch.event import AuditEvent
from mcpwatch.formats.reader import Reader
from mcpwatch.formats.transport import Fragments, Unwrapped, bare, unwrap
from mcpwatch.formats.transport.fragments import MAX_JOINED, TOO_LONG
from mcpwatch.sources.block import Block
from mcpwatch.times import parse_rfc3339

STAMP = "2026-11-22T03:14:07.123456789Z"
RECORD = '{"tool":"file_read","session_id":"s"}'


def ns(text: str) -> int:
    found = parse_rfc3339(text)
    assert found is not None
    return found[0]


def docker(text: str, stream: str = "stdout", time: str = STAMP, **others: Any) -> bytes:
    """As Docker 29 writes it; `attrs` only with labels or variables as log options."""
    return json.dumps({"log": text, "stream": stream, "time": time} | others).encode()


def cri(text: str, tag: str = "F", stream: str = "stdout", time: str = STAMP) -> bytes:
    return f"{time} {stream} {tag} {text}".encode()


def read(*lines: bytes) -> tuple[Reader, list[AuditEvent]]:
    reader = Reader("a")
    return reader, reader.read(Block("a", list(lines), 0, 1))


@pytest.mark.parametrize(
    ("line", "name", "timed", "server"),
    [
        (docker(RECORD + "\n"), "docker", True, None),
        (docker(RECORD + "\n", "stderr", attrs={"tag": "x"}), "docker", True, None),
        (docker(RECORD), "docker", True, None),  # the last words of a program
        (cri(RECORD), "kubernetes", True, None),
        (cri(RECORD, "F:x"), "kubernetes", True, None),
        (f"mcp-1  | {RECORD}".encode(), "compose", False, "mcp-1"),
        (f"\x1b[36mmcp-1     | \x1b[0m{RECORD}".encode(), "compose", False, "mcp-1"),
        (f"mcp-1  | {STAMP} {RECORD}".encode(), "compose > timestamps", True, "mcp-1"),
        (f"[pod/mcp-7f9c/server] {RECORD}".encode(), "kubectl", False, "mcp-7f9c/server"),
        (f"[pod/mcp-7f9c/server] {STAMP} {RECORD}".encode(), "kubectl > timestamps", True, "mcp-7f9c/server"),
        (f"{STAMP} {RECORD}".encode(), "timestamps", True, None),
        (docker(f"<34>1 {STAMP} h mcp - - - {RECORD}\n"), "docker > syslog 5424", True, "h/mcp"),
    ],
)  # fmt: skip
def test_a_containers_line_is_unwrapped(line: bytes, name: str, timed: bool, server: str | None) -> None:
    reader, (event,) = read(line)
    assert (event.tool, event.session_id, event.server) == ("file_read", "s", server)
    assert event.time_ns == (ns(STAMP) if timed else None)
    assert reader.format_name == f"{name} > native"


@pytest.mark.parametrize(
    "line",
    [
        json.dumps({"log": RECORD, "stream": "stdout", "time": STAMP, "tool": "real"}).encode(),
        json.dumps({"tool": "real", "params": {"log": docker(RECORD).decode(), "stream": "stdout"}}).encode(),
        json.dumps(
            {"tool": "real", "params": {"a": cri(RECORD).decode(), "b": f"mcp-1  | {RECORD}"}}
        ).encode(),
    ],
)
def test_a_record_that_looks_like_a_containers_line_is_a_record(line: bytes) -> None:
    """Nobody puts another record into the place of one by what he asks a tool to do."""
    _, (event,) = read(line)
    assert event.tool == "real"
    assert unwrap(line) is None


@pytest.mark.parametrize(
    "line",
    [
        b"INFO     | app:run:1 - " + RECORD.encode(),
        b"error    | x",
        b"2026-11-22 03:14:07.123 | INFO     | app:run:1 - x",
        b"2026-11-22T03:14:07.123Z | start_process       \t| Arguments: {}",
        b"create_issue | " + RECORD.encode(),  # Compose writes two blanks and more
        b"[pod/x] " + RECORD.encode(),
        b"2026-11-22T03:14:07Z stdout X text",
        b"2026-11-22T03:14:07Z text {}",
        b'{"log":"x","stream":"elsewhere","time":"t"}',
        b'{"log":1,"stream":"stdout","time":"t"}',
        b'{"log":"x","stream":["stdout"],"time":"t"}',
        b'{"log":"x","stream":"stdout"}',
    ],
)
def test_what_is_no_containers_line(line: bytes) -> None:
    assert unwrap(line) is None


def test_a_containers_line_that_nothing_reads_is_no_event() -> None:
    reader, events = read(docker("Server started\n"), cri("Server started"), b"mcp-1  | up")
    assert (events, reader.not_understood) == ([], 3)


@pytest.mark.parametrize("wrap", [docker, cri])
@settings(deadline=None)
@given(st.text(min_size=1, max_size=30), st.lists(st.integers(0, 200), max_size=5), st.booleans())
def test_pieces_are_put_together_and_streams_do_not_mix(
    wrap: Any, path: str, cuts: list[int], noise: bool
) -> None:
    """However a record was cut; it has the time of its first piece, and its other lines count as joined."""
    record = json.dumps({"tool": "t", "params": {"path": path}})
    places = [0, *sorted({1 + cut % (len(record) - 1) for cut in cuts}), len(record)]
    pieces = [record[start:end] for start, end in pairwise(places)]
    lines = []
    for index, piece in enumerate(pieces):
        last = index == len(pieces) - 1
        time = f"2026-11-22T03:14:{7 + index:02d}.000000000Z"
        text, options = (
            (piece + "\n" * last, {}) if wrap is docker else (piece, {"tag": "F" if last else "P"})
        )
        lines.append(wrap(text, time=time, **options))
        if noise:
            lines.append(wrap(RECORD + "\n" * (wrap is docker), stream="stderr"))
    reader, events = read(*lines)
    (event,) = [event for event in events if event.tool == "t"]
    assert event.params == {"path": path}
    assert event.time_ns == ns("2026-11-22T03:14:07Z")
    assert len(events) == 1 + noise * len(pieces)
    assert (reader.lines, reader.joined, reader.not_understood) == (len(lines), len(pieces) - 1, 0)
    assert (reader.fragments.open, reader.fragments.given_up) == (0, 0)


def test_a_piece_whose_end_does_not_come_is_told() -> None:
    reader, events = read(cri('{"tool":', "P"))
    assert (events, reader.joined, reader.fragments.open) == ([], 1, 1)


def test_a_program_that_died_in_the_middle_of_a_line_hides_no_record_of_its_successor() -> None:
    reader, (event,) = read(docker('{"tool":"lost","params":{"a":"'), docker(RECORD + "\n"))
    assert event.tool == "file_read"
    assert (reader.joined, reader.fragments.given_up) == (1, 1)
    reader, (event,) = read(docker("panic: out of"), docker(RECORD + "\n"))
    assert (event.tool, reader.not_understood) == ("file_read", 1)


def test_a_record_of_more_than_a_mebibyte_is_given_up_with_its_reason() -> None:
    piece = "x" * 16_384
    pieces = [cri(piece, "P")] * (MAX_JOINED // len(piece) + 1)
    reader, events = read(cri('{"tool":"', "P"), *pieces, cri('"}'), cri(RECORD))
    assert [event.tool for event in events] == ["file_read"]
    assert reader.reasons == {f"in kubernetes: {TOO_LONG}": 1}
    assert reader.lines == reader.joined + reader.understood + reader.not_understood


def test_pieces_take_a_bounded_amount_of_memory() -> None:
    fragments = Fragments()
    for number in range(100):
        for _ in range(70):
            assert (
                fragments.join(Unwrapped(b"x" * 16_384, program=str(number), stream="a", more=True)) is None
            )
    assert fragments.open == 16
    assert fragments.given_up == 84
    kept = sum(len(piece) for begun in fragments._begun.values() for piece in begun.pieces)
    assert kept <= 16 * MAX_JOINED


COLOURED = (
    b'\x1b[32mINFO\x1b[0m:     1.2.3.4:5 - "\x1b[1mPOST /mcp HTTP/1.1\x1b[0m" \x1b[31m401 Unauthorized\x1b[0m'
)


def test_colours_are_taken_off_for_reading() -> None:
    assert bare(COLOURED) == b'INFO:     1.2.3.4:5 - "POST /mcp HTTP/1.1" 401 Unauthorized'
    assert bare(b"\x1b]8;;http://x\x1b\\text\x1b]8;;\x07\x1b[K") == b"text"
    _, (event,) = read(COLOURED)
    assert (event.event, event.status, event.source_ip) == ("auth", "unauthenticated", "1.2.3.4")
    # as `jq -c -C` writes a record
    coloured = b'\x1b[1;39m{\x1b[34;1m"tool"\x1b[0m\x1b[1;39m:\x1b[0;32m"file_read"\x1b[0m\x1b[1;39m}\x1b[0m'
    assert read(coloured)[1][0].tool == "file_read"


def test_an_escape_in_a_parameter_stays() -> None:
    """It is what a caller tried on whoever reads the log."""
    line = b'\x1b[2mINFO\x1b[0m {"tool":"t","params":{"a":"\x1b[2J\\" x","b":"\\u001b[31m"}} \x1b[0m'
    assert bare(line) == b'INFO {"tool":"t","params":{"a":"\x1b[2J\\" x","b":"\\u001b[31m"}}'


@given(
    st.lists(
        st.sampled_from([b"\x1b", b"[31m", b"\x1b[", b"{", b'"', b"\\", b"]8;;", b"a", b" "]), max_size=20
    )
)
def test_taking_colours_off_never_raises_and_leaves_other_lines_alone(parts: list[bytes]) -> None:
    line = b"".join(parts)
    bare(line)
    if b"\x1b" not in line:
        assert bare(line) == line.strip()


def test_headers_and_colours_made_to_be_slow_are_not() -> None:
    parts = [b"\x1b[", b"\x1b]", b'"', b'\\"', b" ", b"|", b"a", b"\x1b[31", b"{", b"  |"]
    for begin in (b"", b"\x1b{", b"a", b"[pod/a/b] ", STAMP.encode() + b" ", STAMP.encode() + b" stdout "):
        for part in parts:
            unwrap(bare(begin + part * (200_000 // len(part))))
