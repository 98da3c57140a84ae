"""Keeps the watch file of this process: written every few seconds, whole or not at all, and never in the way."""

from __future__ import annotations

import contextlib
import fcntl
import os
import secrets
import stat
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

from mcpwatch.monitor.known import Known
from mcpwatch.monitor.watch import Identity, Watch, encode, same, watch_of
from mcpwatch.monitor.watchfiles import FOLDER, lock_of, prune
from mcpwatch.snapshot import Snapshot
from mcpwatch.sources.place import Place
from mcpwatch.text import SafeText, safe

EVERY_S: Final = 2.0
"""How often a change is written down."""
HEARTBEAT_S: Final = 60.0
"""How often it is written down that nothing changed: a process that does not even do that is stopped or stuck."""
CLOSE_WITHIN_S: Final = 3.0
"""How long the end waits for a disk that does not answer."""
_MODE: Final = 0o640
_FOLDER_MODE: Final = 0o750
_SHARE: Final = 20
"""One part in so many of the time, at most, goes into working out what to write."""


class Watching:
    """Says of one live process what there is to say.

    Writing may wait for the disk, so a thread of its own does it; the monitor only hands over the newest.

    Attributes:
        problem: Why the last time could not be written, or None.
    """

    def __init__(self, known: Known, state_dir: Path) -> None:
        """Begin to watch, and clear away what earlier processes left that nobody needs."""
        self._known = known
        self._folder = state_dir / FOLDER
        self._identity = Identity.of_this_process(known.clock())
        # the date first, so that names are in order of time
        name = f"{self._identity.started_ns:020d}-{self._identity.pid}-{secrets.token_hex(4)}.json"
        self._path = self._folder / name
        self._lock: int | None = None
        self._last: Watch | None = None
        self._due = self._heartbeat = 0.0
        self._waiting: Watch | None = None
        self._turn = threading.Condition()
        self._thread = threading.Thread(target=self._write_on, name="watch-file", daemon=True)
        self.problem: SafeText | None = None

    @property
    def path(self) -> Path:
        """The file."""
        return self._path

    def look(self, snapshot: Snapshot, places: Callable[[], Mapping[str, Place]]) -> None:
        """Write down how it goes, if it is time to.

        Args:
            snapshot: Published since the sources were last read.
            places: Says how far each source was read, by name.
        """
        self._known.watch_problem = self.problem
        began = time.monotonic()
        if began < self._due:
            return
        watch = watch_of(self._known, snapshot, places(), self._identity)
        ended = time.monotonic()
        self._due = ended + max(EVERY_S, _SHARE * (ended - began))
        again = self.problem is not None or ended >= self._heartbeat
        if self._last is None or again or not same(watch, self._last):
            self._last = watch
            self._heartbeat = ended + HEARTBEAT_S
            self._hand_over(watch)

    def close(self, snapshot: Snapshot, places: Mapping[str, Place], how: str) -> None:
        """Write down how it ended, and let go of the lock."""
        self._hand_over(watch_of(self._known, snapshot, places, self._identity, how=how))
        self._thread.join(CLOSE_WITHIN_S)

    def _hand_over(self, watch: Watch) -> None:
        with self._turn:
            self._waiting = watch
            if self._thread.ident is None:
                self._thread.start()
            self._turn.notify()

    def _write_on(self) -> None:
        prune(self._folder.parent, self._identity.started_ns)
        while True:
            with self._turn:
                while self._waiting is None:
                    self._turn.wait()
                watch, self._waiting = self._waiting, None
            try:
                self._write(encode(watch))
                self.problem = None
            except (OSError, ValueError, OverflowError) as error:
                reason = error.strerror if isinstance(error, OSError) else error
                self.problem = safe(
                    f"{self._folder}: {reason}: others don't see this watch, and --since last can't go on "
                    "from it",
                    300,
                )
            if watch.ended_ns is not None:
                self._unlock()
                return

    def _write(self, data: bytes) -> None:
        """Replace the file at once: whoever reads it, or kills this process, finds the old or the new one."""
        self._make_folder()
        self._hold_lock()
        temporary = self._path.with_suffix(".tmp")
        try:
            fd = os.open(
                temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, _MODE
            )
            with open(fd, "wb") as file:  # noqa: PTH123 - a descriptor, not a path
                os.fchmod(fd, _MODE)  # whatever the umask is: those who share the folder may look
                file.write(data)
            temporary.replace(self._path)
        except OSError:
            with contextlib.suppress(OSError):
                temporary.unlink()
            raise

    def _make_folder(self) -> None:
        """Make the folder: whoever may write into the state folder, may into this one."""
        if self._folder.is_dir():
            return
        state = self._folder.parent
        state.mkdir(mode=_FOLDER_MODE, parents=True, exist_ok=True)
        self._folder.mkdir(mode=_FOLDER_MODE, exist_ok=True)
        self._folder.chmod(stat.S_IMODE(state.stat().st_mode))

    def _hold_lock(self) -> None:
        """Lock the file beside ours, which must be there before ours is; a folder that was emptied gets a new one."""
        path = lock_of(self._path)
        if self._lock is not None:
            with contextlib.suppress(OSError):
                if os.path.samestat(os.fstat(self._lock), path.lstat()):
                    return
            self._unlock()
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, _MODE)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(fd)
            raise
        self._lock = fd

    def _unlock(self) -> None:
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None
