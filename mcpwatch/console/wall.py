"""The second wall: what leaves for the terminal is printable text and the console's own sequences, and nothing else.

The first wall is `mcpwatch.text`, through which every text of a log comes. These two hold where somebody forgot it:
a filter of every line that is drawn, and a grammar of everything that is written.
"""

from __future__ import annotations

import re
from typing import Final

from rich.cells import cell_len
from rich.segment import Segment
from textual.color import Color
from textual.filter import LineFilter

_OWN: Final = re.compile(
    r"\x1b\[[0-9;]*m"  # colours
    r"|\x1b\[[0-9]+;[0-9]+H"  # cursor
    r"|\x1b\[\?[0-9]+[hl]"  # modes
    r"|\x1b\[\?[0-9]+\$p"  # may a mode be set?
    r"|\x1b\[[<>][0-9]*u"  # keyboard protocol
    r"|\x1b\]52;c;[A-Za-z0-9+/=]*\x07"  # clipboard, when something is copied
    r"|\r?\n"
)


def printable(text: str) -> str:
    """Take out what a terminal could obey; what had a width keeps it as `?`."""
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() else "?" * cell_len(char) for char in text)


class PrintableOnly(LineFilter):
    """Whatever a widget draws, only printable characters leave it."""

    def apply(self, segments: list[Segment], background: Color) -> list[Segment]:
        """Filter one line."""
        return [
            segment if segment.text.isprintable() else Segment(printable(segment.text), segment.style)
            for segment in segments
        ]


def own_only(data: str) -> str:
    """The same output without any control character that is not part of a sequence the console itself uses."""
    if all(piece.isprintable() for piece in _OWN.split(data)):
        return data
    out: list[str] = []
    at = 0
    for match in _OWN.finditer(data):
        out += [printable(data[at : match.start()]), match.group()]
        at = match.end()
    return "".join([*out, printable(data[at:])])
