"""Random histories of a log on a real file system, against what must come of them.

Every complete line that lies in the log or in one of its rotated files when the follower looks is delivered once, and
in the order of its file; what was destroyed unseen is a gap. Between two looks anything may happen: writing in
pieces, rotation in all its ways, truncation, deletion, the end of the process and its return.
"""

import gzip
import json
import os
import random
import shutil
import tempfile
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from mcpwatch.sources.block import Block, Gap
from mcpwatch.sources.follow import Follower
from mcpwatch.sources.place import Place
from mcpwatch.times import SECOND
from tests.faults.matrix import FULL, Figure, row

HISTORIES = 800 if FULL else 12
STEPS = 30
# a real record begins with its time, so that no two begin with the same 64 bytes
LENGTHS = (50, 100, 100, 100, 250, 250, 900, 5_000)


@dataclass(eq=False)
class Generation:
    """What was written into a file from its creation, or last truncation, on."""

    lines: list[bytes] = field(default_factory=list)
    seen: bool = False
    destroyed: bool = False


class History:
    """A log, its writer, and the follower."""

    def __init__(self, folder: Path, seed: int) -> None:
        self.random = random.Random(seed)
        self.log = folder / "audit.jsonl"
        self.generations = [Generation()]
        self.trace: list[str] = [f"seed {seed}"]
        self.serial = 0
        self.partial = b""
        self.now = 1_000 * SECOND
        self.delivered: list[bytes] = []
        self.repeats = 0
        self.gaps: list[Gap] = []
        self.required: set[bytes] = set()
        self.late: tuple[int, Generation] | None = None
        self.copies: set[int] = set()
        self.blind = self.reopened = False
        self.torn: list[Generation] = []
        self.log.touch()
        self.file = os.open(self.log, os.O_WRONLY | os.O_APPEND)
        self.follower = Follower(self.log, "log")
        self.tick()

    @property
    def current(self) -> Generation:
        return self.generations[-1]

    def record(self) -> bytes:
        self.serial += 1
        return b'{"n":%d,"pad":"%s"}' % (self.serial, b"x" * self.random.choice(LENGTHS))

    # what the writer does

    def append(self) -> None:
        for _ in range(self.random.choice((1, 1, 3, 10, 40))):
            rest = self.partial or self.record()
            whole = self.pending if self.partial else rest
            os.write(self.file, rest + b"\n")
            self.partial = b""
            self.current.lines.append(whole)

    def append_partly(self) -> None:
        if not self.partial:
            self.pending = self.record()
            cut = self.random.randrange(1, len(self.pending))
            os.write(self.file, self.pending[:cut])
            self.partial = self.pending[cut:]

    def write_late(self) -> None:
        """To the file rotated last, which stays open in the writer."""
        if self.late is not None:
            fd, generation = self.late
            line = self.record()
            os.write(fd, line + b"\n")
            generation.lines.append(line)

    # what happens to the log

    def reopen(self, *, linger: bool = False) -> None:
        self.reopened = True
        self.stop_lingering()
        if linger and not self.partial:
            self.late = self.file, self.current
        else:
            os.close(self.file)
        self.file = os.open(self.log, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        self.partial = b""
        self.generations.append(Generation())

    def stop_lingering(self) -> None:
        if self.late is not None:
            os.close(self.late[0])
            self.late = None

    def shift(self) -> Path:
        """Make room for a new `.1`."""
        rotated = sorted(
            self.log.parent.glob("audit.jsonl.[0-9]*"), key=lambda path: -int(path.name.split(".")[2])
        )
        for path in rotated:
            parts = path.name.split(".")
            parts[2] = str(int(parts[2]) + 1)
            path.rename(path.with_name(".".join(parts)))
        return self.log.with_name("audit.jsonl.1")

    def copy(self) -> Path:
        copy = Path(shutil.copy(self.log, self.shift()))
        self.copies.add(copy.stat().st_ino)
        return copy

    def rename(self) -> None:
        self.log.rename(self.shift())
        self.reopen(linger=self.random.random() < 0.5)

    def rename_and_compress(self) -> None:
        rotated = self.log.rename(self.shift())
        self.reopen()
        self.compress(rotated)

    def compress(self, path: Path) -> None:
        found = path.stat()
        packed = path.with_name(path.name + ".gz")
        packed.write_bytes(gzip.compress(path.read_bytes(), 1))
        os.utime(packed, ns=(found.st_atime_ns, found.st_mtime_ns))  # as gzip and logrotate do
        path.unlink()

    def truncate(self) -> None:
        os.truncate(self.log, 0)
        self.current.destroyed = True
        self.partial = b""
        self.generations.append(Generation())

    def copytruncate(self) -> None:
        copy = self.copy()
        if self.random.random() < 0.3:
            self.append()
            self.torn.append(self.current)
        self.truncate()
        if self.random.random() < 0.4:
            self.compress(copy)

    def truncate_and_refill(self) -> None:
        """To less than, exactly, or more than it held."""
        size = self.log.stat().st_size
        self.truncate()
        if size > 60 and self.random.random() < 0.4:
            self.serial += 1
            line = b'{"n":%d,"pad":"' % self.serial
            line += b"y" * (size - len(line) - 3) + b'"}'
            os.write(self.file, line + b"\n")
            self.current.lines.append(line)
        else:
            self.append()

    def delete(self) -> None:
        self.log.unlink()
        self.current.destroyed = True
        self.reopen()

    def copy_and_delete(self) -> None:
        self.copy()
        self.log.unlink()
        self.reopen()

    def copy_by_hand(self) -> None:
        shutil.copy(self.log, self.log.with_name("audit.jsonl.bak"))

    def move_back(self) -> None:
        """The file rotated last takes the place of the log again, which takes its."""
        rotated = self.log.with_name("audit.jsonl.1")
        if not rotated.exists() or rotated.stat().st_ino in self.copies or self.partial:
            return  # a copy in the place of the log cannot be told from a new log
        if not rotated.read_bytes().endswith(b"\n"):
            return  # the next line would be written into the unfinished one
        self.tick()
        aside = self.log.rename(self.log.with_name("aside"))
        rotated.rename(self.log)
        aside.rename(rotated)
        former = next((each for each in reversed(self.generations[:-1]) if self.holds(self.log, each)), None)
        self.reopen()
        if former is not None:
            self.generations.pop()
            self.generations.remove(former)
            self.generations.append(former)
        self.tick()

    def holds(self, path: Path, generation: Generation) -> bool:
        lines = path.read_bytes().split(b"\n")[:-1]
        return bool(lines) and lines == generation.lines

    # what the follower does

    def tick(self, budget: int | None = None) -> None:
        if budget is None:
            self.required |= self.on_disk()
        if self.reopened and (self.blind or not self.follower.descriptors):
            # without a descriptor, a file that was truncated and then renamed looks like one that was only renamed
            for generation in self.torn:
                generation.seen = False
        self.torn, self.blind, self.reopened = [], False, False
        if self.log.exists() and self.log.stat().st_size:
            self.current.seen = True
        self.now += SECOND // 20
        while True:
            out = self.follower.tick(self.now) if budget is None else self.follower.tick(self.now, budget)
            for item in out:
                if isinstance(item, Gap):
                    self.gaps.append(item)
                else:
                    self.take(item)
            if budget is not None or not self.follower.more:
                break
        assert len(self.trace) < 10_000

    def take(self, block: Block) -> None:
        self.delivered += (line for index, line in enumerate(block.lines) if index not in block.repeats)
        self.repeats += len(block.repeats)

    def tick_a_little(self) -> None:
        self.tick(self.random.choice((1, 50, 500, 5_000)))

    def be_quiet(self) -> None:
        if self.late is None:
            for _ in range(8):
                self.now += SECOND
                self.tick()

    def park(self) -> None:
        self.follower.park()
        self.blind = True

    def restart(self) -> None:
        """The process ends without a word, and another goes on from its newest checkpoint."""
        self.blind = True
        place = self.follower.place
        self.follower.close()
        self.stop_lingering()
        resume = Place.from_json(json.loads(json.dumps(place.to_json()))) if place is not None else None
        assert resume == place
        self.follower = Follower(self.log, "log", resume=resume)

    def on_disk(self) -> set[bytes]:
        lines: set[bytes] = set()
        for path in self.log.parent.glob("audit.jsonl*"):
            if path.suffix != ".bak":
                data = path.read_bytes()
                data = gzip.decompress(data) if path.suffix == ".gz" else data
                lines.update(data.split(b"\n")[:-1])
        return lines

    def close(self) -> None:
        self.stop_lingering()
        os.close(self.file)
        self.follower.close()


WRITING = {"append": 8, "append_partly": 3, "write_late": 3}
ROTATING = {"rename": 3, "rename_and_compress": 2, "copytruncate": 2, "copy_by_hand": 1, "copy_and_delete": 1}
DESTROYING = {"truncate": 1, "truncate_and_refill": 1, "delete": 1}
LOOKING = {"tick": 8, "be_quiet": 1, "park": 1, "move_back": 1}
KINDS = {
    "watched": {},
    "stopped at times": {"restart": 2},
    "too little time": {"tick_a_little": 3},
    "stopped, and destroyed": {"restart": 2, **DESTROYING},
}


def play(folder: Path, seed: int, actions: dict[str, int], steps: int) -> History:
    """A history, and what must hold at its end."""
    history = History(folder, seed)
    try:
        for _ in range(steps):
            (action,) = history.random.choices([*actions], [*actions.values()])
            history.trace.append(action)
            getattr(history, action)()
        history.trace.append("end")
        history.append()
        history.tick()
        history.be_quiet()
    finally:
        history.close()
    check(history)
    return history


def check(history: History) -> None:
    trace = " ".join(history.trace)
    numbers = {line: n for n, line in enumerate(line for each in history.generations for line in each.lines)}
    strange = [line for line in history.delivered if line not in numbers]
    assert not strange, f"never written: {strange[:3]} in {trace}"
    twice = [line[:20] for line, count in Counter(history.delivered).items() if count > 1]
    assert not twice, f"twice: {len(twice)}, {twice[:3]} in {trace}"
    delivered = set(history.delivered)
    missed = [line[:20] for line in history.required - delivered if line in numbers]
    assert not missed, f"missed: {len(missed)}, {missed[:3]} in {trace}"
    order = {line: place for place, line in enumerate(history.delivered)}
    for generation in history.generations:
        places = [order[line] for line in generation.lines if line in order]
        assert places == sorted(places), f"out of order in {trace}"
    lossy = [each for each in history.generations if each.seen and set(each.lines) - delivered]
    assert len(history.gaps) >= len(lossy), f"{len(lossy)} lossy, {len(history.gaps)} gaps in {trace}"


@row("A30")
@pytest.mark.parametrize("kind", [*KINDS])
def test_whatever_happens_to_a_log_each_line_comes_once_and_in_order(kind: str, figure: Figure) -> None:
    lines = repeats = gaps = 0
    for seed in range(HISTORIES):
        with tempfile.TemporaryDirectory() as folder:
            history = play(Path(folder), seed, WRITING | ROTATING | LOOKING | KINDS[kind], STEPS)
        lines += len(history.delivered)
        repeats += history.repeats
        gaps += len(history.gaps)
    figure(
        f"{kind}: {HISTORIES:,} histories of {STEPS} steps: lost 0, repeated 0 of {lines:,} lines; {repeats} repeats "
        f"recognised, {gaps:,} gaps told"
    )
