"""The watch files of a state folder: who lives, who died, and how far each log was read.

A file belongs to the process that holds the lock beside it, so that a process id that was given to somebody else,
or one of another container, deceives nobody.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import stat
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

from mcpwatch.monitor.watch import Watch, WatchedSource, WatchError, decode
from mcpwatch.sources.place import Place
from mcpwatch.text import SafeText, safe
from mcpwatch.times import DAY, HOUR

FOLDER: Final = "watches"
KEPT: Final = 50
"""Watches that ended whose files are kept."""
KEPT_NS: Final = 30 * DAY
"""How long they are."""

_SUFFIX: Final = ".json"
_LOCK: Final = ".lock"
_MAX_BYTES: Final = 64 << 20
_MAX_FILES: Final = 1_000
_TEMPORARY: Final = ".tmp"

State = Literal["running", "stopped", "died"]


@dataclass(frozen=True, slots=True)
class Found:
    """A watch file that could be read.

    Attributes:
        state: `running`, `stopped` in order, or `died`: killed, or the machine was switched off.
    """

    path: Path
    watch: Watch
    state: State


@dataclass(frozen=True, slots=True)
class Watches:
    """What lies in a folder of watch files.

    Attributes:
        found: The running ones first, then the newest.
        ignored: Files that are of no use, one line each.
    """

    found: tuple[Found, ...] = ()
    ignored: tuple[SafeText, ...] = ()


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """How far a log had been read, by whom.

    Attributes:
        read_ns: Until when it was read: when that was written down.
        last_ns: Where its windows stood: the newest record's own time, or the same where none is known.
    """

    place: Place
    read_ns: int
    last_ns: int


def lock_of(path: Path) -> Path:
    """The lock beside a watch file."""
    return path.with_suffix(_LOCK)


def is_running(path: Path) -> bool:
    """Whether the process that a watch file belongs to still holds its lock.

    Raises:
        OSError: The lock can't be asked for.
    """
    try:
        fd = os.open(lock_of(path), os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    try:
        # shared: whoever else asks at this moment is not taken for the owner
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(fd)
    return False


def look(state_dir: Path) -> Watches:
    """Read the watch files of a state folder, whatever is in them.

    Raises:
        OSError: The folder is there and can't be read.
    """
    found: list[Found] = []
    ignored: list[SafeText] = []
    paths = list(_named(state_dir / FOLDER, _SUFFIX))
    for path in paths[:_MAX_FILES]:
        try:
            running = is_running(path)
            watch = decode(_read(path))
        except FileNotFoundError:
            continue  # pruned meanwhile
        except (OSError, WatchError) as error:
            reason = error.strerror if isinstance(error, OSError) else error
            ignored.append(safe(f"{path}: ignored: {reason}", 400))
            continue
        state: State = "running" if running else "stopped" if watch.ended_ns is not None else "died"
        found.append(Found(path, watch, state))
    if len(paths) > _MAX_FILES:
        ignored.append(SafeText(f"{len(paths) - _MAX_FILES:,} more files: ignored"))
    found.sort(key=lambda each: (each.state != "running", -each.watch.updated_ns))
    return Watches(tuple(found), tuple(ignored))


def checkpoints(watches: Watches) -> dict[str, Checkpoint]:
    """How far each log was read at last, by its `watch.path_key`. What makes no sense is left out."""
    newest: dict[str, Checkpoint] = {}
    for each in watches.found:
        for source in each.watch.sources:
            if source.path in newest or source.place is None:
                continue
            place = Place.from_json(source.place)
            if place is not None:
                newest[source.path] = _checkpoint(each.watch, source, place)
    return newest


def prune(state_dir: Path, now_ns: int) -> None:
    """Delete what nobody needs any more of processes that have ended.

    Of each log the newest file stays, `KEPT` files in all and none for longer than `KEPT_NS`. Raises nothing: what
    can't be deleted stays.
    """
    with contextlib.suppress(OSError):
        folder = state_dir / FOLDER
        ended = [each for each in look(state_dir).found if each.state != "running"]
        useful = list(_newest_of_a_log(each for each in ended if now_ns - each.watch.updated_ns < KEPT_NS))
        for each in ended:
            if each not in useful[:KEPT]:
                _delete(each.path)
        known = {each.path for each in ended}
        for path in _named(folder, _SUFFIX):
            if path not in known and _age_ns(path) > KEPT_NS and not is_running(path):
                _delete(path)
        for path in (*_named(folder, _LOCK), *_named(folder, _TEMPORARY)):
            if _age_ns(path) > HOUR and not path.with_suffix(_SUFFIX).exists() and not is_running(path):
                path.unlink(missing_ok=True)


def _checkpoint(watch: Watch, source: WatchedSource, place: Place) -> Checkpoint:
    last = source.last_record_ns if source.last_record_ns is not None else watch.updated_ns
    return Checkpoint(place, watch.updated_ns, min(last, watch.updated_ns))


def _newest_of_a_log(found: Iterable[Found]) -> Iterator[Found]:
    """Those, newest first, that say more of some log than all newer ones."""
    seen: set[str] = set()
    for each in found:
        paths = {source.path for source in each.watch.sources}
        if paths - seen:
            seen |= paths
            yield each


def _named(folder: Path, suffix: str) -> Iterator[Path]:
    """Files of a folder by how their names end, newest name first; none where there is no such folder."""
    try:
        names = os.listdir(folder)  # noqa: PTH208 - names are all that is needed
    except FileNotFoundError:
        return
    yield from (folder / name for name in sorted(names, reverse=True) if name.endswith(suffix))


def _read(path: Path) -> bytes:
    fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    with open(fd, "rb") as file:  # noqa: PTH123 - a descriptor, not a path
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            raise WatchError("not a regular file")
        data = file.read(_MAX_BYTES + 1)
    if len(data) > _MAX_BYTES:
        raise WatchError(f"larger than {_MAX_BYTES:,} bytes")
    return data


def _age_ns(path: Path) -> int:
    try:
        return time.time_ns() - path.lstat().st_mtime_ns
    except OSError:
        return 0


def _delete(path: Path) -> None:
    # the file first: a lock without one says nothing, a file without a lock belongs to a process that ended
    for each in (path, lock_of(path)):
        with contextlib.suppress(OSError):
            each.unlink()
