"""Draws the console for the commands that have one. Imported only then: Textual is slow to load."""

from __future__ import annotations

from mcpwatch.cli import config
from mcpwatch.cli.exits import UsageError, messages_held_back
from mcpwatch.cli.options import SETTINGS, Show
from mcpwatch.console.app import ConsoleError, run_console
from mcpwatch.data import shipped
from mcpwatch.snapshot import Feed, Player


def draw(feed: Feed, show: Show, *, player: Player | None = None) -> int:
    """Draw the console until the operator leaves; the exit code.

    Raises:
        UsageError: There is no terminal that it could draw on, no such theme, or the keys in config.toml clash.
    """
    keys = config.load(frozenset(SETTINGS)).get(config.KEYS, {})
    try:
        with messages_held_back():
            return run_console(
                feed,
                player=player,
                theme=show.theme,
                themes=[shipped("themes"), config.folder() / "themes"],
                low_bandwidth=show.low_bandwidth,
                utc=show.utc,
                filter_text=show.filter_text,
                keymap=keys,
                history_dir=config.folder(),
            )
    except ConsoleError as error:
        raise UsageError(str(error)) from None
