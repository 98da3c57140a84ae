"""Tells that files may have changed: by what the file system says of one, and by waking when a folder changes."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

from mcpwatch.times import SECOND

Signature = tuple[int, ...]

_SETTLED: Final = 2 * SECOND  # two writes within one tick of the file system's clock look like one


def signature(path: Path) -> Signature | None:
    """What tells one state of a file from another; None if that can't be told, so that it must be read again."""
    try:
        found = path.stat()
    except (OSError, ValueError):
        return None
    if time.time_ns() - max(found.st_mtime_ns, found.st_ctime_ns) < _SETTLED:
        return None
    return (found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns)


class Watch:
    """A thread that calls back when something changes in a folder. Only a hint: whoever wakes looks for himself."""

    def __init__(
        self, folder: Path | None, concerns: Callable[[str], bool], wake: Callable[[], None], name: str
    ) -> None:
        """Start the thread.

        Args:
            folder: None is none, and nothing ever wakes.
            concerns: Whether a change of the file of that name matters.
            name: Of the thread.
        """
        self._stop = threading.Event()
        self._folder = folder
        self._concerns = concerns
        self._wake = wake
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        if self._folder is None:
            return
        from watchfiles import watch  # slow to load, and needed only by what runs for a while

        try:
            for _ in watch(
                self._folder,
                # a mounted ConfigMap changes by swapping a link beside the files
                watch_filter=lambda _, changed: (
                    Path(changed).name == "..data" or self._concerns(Path(changed).name)
                ),
                debounce=50,
                step=10,
                rust_timeout=200,
                stop_event=self._stop,
                recursive=False,
                raise_interrupt=False,
            ):
                self._wake()
        except (OSError, RuntimeError):
            return  # no watches left, or no folder: the checks go on without the hint

    def close(self) -> None:
        """Stop the thread and wait for it."""
        self._stop.set()
        if self._thread is not threading.current_thread():
            self._thread.join(timeout=5)

    def __enter__(self) -> Watch:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
