"""The file that received records are written to first."""

from __future__ import annotations

import contextlib
import os
import resource
import stat
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from mcpwatch.sources.block import Block
from mcpwatch.sources.follow import Follower
from mcpwatch.sources.spool import Backlog, Lock, Spool, TakenError, make_folder
from mcpwatch.times import SECOND


@contextlib.contextmanager
def no_file_beyond(size: int) -> Iterator[None]:
    """As on a full disk: writes stop in the middle at a size, then fail."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_lines_are_appended_and_readable_by_the_group_of_the_folder_above(tmp_path: Path) -> None:
    state = tmp_path / "state"
    state.mkdir()
    if os.geteuid() == 0:
        os.chown(state, -1, 65534)
    make_folder(state / "spool")
    spool = Spool(state / "spool/a.jsonl")
    spool.append(b"1\n2\n", 0)
    spool.append(b"3\n", 1)
    spool.close()
    for path, mode in ((spool.path, 0o640), (spool.path.parent, 0o750)):
        assert stat.S_IMODE(path.stat().st_mode) == mode
        assert path.stat().st_gid == state.stat().st_gid
    assert spool.path.read_bytes() == b"1\n2\n3\n"


def test_it_is_rotated_by_size_and_a_follower_misses_nothing(tmp_path: Path) -> None:
    """Whole writes only, seven old ones kept, and at any moment there is a spool."""
    spool = Spool(tmp_path / "a.jsonl", rotate_at=1_000, kept=7)
    follower = Follower(spool.path, "a")
    follower.tick(0)
    spool.may_rotate = True
    got: list[bytes] = []
    for number in range(600):
        spool.append(b"%09d\n" % number, number)
        if number % 50 == 0:
            for item in follower.tick(number * SECOND):
                assert isinstance(item, Block), item
                got += item.lines
    for turn in range(10):
        for item in follower.tick((600 + turn * 10) * SECOND):
            assert isinstance(item, Block), item
            got += item.lines
    assert got == [b"%09d" % number for number in range(600)]
    assert spool.rotations == 5
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "a.jsonl",
        *(f"a.jsonl.{n}" for n in range(1, 6)),
    ]
    assert all(path.stat().st_nlink == 1 for path in tmp_path.iterdir())


def test_there_is_a_spool_at_any_moment(tmp_path: Path) -> None:
    """Who looks while it is rotated finds the old one or the new one, never none."""
    spool = Spool(tmp_path / "a.jsonl", rotate_at=10)
    spool.may_rotate = True
    code = (
        "import os, sys; print('looking', flush=True); missing = 0\n"
        "while not os.path.exists(sys.argv[2]): missing += not os.path.exists(sys.argv[1])\n"
        "print(missing)"
    )
    command = [sys.executable, "-c", code, str(spool.path), str(tmp_path / "end")]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as looker:
        assert looker.stdout is not None
        looker.stdout.readline()
        for number in range(600):
            spool.append(b"%09d\n" % number, 0)
        (tmp_path / "end").touch()
        assert looker.stdout.read() == b"0\n"
    assert spool.rotations == 599


def test_at_most_so_many_rotated_ones_are_kept(tmp_path: Path) -> None:
    spool = Spool(tmp_path / "a.jsonl", rotate_at=10, kept=3)
    spool.may_rotate = True
    for number in range(20):
        spool.append(b"%08d\n" % number, number)
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "a.jsonl",
        "a.jsonl.1",
        "a.jsonl.2",
        "a.jsonl.3",
    ]
    assert (tmp_path / "a.jsonl.3").read_bytes() == b"00000016\n"


def test_a_write_that_stops_in_the_middle_leaves_no_line_that_runs_into_the_next(tmp_path: Path) -> None:
    """What was cut off and what follows is counted, exactly; the torn rest stays a line of its own."""
    spool = Spool(tmp_path / "a.jsonl")
    with no_file_beyond(25):
        spool.append(b"11111111\n22222222\n33333333\n44444444\n", 0.0)
        assert spool.failure is not None
        assert (spool.lost_records, spool.lost_bytes) == (2, 18)
        spool.append(b"55555555\n", 0.1)  # before the next try
        spool.append(b"66666666\n", 1.0)
        assert (spool.lost_records, spool.lost_bytes) == (4, 36)
    spool.append(b"77777777\n", 2.0)
    assert spool.failure is None
    assert spool.path.read_bytes() == b"11111111\n22222222\n3333333\n77777777\n"


def test_what_an_earlier_process_left_torn_is_ended_first(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(b'{"a":1}\n{"b"')
    spool = Spool(path)
    spool.append(b'{"c":3}\n', 0)
    assert path.read_bytes() == b'{"a":1}\n{"b"\n{"c":3}\n'


def test_a_spool_that_was_deleted_is_made_anew(tmp_path: Path) -> None:
    """Nothing may be written into a file that no path leads to."""
    spool = Spool(tmp_path / "a.jsonl")
    spool.append(b"1\n", 0)
    spool.path.unlink()
    spool.append(b"2\n", 2)
    assert spool.path.read_bytes() == b"2\n"
    assert spool.lost_records == 0


@pytest.mark.parametrize("kind", ["symlink", "fifo", "folder"])
def test_only_a_regular_file_is_a_spool(tmp_path: Path, kind: str) -> None:
    path, other = tmp_path / "a.jsonl", tmp_path / "other"
    other.write_text("mine")
    if kind == "symlink":
        path.symlink_to(other)
    elif kind == "fifo":
        os.mkfifo(path)
    else:
        path.mkdir()
    with pytest.raises(OSError):
        Spool(path)
    assert other.read_text() == "mine"


def test_a_lock_is_held_by_one_process_and_says_by_whom(tmp_path: Path) -> None:
    """It is free again when its process is killed, however that was."""
    code = (
        "import sys, time; from pathlib import Path; from mcpwatch.sources.spool import Lock\n"
        "lock = Lock(Path(sys.argv[1]), {'pid': 4711}); print('held', flush=True); time.sleep(60)"
    )
    holder = subprocess.Popen([sys.executable, "-c", code, tmp_path / "lock"], stdout=subprocess.PIPE)
    with holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"held\n"
        with pytest.raises(TakenError, match="4711"):
            Lock(tmp_path / "lock", {"pid": 1}, patience_s=0.1)
        holder.kill()
    Lock(tmp_path / "lock", {"pid": 1}, patience_s=0.1)
    assert (tmp_path / "lock").read_text() == '{"pid": 1}'


class Stuck(Spool):
    """A spool on a disk that hangs until it is let go."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.let_go = threading.Event()

    def append(self, lines: bytes, now_s: float) -> None:
        self.let_go.wait(30)
        super().append(lines, now_s)


def test_who_hands_lines_over_never_waits_for_a_disk_that_hangs(tmp_path: Path) -> None:
    """What does not fit into the backlog is dropped in whole pieces and counted; the rest is written later."""
    spool = Stuck(tmp_path / "a.jsonl")
    backlog = Backlog(spool, limit=1_000)
    backlog.start()
    for number in range(300):
        backlog.put(b"%09d\n" % number)
    assert backlog.full
    assert (backlog.lost_records, backlog.lost_bytes) == (200, 2_000)
    spool.let_go.set()
    assert backlog.finish(10)
    assert spool.path.read_bytes() == b"".join(b"%09d\n" % number for number in range(100))
