"""How it goes with each log: its counters, which account for every line, and what there is to warn of."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Final

from mcpwatch.formats.reader import OVERSIZE
from mcpwatch.monitor.known import Known
from mcpwatch.monitor.silence import Silence
from mcpwatch.snapshot import Counters, SourceRow
from mcpwatch.sources.follow import SourceStatus
from mcpwatch.text import SafeText, safe

COUNTERS: Final = ("lines", "understood", "not_understood", "blank", "repeated", "joined", "events")
_LISTED: Final = 6
"""Formats and reasons that are listed for each log."""
_SHOWN: Final = 3
"""Logs that are named in notices of one kind; the others are counted."""


def counters(known: Known) -> Counters:
    """The counters of all logs, those included that are no longer followed."""
    held = sum(1 for status in known.statuses if status.held)
    totals = dict.fromkeys(COUNTERS, 0)
    for source in known.pipeline.readers:
        for name, value in _counted(known, source).items():
            totals[name] += value
    totals["lines"] += held
    return Counters(**totals, held=held, late=known.pipeline.engine.late, gaps=known.gaps.count)


def source_rows(known: Known, now: int) -> Iterator[SourceRow]:
    """A row for each log."""
    for status in known.statuses:
        reader = known.pipeline.readers.get(status.name)
        held = 1 if status.held else 0
        counts = dict(_counted(known, status.name)) if reader is not None else dict.fromkeys(COUNTERS, 0)
        counts["lines"] += held
        silence = silence_of(known, status, now)
        gaps = known.gaps.of(status.name)
        yield SourceRow(
            name=safe(status.name, 80),
            path=safe(status.path, 300),
            state=status.state,
            note=status.note if silence is None else silence.note(now),
            counters=Counters(**counts, held=held, gaps=gaps.count),
            format=safe(reader.format_name if reader is not None else "none yet", 40),
            coverage=reader.coverage if reader is not None else (),
            behind=status.behind,
            per_second=round(known.board.per_second(now, status.name), 1),
            oversize=oversize(known, status.name),
            gaps=tuple(reversed(gaps.newest)),
            lost=gaps.lost,
            rotations=status.rotations,
            truncations=status.truncations,
            filesystem=safe(status.filesystem, 40) if status.filesystem is not None else None,
            senders=status.senders,
            last_record_ns=known.last_records.get(status.name),
            formats=_most(reader.formats) if reader is not None else (),
            reasons=_most(reader.reasons) if reader is not None else (),
            open_calls=reader.pairing.open if reader is not None else 0,
            unended_calls=reader.pairing.unended if reader is not None else 0,
        )


def _most(counts: Mapping[str, int]) -> tuple[tuple[SafeText, int], ...]:
    """Those met most often."""
    met = sorted(
        ((name, count) for name, count in counts.items() if count), key=lambda item: (-item[1], item[0])
    )
    return tuple((safe(name, 80), count) for name, count in met[:_LISTED])


def silence_of(known: Known, status: SourceStatus, now: int) -> Silence | None:
    """The silence of a source, where nothing says already why it delivers nothing."""
    explained = status.note or status.state == "ended"
    return None if explained else known.hearing.silence(status.name, now)


def oversize(known: Known, source: str) -> int:
    """Lines of a log that were too long to be judged."""
    reader = known.pipeline.readers.get(source)
    return reader.reasons[OVERSIZE] if reader is not None else 0


def source_notices(known: Known) -> list[SafeText]:
    """What there is to warn of: records that no rule has seen, and logs that have gone silent."""
    return [
        *_few(_oversize_notices(known), "more logs have lines over 1 MiB"),
        *_few(_nameless_notices(known), "more logs have calls that name no caller"),
        *_few(_silence_notices(known), "more logs are silent"),
    ]


def _oversize_notices(known: Known) -> Iterator[SafeText]:
    for source in known.pipeline.readers:
        count = oversize(known, source)
        if count:
            lines = "1 line over 1 MiB was" if count == 1 else f"{count:,} lines over 1 MiB were"
            yield safe(f"{safe(source, 80)}: {lines} not judged: a way to hide a call from the rules", 200)


def _nameless_notices(known: Known) -> Iterator[SafeText]:
    for source, reader in known.pipeline.readers.items():
        if reader.nameless:
            calls = "1 call names" if reader.nameless == 1 else f"{reader.nameless:,} calls name"
            yield safe(
                f"{safe(source, 80)}: {calls} no caller: most rules pass over them; see `mcpwatch inspect`",
                200,
            )


def _silence_notices(known: Known) -> Iterator[SafeText]:
    for status in known.statuses:
        silence = silence_of(known, status, known.now_ns)
        if silence is not None:
            yield safe(f"{safe(status.name, 80)}: {silence.notice}", 200)


def _few(notices: Iterator[SafeText], more: str) -> list[SafeText]:
    found = list(notices)
    left = len(found) - _SHOWN
    return found if left <= 0 else [*found[:_SHOWN], SafeText(f"{left:,} {more}")]


def _counted(known: Known, source: str) -> Mapping[str, int]:
    """The counters of a source up to what is shown of it."""
    if known.counted is not None and source in known.counted:
        return known.counted[source]
    reader = known.pipeline.readers[source]
    return {name: getattr(reader, name) for name in COUNTERS}
