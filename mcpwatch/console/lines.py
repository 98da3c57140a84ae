"""Lines of text with roles: what every view of the console is drawn from.

A span is text with a role ("dim", "tier-high"); a theme turns roles into styles. Nothing here reads markup:
text is text.
"""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Sequence
from typing import Final, Literal

from rich.cells import cell_len, set_cell_size

Span = tuple[str, str]
"""Text and its role, one of `mcpwatch.console.themes.ROLES`."""
Line = tuple[Span, ...]
Align = Literal["left", "right"]

BLANK: Final[Line] = ()
_SPARKS: Final = "▁▂▃▄▅▆▇█"


def cells(text: str) -> int:
    """How many terminal cells a text takes."""
    return len(text) if text.isascii() else cell_len(text)


def line_cells(line: Line) -> int:
    """How many terminal cells a line takes."""
    return sum(cells(text) for text, _ in line)


def plain(line: Line) -> str:
    """The text of a line."""
    return "".join(text for text, _ in line)


def fit(text: str, width: int, align: Align = "left") -> str:
    """Cut or pad a text to exactly `width` cells; a cut one ends with `…`."""
    size = cells(text)
    if size > width:
        return set_cell_size(text, width - 1) + "…" if width > 0 else ""
    return text + " " * (width - size) if align == "left" else " " * (width - size) + text


def fit_line(line: Line, width: int, fill: str = "text") -> Line:
    """Cut or pad a line to exactly `width` cells."""
    out: list[Span] = []
    left = width
    for text, role in line:
        size = cells(text)
        if size > left:
            out.append((fit(text, left), role))
            return tuple(out)
        if text:
            out.append((text, role))
        left -= size
    if left:
        out.append((" " * left, fill))
    return tuple(out)


def ends(left: Line, right: Line, width: int) -> Line:
    """One part at the left end, one at the right; the left one is cut where both do not fit."""
    room = width - line_cells(right)
    return fit_line(left, width) if room < 1 else fit_line((*fit_line(left, room), *right), width)


def join(parts: Iterable[Line], between: Line) -> Line:
    """Put lines side by side."""
    out: list[Span] = []
    for part in parts:
        if out:
            out.extend(between)
        out.extend(part)
    return tuple(out)


def flow(parts: Sequence[Line], width: int, between: Line) -> list[Line]:
    """Put parts side by side in as many lines as they need; no part is torn."""
    rows: list[list[Line]] = []
    left = 0
    for part in parts:
        size = line_cells(part) + line_cells(between)
        if rows and size <= left:
            rows[-1].append(part)
            left -= size
        else:
            rows.append([part])
            left = width - line_cells(part)
    return [join(row, between) for row in rows]


def wrap(text: str, width: int, role: str = "text", indent: str = "") -> list[Line]:
    """Break a text into lines at blanks, long words anywhere."""
    width = max(width, 8)
    rows = textwrap.wrap(text, width, initial_indent=indent, subsequent_indent=indent) or [""]
    return [((fit(row, min(cells(row), width)), role),) for row in rows]


def spark(values: Sequence[int], peak: int = 0) -> str:
    """A line of bars, one cell a value; zero is the lowest bar."""
    top = max(peak, *values, 1) if values else 1
    return "".join(_SPARKS[-(-value * 7 // top)] for value in values)


def chart(values: Sequence[int], height: int, *, step: int = 1, peak: int = 0) -> list[str]:
    """Bars of `height` lines, top line first, each value `step` cells wide."""
    top = max(peak, *values, 1) if values else 1
    levels = [max(value * height * 8 // top, 1) for value in values]
    rows = []
    for row in range(height - 1, -1, -1):
        marks = (min(max(level - row * 8, 0), 8) for level in levels)
        rows.append("".join((" " if mark == 0 else _SPARKS[mark - 1]) * step for mark in marks))
    return rows


def bar(share: float, width: int) -> str:
    """A horizontal bar for a share between 0 and 1, of at most `width` cells."""
    eighths = round(min(max(share, 0.0), 1.0) * width * 8)
    full, rest = divmod(eighths, 8)
    return "█" * full + (" ▏▎▍▌▋▊▉"[rest] if rest else "")
