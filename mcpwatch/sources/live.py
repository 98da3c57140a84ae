"""All that one live session follows: files, globs, folders, standard input and addresses, read fairly."""

from __future__ import annotations

import glob
import os
import stat
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol

from mcpwatch.sources.address import Address, is_address, parse_address
from mcpwatch.sources.block import SourceError
from mcpwatch.sources.follow import READ_LIMIT, Delivery, Follower, SourceStatus
from mcpwatch.sources.listen import Listening, ListenSource
from mcpwatch.sources.place import Place
from mcpwatch.sources.rotation import rotated_name
from mcpwatch.sources.stdin import PipeSource
from mcpwatch.text import safe
from mcpwatch.times import SECOND

LOG_SUFFIXES: Final = (".jsonl", ".log", ".json", ".ndjson")
"""Files of a folder that are followed."""
MAX_OPEN: Final = 256
"""Most log files held open at a time, beside rotated ones that are being read to their end."""
SCAN_NS: Final = SECOND
"""How often globs and folders are searched for new files."""

_ROUND: Final = 4 * READ_LIMIT
_LEAST_SHARE: Final = 1 << 16
_BUSY_NS: Final = 2 * SECOND
_SWEEP_NS: Final = SECOND // 4
_FORGET_NS: Final = 60 * SECOND
_COMPRESSED: Final = (".gz", ".zst", ".bz2", ".xz")
_NOT_YET: Final = ("redis:", "rediss:")

Start = Callable[[Path, str], tuple[int, int | None] | Place]
"""Where to begin in a file that is there at start-up, from its path and the source's name: (offset of a line, its
number or None), or how far it was read before."""


class _Source(Protocol):
    @property
    def more(self) -> bool: ...

    @property
    def status(self) -> SourceStatus: ...

    @property
    def descriptors(self) -> int: ...

    def tick(self, now_ns: int, budget: int = ...) -> Delivery: ...

    def close(self) -> None: ...


@dataclass(slots=True, eq=False)
class _Followed:
    source: _Source
    found_by_scan: bool = False
    ticked_ns: int = -_SWEEP_NS
    missing_since_ns: int | None = None


class LiveSet:
    """Every source of a live session. Call `tick` again after `wait_s`."""

    def __init__(
        self,
        specs: Sequence[str],
        *,
        follow_symlinks: bool = False,
        start: Start | None = None,
        stdin: int = 0,
        listening: Listening | None = None,
    ) -> None:
        """Take paths, globs, folders, `-` and addresses.

        Args:
            start: Asked once for each file that is there now; without it files are read from their start.
                A file that appears later is always read from its start.
            stdin: Descriptor that `-` reads from.
            listening: How addresses are listened on; None: they are refused.

        Raises:
            SourceError: A kind of source that there is none of, or an address where nothing can be received.
        """
        self._follow_symlinks = follow_symlinks
        self._stdin = stdin
        self._listening = listening
        self._scans: list[Callable[[], Iterator[Path]]] = []
        self._files: dict[Path, _Followed] = {}
        self._streams: list[_Followed] = []
        self._names: set[str] = set()
        self._open: OrderedDict[Follower, None] = OrderedDict()
        self._next = 0
        self._scanned_ns: int | None = None
        self._data_ns: int | None = None
        self._wait_s = 0.0
        start = start or (lambda path, name: (0, 1))
        given: list[Path] = []
        try:
            for spec in specs:
                self._sort_out(spec, given, start)
            found = [path for scan in self._scans for path in scan()]
            self._add([*given, *found], set(given), start)
        except BaseException:
            self.close()
            raise

    @property
    def wait_s(self) -> float:
        """Seconds to wait before the next tick: none while there is unread data, a quarter when all is quiet."""
        return self._wait_s

    @property
    def statuses(self) -> list[SourceStatus]:
        """How it goes with each source, as of the last tick."""
        return [followed.source.status for followed in self._all()]

    @property
    def places(self) -> dict[str, Place]:
        """How far each file was read, by the name of its source, as of the last tick."""
        followers = [(followed.source.status.name, _follower(followed.source)) for followed in self._all()]
        places = [(name, follower.place) for name, follower in followers if follower is not None]
        return {name: place for name, place in places if place is not None}

    def tick(self, now_ns: int) -> Delivery:
        """Read what is new, a fair share from each source and at most 4 MiB in all. Never waits."""
        if self._scanned_ns is None or not 0 <= now_ns - self._scanned_ns < SCAN_NS:
            if self._scanned_ns is not None:
                self._rescan(now_ns)
            self._scanned_ns = now_ns
        out: Delivery = []
        everyone = self._all()
        share = min(READ_LIMIT, max(_LEAST_SHARE, _ROUND // max(1, len(everyone))))
        turns = _ROUND // share
        first, more = self._next, False
        for step in range(len(everyone)):
            followed = everyone[(first + step) % len(everyone)]
            if not self._is_due(followed, now_ns):
                continue
            if turns == 0:
                # the next tick begins here, so that one flood cannot keep the others waiting
                self._next, more = (first + step) % len(everyone), True
                break
            got = followed.source.tick(now_ns, share)
            followed.ticked_ns = now_ns
            self._keep_few_open(followed.source, bool(got))
            more = more or followed.source.more
            if got:
                out += got
                turns -= 1
        if out:
            self._data_ns = now_ns
        busy = self._data_ns is not None and now_ns - self._data_ns < _BUSY_NS
        self._wait_s = 0.0 if more else 0.05 if busy else 0.25
        return out

    def close(self) -> None:
        """Close every descriptor that was opened here."""
        for followed in self._all():
            followed.source.close()
        self._open.clear()

    def _all(self) -> list[_Followed]:
        return [*self._streams, *self._files.values()]

    def _is_due(self, followed: _Followed, now_ns: int) -> bool:
        if followed.source.more or not 0 <= now_ns - followed.ticked_ns < _SWEEP_NS:
            return True
        last = followed.source.status.last_read_ns
        return isinstance(followed.source, PipeSource | ListenSource) or (
            last is not None and now_ns - last < _BUSY_NS
        )

    def _sort_out(self, spec: str, given: list[Path], start: Start) -> None:
        path = Path(spec)
        if spec == "-":
            if "stdin" not in self._names:
                self._streams.append(_Followed(PipeSource(self._stdin)))
                self._names.add("stdin")
        elif is_address(spec):
            self._listen(parse_address(spec), start)
        elif spec.startswith(_NOT_YET):
            raise SourceError(f"{safe(spec)}: not in this version: follow a file or pipe into '-'")
        elif path.is_dir() and (self._follow_symlinks or not path.is_symlink()):
            self._scans.append(lambda: self._in_folder(path))
        elif glob.has_magic(spec) and not os.path.lexists(path):
            self._scans.append(lambda: self._matching(spec))
        else:
            given.append(path)

    def _listen(self, address: Address, start: Start) -> None:
        if self._listening is None:
            raise SourceError(f"{address.name}: nothing is received here: follow a file or pipe into '-'")
        if address.name not in self._names:
            source = ListenSource(
                address, self._listening, lambda path, name: self._follow(path, name, start)
            )
            self._streams.append(_Followed(source))
            self._names.add(address.name)

    def _follow(self, path: Path, name: str, start: Start | None) -> Follower:
        begun = start(path, name) if start is not None and self._is_readable(path) else (0, 1)
        if isinstance(begun, Place):
            return Follower(path, name, resume=begun, follow_symlinks=self._follow_symlinks)
        offset, line = begun
        return Follower(path, name, offset=offset, line=line, follow_symlinks=self._follow_symlinks)

    def _in_folder(self, folder: Path) -> Iterator[Path]:
        try:
            names = sorted(os.listdir(folder))  # noqa: PTH208 - Path objects for thousands of others cost
        except OSError:
            return
        yield from (folder / name for name in names if name.endswith(LOG_SUFFIXES))

    def _matching(self, pattern: str) -> Iterator[Path]:
        for name in sorted(glob.glob(pattern, recursive=True)):  # noqa: PTH207 - takes absolute patterns
            if not name.endswith(_COMPRESSED):
                yield Path(name)

    def _rescan(self, now_ns: int) -> None:
        found = [path for scan in self._scans for path in scan()]
        self._add(found, set(), None)
        present = set(found)
        for path, followed in list(self._files.items()):
            if not followed.found_by_scan or path in present:
                followed.missing_since_ns = None
            elif followed.missing_since_ns is None:
                followed.missing_since_ns = now_ns
            elif now_ns - followed.missing_since_ns >= _FORGET_NS:
                # a deleted file that is held open keeps its space on disk
                last = followed.source.status.last_read_ns
                if last is None or now_ns - last >= _FORGET_NS:
                    self._forget(path, followed)

    def _forget(self, path: Path, followed: _Followed) -> None:
        self._names.discard(followed.source.status.name)
        if isinstance(followed.source, Follower):
            self._open.pop(followed.source, None)
        followed.source.close()
        del self._files[path]

    def _add(self, paths: Sequence[Path], given: set[Path], start: Start | None) -> None:
        if all(path in self._files for path in paths):
            return
        new = [path for path in dict.fromkeys(paths) if path not in self._files]
        known = {*new, *self._files}
        places = {path.absolute(): path for path in reversed([*self._files, *new])}
        chosen = [
            path
            for path in new
            if places[path.absolute()] == path and (path in given or self._is_log(path, known))
        ]
        basenames = Counter(path.name for path in chosen)
        for path in chosen:
            plain = safe(path.name)
            name = safe(path) if basenames[path.name] > 1 or plain in self._names else plain
            if name in self._names:
                name = safe(path.absolute())
            follower = self._follow(path, name, start)
            self._names.add(name)
            self._files[path] = _Followed(follower, found_by_scan=path not in given)

    def _is_log(self, path: Path, known: set[Path]) -> bool:
        """Whether a path that a search found is worth following: no folder, and no rotated file of another."""
        rotated = rotated_name(path.name)
        if rotated is not None and path.with_name(rotated.base) in known:
            return False
        try:
            return not stat.S_ISDIR(path.lstat().st_mode)
        except OSError:
            return False

    def _is_readable(self, path: Path) -> bool:
        try:
            look = path.stat() if self._follow_symlinks else path.lstat()
        except OSError:
            return False
        return stat.S_ISREG(look.st_mode)

    def _keep_few_open(self, source: _Source, busy: bool) -> None:
        if not isinstance(source, Follower):
            return
        if source.descriptors:
            self._open[source] = None
            if busy:
                self._open.move_to_end(source)
        else:
            self._open.pop(source, None)
        while len(self._open) > MAX_OPEN:
            for oldest in self._open:
                if oldest.park():
                    del self._open[oldest]
                    break
            else:
                return


def _follower(source: _Source) -> Follower | None:
    if isinstance(source, ListenSource):
        return source.follower
    return source if isinstance(source, Follower) else None
