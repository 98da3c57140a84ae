"""The one line-drawing widget of the console: header, panes and documents are all views of lines."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, cast

from rich.segment import Segment
from rich.style import Style
from textual import events
from textual.geometry import Region
from textual.strip import Strip
from textual.widget import Widget

from mcpwatch.console.lines import BLANK, Line, fit_line, line_cells

if TYPE_CHECKING:
    from mcpwatch.console.app import ConsoleApp

Drawn = tuple[Line, str]
"""A line and the role laid over it ("" for none)."""


def changed_end(old: Line, new: Line) -> int:
    """The cell up to which two lines of equal width differ.

    Only the end counts: Textual sends a changed region from the left edge of its widget.
    """
    tail = 0
    while tail < min(len(old), len(new)) and old[-1 - tail] == new[-1 - tail]:
        tail += 1
    return line_cells(new) - line_cells(new[len(new) - tail :])


class LineView(Widget):
    """Shows lines, and sends only what changed since the last time to the terminal."""

    DEFAULT_CSS = "LineView { height: 1; }"
    can_focus = False

    def __init__(self, *, id: str | None = None, classes: str | None = None) -> None:
        super().__init__(id=id, classes=classes)
        self._drawn: list[Drawn] = []
        self._lines: Sequence[Line] = ()

    @property
    def console_app(self) -> ConsoleApp:
        """The app, by its own type."""
        return cast("ConsoleApp", self.app)

    @property
    def role_styles(self) -> Mapping[str, Style]:
        """The styles of the current theme."""
        return self.console_app.role_styles

    def show(self, lines: Sequence[Line]) -> None:
        """Show these lines, cut or padded to the widget's width."""
        self._lines = lines
        self.redraw()

    def draw(self, lines: list[Drawn]) -> None:
        """Show lines that are exactly as wide as the widget."""
        before, self._drawn = self._drawn, lines
        width = self.size.width
        for y in range(self.size.height):
            old = before[y] if y < len(before) else (BLANK, "")
            new = lines[y] if y < len(lines) else (BLANK, "")
            if old != new:
                alike = old[1] == new[1] and old[0] and new[0]
                self.refresh(Region(0, y, changed_end(old[0], new[0]) if alike else width, 1))

    def on_resize(self, _event: events.Resize) -> None:
        """Nothing drawn for the old size is of use."""
        self._drawn = []
        self.redraw()
        self.refresh()

    def redraw(self) -> None:
        """Draw again what the widget was given."""
        self.draw([(fit_line(line, self.size.width), "") for line in self._lines])

    def drawn_text(self) -> list[str]:
        """The lines as plain text, as they stand on the screen."""
        return ["".join(text for text, _ in line) for line, _ in self._drawn]

    def render_line(self, y: int) -> Strip:
        """Style one line; called by Textual for the lines that are to be repainted."""
        styles = self.role_styles
        width = self.size.width
        line, over = self._drawn[y] if y < len(self._drawn) else (BLANK, "")
        if not line:
            return Strip.blank(width, styles["text"])
        if over:
            lay = styles[over]
            segments = [Segment(text, styles[role] + lay) for text, role in line]
        else:
            segments = [Segment(text, styles[role]) for text, role in line]
        return Strip(segments).adjust_cell_length(width, styles["text"])
