"""Draws the console for the commands that have one. Imported only then: Textual is slow to load."""

from __future__ import annotations

import os
from pathlib import Path

from mcpwatch.cli.commands import config
from mcpwatch.cli.exits import UsageError
from mcpwatch.cli.options import Show
from mcpwatch.console.app import ConsoleError, run_console
from mcpwatch.data import shipped
from mcpwatch.snapshot import Feed, Player


def draw(feed: Feed, show: Show, *, player: Player | None = None) -> int:
    """Draw the console until the operator leaves; the exit code.

    Raises:
        UsageError: There is no terminal that it could draw on, no such theme, or the keys in config.toml clash.
    """
    base = os.environ.get("XDG_CONFIG_HOME") or str(Path.home() / ".config")
    keys = config().get("keys", {})
    if not isinstance(keys, dict):
        raise UsageError('config.toml: [keys] is a table of action = "key"')
    try:
        return run_console(
            feed,
            player=player,
            theme=show.theme,
            themes=[shipped("themes"), Path(base) / "mcpwatch" / "themes"],
            low_bandwidth=show.low_bandwidth,
            utc=show.utc,
            filter_text=show.filter_text,
            keymap={str(action): str(key) for action, key in keys.items()},
            history_dir=Path(base) / "mcpwatch",
        )
    except ConsoleError as error:
        raise UsageError(str(error)) from None
