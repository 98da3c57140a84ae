"""Saved logs, gzip, rotation sets, and finding a time in a log."""

import gzip
import os
import random
import re
from itertools import pairwise
from pathlib import Path

import pytest

from mcpwatch.sources.bisect import offset_at
from mcpwatch.sources.block import MAX_LINE, Block, SourceError
from mcpwatch.sources.rotation import rotated_name
from mcpwatch.sources.saved import SavedLog, open_saved


def read(log: SavedLog, start: int = 0, line: int | None = 1) -> list[bytes]:
    return [text for block in log.blocks(start, line) for text in block.lines]


def one(path: Path) -> SavedLog:
    (log,) = open_saved([path])
    return log


TEXT = "".join(f'{{"n":{n},"text":"{random.Random(n).getrandbits(200)}"}}\n' for n in range(20_000)).encode()


@pytest.mark.parametrize("compressed", [False, True])
def test_every_line_comes_with_its_place(tmp_path: Path, compressed: bool) -> None:
    path = tmp_path / ("a.jsonl.gz" if compressed else "a.jsonl")
    path.write_bytes(gzip.compress(TEXT) if compressed else TEXT)
    log = one(path)
    blocks = list(log.blocks())
    assert len(blocks) > 3
    assert [line for block in blocks for line in block.lines] == TEXT.split(b"\n")[:-1]
    for block in blocks:
        assert TEXT.startswith(block.lines[0] + b"\n", block.offset)
        assert block.line == TEXT[: block.offset].count(b"\n") + 1
    assert log.progress == log.size == path.stat().st_size


@pytest.mark.parametrize("compressed", [False, True])
def test_reading_from_the_middle_gives_the_rest(tmp_path: Path, compressed: bool) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(gzip.compress(TEXT) if compressed else TEXT)
    start = TEXT.index(b"\n", 700_000) + 1
    log = one(path)
    assert next(log.blocks(start, None)).line is None
    assert next(log.blocks(start, 5)).offset == start
    assert read(log, start) == TEXT[start:].split(b"\n")[:-1]


def test_progress_grows_on_the_way(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl.gz"
    path.write_bytes(gzip.compress(TEXT))
    log = one(path)
    steps = [log.progress for _ in log.blocks()]
    assert steps == sorted(steps)
    assert 0 < steps[0] < log.size


def test_an_unterminated_last_line_is_its_own_block(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(b"a\nb\nc")
    first, last = one(path).blocks()
    assert (first.lines, first.unterminated) == ([b"a", b"b"], False)
    assert (last.lines, last.unterminated, last.offset, last.line) == ([b"c"], True, 4, 3)


def test_an_empty_file_has_no_lines(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").touch()
    assert list(one(tmp_path / "a.jsonl").blocks()) == []


def test_a_line_above_the_limit_is_one_oversize_block(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(b"a\n" + b"x" * (3 * MAX_LINE) + b"\nb\n")
    blocks = list(one(path).blocks())
    assert [block.line for block in blocks] == [1, 2, 3]
    assert blocks[1].oversize is not None
    assert blocks[1].oversize.length == 3 * MAX_LINE


def test_a_rotation_set_is_one_log_oldest_first_with_places_that_run_on(tmp_path: Path) -> None:
    third = len(TEXT) // 3
    cuts = [0, TEXT.index(b"\n", third) + 1, TEXT.index(b"\n", 2 * third) + 1, len(TEXT)]
    parts = [TEXT[a:b] for a, b in pairwise(cuts)]
    (tmp_path / "a.jsonl.10.gz").write_bytes(gzip.compress(parts[0]))
    (tmp_path / "a.jsonl.2").write_bytes(parts[1])
    (tmp_path / "a.jsonl").write_bytes(parts[2])
    (tmp_path / "b.jsonl").write_bytes(b"other\n")
    names = ["a.jsonl", "b.jsonl", "a.jsonl.2", "a.jsonl.10.gz"]
    log, other = open_saved([tmp_path / name for name in names])
    assert (log.name, other.name) == ("a.jsonl", "b.jsonl")
    blocks: list[Block] = list(log.blocks())
    assert [line for block in blocks for line in block.lines] == TEXT.split(b"\n")[:-1]
    for block in blocks:
        assert TEXT.startswith(block.lines[0] + b"\n", block.offset)
        assert block.line == TEXT[: block.offset].count(b"\n") + 1
    assert log.progress == log.size
    start = TEXT.index(b"\n", cuts[2] - 3000) + 1
    assert read(log, start) == TEXT[start:].split(b"\n")[:-1]
    assert read(log, cuts[2]) == parts[2].split(b"\n")[:-1]


def test_a_plain_set_is_entered_at_any_place(tmp_path: Path) -> None:
    for number, text in ((2, b"a\nb\n"), (1, b"c\nd\n"), (0, b"e\nf\n")):
        (tmp_path / (f"a.log.{number}" if number else "a.log")).write_bytes(text)
    (log,) = open_saved(sorted(tmp_path.iterdir()))
    assert [read(log, start) for start in (0, 2, 4, 6, 8, 10, 12)] == [
        [bytes([c]) for c in b"abcdef"[n:]] for n in range(7)
    ]


def test_dated_sets_go_by_their_dates_and_one_file_keeps_its_own_name(tmp_path: Path) -> None:
    for day, text in ((3, b"c\n"), (1, b"a\n"), (2, b"b\n")):
        (tmp_path / f"a.log-2026110{day}").write_bytes(text)
    (log,) = open_saved([tmp_path / f"a.log-2026110{day}" for day in (3, 1, 2)])
    assert read(log) == [b"a", b"b", b"c"]
    assert one(tmp_path / "a.log-20261101").name == "a.log-20261101"


def test_logs_with_one_base_name_are_told_apart_by_path(tmp_path: Path) -> None:
    for folder in ("x", "y"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "a.log").write_bytes(b"\n")
    logs = open_saved([tmp_path / "x/a.log", tmp_path / "y/a.log"])
    assert [log.name for log in logs] == [str(tmp_path / "x/a.log"), str(tmp_path / "y/a.log")]


@pytest.mark.parametrize(
    ("name", "base"),
    [
        ("audit.jsonl.1", "audit.jsonl"),
        ("audit.jsonl.12.gz", "audit.jsonl"),
        ("audit.2.jsonl.gz", "audit.jsonl"),
        ("audit.jsonl-20261122", "audit.jsonl"),
        ("audit.jsonl-20261122-1763799247.gz", "audit.jsonl"),
        ("audit-20261122.jsonl", "audit.jsonl"),
        ("audit.log.2026-11-22_10-00", "audit.log"),
        ("audit.jsonl.old", "audit.jsonl"),
        ("audit.jsonl", None),
        ("audit.jsonl.gz", None),
        ("shard-1.jsonl", None),
        ("app-2.log", None),
    ],
)
def test_names_of_rotated_files_are_known_and_others_left_alone(name: str, base: str | None) -> None:
    found = rotated_name(name)
    assert (found.base if found else None) == base


def test_what_cannot_be_replayed_is_refused_at_once_with_what_and_where(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "binary").write_bytes(b"\x7fELF\x02\0\0\0")
    for name, message in {
        "missing": "there is no such file",
        ".": "is a directory",
        "fifo": "is a FIFO or a device",
        "binary": "looks binary",
    }.items():
        path = tmp_path / name
        with pytest.raises(SourceError, match=f"^{re.escape(str(path))}: .*{message}"):
            open_saved([path])


def test_nuls_in_a_log_are_data(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(b"\0" * 9_000 + b"{}\n\0\0\n")
    assert len(read(one(path))) == 2
    path.write_bytes(b'{"a":"\0"}\n')
    assert len(read(one(path))) == 1


def stamped(seconds: list[int], unreadable: int = 0) -> bytes:
    lines = [b"%d %s" % (second, b"x" * 100) for second in seconds]
    for n in range(unreadable):
        lines.insert(n * 7 % len(lines), b"no time " + b"y" * 50)
    return b"\n".join(lines) + b"\n"


def time_of(line: bytes) -> int | None:
    first = line.split(b" ")[0]
    return int(first) if first.isdigit() else None


def test_bisection_finds_the_first_line_of_any_time(tmp_path: Path) -> None:
    path = tmp_path / "a.log"
    data = stamped([n // 3 for n in range(60_000)], unreadable=3_000)
    path.write_bytes(data)
    for second in (0, 1, 7, 9_999, 10_000, 19_998, 19_999):
        at = data.index(b"\n%d " % second) + 1 if second else data.index(b"0 ")
        assert offset_at(path, second, time_of) == at
    assert offset_at(path, 20_000, time_of) == len(data)


def test_bisection_reads_little_and_is_not_led_astray_by_one_line(tmp_path: Path) -> None:
    path = tmp_path / "a.log"
    seconds = list(range(400_000))
    for odd in range(0, 400_000, 997):
        seconds[odd] = 99_999_999
    data = stamped(seconds)
    path.write_bytes(data)
    asked = 0

    def counting(line: bytes) -> int | None:
        nonlocal asked
        asked += 1
        return time_of(line)

    found = offset_at(path, 300_000, counting)
    exact = data.index(b"\n300000 ") + 1
    assert 0 <= exact - found <= 1 << 18
    assert asked < 5_000


def test_bisection_of_nothing_is_zero(tmp_path: Path) -> None:
    assert offset_at(tmp_path / "missing", 5, time_of) == 0
    (tmp_path / "a.log").write_bytes(b"no time here\n" * 100_000)
    assert offset_at(tmp_path / "a.log", 5, time_of) == 0
    (tmp_path / "a.log").write_bytes(b"")
    assert offset_at(tmp_path / "a.log", 5, time_of) == 0
