"""mcpwatch as if nobody had ever called `safe`: its command line, with the first wall taken down.

With MCPWATCH_TEST_WALLS=none the second one is down as well: what a program without any does.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from mcpwatch import text


def unsafe(value: object, limit: int = text.DEFAULT_LIMIT) -> text.SafeText:
    """The text as it came, under a false name."""
    raw = value.decode("utf-8", "backslashreplace") if isinstance(value, bytes) else str(value)
    return text.SafeText(raw[:limit])


# before anything takes its own name for it
text.safe = unsafe

from mcpwatch.cli import main  # noqa: E402

if os.environ.get("MCPWATCH_TEST_WALLS") == "none":
    from mcpwatch.console import wall, wire

    setattr(wall.PrintableOnly, "apply", lambda _self, segments, _background: segments)  # noqa: B010
    setattr(wire, "own_only", lambda data: data)  # noqa: B010

main()
