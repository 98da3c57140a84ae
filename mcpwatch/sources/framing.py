"""Cuts what a connection sends into records, with bounded memory, so that nobody can forge a second one.

RFC 6587 names both ways that syslog is sent over a stream: each record with its length in front (octet counting),
or each ended by a newline or a NUL. The first bytes of a connection say which, and it stays at that.
"""

from __future__ import annotations

import re
from enum import Enum
from typing import Final

MAX_RECORD: Final = 1 << 20
"""Longest record that is kept whole, in bytes: the longest line that a follower keeps whole."""
CUT_TO: Final = MAX_RECORD + 1
"""Bytes that are kept of a longer one: as many as the follower needs to see that it is too long."""

# Ten million bytes and more are no record but a lie, or a length that is none. A number alone may also begin a plain
# text line ("2026 …"): only syslog or JSON behind it make it a length.
_LENGTH: Final = re.compile(rb"([1-9]\d{0,6}) ")
_COUNTED: Final = re.compile(rb"[1-9]\d{0,6} [<{]")
_MAYBE_COUNTED: Final = re.compile(rb"[1-9]\d{0,6} ?")
_LONGEST_LENGTH: Final = 8
_NUL_ENDS: Final = bytes.maketrans(b"\n\0", b" \n")


class _Mode(Enum):
    UNDECIDED = 0
    LINES = 1
    """A newline ends a record."""
    NULS = 2
    """A NUL ends a record, as in what the C library's `syslog` sends."""
    COUNTED = 3
    """Each record has its length in front."""


class Framer:
    """The records of one connection. Every record comes out as one line that ends in a newline.

    Attributes:
        records: Whole records so far.
        cut_records: Records longer than `MAX_RECORD`, of which only `CUT_TO` bytes are kept.
        cut_bytes: Bytes of those that were dropped.
        broken: A length that is none came where one had to be: what follows can't be told apart any more, and
            whoever could choose its bytes could forge records. Close the connection.
    """

    def __init__(self) -> None:
        self.records = 0
        self.cut_records = 0
        self.cut_bytes = 0
        self.broken = False
        self._mode = _Mode.UNDECIDED
        self._buffer = bytearray()
        self._cutting = False
        self._skip = 0

    @property
    def held(self) -> int:
        """Bytes of the unfinished record, without those that were dropped or written."""
        return len(self._buffer)

    @property
    def torn(self) -> bool:
        """Whether the connection would end in the middle of a record."""
        return bool(self._buffer) or self._cutting or self._skip > 0

    def feed(self, data: bytes) -> bytes:
        """Take what arrived; the lines of the records that it completes."""
        if self._mode is _Mode.UNDECIDED:
            self._buffer += data
            mode = _decide(self._buffer)
            if mode is _Mode.UNDECIDED and len(self._buffer) <= MAX_RECORD:
                return b""
            self._mode = _Mode.LINES if mode is _Mode.UNDECIDED else mode
            data, self._buffer = bytes(self._buffer), bytearray()
        if self._mode is _Mode.COUNTED:
            return self._counted(data)
        if self._mode is _Mode.NULS:
            data = data.translate(_NUL_ENDS)
        return self._lines(data)

    def finish(self) -> bytes:
        """The connection ended: what there is of an unfinished record, as a line of its own."""
        rest = one_line(bytes(self._buffer[:CUT_TO])) if self._buffer else b""
        self._buffer.clear()
        return rest

    def _lines(self, data: bytes) -> bytes:
        out = b""
        if self._cutting:
            end = data.find(b"\n")
            self.cut_bytes += len(data) if end < 0 else end
            if end < 0:
                return b""
            self._cutting = False
            data = data[end + 1 :]
        first, last = data.find(b"\n"), data.rfind(b"\n")
        if first >= 0:
            if len(self._buffer) + first > MAX_RECORD:
                out = self._cut(bytes(self._buffer) + data[:first])
                data, last = data[first + 1 :], last - first - 1
                self._buffer.clear()
            if last >= 0:
                whole = data[: last + 1]
                out += bytes(self._buffer) + whole
                self.records += whole.count(b"\n")
                self._buffer.clear()
                data = data[last + 1 :]
        self._buffer += data
        if len(self._buffer) > MAX_RECORD:
            out += self._cut(bytes(self._buffer))
            self._buffer.clear()
            self._cutting = True
        return out

    def _counted(self, data: bytes) -> bytes:
        out: list[bytes] = []
        if self._skip:
            dropped = min(self._skip, len(data))
            self._skip -= dropped
            self.cut_bytes += dropped
            data = data[dropped:]
        held = self._buffer
        held += data
        at = 0
        while at < len(held):
            if held[at] == 0x0A:  # some senders put one behind each record, uncounted
                at += 1
                continue
            found = _LENGTH.match(held, at)
            if found is None:
                self.broken = _MAYBE_COUNTED.fullmatch(held[at : at + _LONGEST_LENGTH]) is None
                break
            begin, length = found.end(), int(found[1])
            if len(held) - begin < min(length, CUT_TO):
                break
            if length > MAX_RECORD:
                taken = min(length, len(held) - begin)
                out.append(self._cut(bytes(held[begin : begin + taken])))
                self._skip = length - taken
                at = begin + taken
                continue
            out.append(one_line(bytes(held[begin : begin + length])))
            self.records += 1
            at = begin + length
        del held[:at]
        return b"".join(out)

    def _cut(self, record: bytes) -> bytes:
        self.records += 1
        self.cut_records += 1
        self.cut_bytes += max(0, len(record) - CUT_TO)
        return record[:CUT_TO].replace(b"\n", b" ") + b"\n"


def one_line(record: bytes) -> bytes:
    """A record whose end is known, as one line: a newline inside it must not make two of it."""
    if record.endswith((b"\n", b"\0")):
        record = record[:-1]
    return record.replace(b"\n", b" ") + b"\n"


def _decide(head: bytearray) -> _Mode:
    start = bytes(head[: _LONGEST_LENGTH + 1])
    if _COUNTED.match(start):
        return _Mode.COUNTED
    if _MAYBE_COUNTED.fullmatch(start):
        return _Mode.UNDECIDED
    if not start.startswith(b"<"):
        return _Mode.LINES
    newline, nul = head.find(b"\n"), head.find(b"\0")
    if newline < 0 and nul < 0:
        return _Mode.UNDECIDED
    # Whoever writes the text of a record can put either into it, but not behind it: what a send ends in is what a
    # record ends in.
    if head.endswith((b"\n", b"\0")):
        return _Mode.NULS if head.endswith(b"\0") else _Mode.LINES
    return _Mode.NULS if newline < 0 or 0 <= nul < newline else _Mode.LINES
