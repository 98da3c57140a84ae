"""The real logrotate under a writer that never stops, beside `tail -F` and rsyslog."""

from __future__ import annotations

import gzip
import itertools
import json
import os
import re
import shutil
import subprocess
import threading
import time
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import pytest

from mcpwatch.sources.block import Block, Gap
from mcpwatch.sources.live import LiveSet
from tests.faults.matrix import FULL, Figure, row
from tests.functional.program import Home, records

_PATH: Final = f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"
LOGROTATE: Final = shutil.which("logrotate", path=_PATH)
RSYSLOGD: Final = shutil.which("rsyslogd", path=_PATH)
RATE: Final = 20_000 if FULL else 5_000
ROTATIONS: Final = 60 if FULL else 4
EVERY_S: Final = 1.0 if FULL else 0.4
STALLS: Final = (2.5, 0.9, 1.7, 3.2, 0.3) * 4 if FULL else (1.0,)
"""Rotations that happen between two looks."""
_NUMBER: Final = re.compile(rb'"call_id":"(\d+)"}\r?$', re.MULTILINE)

pytestmark = pytest.mark.skipif(
    LOGROTATE is None or shutil.which("gcc") is None,
    reason="needs logrotate and gcc (apt-get install logrotate gcc)",
)


def numbers(data: bytes) -> list[int]:
    """The numbers of the whole records in some bytes, in order."""
    return [int(found) for found in _NUMBER.findall(data)]


@pytest.fixture(scope="module")
def writer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    program = tmp_path_factory.mktemp("writer") / "writer"
    source = Path(__file__).with_name("writer.c")
    subprocess.run(["gcc", "-O2", "-o", program, source], check=True)
    return program


@dataclass
class Reader(threading.Thread):
    """Follows the log as a live session does, in a thread of its own."""

    log: Path
    stalls: Sequence[float] = ()
    """Seconds for which it is kept from reading, after each half second in which it was not."""
    seen: list[int] = field(default_factory=list)
    lines: int = 0
    gaps: list[Gap] = field(default_factory=list)
    ending: threading.Event = field(default_factory=threading.Event)

    def __post_init__(self) -> None:
        super().__init__(daemon=True)
        self.sources = LiveSet([str(self.log)])

    def __hash__(self) -> int:
        return id(self)

    def run(self) -> None:
        quiet_after = 0
        stalls = deque(self.stalls)
        free = time.monotonic()
        while quiet_after < 3:
            if stalls and time.monotonic() > free + 0.5:
                time.sleep(stalls.popleft())
                free = time.monotonic()
            delivered = self.sources.tick(time.time_ns())
            for item in delivered:
                if isinstance(item, Block):
                    self.lines += len(item.lines)
                    kept = [line for index, line in enumerate(item.lines) if index not in item.repeats]
                    self.seen += numbers(b"\n".join(kept))
                else:
                    self.gaps.append(item)
            idle = self.ending.is_set() and not delivered and self.sources.wait_s > 0
            quiet_after = quiet_after + 1 if idle else 0
            time.sleep(min(self.sources.wait_s, 0.05))
        self.sources.close()


@dataclass
class Rivals:
    """`tail -F` and rsyslog's imfile on the same log, at full size."""

    folder: Path
    log: Path
    programs: list[subprocess.Popen[bytes]] = field(default_factory=list)

    def start(self) -> None:
        with (self.folder / "tail.out").open("wb") as out:
            tail = ["tail", "-n", "+1", "-F", str(self.log)]
            self.programs.append(subprocess.Popen(tail, stdout=out, stderr=subprocess.DEVNULL))
        if RSYSLOGD is None:
            return
        work = self.folder / "rsyslog"
        work.mkdir()
        config = work / "rsyslog.conf"
        config.write_text(
            f'global(workDirectory="{work}" maxMessageSize="64k")\n'
            'module(load="imfile" mode="inotify")\n'
            'template(name="raw" type="string" string="%msg%\\n")\n'
            f'input(type="imfile" file="{self.log}" tag="mcp" ruleset="out" reopenOnTruncate="on")\n'
            f'ruleset(name="out") {{ action(type="omfile" file="{self.folder}/rsyslog.out" template="raw") }}\n'
        )
        command = [RSYSLOGD, "-n", "-f", str(config), "-i", str(work / "pid")]
        self.programs.append(subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL))

    def lost(self, there: set[int]) -> str:
        """What each lost of the records that were there."""
        time.sleep(5)
        for program in self.programs:
            program.terminate()
            program.wait(10)
        out = []
        for name, file in (("tail -F", "tail.out"), ("rsyslog", "rsyslog.out")):
            path = self.folder / file
            if path.exists():
                got = numbers(path.read_bytes())
                out.append(f"{name} lost {len(there - set(got)):,}, repeated {len(got) - len(set(got)):,}")
        return "; ".join(out)


@contextmanager
def writing(program: Path, log: Path, linger_ms: int = 0) -> Iterator[subprocess.Popen[str]]:
    """A writer at full rate; the block ends it."""
    command = [str(program), str(log), str(RATE), str(linger_ms)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        yield process
        process.kill()


def end(process: subprocess.Popen[str]) -> tuple[int, int]:
    """End the writer: how many records it wrote, and at what rate a second."""
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.close()
    written, rate = map(int, process.stdout.read().split())
    process.wait()
    return written, rate


def rotate(folder: Path, log: Path, options: str, pid: int) -> None:
    """Rotate with the real logrotate, `ROTATIONS` times."""
    assert LOGROTATE is not None
    hup = f"postrotate\n kill -HUP {pid}\n endscript" if options.startswith("create") else ""
    config = folder / "logrotate.conf"
    lines = ["su root root", "rotate 500", *options.replace("create", "create-0640").split(), hup]
    body = "\n ".join(lines).replace("create-", "create ")
    config.write_text(f"{log} {{\n {body}\n}}\n")
    config.chmod(0o644)
    folder.chmod(0o755)
    command = [LOGROTATE, "-f", "-s", str(folder / "state"), str(config)]
    begun = time.monotonic()
    for number in range(1, ROTATIONS + 1):
        time.sleep(max(0.0, begun + number * EVERY_S - time.monotonic()))
        subprocess.run(command, check=True, capture_output=True)


def on_disk(folder: Path) -> list[list[int]]:
    """The numbers that each file holds, oldest file first."""
    files = []
    for path in folder.glob("audit.jsonl*"):
        age = int(found[1]) if (found := re.search(r"\.(\d+)(\.gz)?$", path.name)) else 0
        data = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
        files.append((-age, numbers(data)))
    return [held for _, held in sorted(files)]


@row("A1")
@row("A2")
@pytest.mark.parametrize(("options", "linger_ms"), [("create", 0), ("create", 2_000), ("create compress", 0)])
def test_rotation_by_rename_loses_and_repeats_no_line(
    tmp_path: Path, writer: Path, figure: Figure, options: str, linger_ms: int
) -> None:
    """However fast the writer is, and however long it goes on writing to the renamed file."""
    log = tmp_path / "audit.jsonl"
    log.touch(mode=0o640)
    lingers = linger_ms if FULL else linger_ms // 5
    reader, rivals = Reader(log), Rivals(tmp_path, log)
    if FULL:
        rivals.start()
        time.sleep(1)
    reader.start()
    with writing(writer, log, lingers) as process:
        rotate(tmp_path, log, options, process.pid)
        time.sleep(lingers / 1000 + 0.2)
        written, rate = end(process)
    reader.ending.set()
    reader.join(300)
    lost = written - len(set(reader.seen))
    repeated = len(reader.seen) - len(set(reader.seen))
    beside = f"; beside it {rivals.lost(set(range(written)))}" if FULL else ""
    figure(
        f"{options}, writer lingers {lingers} ms: {ROTATIONS} rotations, {rate:,} lines/s: lost {lost}, repeated "
        f"{repeated} of {written:,}{beside}"
    )
    assert (lost, repeated, reader.gaps) == (0, 0, [])
    if not lingers:
        assert reader.seen == list(range(written)), "out of order"


@row("A4")
@row("A5")
@pytest.mark.parametrize("stalls", [(), STALLS], ids=["", "stalls"])
@pytest.mark.parametrize("options", ["copytruncate", "copytruncate compress"])
def test_copytruncate_loses_nothing_that_is_on_disk_and_what_it_destroys_is_a_gap(
    tmp_path: Path, writer: Path, figure: Figure, options: str, stalls: Sequence[float]
) -> None:
    """logrotate itself destroys what is written between its copy and its cut, once or often before we look."""
    log = tmp_path / "audit.jsonl"
    log.touch(mode=0o640)
    reader, rivals = Reader(log, stalls), Rivals(tmp_path, log)
    if FULL:
        rivals.start()
        time.sleep(1)
    reader.start()
    with writing(writer, log) as process:
        rotate(tmp_path, log, options, process.pid)
        time.sleep(0.2)
        written, rate = end(process)
    reader.ending.set()
    reader.join(300)
    files = [held for held in on_disk(tmp_path) if held]
    there = {number for held in files for number in held}
    lossy = sum(later[0] != earlier[-1] + 1 for earlier, later in itertools.pairwise(files))
    lost = len(there - set(reader.seen))
    repeated = len(reader.seen) - len(set(reader.seen))
    beside = f"; beside it {rivals.lost(there)}" if FULL else ""
    held = f", the reader kept from reading for up to {max(stalls)} s" if stalls else ""
    figure(
        f"{options}{held}: {ROTATIONS} rotations, "
        f"{rate:,} lines/s: lost against disk {lost}, repeated {repeated} of "
        f"{len(there):,}; logrotate destroyed {written - len(there):,} in {lossy} rotations, {len(reader.gaps)} "
        f"gaps told{beside}"
    )
    assert (lost, repeated) == (0, 0)
    assert reader.seen == sorted(reader.seen), "out of order"
    # one that is told twice is no loss
    assert lossy <= len(reader.gaps) <= ROTATIONS + ROTATIONS // 20


def counted(home: Home) -> int:
    """How many lines `mcpwatch status` says were read."""
    watches = [json.loads(line) for line in home.run("status", "--json").stdout.splitlines()]
    return sum(source["lines"] for watch in watches for source in watch.get("sources", ()))


@row("A1", slow=True)
def test_the_whole_program_counts_every_line_of_a_rotated_log(
    tmp_path: Path, writer: Path, figure: Figure
) -> None:
    """`tail --json`, with whatever time it needs after the burst."""
    home = Home(tmp_path)
    log = tmp_path / "audit.jsonl"
    log.touch(mode=0o640)
    with home.start("tail", log, "--json") as running, writing(writer, log) as process:
        rotate(tmp_path, log, "create", process.pid)
        written, rate = end(process)
        deadline = time.monotonic() + 300
        while counted(home) < written and time.monotonic() < deadline:
            time.sleep(2)
        assert running.stop() == 0
        (summary,) = records(running.out, "summary")
    figure(f"the whole program: {summary['lines']:,} of {written:,} lines counted at {rate:,} lines/s")
    assert summary["lines"] == summary["understood"] == summary["events"] == written, summary
