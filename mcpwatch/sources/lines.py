"""Cuts a byte stream into raw lines, at newlines only and with bounded memory."""

from __future__ import annotations

import hashlib
from typing import Final

from mcpwatch.sources.block import MAX_LINE, Block, Oversize

HEAD_KEPT: Final = 4_096
"""Bytes kept of a line above `MAX_LINE`."""


class LineCutter:
    """Turns chunks of one file, in order, into blocks of whole lines; the unfinished last line is held.

    Only `\\n` ends a line: `bytes.splitlines` would also cut at a lone `\\r`, and so count lines that no other
    tool counts. Memory is bounded by `MAX_LINE` plus one chunk, whatever the length of a line.
    """

    def __init__(self, source: str, offset: int = 0, line: int | None = 1, *, copy: bool = False) -> None:
        """Begin at `offset`, the first byte of line number `line` (None: unknown) of the file."""
        self.source = source
        self.offset = offset
        """Byte offset of the first byte of the held line."""
        self.copy = copy
        """Whether the bytes come from a rotated copy; blocks say so."""
        self._line = line
        self._carry = bytearray()
        self._long: tuple[bytes, hashlib._Hash] | None = None
        self._long_length = 0

    @property
    def line(self) -> int | None:
        """Number of the held line, None when unknown."""
        return self._line

    @property
    def held(self) -> int:
        """Bytes of the unfinished last line."""
        return self._long_length if self._long is not None else len(self._carry)

    def feed(self, data: bytes) -> list[Block]:
        """Take the next chunk, at most `MAX_LINE` bytes, and return the lines that it completes."""
        end = data.rfind(b"\n")
        if end < 0:
            self._hold(data)
            return []
        blocks = []
        first = data.find(b"\n")
        if self._long is not None or len(self._carry) + first > MAX_LINE:
            self._hold(data[:first])
            blocks.append(self._finish_line(1))
            data, end = data[first + 1 :], end - first - 1
            if end < 0:
                self._hold(data)
                return blocks
        whole = bytes(self._carry) + data[:end] if self._carry else data[:end]
        lines = whole.split(b"\n")
        blocks.append(Block(self.source, lines, self.offset, self._line, copy_of_rotation=self.copy))
        self._advance(len(whole) + 1, len(lines))
        self._carry = bytearray(data[end + 1 :])
        return blocks

    def finish(self) -> list[Block]:
        """End of the file: the held line, if there is one, as an unterminated block."""
        if not self.held:
            return []
        block = self._finish_line(0)
        block.unterminated = True
        return [block]

    def _finish_line(self, newline: int) -> Block:
        if self._long is not None:
            head, digest = self._long
            length = self._long_length
            oversize = Oversize(length, digest.hexdigest())
        else:
            head, length, oversize = bytes(self._carry), len(self._carry), None
        block = Block(self.source, [head], self.offset, self._line, oversize, copy_of_rotation=self.copy)
        self._advance(length + newline, 1)
        self._carry, self._long, self._long_length = bytearray(), None, 0
        return block

    def _advance(self, size: int, lines: int) -> None:
        self.offset += size
        if self._line is not None:
            self._line += lines

    def _hold(self, data: bytes) -> None:
        if self._long is None:
            self._carry += data
            if len(self._carry) <= MAX_LINE:
                return
            # A writer that goes on at its old place after a truncation leaves a hole of NULs before its next
            # record; counted as part of the line, the hole would cost us the record.
            record = self._carry.lstrip(b"\0")
            self.offset += len(self._carry) - len(record)
            self._carry = record
            if len(record) <= MAX_LINE:
                return
            self._long = bytes(record[:HEAD_KEPT]), hashlib.sha256(record)
            self._long_length = len(record)
            self._carry = bytearray()
            return
        self._long[1].update(data)
        self._long_length += len(data)
