"""Where records end in what a connection sends."""

from __future__ import annotations

import json
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mcpwatch.sources.framing import CUT_TO, MAX_RECORD, Framer, one_line

FORGED = b'<34>1 - - - - - - {"tool":"x"}\n{"tool":"forged","status":"success"}'


def framed(data: bytes, size: int = 1 << 16) -> tuple[list[bytes], Framer]:
    """The lines of a whole connection, sent in pieces of a size; every record is one line."""
    framer = Framer()
    out = b"".join(framer.feed(data[at : at + size]) for at in range(0, len(data), size))
    out += framer.finish()
    assert out == b"" or out.endswith(b"\n")
    return out.split(b"\n")[:-1], framer


def counted(*records: bytes) -> bytes:
    return b"".join(b"%d %s" % (len(record), record) for record in records)


@pytest.mark.parametrize(
    ("sent", "lines"),
    [
        (b'{"a":1}\n{"b":2}\n', [b'{"a":1}', b'{"b":2}']),
        (b"\n\n\n", [b"", b"", b""]),
        (b"a\r\nb\n", [b"a\r", b"b"]),
        (b"<34>one\n<34>two\n", [b"<34>one", b"<34>two"]),
        (b"<34>one\0<34>two\0", [b"<34>one", b"<34>two"]),
        (b"5 <34>a6 <34>ab", [b"<34>a", b"<34>ab"]),
        (b"5 <34>a\n6 <34>ab\n", [b"<34>a", b"<34>ab"]),
        (b"6 <34>a\n6 <34>b\0", [b"<34>a", b"<34>b"]),
        (b'7 {"a":1}', [b'{"a":1}']),
        (b"2026 was a year\n12\n", [b"2026 was a year", b"12"]),
        (b"12", [b"12"]),
        (b"0 {}\n{}\n", [b"0 {}", b"{}"]),
        (b"-1 {}\n{}\n", [b"-1 {}", b"{}"]),
        (b"99999999999 {}\n{}\n", [b"99999999999 {}", b"{}"]),
        (b"\0\0{}\n", [b"\0\0{}"]),
        (b"", []),
    ],
)
def test_the_first_bytes_say_how_records_end(sent: bytes, lines: list[bytes]) -> None:
    """Newlines, NULs behind syslog, or lengths in front, whatever the pieces that it comes in."""
    for size in (1, 2, 3, 7, 1 << 16):
        assert framed(sent, size)[0] == lines


@pytest.mark.parametrize("size", [1, 5, 1 << 16])
def test_nobody_forges_a_second_record_inside_one_whose_end_is_known(size: int) -> None:
    """In a counted record, one that ends in a NUL, and a datagram, a newline is no end."""
    one = FORGED.replace(b"\n", b" ")
    assert framed(counted(FORGED, b"<34>next"), size)[0] == [one, b"<34>next"]
    assert framed(b"<34>first\0" + FORGED + b"\0<34>next\0", size)[0] == [b"<34>first", one, b"<34>next"]
    assert one_line(FORGED) == one + b"\n"


def test_what_a_send_ends_in_says_how_records_end_whatever_stands_in_the_first_one() -> None:
    """Neither a newline nor a NUL that somebody put into the very first record changes how the rest is read."""
    framer = Framer()
    assert framer.feed(FORGED + b"\0") == FORGED.replace(b"\n", b" ") + b"\n"
    assert framer.feed(b"<34>a\nb\0") == b"<34>a b\n"
    framer = Framer()
    assert framer.feed(b'<34>{"a":"\0"}\n') == b'<34>{"a":"\0"}\n'
    assert framer.feed(b"<34>b\n<34>c\n") == b"<34>b\n<34>c\n"


def test_a_nul_ends_no_record_of_a_connection_whose_records_end_in_newlines() -> None:
    """A NUL in the second record is of that record: who can write one there forges nothing."""
    sent = b'<34>{"a":1}\n<34>{"b":"\0<34>{forged}"}\n'
    assert framed(sent)[0] == [b'<34>{"a":1}', b'<34>{"b":"\0<34>{forged}"}']
    assert framed(b'{"a":"\0{forged}"}\n')[0] == [b'{"a":"\0{forged}"}']


@pytest.mark.parametrize(
    "rest", [b"x<34>b", b"0 <34>b", b"-1 <34>b", b"99999999999 <34>b", b"12345678 <34>b", b"7x"]
)
@pytest.mark.parametrize("size", [1, 1 << 16])
def test_what_follows_a_length_that_is_none_is_one_line_and_the_end(rest: bytes, size: int) -> None:
    """Where a frame's length lied, bytes of a record's content stand where a record begins: never trusted."""
    framer = Framer()
    sent = b"5 <34>a" + rest + b"\n{forged}\n{forged}"
    out, at = b"", 0
    while at < len(sent) and not framer.broken:
        out += framer.feed(sent[at : at + size])
        at += size
    assert framer.broken
    assert out == b"<34>a\n"
    assert framer.finish().count(b"\n") <= 1


@pytest.mark.parametrize("end", [b"\n", b"\0"])
def test_a_line_without_end_is_cut_one_byte_above_the_limit_and_the_next_one_is_whole(end: bytes) -> None:
    """So the follower sees that it is too long; what is dropped is counted, and memory stays below 2 MiB."""
    framer = Framer()
    out = framer.feed(b"<34>first" + end)
    for _ in range(100):
        out += framer.feed(b"x" * 65_536)
        assert framer.held <= MAX_RECORD
    out += framer.feed(b"x" + end + b"<34>last" + end)
    lines = out.split(b"\n")
    assert [len(line) for line in lines] == [9, CUT_TO, 8, 0]
    assert (framer.records, framer.cut_records, framer.cut_bytes) == (3, 1, 100 * 65_536 + 1 - CUT_TO)


@pytest.mark.parametrize(
    "length", [MAX_RECORD - 1, MAX_RECORD, MAX_RECORD + 1, MAX_RECORD + 2, 3 * MAX_RECORD]
)
@pytest.mark.parametrize("size", [65_536, 1_000_003])
def test_the_limit_is_the_same_for_lines_and_counted_records(length: int, size: int) -> None:
    """A record at the limit is whole, one above it is cut, and what comes behind is read."""
    record = b"{" + b"x" * (length - 1)
    for sent in (record + b"\n{}\n", counted(record, b"{}")):
        lines, framer = framed(sent, size)
        assert [len(line) for line in lines] == [min(length, CUT_TO), 2]
        assert framer.cut_records == (length > MAX_RECORD)
        assert framer.cut_bytes == max(0, length - CUT_TO)


def test_a_connection_that_ends_in_the_middle_gives_a_line_of_its_own() -> None:
    for sent in (b'{"a":1}\n{"b"', b'7 {"a":1}9 {"b"'):
        lines, framer = framed(sent)
        assert lines[0] == b'{"a":1}'
        assert len(lines) == 2
        assert framer.records == 1
    torn = Framer()
    torn.feed(b'{"b"')
    assert torn.torn
    whole = Framer()
    whole.feed(b'{"b":1}\n')
    assert not whole.torn


@given(st.lists(st.binary(max_size=60).map(lambda tail: b"{" + tail), max_size=20), st.integers(1, 40))
def test_counted_records_come_out_one_line_each_however_they_are_cut_up(
    records: list[bytes], size: int
) -> None:
    lines, framer = framed(counted(*records), size)
    assert lines == [one_line(record)[:-1] for record in records]
    assert not framer.broken


@given(st.binary(max_size=400), st.integers(1, 50))
def test_any_bytes_in_any_pieces_give_the_same_lines(data: bytes, size: int) -> None:
    """Rubbish too: nothing raises, and where the network cuts changes nothing."""
    data = data.replace(b"\0", b"\1") if data.startswith(b"<") else data
    whole, pieces = Framer(), Framer()
    one = whole.feed(data)
    many = b""
    for at in range(0, len(data), size):
        if pieces.broken:
            break
        many += pieces.feed(data[at : at + size])
    assert whole.broken == pieces.broken
    assert one == many
    if not whole.broken:
        assert whole.finish() == pieces.finish()


@settings(max_examples=50)
@given(st.lists(st.dictionaries(st.text(max_size=5), st.text(max_size=9), max_size=3), max_size=20))
def test_lines_of_json_are_passed_on_byte_for_byte(records: list[dict[str, str]]) -> None:
    sent = b"".join(json.dumps(record).encode() + b"\n" for record in records)
    assert b"".join(line + b"\n" for line in framed(sent, 13)[0]) == sent


def test_a_million_empty_lines_are_no_work() -> None:
    """They are counted, as blank lines of any log, and nothing is held."""
    began = time.process_time()
    framer = Framer()
    out = b"".join(framer.feed(b"\n" * 65_536) for _ in range(16))
    assert out.count(b"\n") == framer.records == 1 << 20
    assert framer.held == 0
    assert time.process_time() - began < 5
