"""Rows A of the fault matrix about one log: what becomes of it while it is followed, and while nobody looks."""

from __future__ import annotations

import gzip
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from mcpwatch.sources.block import Block, Gap
from mcpwatch.sources.copies import PERHAPS
from mcpwatch.sources.follow import Follower
from mcpwatch.sources.live import LiveSet
from mcpwatch.sources.place import Place
from mcpwatch.times import SECOND, iso
from tests.faults.matrix import FULL, Figure, row
from tests.functional.program import Home, Running, outcome, records, wait_until

TURNS = 100
KILLS = 200 if FULL else 4
FILES = 2_000 if FULL else 600
FLOOD = 64 << 20 if FULL else 16 << 20
RATE = 500


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(tmp_path)


@pytest.fixture
def log(tmp_path: Path) -> Path:
    return tmp_path / "audit.jsonl"


def record(number: int, **fields: object) -> bytes:
    call = {"timestamp": iso(time.time_ns()), "tool": "echo", "status": "success", "call_id": str(number)}
    return json.dumps(call | {"session_id": f"s{number // 4 % 50}"} | fields).encode()


def add(log: Path, first: int, last: int) -> None:
    with log.open("ab") as file:
        file.writelines(record(number) + b"\n" for number in range(first, last))


def number_of(line: bytes) -> int:
    return int(json.loads(line)["call_id"])


@dataclass
class Following:
    """A follower, what it delivered, and how far it came before another one went on."""

    log: Path
    numbers: list[int] = field(default_factory=list)
    blocks: list[Block] = field(default_factory=list)
    gaps: list[Gap] = field(default_factory=list)
    place: Place | None = None

    def __post_init__(self) -> None:
        self.follower = Follower(self.log, "log")
        self.now = time.time_ns()

    def read(self) -> Following:
        self.now += SECOND // 4
        while True:
            for item in self.follower.tick(self.now):
                if isinstance(item, Gap):
                    self.gaps.append(item)
                else:
                    self.blocks.append(item)
                    self.numbers += map(number_of, item.lines)
            if not self.follower.more:
                return self

    def stop(self) -> None:
        place = self.follower.place
        assert place is not None
        self.place = Place.from_json(json.loads(json.dumps(place.to_json())))
        self.follower.close()

    def go_on(self) -> Following:
        self.follower = Follower(self.log, "log", resume=self.place)
        return self.read()


@row("A7")
@row("A8")
@pytest.mark.parametrize("stopped", [False, True], ids=["between two looks", "while stopped"])
@pytest.mark.parametrize("size", ["less than", "exactly", "more than"])
def test_a_log_truncated_and_refilled_is_read_anew_and_one_gap(
    log: Path, figure: Figure, size: str, stopped: bool
) -> None:
    add(log, 0, 100)
    following = Following(log).read()
    if stopped:
        following.stop()
    add(log, 100, 110)
    os.truncate(log, 0)
    add(log, 200, 400 if size == "more than" else 250)
    if size == "exactly":
        left = following.follower.status.offset - log.stat().st_size - 1
        with log.open("ab") as file:
            file.write(record(250, pad="x" * (left - len(record(250, pad="")))) + b"\n")
        assert log.stat().st_size == following.follower.status.offset
    if stopped:
        following.go_on()
    else:
        following.read()
    there = [number_of(line) for line in log.read_bytes().splitlines()]
    assert following.numbers == [*range(100), *there]
    assert len(following.gaps) == 1
    assert ("while mcpwatch was not running" in following.gaps[0].reason) == stopped
    figure(f"{size} the old offset: {len(there)} of {len(there)} new lines, 1 gap")


@row("A9")
@pytest.mark.parametrize("how", ["open", "parked", "stopped"])
def test_a_log_deleted_and_created_anew_is_read_from_its_start_each_time(
    log: Path, figure: Figure, how: str
) -> None:
    """On most file systems the new file has the inode of the deleted one."""
    add(log, 0, 1)
    following = Following(log).read()
    same, before, from_zero = 0, log.stat().st_ino, 0
    for turn in range(1, TURNS + 1):
        if how == "parked":
            assert following.follower.park()
        elif how == "stopped":
            following.stop()
        log.unlink()
        add(log, turn * 3, turn * 3 + turn % 3 + 1)
        same += log.stat().st_ino == before
        before = log.stat().st_ino
        if how == "stopped":
            following.go_on()
        else:
            following.read()
        from_zero += (following.blocks[-1].offset, following.blocks[-1].line) == (0, 1)
    expected = [0, *(turn * 3 + n for turn in range(1, TURNS + 1) for n in range(turn % 3 + 1))]
    assert following.numbers == expected
    assert from_zero == TURNS
    figure(f"{how}: {from_zero} of {TURNS} from offset 0, {same} with the same inode")


@row("A11")
@pytest.mark.parametrize("options", ["", "compress", "delaycompress"])
def test_five_rotations_while_nobody_looked_are_read_in_order(
    log: Path, figure: Figure, options: str
) -> None:
    add(log, 0, 50)
    following = Following(log).read()
    following.stop()
    for turn in range(1, 6):
        add(log, turn * 100, turn * 100 + 50)
        rotate(log, options)
    add(log, 600, 610)
    following.go_on()
    expected = [*range(50), *(turn * 100 + n for turn in range(1, 6) for n in range(50)), *range(600, 610)]
    assert following.numbers == expected
    figure(f"{options or 'plain'}: lost 0, repeated 0 of {len(expected)}, in order")
    following.stop()
    assert following.go_on().numbers == expected, "read again at the next start"


def rotate(log: Path, options: str) -> None:
    """As logrotate does, with `create`."""
    for number in range(9, 0, -1):
        for suffix in ("", ".gz"):
            older = log.with_name(f"{log.name}.{number}{suffix}")
            if older.exists():
                older = older.rename(log.with_name(f"{log.name}.{number + 1}{suffix}"))
                if options == "delaycompress" and not suffix:
                    compress(older)
    rotated = log.rename(log.with_name(f"{log.name}.1"))
    log.touch()
    if options == "compress":
        compress(rotated)


def compress(path: Path) -> None:
    found = path.stat()
    packed = path.with_name(path.name + ".gz")
    packed.write_bytes(gzip.compress(path.read_bytes(), 1))
    os.utime(packed, ns=(found.st_atime_ns, found.st_mtime_ns))
    path.unlink()


@row("A11", slow=True)
def test_the_program_reads_on_after_five_rotations(home: Home, log: Path, figure: Figure) -> None:
    """`tail --since last`, killed before."""
    add(log, 0, 50)
    with home.start("tail", log, "--json") as running:
        wait_for_lines(home, 50)
        running.process.kill()
        running.process.wait()
    for turn in range(1, 6):
        add(log, turn * 100, turn * 100 + 50)
        rotate(log, "compress" if turn % 2 else "")
    with home.start("tail", log, "--json", "--events", "--since", "last") as running:
        running.wait_for_records(250, "event")
        time.sleep(0.3)
        assert running.stop() == 0
        seen = [int(event["call_id"]) for event in records(running.out, "event")]
    assert seen == [turn * 100 + n for turn in range(1, 6) for n in range(50)]
    figure("the program, killed before: lost 0, repeated 0 of 250")


def wait_for_lines(home: Home, count: int) -> None:
    """Wait until a running watch says that it read so many lines, and has noted how far."""
    wait_until(lambda: lines_read(home) >= count, f"{count} lines read")


def lines_read(home: Home) -> int:
    watches = [json.loads(line) for line in home.run("status", "--json").stdout.splitlines()]
    running = [watch for watch in watches if watch.get("state") == "running"]
    return sum(source["lines"] for watch in running for source in watch.get("sources", ()))


def become_fifo(path: Path) -> None:
    os.mkfifo(path)


def become_folder(path: Path) -> None:
    path.mkdir()


def become_device(path: Path) -> None:
    os.mknod(path, 0o020666, os.makedev(1, 5))  # /dev/zero: it never ends


def become_link(path: Path) -> None:
    path.symlink_to("/dev/zero")


@row("A14")
@pytest.mark.skipif(os.geteuid() != 0, reason="only root can make a device")
def test_a_path_that_becomes_something_else_is_refused_and_nothing_hangs(
    home: Home, log: Path, figure: Figure
) -> None:
    kinds: dict[str, Callable[[Path], None]] = {
        "a FIFO": become_fifo,
        "a directory": become_folder,
        "a device": become_device,
        "a symbolic link": become_link,
    }
    add(log, 0, 1)
    with home.start("tail", log, "--json", "--events") as running:
        running.wait_for_records(1, "event")
        for turn, (words, become) in enumerate(kinds.items(), 1):
            log.rename(log.with_name(f"audit.jsonl.{90 - turn}"))
            become(log)
            running.wait_for(words, lambda words=words: words in running.err)  # type: ignore[misc]
            log.rmdir() if log.is_dir() and not log.is_symlink() else log.unlink()
            add(log, turn, turn + 1)
            running.wait_for_records(turn + 1, "event")
        assert running.stop() == 0
    figure(f"{len(kinds)} of {len(kinds)} refused with a message, read again after")


@row("A15")
def test_a_record_written_a_byte_at_a_time_is_one_event(home: Home, log: Path, figure: Figure) -> None:
    log.touch()
    with home.start("tail", log, "--json", "--events") as running, log.open("ab", buffering=0) as file:
        time.sleep(1.0)
        for byte in record(0):
            file.write(bytes([byte]))
            time.sleep(0.005)
        assert records(running.out, "event") == []
        file.write(b"\n")
        running.wait_for_records(1, "event")
        assert running.stop() == 0
        (event,) = records(running.out, "event")
        (summary,) = records(running.out, "summary")
    assert event["call_id"] == "0"
    assert (summary["lines"], summary["understood"], summary["held"]) == (1, 1, 0)
    figure(f"1 event of {len(record(0)) + 1} writes")


@row("A16")
@pytest.mark.parametrize(
    "since",
    [
        pytest.param((), id="from the start of the day", marks=[] if FULL else pytest.mark.slow),
        pytest.param(("--since", "last"), id="since last"),
    ],
)
def test_an_unfinished_line_over_a_kill_and_a_restart_is_one_event(
    home: Home, log: Path, figure: Figure, since: tuple[str, ...]
) -> None:
    add(log, 0, 3)
    unfinished = record(3)
    with log.open("ab", buffering=0) as file:
        file.write(unfinished[:40])
        with home.start("tail", log, "--json", "--events") as running:
            running.wait_for_records(3, "event")
            wait_for_lines(home, 4)
            running.process.kill()
            running.process.wait()
            assert len(records(running.out, "event")) == 3
        file.write(unfinished[40:] + b"\n")
    with home.start("tail", log, "--json", "--events", *since) as running:
        running.wait_for_records(1 if since else 4, "event")
        time.sleep(0.3)
        assert running.stop() == 0
        seen = [event["call_id"] for event in records(running.out, "event")]
        (summary,) = records(running.out, "summary")
    assert seen == (["3"] if since else ["0", "1", "2", "3"])
    assert summary["not_understood"] == summary["held"] == 0
    figure(f"{' '.join(since) or 'from the start of the day'}: 1 event")


@row("A18")
def test_a_line_of_100_mb_is_one_record_and_takes_little_memory(
    home: Home, log: Path, figure: Figure
) -> None:
    add(log, 0, 1)
    with home.start("tail", log, "--json", "--events") as running:
        running.wait_for_records(1, "event")
        time.sleep(1.0)
        before = memory_of(running, "VmRSS")
        with log.open("ab") as file:
            for _ in range(100):
                file.write(b"z" * (1 << 20))
            file.write(b"\n")
        add(log, 1, 2)
        running.wait_for_records(2, "event")
        grown = memory_of(running, "VmHWM") - before
        assert running.stop() == 0
        (summary,) = records(running.out, "summary")
    figure(f"1 record of 100 MB, not understood; memory +{grown / 1024:.1f} MB")
    assert (summary["lines"], summary["understood"], summary["not_understood"]) == (3, 2, 1)
    assert grown <= 8 << 10


def memory_of(running: Running, name: str) -> int:
    """A figure of /proc/PID/status, KiB."""
    status = Path(f"/proc/{running.process.pid}/status").read_text()
    return int(next(line.split()[1] for line in status.splitlines() if line.startswith(name)))


ODD_TEXTS = {
    "invalid UTF-8": b"\xff\xfe\xc0\x80",
    "U+2028 and U+0085": "\u2028\u2029\u0085".encode(),
    "a lone CR, VT and FF": b"\r\x0b\x0c",
    "escapes": b"\x1b[2J",
    "a NUL": b"\x00",
}


@row("A19")
def test_odd_bytes_make_as_many_events_as_there_are_newlines(home: Home, log: Path, figure: Figure) -> None:
    lines = []
    for number, text in enumerate(ODD_TEXTS.values()):
        line = record(number, params={"text": "HERE"}).replace(b"HERE", text)
        lines += [line + b"\n", line + b"\r\n", b"\0" * 7 + line + b"\n"]
    log.touch()
    with home.start("tail", log, "--json", "--events") as running:
        time.sleep(0.5)
        with log.open("ab", buffering=0) as file:
            for line in lines:
                file.write(line)
        running.wait_for_records(len(lines), "event")
        assert running.stop() == 0
        (summary,) = records(running.out, "summary")
    replayed = records(home.run("replay", log, "--json").stdout, "summary")[0]
    newlines = log.read_bytes().count(b"\n")
    for found in (summary, replayed):
        assert found["events"] == found["lines"] == found["understood"] == newlines
    figure(f"{newlines} events of {newlines} newlines, live and in replay")


@row("A24")
def test_thousands_of_files_are_read_fairly_with_few_descriptors(tmp_path: Path, figure: Figure) -> None:
    """One flood among twenty busy logs, and hundreds that nobody writes to."""
    logs = [tmp_path / f"{number:04d}.jsonl" for number in range(FILES)]
    for log in logs:
        log.write_bytes(b'{"first":1}\n')
    own = len(os.listdir("/proc/self/fd"))  # noqa: PTH208
    sources = LiveSet([str(tmp_path / "*.jsonl")])
    now, most, turns = time.time_ns(), 0, 0
    first: set[str] = set()
    while len(first) < len(logs):
        first |= {item.source for item in sources.tick(now) if isinstance(item, Block)}
        now, turns = now + SECOND // 20, turns + 1
        most = max(most, len(os.listdir("/proc/self/fd")) - own)  # noqa: PTH208
        assert turns < 1_000, f"{len(logs) - len(first)} were never read"
    busy, flood = logs[:: FILES // 20], logs[0]
    flood.write_bytes(b'{"flood":"%s"}\n' % (b"x" * 200) * (FLOOD // 214))
    waits: list[int] = []
    for _ in range(20):
        for log in busy[1:]:
            with log.open("ab") as file:
                file.write(b'{"busy":1}\n')
        waiting, waited = {log.name for log in busy[1:]}, 0
        while waiting:
            now, waited = now + SECOND // 20, waited + 1
            waiting -= {item.source for item in sources.tick(now) if isinstance(item, Block)}
            most = max(most, len(os.listdir("/proc/self/fd")) - own)  # noqa: PTH208
            assert waited < 100, f"{len(waiting)} wait for the flood to end"
        waits.append(waited)
    sources.close()
    figure(
        f"{len(logs):,} files, {len(busy)} busy: at most {most} descriptors; none waits more than {max(waits)} ticks"
    )
    assert most <= 300
    assert max(waits) <= 10


@contextmanager
def running(command: list[str]) -> Iterator[None]:
    """A process that is killed at the end of the block."""
    with subprocess.Popen(command) as process:
        try:
            yield
        finally:
            process.kill()


@contextmanager
def writing(log: Path, options: str, every_s: float, first: int = 0) -> Iterator[Callable[[], int]]:
    """A server that writes and a logrotate that rotates, until told to stop: then how many records there are."""
    ending = threading.Event()
    written = [first]

    def write() -> None:
        rotate_at = time.monotonic() + every_s
        while not ending.is_set():
            add(log, written[0], written[0] + RATE // 50)
            written[0] += RATE // 50
            if time.monotonic() >= rotate_at:
                rotate_at += every_s
                rotate_many(log, options)
            time.sleep(0.02)

    def end() -> int:
        ending.set()
        thread.join()
        return written[0]

    thread = threading.Thread(target=write, daemon=True)
    thread.start()
    try:
        yield end
    finally:
        ending.set()


def rotate_many(log: Path, options: str) -> None:
    """Rotate without ever deleting a file: by date, as logrotate's `dateext` with seconds does."""
    stamp = time.strftime("%Y%m%d-") + str(time.time_ns() // 1_000)
    rotated = log.rename(log.with_name(f"{log.name}-{stamp}"))
    log.touch()
    if options == "compress":
        compress(rotated)


@row("A29", slow=True)
def test_killed_at_random_the_program_finds_what_replay_finds(home: Home, log: Path, figure: Figure) -> None:
    """The log is the state: whoever reads it last knows what all before knew."""
    chance = random.Random(29)
    log.touch()
    with writing(log, "compress", 1.3) as end:
        for _ in range(KILLS):
            with home.start("tail", log, "--json") as running:
                time.sleep(chance.uniform(0.05, 1.6))
                running.process.send_signal(signal.SIGKILL)
                running.process.wait()
        with home.start("tail", log, "--json") as running:
            time.sleep(1.0)
            written = end()
            wait_for_lines(home, written)
            time.sleep(0.5)
            assert running.stop() == 0
            live = outcome(running.out)
    files = sorted(path for path in log.parent.glob("audit.jsonl*"))
    replayed = outcome(home.run("replay", *files, "--json").stdout)
    assert live[1]["events"] == live[1]["lines"] == written
    assert live == replayed
    figure(
        f"{KILLS} kills, {len(files) - 1} rotations: {live[1]['events']:,} events of {written:,} lines and "
        f"{len(live[0])} incidents, as in replay"
    )


FOLLOW = """
import json, os, sys, time
from pathlib import Path
from mcpwatch.sources.block import Block
from mcpwatch.sources.follow import Follower
from mcpwatch.sources.place import Place
log, out = Path(sys.argv[1]), os.open(sys.argv[2], os.O_RDWR | os.O_APPEND | os.O_CREAT)
kept = Path(sys.argv[2]).read_bytes().splitlines()
place = Place.from_json(json.loads(kept[-1])["place"]) if kept else None
follower = Follower(log, "log", resume=place)
while True:
    items = follower.tick(time.time_ns())
    lines = [json.loads(line)["call_id"] for item in items if isinstance(item, Block)
             for index, line in enumerate(item.lines) if index not in item.repeats]
    gaps = [item.reason for item in items if not isinstance(item, Block)]
    if items and follower.place is not None:
        # in one write, so that what was taken in and how far that is are never told apart
        os.write(out, json.dumps({"place": follower.place.to_json(), "lines": lines, "gaps": gaps}).encode() + b"\\n")
    if not follower.more:
        time.sleep(0.01)
"""


@row("A29")
@pytest.mark.parametrize("options", ["", pytest.param("compress", marks=[] if FULL else pytest.mark.slow)])
def test_killed_at_random_a_follower_goes_on_where_it_was(
    tmp_path: Path, log: Path, figure: Figure, options: str
) -> None:
    """Whoever keeps the place together with what was read before it has every line exactly once."""
    chance = random.Random(30)
    out = tmp_path / "out"
    out.touch()
    command = [sys.executable, "-c", FOLLOW, str(log), str(out)]

    def taken() -> list[int]:
        return [int(n) for line in out.read_bytes().splitlines() for n in json.loads(line)["lines"]]

    add(log, 0, 1)
    with running(command):
        wait_until(lambda: taken() == [0], "the first line")
    with writing(log, options, 0.4, first=1) as end:
        for _ in range(KILLS):
            with running(command):
                time.sleep(chance.uniform(0.1, 0.8))
        written = end()
    with running(command):
        wait_until(lambda: len(taken()) >= written, f"{written} lines")
        time.sleep(0.3)
    numbers = taken()
    gaps = [gap for line in out.read_bytes().splitlines() for gap in json.loads(line)["gaps"]]
    rotations = len(list(log.parent.glob("audit.jsonl-*")))
    figure(
        f"follower, {options or 'plain'}: {KILLS} kills, {rotations} rotations: lost "
        f"{written - len(set(numbers))}, repeated {len(numbers) - len(set(numbers))} of {written:,}"
    )
    assert numbers == list(range(written))
    # the log has the inode of an older one at times, as one that was truncated in place has
    assert {*gaps} <= ({PERHAPS} if options else set())


@row("A33")
@pytest.mark.skipif(shutil.which("strace") is None, reason="strace is not installed (apt-get install strace)")
@pytest.mark.parametrize(
    ("calls", "error"),
    [("pread64", "EIO"), ("pread64", "ESTALE"), ("openat", "EACCES"), ("newfstatat", "ESTALE")],
)
def test_a_disk_that_fails_at_times_loses_nothing(
    tmp_path: Path, log: Path, figure: Figure, calls: str, error: str
) -> None:
    """As network file systems do. Every third call fails, once the program is up."""
    out = tmp_path / "out"
    out.touch()
    add(log, 0, 1)
    command = [sys.executable, "-c", FOLLOW, str(log), str(out)]

    def taken() -> list[int]:
        return [int(n) for line in out.read_bytes().splitlines() for n in json.loads(line)["lines"]]

    with subprocess.Popen(command, stderr=subprocess.PIPE) as process:
        wait_until(lambda: taken() == [0], "the first line")
        inject = f"inject={calls}:error={error}:when=2+3"
        tracer = ["strace", "-f", "-o", str(tmp_path / "trace"), "-e", inject, "-p", str(process.pid)]
        with subprocess.Popen(tracer, stderr=subprocess.DEVNULL) as tracing:
            for number in range(1, 200, 4):
                add(log, number, number + 4)
                if number % 80 == 1:
                    rotate_many(log, "")
                time.sleep(0.01)
            tracing.terminate()
        wait_until(lambda: process.poll() is not None or len(taken()) >= 201, "all lines")
        assert process.poll() is None, process.stderr.read().decode() if process.stderr else ""
        time.sleep(0.2)
        process.kill()
    failures = (tmp_path / "trace").read_text().count("(INJECTED)")
    assert failures > 0
    assert sorted(taken()) == list(range(201))
    figure(f"{error} at {failures} calls of {calls}: lost 0, repeated 0 of 201, over 3 rotations")
