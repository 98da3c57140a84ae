"""Cutting bytes into lines."""

import hashlib
import tracemalloc

from hypothesis import given
from hypothesis import strategies as st

from mcpwatch.sources.block import MAX_LINE, Block
from mcpwatch.sources.lines import HEAD_KEPT, LineCutter


def feed(cutter: LineCutter, data: bytes, step: int = MAX_LINE) -> list[Block]:
    return [block for at in range(0, len(data), step) for block in cutter.feed(data[at : at + step])]


def lines(blocks: list[Block]) -> list[bytes]:
    return [line for block in blocks for line in block.lines]


@given(st.lists(st.binary(max_size=40)), st.integers(1, 50))
def test_any_cut_into_chunks_gives_the_same_lines_offsets_and_numbers(parts: list[bytes], step: int) -> None:
    data = b"\n".join(parts)
    cutter = LineCutter("s", 100, 7)
    blocks = feed(cutter, data, step)
    *expected, rest = data.split(b"\n")
    assert lines(blocks) == expected
    assert cutter.held == len(rest)
    at, number = 100, 7
    for block in blocks:
        assert (block.offset, block.line) == (at, number)
        at += sum(len(line) + 1 for line in block.lines)
        number += len(block.lines)
    assert cutter.offset == at


def test_only_newlines_end_a_line() -> None:
    """CRLF, lone CR, NUL, U+2028, U+0085, VT, FF and bad UTF-8 stay inside: lines are the number of newlines."""
    data = "a\r\nb\rc\n\0\0\nd\u2028e\u0085f\x0b\x0cg\n".encode() + b"\xff\xfe\xc0\n\n"
    assert lines(feed(LineCutter("s"), data)) == data.split(b"\n")[:-1]
    assert len(lines(feed(LineCutter("s"), data))) == data.count(b"\n") == 6


def test_a_line_of_the_limit_is_kept_and_one_byte_more_is_not() -> None:
    cutter = LineCutter("s")
    whole = b"x" * MAX_LINE
    kept, long, after = feed(cutter, whole + b"\n" + whole + b"y\nafter\n", 65_537)
    assert kept.lines == [whole]
    assert kept.oversize is None
    assert long.oversize is not None
    assert long.oversize.length == MAX_LINE + 1
    assert long.oversize.sha256 == hashlib.sha256(whole + b"y").hexdigest()
    assert long.lines == [whole[:HEAD_KEPT]]
    assert (long.offset, long.line) == (MAX_LINE + 1, 2)
    assert (after.lines, after.offset, after.line) == ([b"after"], 2 * MAX_LINE + 3, 3)


def test_a_line_of_100_mb_takes_little_memory_and_hurts_no_neighbour() -> None:
    cutter = LineCutter("s")
    cutter.feed(b"before\n")
    piece = b"z" * MAX_LINE
    digest = hashlib.sha256()
    tracemalloc.start()
    for _ in range(100):
        assert cutter.feed(piece) == []
        digest.update(piece)
    blocks = cutter.feed(b"\nafter\n")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 8 << 20
    assert blocks[0].oversize is not None
    assert (blocks[0].oversize.length, blocks[0].oversize.sha256) == (100 << 20, digest.hexdigest())
    assert blocks[1].lines == [b"after"]


def test_a_hole_of_nuls_before_a_record_does_not_cost_the_record() -> None:
    """What a writer leaves that goes on at its old offset after a truncation."""
    for hole in (MAX_LINE - 3, MAX_LINE, 3 * MAX_LINE + 5):
        (block,) = feed(LineCutter("s"), b"\0" * hole + b"record\n", 1 << 18)
        assert block.lines[0].lstrip(b"\0") == b"record"
        assert block.oversize is None
        assert block.offset + len(block.lines[0]) == hole + 6


def test_an_unfinished_last_line_is_told_apart() -> None:
    cutter = LineCutter("s")
    cutter.feed(b"a\nbc")
    (block,) = cutter.finish()
    assert (block.lines, block.unterminated, block.offset, block.line) == ([b"bc"], True, 2, 2)
    assert cutter.finish() == []
