"""Records that arrive in pieces: containers' log files cut long lines, and mark the pieces that go on."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Final

import orjson

from mcpwatch.formats.transport.unwrapped import Unwrapped

MAX_JOINED: Final = 1 << 20
"""Longest record that is put together, in bytes: the longest line that is kept whole."""
TOO_LONG: Final = "record in pieces of more than 1 MiB"
_MAX_STREAMS: Final = 16


@dataclass(slots=True)
class _Begun:
    """A record whose end has not come."""

    first: Unwrapped
    pieces: list[bytes] = field(default_factory=list)
    size: int = 0
    """Bytes; above `MAX_JOINED` the pieces are dropped."""


class Fragments:
    """The records of one source that arrive cut into several lines, by stream (stdout, stderr of each container).

    For each line that `unwrap` took a transport off:

        name, inner = unwrap(text)
        whole = fragments.join(inner)
        if whole is None:           # a piece, kept until the rest comes: the line counts as joined
            ...
        inner = whole               # with `lack` where the record had to be given up

    Attributes:
        given_up: Records whose end did not come: another one began in their stream, or there were too many streams.
    """

    def __init__(self) -> None:
        self.given_up = 0
        self._begun: dict[tuple[str | None, str | None, str | None], _Begun] = {}

    @property
    def open(self) -> int:
        """Records that have begun and whose end has not come yet."""
        return len(self._begun)

    def join(self, inner: Unwrapped) -> Unwrapped | None:
        """Take what was inside a line; the record that it is or ends, or None for a piece that is kept.

        A record that was in pieces has the time of its first one. One of more than 1 MiB has a `lack` in place of
        its text, at its last piece.
        """
        if inner.stream is None:
            return inner
        stream = (inner.host, inner.program, inner.stream)
        begun = self._begun.get(stream)
        if inner.more is False:
            return inner if begun is None else self._ended(self._begun.pop(stream), inner)
        if begun is None:
            if inner.more is None and (not inner.text.startswith(b"{") or _is_object(inner.text)):
                return inner
            if len(self._begun) >= _MAX_STREAMS:
                del self._begun[next(iter(self._begun))]
                self.given_up += 1
            begun = self._begun[stream] = _Begun(inner)
        begun.size += len(inner.text)
        if begun.size <= MAX_JOINED:
            begun.pieces.append(inner.text)
        else:
            begun.pieces.clear()
        return None

    def _ended(self, begun: _Begun, last: Unwrapped) -> Unwrapped:
        if begun.size + len(last.text) > MAX_JOINED:
            return replace(begun.first, text=b"", lack=TOO_LONG, more=False)
        text = b"".join([*begun.pieces, last.text])
        # a program that died in the middle of a line: its successor's first record is not the rest of it
        if _is_object(last.text) and not _is_object(text):
            self.given_up += 1
            return last
        return replace(begun.first, text=text, more=False)


def _is_object(text: bytes) -> bool:
    text = text.strip()
    if not text.startswith(b"{") or not text.endswith(b"}"):
        return False
    try:
        orjson.loads(text)
    except (ValueError, RecursionError):
        return False
    return True
