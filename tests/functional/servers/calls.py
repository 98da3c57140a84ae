"""The calls that every client of these tests makes, and how each of them ends for it.

Neither this module nor the programs beside it import anything of mcpwatch: they also run under other versions of
FastMCP, in environments of their own.
"""

from __future__ import annotations

import json
from typing import Any, Final

SECRET: Final = "sk-live-0123456789abcdef"
"""What a caller puts where no secret belongs; mcpwatch must not print it."""

CALLS: Final[list[tuple[str, dict[str, Any], bool]]] = [
    ("add", {"a": 2, "b": 3}, True),
    ("run_query", {"sql": "SELECT * FROM users WHERE note='a b'", "api_key": SECRET}, True),
    ("read_file", {"path": "/srv/report.txt"}, True),
    ("read_file", {"path": "/etc/passwd"}, False),
    ("no_such_tool", {}, False),
    ("add", {"a": "x"}, False),
]
"""Tool, arguments, and whether the call succeeds."""


def tell(tool: str, worked: bool) -> None:
    """What a client saw of a call, for the test that started it."""
    print(json.dumps({"tool": tool, "worked": worked}), flush=True)
