"""The palette: find an action by its name."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, cast

from textual.await_complete import AwaitComplete
from textual.command import CommandPalette, DiscoveryHit, Hit, Hits, Provider
from textual.content import Content

from mcpwatch.console.actions import Action, key_sign
from mcpwatch.text import SafeText, safe

if TYPE_CHECKING:
    from mcpwatch.console.app import ConsoleApp


class ActionProvider(Provider):
    """Feeds the palette from the table of actions."""

    def _commands(self) -> list[tuple[Action, SafeText, Callable[[], None]]]:
        app = cast("ConsoleApp", self.app)
        return [
            (action, safe(f"{action.label}  ({key_sign(app.keys[action.id])})"), app.later(action.id))
            for action in app.available()
        ]

    async def discover(self) -> Hits:
        """Every action."""
        for action, title, run in self._commands():
            yield DiscoveryHit(Content(title), run, title, action.help)

    async def search(self, query: str) -> Hits:
        """The actions whose name or help resembles what is typed."""
        matcher = self.matcher(query)
        for action, title, run in self._commands():
            score = max(matcher.match(title), 0.8 * matcher.match(action.help))
            if score > 0:
                yield Hit(score, Content(title), run, title, action.help)


class ActionPalette(CommandPalette):
    """Textual's palette, which can be dismissed twice: by a key, and by a click that comes right behind it."""

    def dismiss(self, result: object = None) -> AwaitComplete:
        """Close it, unless it is closed already."""
        if self.app.screen is not self:
            return AwaitComplete()
        return super().dismiss(cast(None, result))
