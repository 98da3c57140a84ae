"""What all screens share: header above, footer below, and the newest snapshot in between."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, ClassVar, cast

from textual.app import ComposeResult
from textual.screen import Screen
from textual.widget import Widget

from mcpwatch.console.columns import state_text
from mcpwatch.console.header import header_lines, hint_lines, notice_lines
from mcpwatch.console.lines import Line
from mcpwatch.console.timeline import timeline_lines
from mcpwatch.console.view import LineView
from mcpwatch.response.plan import Target
from mcpwatch.snapshot import Snapshot

if TYPE_CHECKING:
    from mcpwatch.console.app import ConsoleApp

MAX_CHANGES = 2
"""Newest changes whose state is always on the screen."""


class ConsoleScreen(Screen[None], inherit_bindings=False):
    """A full screen under the live header."""

    HINTS: ClassVar[tuple[str, ...]] = ()
    """Actions that the footer names."""

    AUTO_FOCUS = ""

    @property
    def console_app(self) -> ConsoleApp:
        """The app, by its own type."""
        return cast("ConsoleApp", self.app)

    def compose(self) -> ComposeResult:
        """Header, content, footer."""
        yield LineView(id="header")
        yield LineView(id="timeline")
        yield LineView(id="notices")
        yield from self.content()
        yield LineView(id="changes")
        yield LineView(id="footer")

    def content(self) -> Iterable[Widget]:
        """The widgets between header and footer."""
        raise NotImplementedError

    def paint(self) -> None:
        """Show the newest picture."""
        self.paint_header()
        self.paint_content()

    def paint_content(self) -> None:
        """Draw what is between header and footer."""
        raise NotImplementedError

    def targets(self) -> tuple[Target, ...]:
        """What a change would be about."""
        return ()

    def incident_target(self) -> str | None:
        """The incident that an exception would be made of."""
        return None

    def session_target(self) -> Target | None:
        """The session, or else the principal, of what is selected."""
        order = ("session", "key", "client", "subject", "source_ip")
        found = [target for target in self.targets() if target.kind in order]
        return min(found, key=lambda target: order.index(target.kind)) if found else None

    def text_lines(self) -> list[str]:
        """What `copy` copies."""
        return []

    def on_mount(self) -> None:
        """Draw as soon as there is a size."""
        self.call_after_refresh(self.paint)

    def on_screen_resume(self) -> None:
        """Draw what happened while another screen was on top."""
        if self.is_mounted:
            self.console_app.thaw()
            self.call_after_refresh(self.paint)

    def on_resize(self) -> None:
        """Everything depends on the size."""
        self.call_after_refresh(self.paint)

    def paint_header(self) -> None:
        """Header, banners, changes and footer: never frozen."""
        if not self.is_mounted:
            return
        app = self.console_app
        live, width = app.live, self.size.width
        header = header_lines(live, width, frozen=app.frozen)[: 1 if self.size.height < 12 else 2]
        self._block("header", header)
        replay = live.replay
        self._block("timeline", timeline_lines(replay, width, local=app.local) if replay is not None else [])
        small = self.size.height < 16
        self._block("notices", [*app.size_notice(self.size), *notice_lines(live, width)][: 1 if small else 4])
        changes = [] if small else change_lines(live)
        self._block("changes", changes)
        self.query_one("#footer", LineView).show([self.footer_line()])

    def footer_line(self) -> Line:
        """A message, else the keys."""
        app = self.console_app
        if app.message is not None:
            return ((" ", "text"), app.message)
        return hint_lines(app.hints(self.hints()), self.size.width)

    def hints(self) -> tuple[str, ...]:
        """The actions that the footer names, as things are now."""
        return self.HINTS

    def _block(self, name: str, lines: list[Line]) -> None:
        view = self.query_one(f"#{name}", LineView)
        if view.display != bool(lines):
            view.display = bool(lines)
        if lines and view.styles.height is not None and view.styles.height.value != len(lines):
            view.styles.height = len(lines)
        view.show(lines)


def change_lines(live: Snapshot) -> list[Line]:
    """The newest changes and whether they bite."""
    return [((" changed ", "dim"), *state_text(row)) for row in live.changes[:MAX_CHANGES]]
