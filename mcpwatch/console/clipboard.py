"""Copying: to the terminal's clipboard while it is short, else to a file; it says which."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Sequence
from typing import Final

from mcpwatch.console.wall import printable
from mcpwatch.text import SafeText, safe

OSC52_LIMIT: Final = 8_192
"""Bytes that are sent to the clipboard at most; terminals and tmux drop longer ones."""


def copy_lines(lines: Sequence[str], send: Callable[[str], None]) -> SafeText:
    """Copy lines of text.

    Args:
        send: Writes a text to the terminal's clipboard (OSC 52).

    Returns:
        What was done, to be shown: the clipboard can't be read back, so it may have refused.
    """
    text = "\n".join(printable(safe(line.rstrip(), 100_000)) for line in lines)
    size = len(text.encode())
    if size <= OSC52_LIMIT:
        send(text)
        return safe(f"sent {size:,} bytes to the terminal's clipboard (OSC 52; some terminals refuse)")
    try:
        # mkstemp makes the file for this user alone
        handle, path = tempfile.mkstemp(prefix="mcpwatch-copy-", suffix=".txt")
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(text + "\n")
    except OSError as error:
        return safe(
            f"not copied: {size:,} bytes are too many for the clipboard, and a file: {error.strerror}"
        )
    return safe(f"too long for the clipboard: wrote {size:,} bytes to {path}")
