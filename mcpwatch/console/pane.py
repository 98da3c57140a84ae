"""A framed list that scrolls: sessions, alerts, events, and every document that can be opened."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import Protocol

from textual import events
from textual.message import Message

from mcpwatch.console.lines import BLANK, Line, cells, fit_line, line_cells
from mcpwatch.console.view import Drawn, LineView

_WHEEL = 3
"""Rows that one notch of the mouse wheel moves."""


class Body(Protocol):
    """What a pane shows: rows that can be drawn one by one."""

    def __len__(self) -> int:
        """How many rows there are."""

    def key(self, index: int) -> Hashable | None:
        """What makes a row the same row in the next picture; None for one that can't be selected."""

    def find(self, key: Hashable) -> int | None:
        """Where the row of that key is now."""

    def line(self, index: int, width: int) -> Line:
        """One row."""

    def head(self, width: int) -> Line | None:
        """The column headers, if it has any."""


class Document:
    """A body of ready lines, some of which can be selected and opened."""

    def __init__(self, lines: Sequence[tuple[Line, Hashable | None]]) -> None:
        self._lines = lines

    def __len__(self) -> int:
        return len(self._lines)

    def key(self, index: int) -> Hashable | None:
        """What the line opens."""
        return self._lines[index][1]

    def find(self, key: Hashable) -> int | None:
        """Where the line of that key is."""
        return next((index for index, (_, other) in enumerate(self._lines) if other == key), None)

    def line(self, index: int, width: int) -> Line:
        """One line."""
        return fit_line(self._lines[index][0], width)

    def head(self, width: int) -> Line | None:
        """Documents have no columns."""
        return None


EMPTY = Document(())


class Resized(Message):
    """A pane has another size."""


class Pane(LineView):
    """A framed body with a cursor.

    The cursor stays on its row when rows move. A pane that follows (`tail`) shows the newest rows until the
    operator moves up.
    """

    DEFAULT_CSS = "Pane { height: 1fr; width: 1fr; }"

    def __init__(self, *, id: str | None = None, tail: bool = False, cursor: bool = True) -> None:
        super().__init__(id=id)
        self.body: Body = EMPTY
        self.tail = tail
        self.follow = tail
        self.active = False
        self.framed = True
        self._cursor_on = cursor
        self._title: Line = BLANK
        self._note: Line = BLANK
        self._empty = ""
        self._top = 0
        self._cursor = 0
        self._key: Hashable | None = None
        self.chosen = False
        """Whether somebody chose a row; until then the cursor stays on the first one."""

    def on_resize(self, _event: events.Resize) -> None:
        """What was built for another size is built again, once the new layout stands."""
        self._drawn = []
        self.redraw()
        self.refresh()
        self.post_message(Resized())

    @property
    def selected(self) -> int | None:
        """Index of the selected row."""
        if not self._cursor_on or not 0 <= self._cursor < len(self.body):
            return None
        return self._cursor if self.body.key(self._cursor) is not None else None

    @property
    def below(self) -> int:
        """How many rows are below the last one shown."""
        return max(0, len(self.body) - self._top - self.rows)

    @property
    def rows(self) -> int:
        """How many rows fit."""
        head = self.body.head(self.inner_width) is not None
        return max(1, self.size.height - (2 if self.framed else 1) - head)

    @property
    def inner_width(self) -> int:
        """Cells of a row, without frame and margin."""
        return max(1, self.size.width - (4 if self.framed else 2))

    def present(self, body: Body, title: Line, note: Line = BLANK, empty: str = "") -> None:
        """Show a new picture; the cursor stays on its row, and the rows on the screen where they are."""
        anchor = self.body.key(self._top) if self.tail and self._top < len(self.body) else None
        key = self._key
        self.body, self._title, self._note, self._empty = body, title, note, empty
        if self.follow:
            self._cursor = len(body) - 1
        elif not self.chosen and not isinstance(body, Document):
            self._cursor = 0
        elif key is not None and (at := body.find(key)) is not None:
            self._cursor = at
        if anchor is not None and not self.follow:
            self._top = body.find(anchor) or 0
        self._cursor = max(0, min(self._cursor, len(body) - 1))
        self._remember()
        self.redraw()

    def title(self, title: Line, note: Line = BLANK) -> None:
        """Change the title only."""
        self._title, self._note = title, note
        self.redraw()

    def select(self, index: int) -> None:
        """Put the cursor on a row and bring it into view."""
        self.chosen = True
        self._cursor = max(0, min(index, len(self.body) - 1))
        self.follow = self.tail and self._cursor == len(self.body) - 1
        self._remember()
        self._into_view()
        self.redraw()

    def move(self, delta: int) -> None:
        """Move the cursor by rows; in a document, to the next line that opens something, else scroll."""
        if not isinstance(self.body, Document):
            self.select(self._cursor + delta)
            return
        step = 1 if delta > 0 else -1
        last = self._top + self.rows - 1 + max(delta, 0)
        first = self._top + min(delta, 0)
        at = self._cursor + step
        while self._cursor_on and max(first, 0) <= at <= min(last, len(self.body) - 1):
            if self.body.key(at) is not None and abs(at - self._cursor) >= min(abs(delta), 1):
                self._cursor = at
                self._remember()
                self._into_view()
                self.redraw()
                return
            at += step
        self.scroll_rows(delta)

    def page(self, pages: int) -> None:
        """Move by pages."""
        if isinstance(self.body, Document):
            self.scroll_rows(pages * self.rows)
        else:
            self.follow = self.follow and pages > 0
            self.select(self._cursor + pages * self.rows)

    def edge(self, last: bool) -> None:
        """Go to the first or the last row."""
        if isinstance(self.body, Document):
            self.scroll_rows(len(self.body) if last else -len(self.body))
        else:
            self.select(len(self.body) - 1 if last else 0)

    def scroll_rows(self, delta: int) -> None:
        """Scroll without regard to the cursor; up leaves follow mode, the end takes it up again."""
        self.chosen = True
        top = max(0, min(self._top + delta, len(self.body) - self.rows))
        if self.tail:
            self.follow = (self.follow and delta > 0) or (delta > 0 and top + self.rows >= len(self.body))
        self._top = top
        self._cursor = max(top, min(self._cursor, top + self.rows - 1))
        if self.follow:
            self._cursor = len(self.body) - 1
        self._remember()
        self.redraw()

    def redraw(self) -> None:
        """Draw frame and visible rows."""
        width, height = self.size
        if width < 4 or height < 1:
            return
        limit = max(0, len(self.body) - self.rows)
        self._top = limit if self.follow else max(0, min(self._top, limit))
        lines: list[Drawn] = [(self._edge_line(), "")]
        head = self.body.head(self.inner_width)
        if head is not None and len(self.body):
            lines.append((self._side(fit_line(head, self.inner_width)), ""))
        room = height - len(lines) - self.framed
        lines += [self._row(index) for index in range(self._top, self._top + room)]
        if self.framed:
            edge = "frame-active" if self.active else "frame"
            lines.append(((("╰" + "─" * (width - 2) + "╯", edge),), ""))
        self.draw(lines[:height])

    def _row(self, index: int) -> Drawn:
        if index >= len(self.body):
            words = self._empty if index == 0 else ""
            return self._side(fit_line(((words, "dim"),), self.inner_width)), ""
        over = ""
        if index == self.selected:
            over = "selected" if self.active else "selected-idle"
        line = fit_line(self.body.line(index, self.inner_width), self.inner_width)
        return self._side(line), over

    def _side(self, line: Line) -> Line:
        if not self.framed:
            return ((" ", "text"), *line, (" ", "text"))
        edge = "frame-active" if self.active else "frame"
        return (("│ ", edge), *line, (" │", edge))

    def _edge_line(self) -> Line:
        """`╭ Title ───── note ╮`; without a frame, a rule."""
        width = self.size.width
        edge = "frame-active" if self.active else "frame"
        left, right, rule = ("╭ ", "╮", "─") if self.framed else ("─ ", "─", "─")
        strong = "title-active" if self.active else "title"
        title = tuple((text, strong if role == "title" else role) for text, role in self._title)
        note = ((" ", edge), *self._note, (" ", edge)) if self._note else ()
        gap = width - cells(left) - cells(right) - line_cells(title) - line_cells(note) - 1
        if gap < 1:
            note, gap = (), width - cells(left) - cells(right) - line_cells(title) - 1
        if gap < 0:
            title, gap = fit_line(title, max(0, width - 4)), 0
        return fit_line(((left, edge), *title, (" ", edge), (rule * gap, edge), *note, (right, edge)), width)

    def _into_view(self) -> None:
        self._top = max(min(self._top, self._cursor), self._cursor - self.rows + 1)

    def _remember(self) -> None:
        self._key = self.body.key(self._cursor) if 0 <= self._cursor < len(self.body) else None

    def on_mouse_scroll_up(self, event: events.MouseScrollUp) -> None:
        """The wheel scrolls."""
        event.stop()
        self.scroll_rows(-_WHEEL)

    def on_mouse_scroll_down(self, event: events.MouseScrollDown) -> None:
        """The wheel scrolls."""
        event.stop()
        self.scroll_rows(_WHEEL)

    def row_at(self, y: int) -> int | None:
        """Index of the row drawn at that line of the widget."""
        first = 1 + (self.body.head(self.inner_width) is not None)
        index = self._top + y - first
        return index if y >= first and self._top <= index < len(self.body) else None
