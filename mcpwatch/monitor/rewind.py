"""Where a replay can begin anew, and how it reads from there."""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Final, NamedTuple

from mcpwatch.event import AuditEvent, logged_at
from mcpwatch.formats.pairing import Pairing
from mcpwatch.formats.reader import Reader
from mcpwatch.monitor.board import TIERS
from mcpwatch.monitor.known import Known
from mcpwatch.monitor.pipeline import Pipeline
from mcpwatch.monitor.sourcerows import COUNTERS
from mcpwatch.policy.model import Tier
from mcpwatch.sources.block import Block
from mcpwatch.sources.saved import SavedLog


class Checkpoint(NamedTuple):
    """A place from which reading can begin.

    Attributes:
        time_ns: Latest event time before it.
        position: How many events come before it.
        offset, line: Of the first line to read.
        counters: The reader's counters there.
        calls: The calls that are open there.
    """

    time_ns: int
    position: int
    offset: int
    line: int | None
    counters: Mapping[str, int]
    calls: Pairing


START: Final = Checkpoint(-(1 << 62), 0, 0, 1, dict.fromkeys(COUNTERS, 0), Pairing())


class Sums(NamedTuple):
    """What the panes have summed up from the beginning of the log to a checkpoint."""

    late: int
    tiers: dict[Tier, int]
    tools: dict[Tier, Counter[str]]

    @classmethod
    def of(cls, known: Known) -> Sums:
        """The sums as they are now."""
        board = known.board
        tools = {tier: board.tools[tier].copy() for tier in TIERS}
        return cls(known.pipeline.engine.late, dict(board.tiers), tools)

    def restore(self, known: Known) -> None:
        """Go on counting from there."""
        known.pipeline.engine.late = self.late
        known.board.tiers = dict(self.tiers)
        known.board.tools = {tier: tools.copy() for tier, tools in self.tools.items()}


def counters_of(reader: Reader) -> dict[str, int]:
    """The counters of a reader as they are now."""
    return {name: getattr(reader, name) for name in COUNTERS}


def line_by_line(
    logs: Sequence[SavedLog],
    pipeline: Pipeline,
    start: Checkpoint,
    counted: dict[str, Mapping[str, int]],
) -> Iterator[AuditEvent]:
    """Read logs from a checkpoint (several: from the start) in the order of `pipeline.saved_events`.

    Args:
        counted: Is kept at the counters of each log before the line of its next event: those of what was taken.
    """
    counted.clear()
    counted |= {log.name: start.counters for log in logs}
    for log in logs:
        reader = pipeline.reader(log.name)
        if start is not START:
            pipeline.go_on(log.name, start.calls.handed_over())
        for name, value in start.counters.items():
            setattr(reader, name, value)
    streams = [_events(log, pipeline.reader(log.name), start, counted) for log in logs]
    if len(streams) == 1:
        return streams[0]
    keyed = [_keyed(number, stream) for number, stream in enumerate(streams)]
    return (event for _, _, event in heapq.merge(*keyed, key=lambda item: item[:2]))


def _events(
    log: SavedLog, reader: Reader, start: Checkpoint, counted: dict[str, Mapping[str, int]]
) -> Iterator[AuditEvent]:
    for block in log.blocks(start.offset, start.line):
        for piece in _lines(block):
            before = counters_of(reader)
            events = reader.read(piece)
            if events:
                counted[log.name] = before
                yield from events
    counted[log.name] = counters_of(reader)


def _lines(block: Block) -> Iterator[Block]:
    """The lines of a block, each as a block of its own."""
    if block.oversize is not None:
        yield block
        return
    last = len(block.lines) - 1
    for index, line in enumerate(block.lines):
        yield Block(
            block.source,
            [line],
            block.offset_at(index),
            block.line_at(index),
            unterminated=block.unterminated and index == last,
        )


def _keyed(number: int, events: Iterable[AuditEvent]) -> Iterator[tuple[int, int, AuditEvent]]:
    """A record without a time stands where the record before it stands."""
    time = 0
    for event in events:
        at = logged_at(event)
        if at is not None:
            time = at
        yield time, number, event
