"""Follows the policy file: the last good policy, and why the file on disk can't be used, if it can't."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from mcpwatch.documents.watch import Signature, Watch, signature
from mcpwatch.policy import lease
from mcpwatch.policy.load import parse, read
from mcpwatch.policy.model import BUILT_IN, Policy, PolicyError

SYSTEM_PLACE: Final = Path("/etc/mcpwatch/policy.yaml")
ENVIRONMENT: Final = "MCPWATCH_POLICY"

SETTLED_S: Final = 1.0
"""Seconds for which a file, or its absence, must stay as it is where the kernel can't tell whether somebody is
writing it: editors write in place, or move the old file away and then write a new one."""

_PAUSE_S: Final = 0.02


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


@dataclass(frozen=True, slots=True)
class _Look:
    """What was seen of the file at one moment.

    Attributes:
        state: What tells this state from another; None where there is no file.
        data: Its bytes, or
        error: why there are none.
        complete: Whether nobody was writing it while it was read.
    """

    state: tuple[int, ...] | None
    data: bytes | None
    error: PolicyError | None
    complete: bool


def _look(path: Path) -> _Look:
    data, error = None, None
    with lease.reading(path) as (access, held):
        before = _state(path)
        try:
            data = read(path)
        except PolicyError as problem:
            error = problem
        after = _state(path)
    quiet = access is lease.Access.QUIET and before == after and after is not None and after[:2] == held
    return _Look(after if before == after else None, data, error, quiet)


def _state(path: Path) -> tuple[int, ...] | None:
    try:
        found = path.stat()
    except (OSError, ValueError):
        return None
    return (found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns)


class PolicyFile:
    """The policy in use. A file that breaks or vanishes never replaces the last good one, nor does half a file.

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
        self._seen: Signature | None = None
        self._data: bytes | None = None
        self._unsettled: tuple[tuple[int, ...] | None, float] | None = None
        if path is not None:
            self._seen = signature(path)
            self._data = read_whole(path)
            self.policy = parse(self._data, path)

    @property
    def sha256(self) -> str | None:
        """Of the file as it was when the policy was read, in hex; None for the built-in one."""
        return self.policy.sha256

    def check(self) -> bool:
        """Look at the file, and read it if it may have changed. One that somebody is writing is left for later.

        Returns:
            Whether `policy` or `error` is another than before.
        """
        if self.path is None:
            return False
        with self._checking:
            return self._check(self.path)

    def _check(self, path: Path) -> bool:
        seen = signature(path)
        if seen is not None and seen == self._seen:
            return False
        look = _look(path)
        if look.data is not None and look.data == self._data:
            # the same again: it may have been away, or half of it
            changed, self.error = self.error is not None, None
        elif not self._settled(look):
            return False
        else:
            changed = self._take(look, path)
        self._unsettled, self._seen = None, seen
        return changed

    def _settled(self, look: _Look) -> bool:
        """Whether a file, or its absence, is what somebody wanted, and not a moment of his writing it."""
        if look.complete:
            return True
        now = time.monotonic()
        if self._unsettled is None or self._unsettled[0] != look.state:
            self._unsettled = (look.state, now)
        return now - self._unsettled[1] >= SETTLED_S

    def _take(self, look: _Look, path: Path) -> bool:
        before = (self.policy, self.error)
        self._data = None  # so that a bad file that turns good again is read again
        try:
            if look.data is None:
                raise look.error or PolicyError(f"{path}: can't be read")
            self.policy = parse(look.data, path)
            self._data = look.data
            self.error = None
        except PolicyError as error:
            self.error = str(error)
        return (self.policy, self.error) != before

    def watch(self, wake: Callable[[], None]) -> Watch:
        """Call `wake`, in another thread, soon after the file changes. Close what this returns."""
        folder, name = (None, "") if self.path is None else (self.path.parent, self.path.name)
        return Watch(folder, lambda changed: changed == name, wake, "policy-watch")


def read_whole(path: Path) -> bytes:
    """The bytes of a file; if somebody is writing it just now, what is there when he is done or takes long.

    Raises:
        PolicyError: It can't be read.
    """
    deadline = time.monotonic() + SETTLED_S
    while True:
        with lease.reading(path) as (access, _):
            data = read(path)
        if access is not lease.Access.BUSY or time.monotonic() >= deadline:
            return data
        time.sleep(_PAUSE_S)
