"""Writes anything at all into a log, and knows how many lines that makes."""

from __future__ import annotations

import json
import random
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from mcpwatch.times import SECOND, iso

NOW = 1_795_341_600 * SECOND
"""2026-11-22T10:00:00Z."""


def call(number: int) -> bytes:
    record = {
        "timestamp": iso(NOW + number),
        "tool": "file_read",
        "session_id": f"s{number % 7}",
        "n": number,
    }
    return json.dumps(record).encode() + b"\n"


@dataclass
class Writer:
    """Writes anything at all into a log, and rotates it in every way; counts the newlines it wrote."""

    path: Path
    rng: random.Random
    oversize: int = 2
    around_copy: Callable[[], None] | None = None
    """Called before and after a copytruncate, which destroys what comes in between; None: there is none."""
    newlines: int = 0
    _held: bytes = b""
    _sent: int = 0
    _generation: int = 0
    _numbers: Iterator[int] = field(default_factory=lambda: iter(range(1 << 40)))

    def piece(self) -> bytes:
        """A line of some kind, with its newline."""
        kinds = (
            call(next(self._numbers)), b"\n", b"\r\n", b"  \t\n", b"\0\0\0\n", b"\0" + call(next(self._numbers)),
            b"[1, 2]\n", b'"text"\n', b"{}\n", b'{"a": 1}\n', b"not json\n", b"\xff\xfe\xfd\n", b"\xe2\x80\xa8\x85\n",
            b'{"tool": "x", "tool": "y"}\n', b"[" * 5_000 + b"\n", b'{"timestamp": 1e999, "tool": "x"}\n',
        )  # fmt: skip
        if self.oversize and self.rng.random() < 0.01:
            self.oversize -= 1
            return b"{" + b"x" * ((1 << 20) + self.rng.randrange(3)) + b"\n"
        return self.rng.choice(kinds)

    def act(self) -> None:
        """Append whole lines, a part of one, or rotate."""
        chance = self.rng.random()
        if chance > 0.9 and self.path.stat().st_size:
            self._rotate(copy=chance > 0.95 and self.around_copy is not None)  # also in the middle of a line
        elif self._held:
            cut = self.rng.randrange(1, len(self._held) + 1)
            self._append(self._held[:cut])
            self._held = self._held[cut:]
        elif chance < 0.6:
            self._append(b"".join(self.piece() for _ in range(self.rng.randrange(1, 40))))
        else:
            piece = self.piece()
            cut = self.rng.randrange(len(piece))
            self._append(piece[:cut])
            self._held = piece[cut:]

    def finish(self) -> None:
        """End the line that is begun."""
        self._append(self._held)
        self._held = b""

    def _append(self, data: bytes) -> None:
        with self.path.open("ab") as log:
            log.write(data)
        self.newlines += data.count(b"\n")

    def _rotate(self, *, copy: bool) -> None:
        self._generation += 1
        rotated = self.path.with_name(f"{self.path.name}-20261122-{self._generation:010d}")
        if copy and self.around_copy is not None:
            self.around_copy()
            shutil.copyfile(self.path, rotated)
            with self.path.open("wb"):
                pass
            self.around_copy()
        else:
            self.path.rename(rotated)
            self.path.touch()

    def on_disk(self) -> int:
        """What `wc -l` says of the log and all its rotated files."""
        files = self.path.parent.glob(f"{self.path.name}*")
        return sum(file.read_bytes().count(b"\n") for file in files)
