"""Reads gzip as a stream: bounded memory, and the exact byte where a file is broken."""

from __future__ import annotations

import os
import zlib
from typing import Final

from mcpwatch.sources.block import SourceError
from mcpwatch.text import safe

CHUNK: Final = 1 << 18
"""Most bytes that one `read` returns."""
MAX_RATIO: Final = 1_000
MAX_BEFORE_RATIO: Final = 1 << 30
_PIECE: Final = 1 << 16
_GZIP: Final = 16 + zlib.MAX_WBITS


class GzipStream:
    """The decompressed bytes of an open gzip file, all its members in turn."""

    def __init__(self, fd: int, path: str | os.PathLike[str]) -> None:
        """Read from `fd` at its current position; `path` is for messages. The caller closes `fd`."""
        self._fd = fd
        self._path = path
        self._member = zlib.decompressobj(_GZIP)
        self._begun = False
        self._pending = b""
        self._fed = 0
        self._made = 0
        self._failure: SourceError | None = None

    @property
    def consumed(self) -> int:
        """Compressed bytes used up so far."""
        return self._fed - len(self._pending)

    def read(self) -> bytes:
        """The next bytes, at most `CHUNK`; empty at the end.

        Raises:
            SourceError: The file is broken or ends early (the message has the byte), or it is a bomb. What is
                readable before the broken byte is returned first.
        """
        if self._failure is not None:
            raise self._failure
        while True:
            if self._member.eof and not self._next_member():
                return b""
            if not self._pending and not self._refill():
                if not self._begun and self._made == 0 and self._fed == 0:
                    raise self._broken("is empty, which no gzip file is")
                raise self._broken(f"is cut short: its gzip data ends at byte {self.consumed}")
            data = self._inflate()
            if data:
                self._made += len(data)
                self._check_ratio()
                return data
            if self._failure is not None:
                raise self._failure

    def _refill(self) -> bool:
        self._pending = os.read(self._fd, _PIECE)
        self._fed += len(self._pending)
        return bool(self._pending)

    def _next_member(self) -> bool:
        self._pending = self._member.unused_data or self._pending
        while True:
            # gzip(1) pads with zeros on tapes and block devices, and so ignores them between members
            self._pending = self._pending.lstrip(b"\0")
            if self._pending:
                break
            if not self._refill():
                return False
        self._member, self._begun = zlib.decompressobj(_GZIP), False
        return True

    def _inflate(self) -> bytes:
        before = self._member.copy()
        self._begun = True
        try:
            data = self._member.decompress(self._pending, CHUNK)
        except zlib.error as error:
            return self._up_to_break(before, str(error))
        self._pending = self._member.unconsumed_tail or self._member.unused_data
        return data

    def _up_to_break(self, member: zlib._Decompress, reason: str) -> bytes:
        """Go again byte by byte from before the broken piece, to find the byte and to save what precedes it."""
        start = self.consumed
        saved = bytearray()
        at = 0
        try:
            for at in range(len(self._pending)):
                saved += member.decompress(self._pending[at : at + 1])
                if len(saved) >= CHUNK:
                    break
        except zlib.error as error:
            reason = str(error)
        detail = reason.rpartition(": ")[2]
        self._broken(f"is broken at byte {start + at} of the gzip data ({detail})")
        return bytes(saved[:CHUNK])

    def _check_ratio(self) -> None:
        if self._made > MAX_BEFORE_RATIO and self._made > MAX_RATIO * self.consumed:
            raise self._broken(
                f"grew to more than {MAX_RATIO} times its size by byte {self.consumed}: it looks like a "
                "decompression bomb; decompress it yourself if you trust it"
            )

    def _broken(self, what: str) -> SourceError:
        self._failure = SourceError(f"{safe(self._path)}: {what}")
        return self._failure
