"""The command line: one module per command, found by the table in `mcpwatch.cli.commands`."""

from __future__ import annotations

from mcpwatch.cli.commands import main

__all__ = ["main"]
