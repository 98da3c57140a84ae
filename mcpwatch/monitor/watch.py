"""What a live process says of itself to everybody else: which logs it reads, how far, and what became of every line.

It lies as one JSON file in the state folder (`mcpwatch.monitor.watchfiles`). It holds counters, names of files and
hashes: no text of a log, and nothing that is secret.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Final, Literal

import msgspec

from mcpwatch import __version__
from mcpwatch.detection.hit import Severity
from mcpwatch.errors import Unusable
from mcpwatch.monitor.known import Known
from mcpwatch.monitor.sourcerows import silence_of
from mcpwatch.response.operator import actor
from mcpwatch.snapshot import Counters, Snapshot, SourceRow
from mcpwatch.sources.follow import SourceStatus
from mcpwatch.sources.place import Place
from mcpwatch.text import safe

VERSION: Final = 1
"""Of the form of the file; files of another version are left alone."""

_MAX: Final = (1 << 63) - 1
_PATH: Final = 4_096
_WORDS: Final = 400

Count = Annotated[int, msgspec.Meta(ge=0, le=_MAX)]
Moment = Annotated[int, msgspec.Meta(ge=-(1 << 62), le=_MAX)]
"""ns since the epoch."""
Words = Annotated[str, msgspec.Meta(max_length=_PATH)]


class WatchError(Unusable):
    """A watch file can't be used. The message says why."""


class Counted(msgspec.Struct, frozen=True):
    """What became of lines."""

    lines: Count = 0
    understood: Count = 0
    not_understood: Count = 0
    blank: Count = 0
    repeated: Count = 0
    joined: Count = 0
    held: Count = 0
    events: Count = 0

    @property
    def parts(self) -> dict[str, int]:
        """What every line is one of, by name."""
        return {name: getattr(self, name) for name in PARTS}

    @property
    def add_up(self) -> bool:
        """Whether every line is accounted for, once."""
        return self.lines == sum(self.parts.values())


PARTS: Final = ("understood", "not_understood", "blank", "repeated", "joined", "held")
"""The counters that make up `lines`."""


class LastGap(msgspec.Struct, frozen=True):
    """The newest gap of a source."""

    seen_ns: Moment
    offset: Count
    size: Count | None
    reason: Words


class WatchedSource(msgspec.Struct, frozen=True):
    """How it goes with one source.

    Attributes:
        path: Absolute for a file that is followed.
        gaps, lost: How many gaps, and bytes in those whose size is known.
        oversize: Lines over 1 MiB, which no rule has judged.
        last_record_ns: The newest record's own time.
        silent_since_ns: Since when it has delivered nothing, against its habit.
        place: How far it was read (`sources.place.Place`), as JSON.
    """

    name: Words
    path: Words
    state: Literal["waiting", "reading", "refused", "ended"]
    note: Words = ""
    format: Words = ""
    filesystem: Words | None = None
    offset: Count = 0
    size: Count = 0
    behind: Count = 0
    counters: Counted = Counted()
    gaps: Count = 0
    lost: Count = 0
    last_gap: LastGap | None = None
    oversize: Count = 0
    rotations: Count = 0
    truncations: Count = 0
    last_read_ns: Moment | None = None
    last_record_ns: Moment | None = None
    silent_since_ns: Moment | None = None
    place: Any = None


class Watch(msgspec.Struct, frozen=True):
    """One live process.

    Attributes:
        user: Who started it, and from where.
        ended_ns, how: When it ended in order, and how; None while it runs, and for ever if it was killed.
        totals: Of all sources, those included that are no longer followed.
        incidents: By severity.
        problems: Policy or rule files can't be used as they are.
    """

    version: Literal[1]
    mcpwatch: Words
    pid: Count
    host: Words
    user: Words
    started_ns: Moment
    updated_ns: Moment
    ended_ns: Moment | None = None
    how: Words | None = None
    policy: Words | None = None
    policy_sha256: Words | None = None
    rules: Count = 0
    rules_folder: Words | None = None
    problems: bool = False
    incidents: dict[Literal["critical", "high", "medium", "low"], Count] = {}
    totals: Counted = Counted()
    late: Count = 0
    gaps: Count = 0
    sources: tuple[WatchedSource, ...] = ()


@dataclass(frozen=True, slots=True)
class Identity:
    """What does not change about a process."""

    pid: int
    host: str
    user: str
    started_ns: int

    @classmethod
    def of_this_process(cls, now_ns: int) -> Identity:
        """This process, which starts to watch now."""
        return cls(os.getpid(), safe(socket.gethostname(), 255), safe(actor(), 200), now_ns)


def path_key(path: str) -> str:
    """The name under which a path stands in watch files: absolute, and UTF-8 whatever its bytes are."""
    return os.fsencode(os.path.abspath(path)).decode("utf-8", "backslashreplace")  # noqa: PTH100 - Path keeps ".."


def watch_of(
    known: Known,
    snapshot: Snapshot,
    places: Mapping[str, Place],
    identity: Identity,
    *,
    how: str | None = None,
) -> Watch:
    """What there is to say of this process now.

    Args:
        snapshot: Published since the sources were last read.
        places: How far each source was read, by name.
        how: How it ended, if it did.
    """
    now = known.clock()
    file, rules = known.policy_file, known.rule_files
    rows = dict(zip((status.name for status in known.statuses), snapshot.sources, strict=False))
    return Watch(
        version=VERSION,
        mcpwatch=__version__,
        pid=identity.pid,
        host=identity.host,
        user=identity.user,
        started_ns=_moment(identity.started_ns),
        updated_ns=_moment(now),
        ended_ns=_moment(now) if how is not None else None,
        how=how,
        policy=path_key(str(file.path))[:_PATH] if file.path is not None else None,
        policy_sha256=file.sha256,
        rules=len(known.pipeline.engine.rules.rules),
        rules_folder=path_key(str(rules.folder))[:_PATH] if rules is not None and rules.folder else None,
        problems=file.error is not None or bool(rules is not None and rules.rules.problems),
        incidents=dict(zip(_SEVERITIES, snapshot.severities, strict=True)),
        totals=_counted(snapshot.counters),
        late=snapshot.counters.late,
        gaps=snapshot.counters.gaps,
        sources=tuple(
            _source(known, status, rows[status.name], places.get(status.name), now)
            for status in known.statuses
            if status.name in rows
        ),
    )


_SEVERITIES: Final = ("critical", "high", "medium", "low")
assert set(_SEVERITIES) == {severity.label for severity in Severity}


def _source(
    known: Known, status: SourceStatus, row: SourceRow, place: Place | None, now: int
) -> WatchedSource:
    silence = silence_of(known, status, now)
    gap = row.gaps[0] if row.gaps else None
    return WatchedSource(
        name=safe(status.name, _PATH),
        path=path_key(status.path)[:_PATH] if place is not None else safe(status.path, _PATH),
        state=status.state,
        note=safe(status.note, _WORDS),
        format=row.format,
        filesystem=row.filesystem,
        offset=_count(status.offset),
        size=_count(status.size),
        behind=_count(status.behind),
        counters=_counted(row.counters),
        gaps=row.counters.gaps,
        lost=_count(row.lost),
        last_gap=LastGap(
            _moment(gap.seen_ns),
            _count(gap.offset),
            _count(gap.size) if gap.size is not None else None,
            safe(gap.reason, _WORDS),
        )
        if gap is not None
        else None,
        oversize=row.oversize,
        rotations=status.rotations,
        truncations=status.truncations,
        last_read_ns=_moment(status.last_read_ns) if status.last_read_ns is not None else None,
        last_record_ns=_moment(row.last_record_ns) if row.last_record_ns is not None else None,
        silent_since_ns=_moment(silence.since_ns) if silence is not None else None,
        place=place.to_json() if place is not None else None,
    )


def _counted(counters: Counters) -> Counted:
    parts = {name: getattr(counters, name) for name in PARTS}
    return Counted(lines=counters.lines, **parts, events=counters.events)


def _count(value: int) -> int:
    return min(max(value, 0), _MAX)


def _moment(ns: int) -> int:
    # a record may be dated in the year 9999, which is more than a file of 64-bit numbers holds
    return min(max(ns, -(1 << 62)), _MAX)


def same(one: Watch, other: Watch) -> bool:
    """Whether two say the same, but for when they were made."""
    return msgspec.structs.replace(one, updated_ns=other.updated_ns) == other


def encode(watch: Watch) -> bytes:
    """As JSON, on one line."""
    return msgspec.json.encode(watch) + b"\n"


class _AnyVersion(msgspec.Struct):
    version: int


_decode: Final = msgspec.json.Decoder(Watch).decode
_decode_version: Final = msgspec.json.Decoder(_AnyVersion).decode


def decode(data: bytes) -> Watch:
    """Read a watch file, whatever is in it.

    Raises:
        WatchError: It is no such file, or one of another version.
    """
    try:
        version = _decode_version(data).version
        if version != VERSION:
            raise WatchError(f"made by another version of mcpwatch (form {version})")
        return _decode(data)
    except (msgspec.MsgspecError, ValueError, RecursionError, OverflowError):
        raise WatchError("torn, or no watch file") from None
