"""Follows the policy file: the last good policy, and why the file on disk can't be used, if it can't."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

from mcpwatch.policy.load import parse, read
from mcpwatch.policy.model import BUILT_IN, Policy, PolicyError
from mcpwatch.times import SECOND

SYSTEM_PLACE: Final = Path("/etc/mcpwatch/policy.yaml")
ENVIRONMENT: Final = "MCPWATCH_POLICY"

_SETTLED: Final = 2 * SECOND  # two writes within one tick of the file system's clock look like one


def find(named: str | None, env: Mapping[str, str], cwd: Path) -> Path | None:
    """The policy file to use: the named one, `$MCPWATCH_POLICY`, `./policy.yaml`, `/etc/mcpwatch/policy.yaml`.

    A named one is returned whether or not it exists, so that its absence is an error; None means that there is
    no file at any default place.
    """
    chosen = named or env.get(ENVIRONMENT)
    if chosen:
        return cwd / chosen
    for place in (cwd / "policy.yaml", SYSTEM_PLACE):
        try:
            place.lstat()
        except FileNotFoundError:
            continue
        except OSError:
            pass  # it may be there: reading it will say what is wrong
        return place
    return None


class Watch:
    """A thread that calls back when the policy file's folder changes. Only a hint: `PolicyFile.check` decides."""

    def __init__(self, path: Path | None, wake: Callable[[], None]) -> None:
        self._stop = threading.Event()
        self._path = path
        self._wake = wake
        self._thread = threading.Thread(target=self._run, name="policy-watch", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        if self._path is None:
            return
        from watchfiles import watch  # slow to load, and needed only by what runs for a while

        name = self._path.name
        try:
            for _ in watch(
                self._path.parent,
                # a mounted ConfigMap changes by swapping a link beside the file
                watch_filter=lambda _, changed: Path(changed).name in (name, "..data"),
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


class PolicyFile:
    """The policy in use. A file that breaks or vanishes never replaces the last good one.

    Attributes:
        path: The file, or None for the built-in policy.
        policy: The last good policy.
        error: Why the file on disk can't be used now, or None.
    """

    def __init__(self, path: Path | None) -> None:
        """Read the file.

        Raises:
            PolicyError: It is missing, unreadable or invalid: there is no good one to go on with.
        """
        self.path = path
        self.policy: Policy = BUILT_IN
        self.error: str | None = None
        self._checking = threading.Lock()
        self._seen: tuple[int, ...] | None = None
        self._data: bytes | None = None
        if path is not None:
            self._seen = self._signature()
            self._data = read(path)
            self.policy = parse(self._data, path)

    def _signature(self) -> tuple[int, ...] | None:
        """What tells one state of the file from another; None if that can't be told, so that it is read again."""
        if self.path is None:
            return None
        try:
            found = self.path.stat()
        except (OSError, ValueError):
            return None
        if time.time_ns() - max(found.st_mtime_ns, found.st_ctime_ns) < _SETTLED:
            return None
        return (found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns)

    def check(self) -> bool:
        """Look at the file, and read it if it may have changed.

        Returns:
            Whether `policy` or `error` is another than before.
        """
        if self.path is None:
            return False
        with self._checking:
            return self._check(self.path)

    def _check(self, path: Path) -> bool:
        signature = self._signature()
        if signature is not None and signature == self._seen:
            return False
        before = (self.policy, self.error)
        try:
            data = read(path)
            if data != self._data:
                self._data = None  # so that a bad file that turns good again is read again
                self.policy = parse(data, path)
                self._data = data
            self.error = None
        except PolicyError as error:
            self.error = str(error)
        self._seen = signature
        return (self.policy, self.error) != before

    def watch(self, wake: Callable[[], None]) -> Watch:
        """Call `wake`, in another thread, soon after the file changes. Close what this returns."""
        return Watch(self.path, wake)
