"""What the sources room hands on: runs of raw lines, and the gaps between them."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import accumulate
from typing import Final

from mcpwatch.errors import Unusable

MAX_LINE: Final = 1 << 20
"""Longest line that is kept whole, in bytes; a longer one is an `Oversize`."""


class SourceError(Unusable):
    """A source can't be used. The message says what, where and what to do."""


@dataclass(frozen=True, slots=True)
class Oversize:
    """What is kept of a line above `MAX_LINE`, beside its head."""

    length: int
    """Bytes, without the newline."""
    sha256: str


@dataclass(slots=True)
class Block:
    """A run of consecutive raw lines of one source, without their `\\n`.

    Lines are raw: a trailing `\\r`, leading NULs and bad UTF-8 are the reader's to deal with. The bytes of the
    run are contiguous, so line k begins at `offset + sum(len(line) + 1 for line in lines[:k])`.
    """

    source: str
    """Short name of the source, unique among the sources of this process."""
    lines: list[bytes]
    offset: int
    """Byte offset of the first line in its file."""
    line: int | None
    """Number of the first line, from 1; None when reading began in the middle of the file."""
    oversize: Oversize | None = None
    """Set when the block is one line that was too long; `lines[0]` then is its first 4 KiB."""
    unterminated: bool = False
    """The last line had no newline (saved files only: live, such a line is held back)."""
    copy_of_rotation: bool = False
    """Read from a rotated copy after the fact: lines may have been seen before (repeats by content)."""
    repeats: frozenset[int] = frozenset()
    """Indexes of lines that were read before: counted as repeated, and not read again."""
    written_ns: int | None = None
    """When a saved file was last written, ns since the epoch: what tells the year of a time without one."""
    _offsets: list[int] | None = None

    def line_at(self, index: int) -> int | None:
        """Number of a line of the block."""
        return None if self.line is None else self.line + index

    def offset_at(self, index: int) -> int:
        """Byte offset of a line of the block in its file."""
        if self._offsets is None:
            self._offsets = list(accumulate((len(line) + 1 for line in self.lines), initial=self.offset))
        return self._offsets[index]


@dataclass(frozen=True, slots=True)
class Gap:
    """Bytes that are known to be lost, or may be."""

    source: str
    offset: int
    reason: str
    size: int | None
    """Bytes lost; None when it cannot be known."""
