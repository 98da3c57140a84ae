"""A screen that shows one document: lines, some of which open something else."""

from __future__ import annotations

from collections.abc import Hashable, Iterable
from typing import ClassVar

from textual.widget import Widget

from mcpwatch.console.lines import BLANK, Line, cells, fit
from mcpwatch.console.pane import Document, Pane
from mcpwatch.console.screens.base import ConsoleScreen

Link = tuple[str, Hashable]
"""What a line opens: ("record", seq), ("incident", id), ("session", ref)."""
Part = tuple[Line, Hashable | None]


def heading(text: str, width: int) -> list[Part]:
    """A blank line and a title with a rule."""
    rule = "─" * max(0, width - cells(text) - 1)
    return [(BLANK, None), (((text, "title"), (" ", "text"), (rule, "frame")), None)]


def table(
    header: tuple[str, ...],
    rows: Iterable[tuple[str, ...]],
    width: int,
    roles: tuple[str, ...] = (),
) -> list[Part]:
    """Rows of text in aligned columns; the widest column gives way when they do not fit."""
    listed = [tuple(row) for row in rows]
    sizes = [max(cells(cell) for cell in column) for column in zip(header, *listed, strict=True)]
    while sum(sizes) + 2 * (len(sizes) - 1) > width and max(sizes) > 6:
        sizes[sizes.index(max(sizes))] -= 1
    parts: list[Part] = [
        (tuple((fit(cell, size) + "  ", "head") for cell, size in zip(header, sizes, strict=True)), None)
    ]
    roles = roles or ("text",) * len(header)
    for row in listed:
        line = tuple(
            (fit(cell, size) + "  ", role) for cell, size, role in zip(row, sizes, roles, strict=True)
        )
        parts.append((line, None))
    return parts


class DocumentScreen(ConsoleScreen):
    """Shows what `build` makes of the newest data."""

    HINTS: ClassVar[tuple[str, ...]] = (
        "back",
        "open",
        "next_alert",
        "revoke",
        "lock",
        "disable",
        "copy",
        "help",
    )

    def content(self) -> Iterable[Widget]:
        """One pane."""
        pane = Pane(id="document")
        pane.active = True
        yield pane

    @property
    def pane(self) -> Pane:
        """The document's pane."""
        return self.query_one("#document", Pane)

    def build(self, width: int) -> tuple[Line, list[Part]]:
        """Title and lines, for a width in cells."""
        raise NotImplementedError

    def paint_content(self) -> None:
        """Draw the document again where it stood."""
        pane = self.pane
        pane.framed = self.size.width >= 60
        first = len(pane.body) == 0
        title, parts = self.build(pane.inner_width)
        pane.present(Document(parts), title)
        if first:
            links = (index for index, (_, link) in enumerate(parts[: pane.rows]) if link is not None)
            pane.select(next(links, 0))

    def text_lines(self) -> list[str]:
        """The whole document."""
        body = self.pane.body
        width = self.pane.inner_width
        return ["".join(text for text, _ in body.line(index, width)) for index in range(len(body))]

    def do_open(self) -> None:
        """Open what the selected line stands for."""
        at = self.pane.selected
        link = self.pane.body.key(at) if at is not None else None
        if isinstance(link, tuple):
            self.console_app.open_link(link)

    def do_back(self) -> None:
        """Close."""
        self.console_app.close_screen(self)

    def do_up(self) -> None:
        """One line up."""
        self.pane.move(-1)

    def do_down(self) -> None:
        """One line down."""
        self.pane.move(1)

    def do_page_up(self) -> None:
        """One page up."""
        self.pane.page(-1)

    def do_page_down(self) -> None:
        """One page down."""
        self.pane.page(1)

    def do_first(self) -> None:
        """To the beginning."""
        self.pane.edge(last=False)

    def do_last(self) -> None:
        """To the end."""
        self.pane.edge(last=True)
