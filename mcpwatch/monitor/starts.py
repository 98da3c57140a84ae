"""Where reading begins in each log of a live session, what was missed before that, and what to say about it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Final

from mcpwatch.monitor.begin import Begun, begin, resume
from mcpwatch.monitor.monitor import Monitor
from mcpwatch.monitor.watch import path_key
from mcpwatch.monitor.watchfiles import Checkpoint
from mcpwatch.sources.block import Gap
from mcpwatch.sources.place import Place, find_place
from mcpwatch.text import SafeText, safe
from mcpwatch.times import iso

_SHOWN: Final = 3
"""Logs of which each thing is said; there may be thousands."""

LOST: Final = "the file was truncated or replaced while mcpwatch was not running"


class Starts:
    """Where reading began in each log (see `sources.live.LiveSet`).

    Attributes:
        gaps: What is known to be lost before reading began.
        count_since: Since when every log is complete, if anything was left out.
    """

    def __init__(
        self,
        monitor: Monitor,
        since_ns: int,
        checkpoints: Mapping[str, Checkpoint],
        *,
        cap: bool,
        last: bool = False,
    ) -> None:
        """Begin at a time, or where another process stopped.

        Args:
            since_ns: Begin with what happened then.
            checkpoints: How far each log was read before, by `watch.path_key`.
            cap: Begin at most `begin.NEAREST_START` before the end; nobody named a time, so it is said what was
                missed before it.
            last: Read on from the checkpoints, where there is one.
        """
        self._monitor, self._since, self._checkpoints = monitor, since_ns, checkpoints
        self._cap, self._last = cap, last
        self._said: dict[str, list[SafeText]] = {}
        self.gaps: list[Gap] = []
        self.count_since: int | None = None

    def __call__(self, path: Path, name: str) -> tuple[int, int | None] | Place:
        """Where to begin in a log."""
        checkpoint = self._checkpoints.get(path_key(str(path)))
        if self._last and checkpoint is not None:
            begun = resume(self._monitor, path, name, checkpoint)
        else:
            if self._last:
                self._say("first", f"{name}: no watch has read it before: began as without --since last")
            begun = self._begin(path, name, checkpoint)
        self.gaps += begun.gaps
        if begun.offset or begun.since_ns > self._since:
            self.count_since = max(begun.since_ns, self.count_since or 0)
        return begun.place or (begun.offset, begun.line)

    def announce(self) -> None:
        """Say on screen what was left out, and count what is lost."""
        found = []
        for notices in self._said.values():
            found += notices[:_SHOWN]
            if len(notices) > _SHOWN:
                found.append(SafeText(f"{len(notices) - _SHOWN:,} more logs, likewise"))
        settings = self._monitor.settings
        self._monitor.settings = replace(settings, notices=(*settings.notices, *found))

    def _begin(self, path: Path, name: str, checkpoint: Checkpoint | None) -> Begun:
        where = find_place(path, checkpoint.place) if checkpoint is not None else "lost"
        near = checkpoint.place if checkpoint is not None and where == "here" else None
        begun = begin(self._monitor, path, name, self._since, cap=self._cap, near=near)
        if begun.offset or begun.since_ns > self._since:
            self._say(
                "began",
                f"{path.name}: began at byte {begun.offset:,}; older lines are left out (--since 7d reads more)",
            )
        if checkpoint is None or not self._cap:
            return begun
        if where == "lost":
            gap = Gap(name, checkpoint.place.offset, LOST, checkpoint.place.unread)
            return begun._replace(gaps=(*begun.gaps, gap))
        skipped = begun.offset - checkpoint.place.offset if where == "here" else None
        if (skipped is None or skipped > 0) and checkpoint.read_ns < begun.since_ns:
            size = f" ({skipped:,} bytes)" if skipped is not None else ""
            span = f"{iso(checkpoint.read_ns)[:16]}Z to {iso(begun.since_ns)[:16]}Z"
            self._say("missed", f"{path.name}: not watched from {span}{size}; --since last reads it")
        return begun

    def _say(self, kind: str, text: str) -> None:
        self._said.setdefault(kind, []).append(safe(text, 200))
