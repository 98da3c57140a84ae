"""Reads a small file whole, and nothing that is no regular file."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from mcpwatch.documents.tree import MAX_BYTES, FileKind
from mcpwatch.text import safe


def read(path: Path, kind: FileKind) -> bytes:
    """The bytes of a file, at most one more than `MAX_BYTES`.

    Raises:
        FileNotFoundError: There is no such file.
        DocumentError: The kind's own: it can't be read, or is no regular file.
    """
    try:
        # a FIFO must not hang the monitor
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        with open(descriptor, "rb") as file:  # noqa: PTH123 - a descriptor, not a path
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                raise kind.error(safe(f"{path}: not a regular file: name {kind.what} file"))
            return file.read(MAX_BYTES + 1)
    except FileNotFoundError:
        raise
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise kind.error(safe(f"{path}: can't be read: {reason}")) from None
