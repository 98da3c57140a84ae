"""Counts distinct ids: exactly as long as there are few, then by estimate in bounded memory."""

from __future__ import annotations

import hashlib
import heapq
from typing import Final

EXACT: Final = 100_000
_KEPT: Final = 4_096


class DistinctCount:
    """How many different ids there were.

    Past `EXACT` ids only the smallest hashes are kept, and their spacing tells the number (k minimum values,
    Bar-Yossef et al. 2002): a standard error of 1.6 % with 4,096 of them.
    """

    __slots__ = ("_exact", "_largest", "_smallest")

    def __init__(self) -> None:
        self._exact: set[str] | None = set()
        self._smallest: set[int] = set()
        self._largest: list[int] = []

    def add(self, identifier: str) -> None:
        """Take in an id."""
        if self._exact is not None:
            self._exact.add(identifier)
            if len(self._exact) > EXACT:
                known, self._exact = self._exact, None
                for each in known:
                    self._estimate(each)
            return
        self._estimate(identifier)

    @property
    def estimated(self) -> bool:
        """Whether the number is an estimate."""
        return self._exact is None

    def __len__(self) -> int:
        """The number of different ids."""
        if self._exact is not None:
            return len(self._exact)
        return round((_KEPT - 1) * 2.0**64 / -self._largest[0])

    def _estimate(self, identifier: str) -> None:
        digest = hashlib.blake2b(identifier.encode("utf-8", "surrogatepass"), digest_size=8).digest()
        value = int.from_bytes(digest)
        if value in self._smallest:
            return
        if len(self._largest) < _KEPT:
            heapq.heappush(self._largest, -value)
        elif value < -self._largest[0]:
            self._smallest.discard(-heapq.heapreplace(self._largest, -value))
        else:
            return
        self._smallest.add(value)
