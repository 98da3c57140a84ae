"""Following one file."""

import gzip
import os
import resource
import shutil
import socket
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mcpwatch.sources.block import MAX_LINE, Block, Gap
from mcpwatch.sources.copies import BETWEEN
from mcpwatch.sources.follow import Follower
from mcpwatch.times import SECOND


class Reader:
    """A follower with a clock of its own, and all that it delivered."""

    def __init__(self, path: Path, offset: int = 0, line: int | None = 1) -> None:
        self.follower = Follower(path, "log", offset=offset, line=line)
        self.now = 1_000 * SECOND
        self.blocks: list[Block] = []
        self.gaps: list[Gap] = []

    def tick(self, seconds: float = 0.05) -> "Reader":
        """Pass the time, a tick a second at least, and read until nothing is left."""
        end = self.now + int(seconds * SECOND)
        while True:
            self.now = min(end, self.now + SECOND)
            for item in self.follower.tick(self.now):
                (self.blocks if isinstance(item, Block) else self.gaps).append(item)  # type: ignore[arg-type]
            if self.now == end and not self.follower.more:
                return self

    @property
    def lines(self) -> list[bytes]:
        return [line for block in self.blocks for line in block.lines]


@pytest.fixture
def log(tmp_path: Path) -> Path:
    return tmp_path / "audit.jsonl"


def add(path: Path, *lines: str) -> None:
    with path.open("a") as file:
        file.writelines(line + "\n" for line in lines)


def numbered(first: int, last: int) -> list[str]:
    return [f'{{"n":{n},"pad":"{"x" * 80}"}}' for n in range(first, last)]


def as_bytes(*lines: str) -> list[bytes]:
    return [line.encode() for line in lines]


def test_new_lines_come_with_their_offset_and_number(log: Path) -> None:
    add(log, "a", "bb")
    reader = Reader(log).tick()
    add(log, "ccc")
    reader.tick()
    assert [(b.lines, b.offset, b.line) for b in reader.blocks] == [([b"a", b"bb"], 0, 1), ([b"ccc"], 5, 3)]
    status = reader.follower.status
    assert (status.state, status.offset, status.size, status.behind) == ("reading", 9, 9, 0)
    assert status.last_read_ns == reader.now


def test_reading_begins_where_it_was_told(log: Path) -> None:
    add(log, "a", "bb", "c")
    reader = Reader(log, offset=5, line=None).tick()
    assert [(b.lines, b.offset, b.line) for b in reader.blocks] == [([b"c"], 5, None)]


def test_a_start_beyond_the_end_reads_everything_and_says_so(log: Path) -> None:
    add(log, "a")
    reader = Reader(log, offset=500, line=None).tick()
    assert reader.lines == [b"a"]
    assert len(reader.gaps) == 1


def test_a_file_that_appears_later_is_read_from_its_first_byte(log: Path) -> None:
    reader = Reader(log, offset=3, line=2).tick()
    assert reader.follower.status.state == "waiting"
    assert "not there" in reader.follower.status.note
    add(log, "first", "second")
    reader.tick()
    assert [(b.offset, b.line) for b in reader.blocks] == [(0, 1)]
    assert reader.lines == [b"first", b"second"]
    assert reader.follower.status.note == ""


def test_a_record_written_byte_by_byte_is_one_line_and_none_before_its_newline(log: Path) -> None:
    log.touch()
    reader = Reader(log)
    record = b'{"tool":"file_read"}'
    with log.open("ab", buffering=0) as file:
        for index in range(len(record)):
            file.write(record[index : index + 1])
            assert reader.tick().lines == []
            assert reader.follower.status.held == index + 1
        file.write(b"\n")
    assert reader.tick().lines == [record]
    assert reader.follower.status.held == 0


def test_one_tick_reads_at_most_its_budget(log: Path) -> None:
    log.write_bytes(b"x\n" * (MAX_LINE + 5))
    follower = Follower(log, "log")
    first = follower.tick(0)
    assert sum(len(b.lines) for b in first if isinstance(b, Block)) * 2 == MAX_LINE
    assert follower.more
    assert follower.status.behind == MAX_LINE + 10
    few = follower.tick(0, 10)
    assert sum(len(b.lines) for b in few if isinstance(b, Block)) == 5


def test_rotation_by_rename_loses_and_repeats_nothing(log: Path) -> None:
    reader = Reader(log)
    for generation in range(5):
        add(log, *numbered(generation * 10, generation * 10 + 5))
        reader.tick()
        add(log, *numbered(generation * 10 + 5, generation * 10 + 10))  # not read before the rotation
        log.rename(log.with_name(f"audit.jsonl.{generation + 90}"))
        reader.tick()
        log.touch()
        reader.tick()
    assert reader.lines == as_bytes(*numbered(0, 50))
    assert reader.gaps == []
    assert reader.follower.status.rotations == 5


def test_a_new_file_counts_from_line_one_and_offset_zero(log: Path) -> None:
    add(log, "a", "b")
    reader = Reader(log).tick()
    log.rename(log.with_name("audit.jsonl.1"))
    add(log, "c")
    reader.tick()
    assert (reader.blocks[-1].offset, reader.blocks[-1].line) == (0, 1)


def test_a_writer_that_lingers_on_the_renamed_file_loses_nothing(log: Path) -> None:
    """Its late lines come, however long it goes on, as long as it is never silent for five seconds."""
    reader = Reader(log)
    with log.open("a", buffering=1) as writer:
        writer.write("old 0\n")
        reader.tick()
        log.rename(log.with_name("audit.jsonl.1"))
        add(log, "new 0")
        for late in range(1, 6):
            reader.tick(4.0)
            writer.write(f"old {late}\n")
        reader.tick()
    assert reader.lines == as_bytes("old 0", "new 0", *(f"old {late}" for late in range(1, 6)))
    assert [block.line for block in reader.blocks] == [1, 1, 2, 3, 4, 5, 6]


def test_a_rotated_file_is_let_go_when_it_is_quiet_and_its_successor_has_data(log: Path) -> None:
    add(log, "a")
    reader = Reader(log).tick()
    log.rename(log.with_name("audit.jsonl.1"))
    log.touch()
    reader.tick(60.0).tick(60.0)
    assert reader.follower.descriptors == 2  # the writer has not come over yet
    add(log, "b")
    reader.tick(0.05)
    assert reader.follower.descriptors == 1
    assert reader.lines == [b"a", b"b"]


def test_a_writer_that_switches_files_is_read_in_its_order(log: Path) -> None:
    """Whatever the predecessor still held is delivered before the successor's first line."""
    add(log, *numbered(0, 20_000))
    reader = Reader(log)
    reader.follower.tick(reader.now, 100)
    log.rename(log.with_name("audit.jsonl.1"))
    add(log, *numbered(20_000, 20_100))
    reader.blocks.clear()
    reader.tick()
    numbers = [line.split(b",")[0] for line in reader.lines]
    assert numbers[-100:] == [b'{"n":%d' % n for n in range(20_000, 20_100)]
    assert len(set(numbers)) == len(numbers)


@pytest.mark.parametrize("compress", [False, True])
def test_five_rotations_between_two_ticks_are_read_in_order(log: Path, compress: bool) -> None:
    add(log, *numbered(0, 10))
    reader = Reader(log).tick()
    for generation in range(1, 6):
        add(log, *numbered(generation * 10, generation * 10 + 10))
        for number in range(8, 0, -1):
            for suffix in ("", ".gz"):
                older = log.with_name(f"audit.jsonl.{number}{suffix}")
                if older.exists():
                    older.rename(log.with_name(f"audit.jsonl.{number + 1}{suffix}"))
        log.rename(log.with_name("audit.jsonl.1"))
        if compress:
            subprocess.run(["gzip", "audit.jsonl.1"], cwd=log.parent, check=True)
        log.touch()
    add(log, *numbered(60, 65))
    reader.tick()
    assert reader.lines == as_bytes(*numbered(0, 65))
    assert reader.gaps == []
    assert reader.follower.status.rotations == 5
    assert reader.tick(10).tick(10).lines == as_bytes(*numbered(0, 65))


def test_files_that_were_rotated_before_the_start_are_left_alone(log: Path) -> None:
    add(log.with_name("audit.jsonl.1"), "ancient")
    os.utime(log.with_name("audit.jsonl.1"), (1, 1))
    add(log, "a")
    reader = Reader(log).tick()
    log.with_name("audit.jsonl.1").rename(log.with_name("audit.jsonl.2"))
    log.rename(log.with_name("audit.jsonl.1"))
    add(log, "b")
    assert reader.tick().lines == [b"a", b"b"]


def test_a_file_rotated_before_the_start_is_left_alone_even_while_its_writer_lingers(log: Path) -> None:
    add(log.with_name("audit.jsonl.1"), "ancient")
    log.touch()
    reader = Reader(log).tick()
    add(log.with_name("audit.jsonl.1"), "late")
    add(log, "a")
    reader.tick()
    log.with_name("audit.jsonl.1").rename(log.with_name("audit.jsonl.2"))
    log.unlink()
    add(log, "b")
    assert reader.tick().lines == [b"a", b"b"]
    assert reader.gaps == []


@pytest.mark.parametrize("compress", [False, True])
def test_what_a_copytruncate_took_is_read_from_the_copy_and_the_rest_is_a_gap(
    log: Path, compress: bool
) -> None:
    add(log, *numbered(0, 10))
    reader = Reader(log).tick()
    add(log, *numbered(10, 20))
    copy = shutil.copy(log, log.with_name("audit.jsonl.1"))
    if compress:
        subprocess.run(["gzip", copy], check=True)
    add(log, "destroyed by the tool")
    os.truncate(log, 0)
    add(log, *numbered(20, 25))
    reader.tick()
    assert reader.lines == as_bytes(*numbered(0, 25))
    assert len(reader.gaps) == 1
    assert "copied and truncated" in reader.gaps[0].reason
    assert reader.gaps[0].size is None
    assert [b.copy_of_rotation for b in reader.blocks] == [False, True, False]
    assert [b.line for b in reader.blocks] == [1, 11, 1]
    assert reader.blocks[1].offset == reader.blocks[0].offset + sum(map(len, reader.blocks[0].lines)) + 10


def test_a_copy_that_ends_before_our_place_repeats_nothing(log: Path) -> None:
    add(log, *numbered(0, 10))
    shutil.copy(log, log.with_name("audit.jsonl.1"))
    add(log, *numbered(10, 20))
    reader = Reader(log).tick()
    os.truncate(log, 0)
    add(log, *numbered(20, 25))
    assert reader.tick().lines == as_bytes(*numbered(0, 25))
    assert len(reader.gaps) == 1


def test_several_copytruncates_between_two_ticks_are_read_in_order(log: Path) -> None:
    add(log, *numbered(0, 10))
    reader = Reader(log).tick()
    for generation in range(1, 4):
        add(log, *numbered(generation * 10, generation * 10 + 10))
        for number in (2, 1):
            if log.with_name(f"audit.jsonl.{number}").exists():
                log.with_name(f"audit.jsonl.{number}").rename(log.with_name(f"audit.jsonl.{number + 1}"))
        shutil.copy(log, log.with_name("audit.jsonl.1"))
        os.truncate(log, 0)
    add(log, *numbered(40, 45))
    assert reader.tick().lines == as_bytes(*numbered(0, 45))
    assert [gap.reason for gap in reader.gaps] == [BETWEEN] * 3, "each of them may have destroyed lines"


@pytest.mark.parametrize("refilled", [False, True])
def test_a_file_that_was_filled_copied_and_truncated_between_two_ticks_is_read_from_its_copy(
    log: Path, refilled: bool
) -> None:
    """The file itself shows nothing of it: it was empty before."""
    log.touch()
    add(log.with_name("audit.jsonl.1"), "ancient")
    reader = Reader(log).tick()
    if refilled:
        add(log, *numbered(0, 5))
        reader.tick()
        os.truncate(log, 0)
        reader.tick()
        reader.blocks.clear()
        reader.gaps.clear()
    add(log, *numbered(10, 20))
    log.with_name("audit.jsonl.1").rename(log.with_name("audit.jsonl.2"))
    shutil.copy(log, log.with_name("audit.jsonl.1"))
    os.truncate(log, 0)
    add(log, *numbered(20, 25))
    assert reader.tick().tick().lines == as_bytes(*numbered(10, 25))
    assert len(reader.gaps) == 1


@pytest.mark.parametrize("lines_after", [3, 10, 40], ids=["below", "exactly to", "past"])
def test_truncated_and_refilled_to_any_size_shows_every_new_line_and_one_gap(
    log: Path, lines_after: int
) -> None:
    add(log, *numbered(10, 20))
    reader = Reader(log).tick()
    add(log, *numbered(20, 22))
    size = log.stat().st_size
    reader.follower.tick(reader.now, 5)  # sees that there is more than it may read
    os.truncate(log, 0)
    add(log, *numbered(50, 50 + lines_after))
    os.utime(log)
    reader.tick()
    assert reader.lines[10:] == as_bytes(*numbered(50, 50 + lines_after))
    assert len(reader.gaps) == 1
    assert reader.gaps[0].size == size - sum(len(line) + 1 for line in numbered(10, 20))
    assert reader.follower.status.truncations == 1
    assert reader.follower.status.gaps == 1


def test_overwritten_with_the_same_last_lines_is_found_out_by_the_head(log: Path) -> None:
    same = ["same " * 20] * 10
    add(log, *numbered(0, 5), *same)
    reader = Reader(log).tick()
    log.write_text("")
    add(log, *numbered(5, 10), *same)
    reader.tick()
    assert reader.lines[15:] == as_bytes(*numbered(5, 10), *same)


def test_the_unfinished_line_of_a_truncated_file_is_in_the_gap(log: Path) -> None:
    log.write_bytes(b"a\nunfinished")
    reader = Reader(log).tick()
    os.truncate(log, 0)
    reader.tick()
    assert [(gap.offset, gap.size) for gap in reader.gaps] == [(2, len("unfinished"))]
    assert reader.follower.status.held == 0


def test_the_hole_after_a_truncation_under_a_writer_that_does_not_append(log: Path) -> None:
    with log.open("w", buffering=1) as writer:
        writer.write("a\n" * 5_000)
        reader = Reader(log).tick()
        os.truncate(log, 0)
        writer.write("b\n")
        reader.tick()
    assert reader.lines[-1].lstrip(b"\0") == b"b"


@pytest.mark.parametrize("parked", [False, True])
def test_delete_and_recreate_100_times_is_read_from_zero_each_time(log: Path, parked: bool) -> None:
    """With the same inode too, which is what most file systems give out when nobody holds the old file."""
    reader = Reader(log)
    same_inode = 0
    before = 0
    for turn in range(100):
        add(log, f"first of {turn}", *["the same line"] * (turn % 3))
        same_inode += log.stat().st_ino == before
        before = log.stat().st_ino
        reader.tick(6.0)
        assert (reader.blocks[-1].offset, reader.blocks[-1].line) == (0, 1)
        assert reader.blocks[-1].lines == as_bytes(f"first of {turn}", *["the same line"] * (turn % 3))
        if parked:
            assert reader.follower.park()
        log.unlink()
    assert sum(len(block.lines) for block in reader.blocks) == 100 + 99
    assert parked or reader.gaps == []


def test_a_parked_file_goes_on_where_it_was(log: Path) -> None:
    add(log, *numbered(0, 3))
    reader = Reader(log).tick()
    assert reader.follower.park()
    assert reader.tick().follower.descriptors == 0
    add(log, *numbered(3, 6))
    reader.tick()
    assert reader.follower.park()
    add(log, *numbered(6, 9))
    log.rename(log.with_name("audit.jsonl.1"))
    add(log, *numbered(9, 12))
    reader.tick()
    assert reader.lines == as_bytes(*numbered(0, 12))
    assert reader.gaps == []


def test_a_parked_file_that_was_rotated_and_compressed_is_read_from_its_copy(log: Path) -> None:
    add(log, *numbered(0, 3))
    reader = Reader(log).tick()
    assert reader.follower.park()
    add(log, *numbered(3, 6))
    rotated = log.rename(log.with_name("audit.jsonl.1"))
    subprocess.run(["gzip", rotated], check=True)
    add(log, *numbered(6, 9))
    assert reader.tick().lines == as_bytes(*numbered(0, 9))


@pytest.mark.parametrize("kind", ["fifo", "folder", "symlink", "socket", "device"])
@pytest.mark.parametrize("later", [False, True])
def test_only_regular_files_are_read_and_nothing_hangs(log: Path, kind: str, later: bool) -> None:
    """Refused with one clear message, at the start and when a followed path turns into one; usable again after."""
    reader = Reader(log)
    if later:
        add(log, "a")
        reader.tick()
        log.rename(log.with_name("audit.jsonl.1"))
    match kind:
        case "fifo":
            os.mkfifo(log)
        case "folder":
            log.mkdir()
        case "symlink":
            log.symlink_to("/etc/passwd")
        case "socket":
            with socket.socket(socket.AF_UNIX) as listener:
                listener.bind(str(log))
        case "device":
            reader = Reader(Path("/dev/zero"))
    status = reader.tick().follower.status
    assert status.state == "refused"
    assert (
        kind.replace("fifo", "FIFO").replace("symlink", "symbolic link").replace("folder", "directory")
    ) in (status.note)
    assert status.note.count("\n") == 0
    if kind == "device":
        return
    log.rmdir() if kind == "folder" else log.unlink()
    add(log, "b")
    reader.tick()
    assert reader.follower.status.state == "reading"
    assert reader.lines == ([b"a", b"b"] if later else [b"b"])


def test_symlinks_are_followed_on_request(log: Path, tmp_path: Path) -> None:
    add(tmp_path / "one.log", "a")
    log.symlink_to(tmp_path / "one.log")
    follower = Follower(log, "log", follow_symlinks=True)
    (block,) = follower.tick(0)
    assert isinstance(block, Block)
    assert block.lines == [b"a"]


@pytest.mark.skipif(os.geteuid() == 0 and shutil.which("setpriv") is None, reason="root can read everything")
def test_a_file_that_cannot_be_opened_is_waited_for(log: Path) -> None:
    add(log, "a")
    log.chmod(0)
    log.parent.chmod(0o755)
    code = (
        "import os, sys; from pathlib import Path; from mcpwatch.sources.follow import Follower\n"
        # rights are dropped after the imports: another user need not be able to read this checkout
        "if os.geteuid() == 0: os.setgroups([]); os.setgid(65534); os.setuid(65534)\n"
        "f = Follower(Path(sys.argv[1]), 'log'); f.tick(0); print(f.status.state, f.status.note)"
    )
    for folder in log.parents:
        if str(folder).startswith(tempfile.gettempdir() + "/"):
            folder.chmod(folder.stat().st_mode | 0o011)
    done = subprocess.run([sys.executable, "-c", code, str(log)], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("waiting")
    assert "Permission denied" in done.stdout


def test_a_line_of_100_mb_takes_little_memory(log: Path) -> None:
    with log.open("wb") as file:
        file.write(b"before\n")
        for _ in range(100):
            file.write(b"z" * (1 << 20))
        file.write(b"\nafter\n")
    reader = Reader(log)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    reader.tick()
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before <= 8 << 10
    assert [len(block.lines) for block in reader.blocks] == [1, 1, 1]
    assert reader.blocks[1].oversize is not None
    assert reader.blocks[1].oversize.length == 100 << 20
    assert reader.lines[2] == b"after"


def test_a_copy_made_before_the_log_was_deleted_repeats_nothing(log: Path) -> None:
    """`cp` and `rm`, as rotation scripts of one's own have it."""
    add(log, *numbered(0, 10))
    reader = Reader(log).tick()
    add(log, *numbered(10, 12))
    shutil.copy(log, log.with_name("audit.jsonl.1"))
    log.unlink()
    add(log, *numbered(12, 15))
    assert reader.tick().tick(20).lines == as_bytes(*numbered(0, 15))
    assert reader.gaps == []


def test_lines_of_a_copy_too_short_to_be_known_are_told_as_repeats(log: Path) -> None:
    """They are delivered, and marked: whether they are new is told by their content alone."""
    add(log, "a", "b")
    reader = Reader(log).tick()
    shutil.copy(log, log.with_name("audit.jsonl.1"))
    add(log, "c")
    reader.tick()
    os.utime(log.with_name("audit.jsonl.1"))
    log.unlink()
    add(log, "d")
    reader.tick()
    repeated = [(block.lines, block.repeats) for block in reader.blocks if block.repeats]
    assert repeated == [([b"a", b"b"], frozenset({0, 1}))]
    assert reader.lines == [b"a", b"b", b"c", b"a", b"b", b"d"]


def test_a_first_line_that_never_changes_hides_no_generation(log: Path) -> None:
    """Of logs with a header the beginnings are alike, and only what follows tells them apart."""
    header = "header " * 100
    add(log, header, *numbered(0, 30))
    reader = Reader(log).tick()
    for generation in range(1, 4):
        for number in (3, 2, 1):
            if log.with_name(f"audit.jsonl.{number}.gz").exists():
                log.with_name(f"audit.jsonl.{number}.gz").rename(
                    log.with_name(f"audit.jsonl.{number + 1}.gz")
                )
        log.rename(log.with_name("audit.jsonl.1"))
        subprocess.run(["gzip", "audit.jsonl.1"], cwd=log.parent, check=True)
        add(log, header, *numbered(generation * 100, generation * 100 + 30))
    reader.tick().tick(20)
    told = [line for block in reader.blocks for n, line in enumerate(block.lines) if n not in block.repeats]
    assert told == as_bytes(*(line for n in range(4) for line in (header, *numbered(n * 100, n * 100 + 30))))


def test_many_rotations_between_two_ticks_are_read_in_order_with_few_descriptors(log: Path) -> None:
    add(log, *numbered(0, 5))
    reader = Reader(log).tick()
    for generation in range(1, 41):
        log.rename(log.with_name(f"audit.jsonl.{100 - generation}"))
        add(log, *numbered(generation * 5, generation * 5 + 5))
    most = 0
    reader.now += SECOND
    while True:
        for item in reader.follower.tick(reader.now, 500):
            (reader.blocks if isinstance(item, Block) else reader.gaps).append(item)  # type: ignore[arg-type]
        most = max(most, reader.follower.descriptors)
        if not reader.follower.more:
            break
    assert reader.lines == as_bytes(*numbered(0, 205))
    assert reader.gaps == []
    assert most <= 32


def test_dates_tell_the_order_where_a_writer_lingers_on_an_older_file(log: Path) -> None:
    """It is the older file that was written to last."""
    with log.open("a", buffering=1) as writer:
        writer.write("a\n")
        reader = Reader(log).tick()
        log.rename(log.with_name("audit.jsonl-20261120"))
        add(log, "b")
        log.rename(log.with_name("audit.jsonl-20261121"))
        add(log, "c")
        writer.write("late\n")
        os.utime(log.with_name("audit.jsonl-20261121"), (1, 1))
        assert reader.tick().lines == [b"a", b"late", b"b", b"c"]


def test_a_file_that_is_moved_back_after_it_was_let_go_is_not_read_again(log: Path) -> None:
    add(log, *numbered(0, 5))
    reader = Reader(log).tick()
    rotated = log.rename(log.with_name("audit.jsonl.1"))
    add(log, *numbered(5, 8))
    reader.tick(20)
    assert reader.follower.descriptors == 1
    rotated.rename(log)
    add(log, *numbered(8, 9))
    assert reader.tick().lines == as_bytes(*numbered(0, 9))
    assert reader.gaps == []


@pytest.mark.parametrize("step", [3_600, -3_600])
def test_a_clock_that_is_set_lets_no_rotated_file_go_early_nor_keeps_it_for_an_hour(
    log: Path, step: int
) -> None:
    with log.open("a", buffering=1) as writer:
        writer.write("a\n")
        reader = Reader(log).tick()
        log.rename(log.with_name("audit.jsonl.1"))
        add(log, "b")
        reader.tick()
        reader.now += step * SECOND
        for _ in range(3):
            reader.follower.tick(reader.now)
        writer.write("late\n")
        assert reader.tick().lines == [b"a", b"b", b"late"]
        reader.tick(10)
        assert reader.follower.descriptors == 1


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can take rights away from itself")
def test_a_rotated_file_that_may_not_be_read_is_a_gap_and_the_others_are_read() -> None:
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        log = Path(folder) / "audit.jsonl"
        add(log, "a")
        reader = Reader(log).tick()
        for number in (9, 8, 7):
            log.rename(log.with_name(f"audit.jsonl.{number}"))
            add(log, f"before {number - 1}")
        log.with_name("audit.jsonl.8").chmod(0)
        os.seteuid(65534)
        try:
            reader.tick()
        finally:
            os.seteuid(0)
    assert reader.lines == [b"a", b"before 7", b"before 6"]
    assert [(gap.reason, gap.size) for gap in reader.gaps] == [("audit.jsonl.8 cannot be read", 9)]


def test_on_a_network_file_system_the_log_is_opened_anew_and_nothing_is_lost(
    log: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only opening asks the server. (Few kernels under test have one to mount: the type's name stands in for it.)"""
    monkeypatch.setattr("mcpwatch.sources.follow.network_filesystem", lambda path: "nfs4")
    reader = Reader(log)
    assert reader.follower.status.filesystem == "nfs4"
    for generation in range(4):
        with log.open("ab", buffering=0) as file:
            for n, line in enumerate(numbered(generation * 10, generation * 10 + 10)):
                file.write(line[:20].encode())
                reader.tick(0.7)
                file.write(line[20:].encode() + b"\n")
                reader.tick(0.7 if n % 2 else 0.01)
        log.rename(log.with_name(f"audit.jsonl.{90 - generation}"))
    assert reader.lines == as_bytes(*numbered(0, 40))
    assert reader.gaps == []
    assert reader.follower.descriptors <= 2


def test_a_copy_compressed_with_zstd_is_recovered_too(log: Path) -> None:
    zstd = pytest.importorskip("backports.zstd")
    add(log, *numbered(0, 10))
    reader = Reader(log).tick()
    add(log, *numbered(10, 20))
    log.with_name("audit.jsonl.1.zst").write_bytes(zstd.compress(log.read_bytes()))
    os.truncate(log, 0)
    add(log, *numbered(20, 25))
    assert reader.tick().lines == as_bytes(*numbered(0, 25))
    assert len(reader.gaps) == 1


def test_a_broken_copy_gives_what_it_has_and_a_gap(log: Path) -> None:
    add(log, "a")
    reader = Reader(log).tick()
    log.rename(log.with_name("audit.jsonl.2"))
    data = gzip.compress(b"".join(line.encode() + b"\n" for line in numbered(0, 3_000)))
    log.with_name("audit.jsonl.1.gz").write_bytes(data[: len(data) // 2])
    add(log, "z")
    reader.tick()
    assert reader.lines[0] == b"a"
    assert reader.lines[-1] == b"z"
    assert reader.lines[1:-1] == as_bytes(*numbered(0, len(reader.lines) - 2))
    assert len(reader.lines) > 10
    assert len(reader.gaps) == 1


def test_a_closed_follower_reads_no_more(log: Path) -> None:
    add(log, "a")
    reader = Reader(log).tick()
    reader.follower.close()
    add(log, "b")
    assert reader.tick().lines == [b"a"]
    assert reader.follower.status.state == "ended"
    assert reader.follower.descriptors == 0


STEP = st.one_of(
    st.tuples(st.just("append"), st.text("ab\n", max_size=12)),
    st.tuples(st.just("late"), st.text("cd", min_size=1, max_size=5)),
    st.tuples(st.just("rotate"), st.just("")),
    st.tuples(st.just("tick"), st.just("")),
    st.tuples(st.just("park"), st.just("")),
)


@settings(max_examples=150, deadline=None)
@given(st.lists(STEP, max_size=30))
def test_any_sequence_of_writes_rotations_and_ticks_delivers_each_line_once_in_order(
    steps: list[tuple[str, str]],
) -> None:
    """`late` writes a line to the file rotated last, which is always one that was seen before it was renamed."""
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder) / "audit.jsonl"
        log.touch()
        files = [log.open("ab", buffering=0)]
        written: list[bytes] = [b""]
        reader = Reader(log).tick()
        for serial, (what, text) in enumerate(steps):
            data = text.replace("\n", f"-{serial}\n").encode()
            match what:
                case "append":
                    files[-1].write(data)
                    written[-1] += data
                case "late" if len(files) > 1:
                    files[-2].write(data + b"-%d\n" % serial)
                    written[-2] += data + b"-%d\n" % serial
                case "rotate":
                    reader.tick()  # the path and its file were seen together
                    log.rename(log.with_name(f"audit.jsonl.{10_000 - len(files)}"))
                    files.append(log.open("ab", buffering=0))
                    written.append(b"")
                case "park":
                    reader.follower.park()
                case "tick":
                    reader.tick(0.1)  # in all less than the quiet that closes a rotated file
        reader.tick()
        for file in files:
            file.close()
        reader.follower.close()
    assert reader.gaps == []
    expected = [line for data in written for line in data.split(b"\n")[:-1]]
    assert sorted(reader.lines) == sorted(expected)
    for data in written:
        own = data.split(b"\n")[:-1]
        unique = [line for line in own if expected.count(line) == 1]
        assert [line for line in reader.lines if line in set(unique)] == unique
