"""mcpwatch with somebody who writes every key that reaches the console into a file: `spy_program.py FILE ARGS...`."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from textual import events

from mcpwatch.cli import main
from mcpwatch.console.app import ConsoleApp

KEYS = Path(sys.argv.pop(1))
heard = ConsoleApp.on_event


async def on_event(self: ConsoleApp, event: events.Event) -> None:
    """Note a key the first time that it comes by."""
    if isinstance(event, events.Key) and not event.is_forwarded:
        with KEYS.open("a") as file:
            file.write(f"{event.key}\n")
    await heard(self, event)


ConsoleApp.on_event = on_event  # type: ignore[method-assign]
main()
