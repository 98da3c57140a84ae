"""How far a log was read, kept, and found again."""

import gzip
import json
import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mcpwatch.sources.block import Block, Gap
from mcpwatch.sources.follow import Follower
from mcpwatch.sources.place import Place, find_file, find_place, place_at
from mcpwatch.times import SECOND


@pytest.fixture
def log(tmp_path: Path) -> Path:
    return tmp_path / "audit.jsonl"


def add(path: Path, first: int, last: int) -> None:
    with path.open("ab") as file:
        file.writelines(line(n) + b"\n" for n in range(first, last))


def line(number: int) -> bytes:
    return b'{"n":%d,"pad":"%s","secret":"hunter2-%d"}' % (number, b"x" * 80, number)


def read(follower: Follower) -> tuple[list[bytes], list[Gap]]:
    lines: list[bytes] = []
    gaps: list[Gap] = []
    now = 1_000 * SECOND
    while True:
        for item in follower.tick(now):
            if isinstance(item, Block):
                lines += item.lines
            else:
                gaps.append(item)
        if not follower.more:
            return lines, gaps


def place_after_reading(log: Path) -> Place:
    follower = Follower(log, "log")
    read(follower)
    place = follower.place
    assert place is not None
    follower.close()
    return place


def test_a_place_outlives_the_process_and_names_the_next_line(log: Path) -> None:
    add(log, 0, 20)
    place = place_after_reading(log)
    again = Place.from_json(json.loads(json.dumps(place.to_json())))
    assert again == place
    assert (place.offset, place.line, place.unread) == (log.stat().st_size, 21, None)
    add(log, 20, 25)
    follower = Follower(log, "log", resume=again)
    (block,) = follower.tick(0)
    assert isinstance(block, Block)
    assert (block.offset, block.line) == (place.offset, 21)
    assert block.lines == [line(n) for n in range(20, 25)]


def test_what_is_held_of_a_line_is_read_again(log: Path) -> None:
    add(log, 0, 3)
    with log.open("ab") as file:
        file.write(line(3)[:50])
    place = place_after_reading(log)
    assert place.line == 4
    assert place.unread == 50
    with log.open("ab") as file:
        file.write(line(3)[50:] + b"\n")
    assert read(Follower(log, "log", resume=place)) == ([line(3)], [])


def test_a_place_holds_no_byte_of_the_log(log: Path) -> None:
    """Log lines hold secrets, and a place is kept on disk where others may read it."""
    add(log, 0, 100)
    assert "hunter2" not in json.dumps(place_after_reading(log).to_json())


def test_before_there_is_a_file_there_is_no_place(log: Path) -> None:
    follower = Follower(log, "log")
    assert read(follower) == ([], [])
    assert follower.place is None


def test_a_place_is_kept_until_its_file_is_looked_for(log: Path) -> None:
    """The log is not there yet after a reboot: ending before it comes forgets nothing."""
    add(log, 0, 5)
    place = place_after_reading(log)
    away = log.rename(log.with_name("elsewhere"))
    follower = Follower(log, "log", resume=place)
    read(follower)
    assert follower.place == place
    away.rename(log)
    add(log, 5, 6)
    assert read(follower) == ([line(5)], [])


@pytest.mark.parametrize(
    ("happens", "where"),
    [
        ("nothing", "here"),
        ("renamed", "rotated"),
        ("compressed", "copied"),
        ("copied", "copied"),
        ("gone", "lost"),
    ],
)
def test_a_place_is_found_wherever_its_file_is(log: Path, happens: str, where: str) -> None:
    add(log, 0, 50)
    place = place_after_reading(log)
    expected: Path | None = log
    match happens:
        case "renamed":
            expected = log.rename(log.with_name("audit.jsonl.1"))
            add(log, 90, 99)
        case "compressed":
            expected = log.with_name("audit.jsonl.1.gz")
            expected.write_bytes(gzip.compress(log.read_bytes()))
            log.unlink()
        case "copied":
            expected = log.with_name("audit.jsonl.1")
            expected.write_bytes(log.read_bytes())
            os.truncate(log, 0)
        case "gone":
            expected = None
            os.truncate(log, 0)
            add(log, 90, 199)
    assert find_place(log, place) == where
    assert find_file(log, place) == (where, expected)


def test_a_log_that_was_moved_to_another_disk_is_known_by_what_was_read(log: Path) -> None:
    add(log, 0, 50)
    place = place_after_reading(log)
    copy = log.with_name("copy")
    copy.write_bytes(log.read_bytes())
    copy.rename(log)
    add(log, 50, 52)
    assert find_place(log, place) == "here"
    assert read(Follower(log, "log", resume=place)) == ([line(50), line(51)], [])


def test_a_stale_place_is_one_gap_and_the_file_from_its_start(log: Path) -> None:
    add(log, 0, 50)
    place = place_after_reading(log)
    log.unlink()
    add(log, 100, 103)
    lines, gaps = read(Follower(log, "log", resume=place))
    assert lines == [line(n) for n in range(100, 103)]
    assert [gap.reason for gap in gaps if "while mcpwatch was not running" in gap.reason] == [gaps[0].reason]


def test_several_files_at_once_go_on_from_where_each_was(log: Path) -> None:
    """A rotated file whose writer lingers, and its successor."""
    add(log, 0, 5)
    follower = Follower(log, "log")
    read(follower)
    rotated = log.rename(log.with_name("audit.jsonl.1"))
    add(log, 10, 15)
    read(follower)
    place = follower.place
    assert place is not None
    assert len(place.parts) == 2
    follower.close()
    add(rotated, 5, 7)
    add(log, 15, 17)
    lines, gaps = read(Follower(log, "log", resume=Place.from_json(place.to_json())))
    assert (lines, gaps) == ([line(5), line(6), line(15), line(16)], [])


def test_the_place_of_a_line_in_a_file_counts_what_is_rotated_as_read(log: Path) -> None:
    add(log.with_name("audit.jsonl.1"), 0, 5)
    add(log, 5, 10)
    place = place_at(log, len(line(5)) + 1, 2)
    assert place is not None
    log.with_name("audit.jsonl.1").rename(log.with_name("audit.jsonl.2"))
    log.rename(log.with_name("audit.jsonl.1"))
    add(log, 10, 12)
    assert read(Follower(log, "log", resume=place)) == ([line(n) for n in range(6, 12)], [])
    assert place_at(log, 1 << 30, None) is None
    assert place_at(log.with_name("none"), 0, 1) is None


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=40),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.sampled_from(["parts", "past", "points", "dev", "line", "x"]), inner, max_size=5)
    ),
    max_leaves=20,
)


@given(JSON)
def test_rubbish_is_no_place(value: object) -> None:
    assert Place.from_json(value) is None


GOOD: dict[str, Any] = {
    "dev": 1, "ino": 2, "size": 100, "mtime_ns": 5, "offset": 64, "points": [[64, "0" * 32]],
    "begin": 50, "line": 3, "pending": False,
}  # fmt: skip


def test_a_place_by_the_book_is_one() -> None:
    place = Place.from_json({"parts": [GOOD], "past": []})
    assert place is not None
    assert place.to_json() == {"parts": [GOOD], "past": []}


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("dev", -1), ("dev", True), ("ino", 1 << 64), ("ino", 2.0), ("size", 63), ("mtime_ns", "5"), ("offset", None),
        ("offset", 65), ("begin", 65), ("begin", None), ("line", 0), ("line", "3"), ("points", []), ("points", None),
        ("points", [[64, "0" * 31]]), ("points", [[64, "g" * 32]]), ("points", [[64, "0" * 32]] * 2),
        ("points", [[n, "0" * 32] for n in range(1, 300)]), ("points", [64]), ("points", [[0, "0" * 32]]),
    ],
)  # fmt: skip
def test_whatever_does_not_fit_together_is_no_place(name: str, value: object) -> None:
    assert Place.from_json({"parts": [GOOD | {name: value}], "past": []}) is None


def test_a_place_needs_a_part_and_few_of_them() -> None:
    assert Place.from_json({"parts": [], "past": []}) is None
    assert Place.from_json({"parts": [GOOD] * 65, "past": []}) is None
    assert Place.from_json({"parts": [GOOD]}) is None
