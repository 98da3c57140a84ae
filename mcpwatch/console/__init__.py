"""The console: a Textual app that draws snapshots and turns keys into named actions."""

from mcpwatch.console.app import ConsoleApp, ConsoleError, run_console

__all__ = ["ConsoleApp", "ConsoleError", "run_console"]
