"""Symbolic links below the allowed folders of this machine that lead out of them: what no log can show."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from mcpwatch.policy.advice.subject import Advice, Severity, Subject, in_order
from mcpwatch.policy.model import ToolPolicy
from mcpwatch.policy.paths import looks_windows
from mcpwatch.text import SafeText, safe

LINK_CHECKS: Final[dict[str, str]] = {
    "link-outside": "with --scan-symlinks: a symbolic link below an allowed folder that leads out of all of them",
    "not-scanned": "with --scan-symlinks: an allowed folder that was not looked through, or not all of it",
}
"""What the scan finds, by code."""

MAX_ENTRIES: Final = 1_000_000
"""Files, folders and links that one scan looks at."""
MAX_LINKS: Final = 10_000
"""Links out of one folder after which it is left."""
MAX_SHOWN: Final = 100
"""Links of one allowed path that become advice of their own; the rest is counted."""
_STEP: Final = 1_000

Tell = Callable[[int, SafeText], None]
"""Told now and then how many entries were looked at so far, and in which folder the scan is."""


@dataclass(slots=True)
class _Some:
    """Places of one kind: how many, and the first."""

    count: int = 0
    first: str = ""

    def add(self, place: str) -> None:
        self.first = self.first or place
        self.count += 1


@dataclass(slots=True)
class _Walk:
    """What was found below one folder.

    Attributes:
        links: Links that lead out of it, each with where it leads.
        unreadable: Folders that could not be read.
        mounts: Folders where another file system begins, which is not entered.
        cut: Whether a cap ended the walk.
    """

    links: list[tuple[str, str]] = field(default_factory=list)
    unreadable: _Some = field(default_factory=_Some)
    mounts: _Some = field(default_factory=_Some)
    cut: bool = False


class _Walker:
    """Walks folders, each once, until the cap on all of them together is reached."""

    def __init__(self, tell: Tell, most: int) -> None:
        self._tell = tell
        self._most = most
        self._entries = 0
        self._done: dict[str, _Walk] = {}

    def walk(self, root: str) -> _Walk:
        """Look through a folder, given by its real path."""
        if root not in self._done:
            self._done[root] = walk = _Walk()
            device = None
            waiting = [root]
            while waiting and not walk.cut:
                folder = waiting.pop()
                try:
                    if device is None:
                        device = Path(root).stat().st_dev
                    with os.scandir(folder) as listing:
                        waiting.extend(self._folders(root, device, listing, walk))
                except OSError:
                    walk.unreadable.add(folder)
            walk.links.sort()
        return self._done[root]

    def _folders(
        self, root: str, device: int, listing: Iterator[os.DirEntry[str]], walk: _Walk
    ) -> Iterator[str]:
        """The folders in a folder that are to be looked through; its links are noted."""
        for entry in listing:
            if self._entries >= self._most or len(walk.links) >= MAX_LINKS:
                walk.cut = True
                return
            if self._entries % _STEP == 0:
                self._tell(self._entries, safe(Path(entry.path).parent, 200))
            self._entries += 1
            try:
                if entry.is_symlink():
                    target = _target(entry.path)
                    if target is not None and not _is_within(target, root):
                        walk.links.append((entry.path, target))
                elif entry.is_dir(follow_symlinks=False):
                    if entry.stat(follow_symlinks=False).st_dev == device:
                        yield entry.path
                    else:
                        walk.mounts.add(entry.path)
            except OSError:  # gone meanwhile, or not ours to look at
                walk.unreadable.add(entry.path)


def _target(link: str) -> str | None:
    """Where a link leads in the end, also when nothing is there yet; None where it leads round in a circle."""
    try:
        return os.path.realpath(link, strict=True)
    except OSError as error:
        return None if error.errno == errno.ELOOP else os.path.realpath(link)


def _is_within(path: str, root: str) -> bool:
    return path == root or path.startswith(root.rstrip("/") + "/")


def scan(subject: Subject, tell: Tell, *, most: int = MAX_ENTRIES) -> list[Advice]:
    """Look through the allowed folders of every enabled tool for links that lead out of all folders of that tool.

    A folder that is a link itself stands for where it leads. Hard links and bind mounts can't be told from files
    and folders. Never raises for what it finds on the disk: what could not be looked at is advice, too.

    Args:
        most: Entries to look at before the scan ends.
    """
    walker = _Walker(tell, most)
    found: list[Advice] = []
    for name, row, _ in subject.tools():
        places = [_place(row, text) for text in row.allowed_paths or ()]
        roots = [place for place, trouble in places if not trouble]
        seen: set[str] = set()
        for number, (place, trouble) in enumerate(places):
            line = subject.line("tools", name, "allowed_paths", number)
            text = safe((row.allowed_paths or ())[number], 150)
            if not trouble and os.path.isdir(place):  # noqa: PTH112 - Path raises for names that are too long
                walk = walker.walk(place)
                said = [*_links(walk, name, roots, seen), *_limits(walk, text)]
            elif not trouble and os.path.lexists(place):
                continue  # a file: nothing is below it
            else:
                said = [("low", "not-scanned", f"{text} {trouble or 'is not on this machine'}: not scanned")]
            found.extend(Advice(line, severity, code, safe(what, 600)) for severity, code, what in said)
    return in_order(found)


_Said = tuple[Severity, str, str]


def _place(row: ToolPolicy, text: str) -> tuple[str, str]:
    """The real path of an allowed path, or why this machine has none."""
    if looks_windows((text,)):
        return "", "is no path of this machine"
    whole = Path(row.base_dir or "", text)
    if not whole.is_absolute():
        return "", "is relative, and nobody knows to what"
    try:
        return os.path.realpath(whole), ""
    except (ValueError, OSError):
        return "", "is no path of this machine"


def _links(walk: _Walk, tool: str, roots: list[str], seen: set[str]) -> Iterator[_Said]:
    left_out = 0
    for link, target in walk.links:
        # one folder of a tool may lie in another one
        if link in seen or any(_is_within(target, root) for root in roots):
            continue
        seen.add(link)
        if len(seen) > MAX_SHOWN:
            left_out += 1
            continue
        what = (
            f"{safe(link, 150)} leads to {safe(target, 150)}, out of all folders of {safe(tool, 80)}: "
            "remove it, or allow where it leads"
        )
        yield "medium", "link-outside", what
    if left_out:
        yield (
            "medium",
            "link-outside",
            f"{left_out} further links lead out of all folders of {safe(tool, 80)}",
        )


def _limits(walk: _Walk, root: SafeText) -> Iterator[_Said]:
    rows = (
        (walk.unreadable, "can't be read: run this as a user who may"),
        (walk.mounts, "are on other file systems, which are not entered: scan them by a path of their own"),
    )
    for some, why in rows:
        if some.count:
            yield "low", "not-scanned", f"{some.count} below {root} {why} (first: {safe(some.first, 150)})"
    if walk.cut:
        what = f"{root} was not looked through to its end: too many entries or links; name smaller folders"
        yield "low", "not-scanned", what
