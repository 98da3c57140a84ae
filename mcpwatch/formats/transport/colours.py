"""Colours and other marks for terminals in a line: taken off so that the line can be read."""

from __future__ import annotations

import re
from typing import Final

# ECMA-48 control sequences (colours, erasing) and operating system commands (links, titles)
_SEQUENCE: Final = rb"\x1b(?:\[[0-?]{0,64}[ -/]{0,8}[@-~]|\][^\x07\x1b]{0,2048}(?:\x07|\x1b\\))"
_ANYWHERE: Final = re.compile(_SEQUENCE)
# a string is passed over as one piece, an unfinished one to the end: what is in it is what somebody said
_OUTSIDE_STRINGS: Final = re.compile(rb'"(?:[^"\\]|\\.)*+"?|(' + _SEQUENCE + rb")", re.DOTALL)


def without_colours(line: bytes) -> bytes:
    """The line as it would be without a terminal.

    Inside the strings of a JSON object everything stays: an escape in a parameter is evidence, no decoration.
    """
    record = line.find(b"{")
    if record < 0:
        return _ANYWHERE.sub(b"", line)
    return _ANYWHERE.sub(b"", line[:record]) + _OUTSIDE_STRINGS.sub(_kept, line[record:])


def _kept(found: re.Match[bytes]) -> bytes:
    return b"" if found[1] is not None else found.group()
