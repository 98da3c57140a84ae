"""Follows the policy file: the last good policy, and why the file on disk can't be used, if it can't."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

from mcpwatch.documents.watch import Signature, Watch, signature
from mcpwatch.policy.load import parse, read
from mcpwatch.policy.model import BUILT_IN, Policy, PolicyError

SYSTEM_PLACE: Final = Path("/etc/mcpwatch/policy.yaml")
ENVIRONMENT: Final = "MCPWATCH_POLICY"


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
        self._seen: Signature | None = None
        self._data: bytes | None = None
        if path is not None:
            self._seen = signature(path)
            self._data = read(path)
            self.policy = parse(self._data, path)

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
        seen = signature(path)
        if seen is not None and seen == self._seen:
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
        self._seen = seen
        return (self.policy, self.error) != before

    def watch(self, wake: Callable[[], None]) -> Watch:
        """Call `wake`, in another thread, soon after the file changes. Close what this returns."""
        folder, name = (None, "") if self.path is None else (self.path.parent, self.path.name)
        return Watch(folder, lambda changed: changed == name, wake, "policy-watch")
