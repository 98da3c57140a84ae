"""Finds files again that were given up, or that another process read, at their log's path or under a rotated name."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Final, Literal

from mcpwatch.sources.block import SourceError
from mcpwatch.sources.generations import Generations, Part, held_by, open_this
from mcpwatch.sources.opened import OpenFile, open_regular
from mcpwatch.sources.rotation import Rotated, settled_files

_SCANS: Final = 5

Found = Literal["attached", "overwritten", "unknown", "gone"]


class Finder:
    """Attaches parked files of one log."""

    def __init__(self, path: Path, generations: Generations, *, follow_symlinks: bool) -> None:
        self._path, self._generations, self._follow_symlinks = path, generations, follow_symlinks

    def find(
        self, part: OpenFile, chain: Sequence[Part], there: os.stat_result | None
    ) -> tuple[Found, int | None]:
        """Find a parked file of a chain and give it a descriptor.

        Args:
            there: What the path names now.

        Returns:
            What became of it, and for one that was `overwritten` in place a descriptor of it. It is `unknown` while
            the path can't be looked into.
        """
        here = is_here(part, there) and not has_twin(part, chain)
        # device numbers and inodes change with a reboot or a move to another disk; what was read does not
        moved = part.resumed is not None and part.resumed.telling
        if there is not None and (here or moved):
            try:
                fd = open_regular(self._path, follow_symlinks=self._follow_symlinks)
            except (OSError, SourceError):
                return "unknown", None
            opened = os.fstat(fd)
            try:
                if (here or (opened.st_dev, opened.st_ino) not in held_by(chain)) and part.attach(fd):
                    return "attached", None
            except OSError:
                os.close(fd)
                return "unknown", None
            if here and is_here(part, opened):
                return "overwritten", fd
            os.close(fd)
        return ("attached" if self._find_rotated(part, chain) else "gone"), None

    def _find_rotated(self, part: OpenFile, chain: Sequence[Part]) -> bool:
        for _ in range(_SCANS):
            try:
                return any(
                    self._attach(part, file, chain)
                    for file in settled_files(self._path)
                    if not file.compressed and file.identity == part.identity
                )
            except FileNotFoundError:
                continue  # a name changed hands while we looked
        return False

    def _attach(self, part: OpenFile, file: Rotated, chain: Sequence[Part]) -> bool:
        # of an empty file only the inode is known, and that is soon given to another
        if part.mark.offset == 0 and (file.name.by_hand or self._generations.is_known(file, chain)):
            return False
        fd = open_this(file)
        with contextlib.suppress(OSError):
            if fd is None or part.attach(fd):
                return fd is not None
        if fd is not None:
            os.close(fd)
        return False


def is_here(part: OpenFile, there: os.stat_result | None) -> bool:
    """Whether a path names a file of this identity."""
    return there is not None and part.identity == (there.st_dev, there.st_ino)


def has_twin(part: OpenFile, chain: Sequence[Part]) -> bool:
    """Whether a later generation was written into the same file."""
    later = chain[chain.index(part) + 1 :]
    return any(isinstance(other, OpenFile) and other.identity == part.identity for other in later)
