"""Reports of faults in mcpwatch itself: without the values of variables, redacted, and for their owner alone.

An exception's message can hold the very text that caused it, so a report is as untrusted as a log.
"""

from __future__ import annotations

import contextlib
import os
import platform
import traceback
from pathlib import Path
from typing import Final

from mcpwatch import __version__
from mcpwatch.text import SafeText, redact_text, safe
from mcpwatch.times import iso

FOLDER: Final = "crashes"
"""The folder in the state folder that reports are kept in."""
KEPT: Final = 10
_MAX_TEXT: Final = 200_000
_MAX_MESSAGE: Final = 4_096


def headline(error: BaseException) -> SafeText:
    """A fault in one line: its kind, its message and where it came from."""
    where = traceback.extract_tb(error.__traceback__)[-1:]
    place = f" ({Path(where[0].filename).name}:{where[0].lineno})" if where else ""
    return safe(f"{type(error).__name__}: {safe(redact_text(_message(error)), 200)}{place}", 300)


def _message(error: BaseException) -> str:
    try:
        return str(error)[:_MAX_MESSAGE]
    except Exception:  # a message can be as broken as what it is about
        return "(no message)"


def report_lines(error: BaseException, now_ns: int) -> list[SafeText]:
    """The report: versions, and the traceback with each message redacted. No values, arguments or environment."""
    lines = [
        safe(f"mcpwatch {__version__}, Python {platform.python_version()}, {platform.platform()}"),
        safe(f"at {iso(now_ns)}"),
    ]
    whole = "".join(traceback.TracebackException.from_exception(error, capture_locals=False).format())
    # at once and before it is cut into lines: a secret may go over several
    return [*lines, *(safe(line, _MAX_MESSAGE) for line in redact_text(whole[-_MAX_TEXT:]).split("\n"))]


def write_report(error: BaseException, state_dir: Path, now_ns: int) -> Path:
    """Write a report into the state folder, readable by its owner alone; the newest ones are kept.

    Raises:
        OSError: It can't be written.
    """
    folder = state_dir / FOLDER
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    path = folder / f"{iso(now_ns).replace(':', '')}-{os.getpid()}.txt"
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8", errors="backslashreplace") as file:
        file.write("\n".join(report_lines(error, now_ns)) + "\n")
    with contextlib.suppress(OSError):
        for old in sorted(folder.glob("*.txt"))[:-KEPT]:
            old.unlink()
    return path
