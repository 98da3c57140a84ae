"""Every gap of a run: how many, how much, and the newest ones with their reasons."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import Final

from mcpwatch.snapshot import GapRow
from mcpwatch.sources.block import Gap
from mcpwatch.text import safe

KEPT: Final = 5
"""Gaps of one source that are kept with their reason."""


@dataclass(slots=True)
class SourceGaps:
    """The gaps of one source.

    Attributes:
        count: All of them.
        lost: Bytes in those whose size is known.
        newest: The last few, oldest first.
    """

    count: int = 0
    lost: int = 0
    newest: deque[GapRow] = field(default_factory=lambda: deque(maxlen=KEPT))


class Gaps:
    """Counts gaps by source."""

    def __init__(self) -> None:
        self._by_source: dict[str, SourceGaps] = {}

    def take(self, gap: Gap, seen_ns: int) -> None:
        """Count a gap that was found at `seen_ns`."""
        known = self._by_source.setdefault(gap.source, SourceGaps())
        known.count += 1
        known.lost += gap.size or 0
        known.newest.append(GapRow(seen_ns, gap.offset, gap.size, safe(gap.reason, 200)))

    def of(self, source: str) -> SourceGaps:
        """The gaps of a source."""
        return self._by_source.get(source) or SourceGaps()

    @property
    def count(self) -> int:
        """The gaps of all sources."""
        return sum(known.count for known in self._by_source.values())
