"""Reads gzip and zstd as a stream: bounded memory, and the exact byte where a file is broken."""

from __future__ import annotations

import os
import sys
import zlib
from typing import Any, Final, Protocol

from mcpwatch.sources.block import SourceError
from mcpwatch.text import safe

CHUNK: Final = 1 << 18
"""Most bytes that one `read` returns."""
MAX_RATIO: Final = 1_000
MAX_BEFORE_RATIO: Final = 1 << 30
"""Bytes that a file may grow to whatever its ratio; beyond, its ratio is capped, and so is what it grows to."""
MAX_WINDOW_LOG: Final = 27
"""Largest zstd window, as a power of two: 128 MiB, what zstd(1) too accepts unasked. The window is memory."""
_PIECE: Final = 1 << 16
_GZIP: Final = 16 + zlib.MAX_WBITS
_GZIP_MAGIC: Final = b"\x1f\x8b"
_ZSTD_MAGIC: Final = b"\x28\xb5\x2f\xfd"
# RFC 8878: sixteen magic numbers for frames that hold no data; pzstd begins its files with one
_SKIPPABLE: Final = frozenset(bytes([low, 0x2A, 0x4D, 0x18]) for low in range(0x50, 0x60))


def compression_of(head: bytes) -> str | None:
    """The compression of a file that begins with these bytes, `gzip` or `zstd`; None for any other file."""
    if head.startswith(_GZIP_MAGIC):
        return "gzip"
    return "zstd" if head[:4] == _ZSTD_MAGIC or head[:4] in _SKIPPABLE else None


class _Decoder(Protocol):
    """One gzip member or zstd frame on its way."""

    eof: bool
    hungry: bool
    """Whether it needs more input to give more output."""
    rest: bytes
    """Input behind its end."""

    def feed(self, data: bytes) -> bytes:
        """Up to `CHUNK` bytes of output; raises one of `_ERRORS`."""


class _Gzip:
    eof = False
    hungry = True
    rest = b""

    def __init__(self) -> None:
        self._member = zlib.decompressobj(_GZIP)

    def feed(self, data: bytes) -> bytes:
        out = self._member.decompress(self._member.unconsumed_tail + data, CHUNK)
        self.eof, self.rest = self._member.eof, self._member.unused_data
        self.hungry = not self._member.unconsumed_tail
        return out


class _Zstd:
    eof = False
    hungry = True
    rest = b""

    def __init__(self) -> None:
        zstd = _zstd()
        limit = {zstd.DecompressionParameter.window_log_max: MAX_WINDOW_LOG}
        self._frame = zstd.ZstdDecompressor(options=limit)

    def feed(self, data: bytes) -> bytes:
        try:
            out: bytes = self._frame.decompress(data, CHUNK)
        except _zstd().ZstdError as error:
            raise ValueError(error) from None
        self.eof, self.rest, self.hungry = self._frame.eof, self._frame.unused_data, self._frame.needs_input
        return out


_ERRORS: Final = (zlib.error, ValueError)
_TOO_LARGE_WINDOW: Final = "Frame requires too much memory for decoding"
_DECODERS: Final[dict[str, type[_Gzip] | type[_Zstd]]] = {"gzip": _Gzip, "zstd": _Zstd}


def _zstd() -> Any:
    """The module that knows zstd. Raises ImportError where there is none."""
    if sys.version_info >= (3, 14):
        from compression import zstd
    else:
        from backports import zstd
    return zstd


class CompressedStream:
    """The decompressed bytes of an open gzip or zstd file, all its members or frames in turn."""

    def __init__(self, fd: int, path: str | os.PathLike[str]) -> None:
        """Read the regular file `fd` from its start; `path` is for messages. The caller closes `fd`.

        Raises:
            SourceError: It is neither gzip nor zstd, or zstd and the library for it is not installed.
        """
        self._fd = fd
        self._path = path
        self._failure: SourceError | None = None
        self._at = 0
        self._pending = b""
        self._made = 0
        # where the member began, what of it has been returned, and what of that must not be returned again
        self._began = self._returned = self._skip = 0
        self._fed_from = 0
        self._careful_from: int | None = None
        head = os.pread(fd, 4, 0)
        if not head:
            raise self._broken("is empty, which no compressed file is")
        kind = compression_of(head)
        if kind is None:
            raise self._broken("is neither gzip nor zstd, whatever its name says")
        self.kind = kind
        """`gzip` or `zstd`."""
        self._decoder: _Decoder = self._begin()

    @property
    def consumed(self) -> int:
        """Compressed bytes used up so far."""
        return self._at - len(self._pending)

    def read(self) -> bytes:
        """The next bytes, at most `CHUNK`; empty at the end.

        Raises:
            SourceError: The file is broken or ends early (the message has the byte), or it is a bomb. What is
                readable before the broken byte is returned first.
        """
        if self._failure is not None:
            raise self._failure
        while True:
            if self._decoder.eof and not self._next_member():
                return b""
            if self._decoder.hungry and not self._pending and not self._refill():
                raise self._broken(f"is cut short: its {self.kind} data ends at byte {self.consumed}")
            data = self._decode()
            dropped = min(self._skip, len(data))
            self._skip -= dropped
            data = data[dropped:]
            if data:
                self._made += len(data)
                self._returned += len(data)
                self._check_ratio()
                return data

    def _begin(self) -> _Decoder:
        try:
            return _DECODERS[self.kind]()
        except ImportError:
            raise self._broken(
                "is compressed with zstd, which needs a library: pip install 'mcpwatch-console[zstd]'"
            ) from None

    def _refill(self) -> bool:
        size = _PIECE
        if self._careful_from is not None:
            size = max(1, min(_PIECE, self._careful_from - self._at))
        self._pending = os.pread(self._fd, size, self._at)
        self._at += len(self._pending)
        return bool(self._pending)

    def _next_member(self) -> bool:
        self._pending = self._decoder.rest + self._pending
        while True:
            if self.kind == "gzip":
                # gzip(1) pads with zeros on tapes and block devices, and so ignores them between members
                self._pending = self._pending.lstrip(b"\0")
            if self._pending:
                break
            if not self._refill():
                return False
        self._decoder = self._begin()
        self._began, self._returned, self._careful_from = self.consumed, 0, None
        return True

    def _decode(self) -> bytes:
        piece = b""
        if self._decoder.hungry:
            self._fed_from = self.consumed
            piece, self._pending = self._pending, b""
        try:
            return self._decoder.feed(piece)
        except _ERRORS as error:
            detail = str(error).rpartition(": ")[2]
        if detail == _TOO_LARGE_WINDOW:
            raise self._broken(
                f"wants a window of more than {1 << MAX_WINDOW_LOG - 20} MiB of memory at byte {self._fed_from}; "
                "decompress it yourself if you trust it (zstd -d --long=31)"
            )
        if self._careful_from is not None:
            raise self._broken(f"is broken at byte {self._fed_from} of the {self.kind} data ({detail})")
        # once more from the member's start, and byte by byte in the broken piece: what precedes the break is saved
        self._decoder = self._begin()
        self._at, self._pending = self._began, b""
        self._skip, self._careful_from = self._returned, self._fed_from
        return b""

    def _check_ratio(self) -> None:
        if self._made > MAX_BEFORE_RATIO and self._made > MAX_RATIO * self.consumed:
            raise self._broken(
                f"grew to more than {MAX_RATIO} times its size by byte {self.consumed}: it looks like a "
                "decompression bomb; decompress it yourself if you trust it"
            )

    def _broken(self, what: str) -> SourceError:
        self._failure = SourceError(f"{safe(self._path)}: {what}")
        return self._failure
