"""Calls that are logged in two lines, from the log to the panes: one call each, with the outcome of its end."""

from __future__ import annotations

import json
import random
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from mcpwatch.detection.rulefile import shipped
from mcpwatch.event import AuditEvent, CallEnd, Shape
from mcpwatch.formats.mappingfile import load_mappings
from mcpwatch.incidents.export import event_record
from mcpwatch.monitor.begin import begin
from mcpwatch.monitor.explain import RecordError, explain_line
from mcpwatch.monitor.monitor import Monitor, Settings
from mcpwatch.monitor.pipeline import Pipeline, Reading, saved_events
from mcpwatch.monitor.rates import rates
from mcpwatch.monitor.whatif import compare
from mcpwatch.policy.draft import ToolsSeen
from mcpwatch.policy.file import PolicyFile
from mcpwatch.policy.load import parse
from mcpwatch.policy.model import BUILT_IN
from mcpwatch.sources.block import Block
from mcpwatch.sources.saved import open_saved
from mcpwatch.times import SECOND, iso
from tests.unit.monitor.monitor_runs import NOW, POLICY, Deck, everything, headless

MAPPING = """\
name: two-lines
match: {audit: call}
fields:
  timestamp: at
  tool: tool
  params: args
  status: outcome
  duration: took
  call_id: call
  key_id: key
  client_id: client
  session_id: session
variants:
  - when: {phase: begin}
    phase: start
  - when: {phase: end}
    phase: end
pair: [id]
pair_by: id
"""


@pytest.fixture
def reading(tmp_path: Path) -> Reading:
    folder = tmp_path / "formats"
    folder.mkdir()
    (folder / "two.yaml").write_text(MAPPING)
    return Reading(mappings=load_mappings(folder), coverage=False)


@pytest.fixture
def policy(tmp_path: Path) -> Path:
    path = tmp_path / "policy.yaml"
    path.write_text(POLICY)
    return path


def line(at: float, **fields: object) -> bytes:
    """A line, `at` seconds before or after now."""
    record = {"audit": "call", "at": iso(NOW + round(at * SECOND)), **fields}
    return json.dumps({name: value for name, value in record.items() if value is not None}).encode() + b"\n"


def whole(at: float, outcome: str | None = "success", **fields: object) -> bytes:
    usual = {
        "tool": "file_read",
        "args": {"path": "/app/data/a"},
        "key": "k1",
        "client": "bot",
        "session": "s1",
    }
    return line(at, **(usual | {"outcome": outcome} | fields))


def began(at: float, name: str, **fields: object) -> bytes:
    return whole(at, None, phase="begin", id=name, **fields)


def over(at: float, name: str, outcome: str = "success", **fields: object) -> bytes:
    return line(at, phase="end", id=name, outcome=outcome, **fields)


def some_calls(maker: random.Random, count: int, until: float = 0) -> list[bytes]:
    """Calls of some sessions up to a time, many of them in two lines with others between."""
    placed: list[tuple[float, bytes]] = []
    for number in range(count):
        at = until - (count - number) * maker.choice([1, 3])
        fields: dict[str, Any] = {
            "session": maker.choice(["s1", "s2"]),
            "key": maker.choice(["k1", "k2"]),
            "tool": maker.choice(["file_read", "shell_execute", "query"]),
            "args": {"path": maker.choice(["/app/data/a", "/etc/passwd"])},
            "call": f"call-{number:016}",
        }
        outcome = maker.choice(["success", "denied", "error", "unauthenticated"])
        if maker.random() < 0.3:
            placed.append((at, whole(at, outcome, **fields)))
            continue
        placed.append((at, began(at, str(number), **fields)))
        if maker.random() < 0.9:
            end = at + maker.choice([0, 0.5, 2, 30])
            placed.append((end, over(end, str(number), outcome)))
    placed.sort(key=lambda item: item[0])
    return [text for _, text in placed]


def write(path: Path, lines: Sequence[bytes]) -> Path:
    path.write_bytes(b"".join(lines))
    return path


def live(tmp_path: Path, policy: Path, reading: Reading, lines: Sequence[bytes], size: int) -> Monitor:
    """A monitor that was given lines so many at a time."""
    settings = Settings(tmp_path / "state", read_only=True)
    monitor = Monitor(PolicyFile(policy), reading, settings, lambda: NOW)
    offset = 0
    for at in range(0, len(lines), size):
        piece = [text.rstrip(b"\n") for text in lines[at : at + size]]
        monitor.take([Block("audit.jsonl", piece, offset, at + 1)], NOW)
        offset += sum(map(len, lines[at : at + size]))
    monitor.publish()
    return monitor


def panes(monitor: Monitor) -> tuple[object, ...]:
    """What the panes count and show."""
    shown, board = monitor.snapshot(), monitor.board
    rows = [(row.time_ns, row.tool, row.status, row.duration_ms, row.worst) for row in shown.events]
    sessions = {row.session: (row.calls, row.errors, row.high, row.medium, row.low) for row in shown.sessions}
    tools = {tier: dict(count) for tier, count in board.tools.items()}
    return rows, sessions, dict(board.tiers), tools, shown.severities, shown.counters


@pytest.mark.parametrize("size", [1, 3, 1000])
def test_live_shows_what_a_replay_finds_whatever_the_pieces(
    tmp_path: Path, policy: Path, reading: Reading, size: int
) -> None:
    lines = some_calls(random.Random(1), 120)
    monitor = live(tmp_path, policy, reading, lines, size)
    replay = headless([write(tmp_path / "audit.jsonl", lines)], policy, reading)
    assert everything(list(monitor.pipeline.fold)) == everything(list(replay.fold))
    assert monitor.pipeline.engine.counts == replay.engine.counts
    assert monitor.pipeline.totals() == replay.totals()
    assert panes(monitor) == panes(live(tmp_path, policy, reading, lines, 7))
    totals = replay.totals()
    assert totals["joined"] > 30
    assert totals["lines"] == totals["understood"] + totals["joined"] == len(lines)
    assert totals["events"] == replay.summary()["events"] == 120


def test_the_panes_are_those_of_the_same_calls_in_one_line(
    tmp_path: Path, policy: Path, reading: Reading
) -> None:
    """Rows, sessions with their errors, tiers and tools; a call that never ends is unknown."""
    two, one = [], []
    for number, outcome in enumerate(["success", "denied", "error", "timeout", None]):
        fields: dict[str, Any] = {"tool": "shell_execute", "session": f"s{number % 2}"}
        two.append(began(number, str(number), **fields))
        if outcome is not None:
            two.append(over(number + 0.25, str(number), outcome))
        one.append(whole(number, outcome, took=250 if outcome else None, **fields))
    first, second = live(tmp_path, policy, reading, two, 2), live(tmp_path, policy, reading, one, 2)
    assert panes(first)[:-1] == panes(second)[:-1]
    assert first.pipeline.engine.counts == second.pipeline.engine.counts
    errors = {row.session: row.errors for row in first.snapshot().sessions}
    assert errors == {"s0": 1, "s1": 2}


def test_a_row_that_was_shown_shows_the_outcome_when_it_comes(
    tmp_path: Path, policy: Path, reading: Reading
) -> None:
    """And its worst finding is the amended one."""
    lines = [began(0, "1", args={"path": "/etc/passwd"}), over(1, "1", "denied")]
    monitor = live(tmp_path, policy, reading, lines[:1], 1)
    (row,) = monitor.snapshot().events
    assert (row.status, row.worst.label if row.worst else "") == ("unknown", "high")
    piece = lines[1].rstrip(b"\n")
    monitor.take([Block("audit.jsonl", [piece], len(lines[0]), 2)], NOW)
    monitor.publish()
    (row,) = monitor.snapshot().events
    assert (row.status, row.worst.label if row.worst else "") == ("denied", "medium")
    record = monitor.record(row.seq)
    assert record is not None
    assert any('"phase": "end"' in text for text in record.raw)
    (incident,) = monitor.pipeline.fold
    detail = monitor.incident(incident.id)
    assert detail is not None and detail.evidence[0].text.endswith("denied")
    assert detail.outcomes == (("denied", 1),)


def test_a_raised_severity_is_told_and_a_lowered_one_is_not(
    tmp_path: Path, policy: Path, reading: Reading
) -> None:
    """Whoever was called at high need not be called again at medium."""
    pipeline = Pipeline(PolicyFile(policy).policy, reading)
    changes = []
    lines = [began(0, "1", args={"path": "/etc/passwd"}), began(1, "2", args={"path": "/etc/passwd"}),
             over(2, "1", "denied"), over(3, "2", "success")]  # fmt: skip
    for number, text in enumerate(lines):
        batch = pipeline.take(Block("a", [text.rstrip(b"\n")], 1000 * number, number + 1))
        changes.append([(change.kind, change.incident.severity.label) for change in batch.changes])
    assert changes == [[("opened", "high")], [], [], [("severity", "critical")]]
    (incident,) = pipeline.fold
    assert (incident.count, dict(incident.outcomes)) == (2, {"denied": 1, "success": 1})
    assert pipeline.fold.by_severity() == {
        level: int(level.label == "critical") for level in pipeline.fold.by_severity()
    }


def test_events_are_printed_as_they_began_and_amended_when_they_end(
    tmp_path: Path, policy: Path, reading: Reading
) -> None:
    """One line for each, the same whether both come in one piece or not."""

    def printed(size: int) -> list[dict[str, Any]]:
        pipeline = Pipeline(PolicyFile(policy).policy, reading)
        lines = [began(0, "1"), whole(1), over(2, "1", "denied", took=7)]
        found, offset = [], 0
        for at in range(0, 3, size):
            piece = [text.rstrip(b"\n") for text in lines[at : at + size]]
            batch = pipeline.take(Block("a", piece, offset, at + 1))
            found += [event_record(event, None, reveal=False) for event in batch.events]
            batch.settle()
            offset += sum(map(len, lines[at : at + size]))
        return found

    first, second, third = printed(3)
    assert printed(1) == [first, second, third]
    assert (first["type"], first["status"], first["line"]) == ("event", "unknown", 1)
    assert (third["type"], third["status"], third["duration_ms"]) == ("amendment", "denied", 7)
    assert (third["line"], third["offset"], third["end_line"]) == (1, first["offset"], 3)


def test_reading_that_begins_between_the_two_lines_counts_neither(
    tmp_path: Path, policy: Path, reading: Reading
) -> None:
    """The call was before; its end brings the windows up to date and is no event."""
    lines = [began(-5, "1", args={"path": "/etc/passwd"}), whole(-4), whole(1), over(2, "1", "success")]
    path = write(tmp_path / "audit.jsonl", lines)
    monitor = Monitor(PolicyFile(policy), reading, Settings(tmp_path / "state", read_only=True), lambda: NOW)
    begun = begin(monitor, path, "audit.jsonl", NOW, cap=False)
    assert begun.offset == len(lines[0]) + len(lines[1])
    rest = [text.rstrip(b"\n") for text in lines[2:]]
    monitor.take([Block("audit.jsonl", rest, begun.offset, begun.line)], NOW)
    assert list(monitor.pipeline.fold) == []
    assert dict(monitor.pipeline.engine.counts).values() and monitor.pipeline.summary()["events"] == 1
    totals = monitor.pipeline.totals()
    assert (totals["lines"], totals["understood"], totals["joined"], totals["events"]) == (2, 1, 1, 1)


def test_the_player_shows_the_same_from_any_moment(tmp_path: Path, policy: Path, reading: Reading) -> None:
    """A log of many blocks, so that it begins anew in the middle of calls."""
    lines = some_calls(random.Random(3), 1_000)
    filler = "x" * 2_500
    lines = [text.replace(b'"audit"', b'"note": "' + filler.encode() + b'", "audit"', 1) for text in lines]
    path = write(tmp_path / "audit.jsonl", lines)
    deck = Deck([path], policy, reading)
    deck.until_paused()
    assert len(deck.player._checkpoints) > 5
    replay = headless([path], policy, reading)
    found, counts = deck.found(), dict(deck.monitor.board.tiers)
    assert found == everything(list(replay.fold))
    start, end = deck.replay.start_ns, deck.replay.end_ns
    for share in (0.5, 0.97, 0.2):
        deck.player.seek(start + round((end - start) * share))
        deck.turn()
        deck.play_to_the_end()
        assert deck.found() == found
        assert dict(deck.monitor.board.tiers) == counts


def test_an_end_stands_in_the_merged_timeline_where_its_line_does(
    tmp_path: Path, policy: Path, reading: Reading
) -> None:
    """And not where the call began, which is behind what was merged already."""
    first = write(tmp_path / "a.jsonl", [began(0, "1"), over(10, "1")])
    second = write(tmp_path / "b.jsonl", [whole(5), whole(15)])
    pipeline = Pipeline(PolicyFile(policy).policy, reading)
    merged = [event for batch in saved_events(open_saved([first, second]), pipeline) for event in batch]
    assert [(event.source, isinstance(event, CallEnd)) for event in merged] == [
        ("a.jsonl", False), ("b.jsonl", False), ("a.jsonl", True), ("b.jsonl", False),
    ]  # fmt: skip


def test_a_call_is_explained_as_it_came_out_by_either_of_its_lines(
    tmp_path: Path, policy: Path, reading: Reading
) -> None:
    lines = [whole(0), began(1, "1", args={"path": "/etc/passwd"}), whole(2), over(3, "1", "success"),
             began(4, "2", args={"path": "/etc/passwd"}), over(500, "2")]  # fmt: skip
    path = write(tmp_path / "audit.jsonl", lines)

    def explained(number: int) -> tuple[str | None, int | None, int, dict[str, str]]:
        (log,) = open_saved([path])
        found = explain_line(log, number, PolicyFile(policy).policy, shipped(), reading)
        hits = {hit.rule: hit.severity.label for hit in found.explained.hits}
        return found.event.status, found.event.line, found.before, hits

    assert explained(2) == explained(4) == ("success", 2, 1, {"path-outside": "critical"})
    assert explained(5) == ("unknown", 5, 3, {"path-outside": "high"})
    assert explained(3)[:3] == ("success", 3, 2)
    with pytest.raises(RecordError, match="line 6: is the end of a call that is over"):
        explained(6)


def test_a_draft_allows_what_succeeded_in_the_end() -> None:
    """A call counts once, and as what it came out as."""
    seen = ToolsSeen()
    start = AuditEvent(event="tool_call", tool="query", status="unknown", key_id="k1")
    seen.add(start)
    assert (seen.tools["query"].count, seen.tools["query"].succeeded) == (1, 0)
    before = Shape("tool_call", "query", "unknown")
    seen.add(
        CallEnd(event="tool_call", tool="query", status="success", key_id="k1", start=start, before=before)
    )
    assert (seen.tools["query"].count, seen.tools["query"].succeeded) == (1, 1)
    assert list(seen.keys) == ["k1"]


def test_rates_and_comparisons_count_a_call_once(tmp_path: Path, policy: Path, reading: Reading) -> None:
    """`rules test` and `policy what-if` see calls, and how they came out."""
    lines = [began(0, "1", args={"path": "/etc/passwd"}), over(1, "1", "denied"), whole(2, "success")]
    path = write(tmp_path / "audit.jsonl", lines)
    counted = rates(open_saved([path]), Pipeline(PolicyFile(policy).policy, reading), shipped())
    assert counted.events == 2
    (outside,) = [rate for rate in counted.rates() if rate.rule.id == "path-outside"]
    assert (outside.hits, {level.label: n for level, n in outside.by_severity.items()}) == (1, {"medium": 1})
    found = compare(open_saved([path]), BUILT_IN, PolicyFile(policy).policy, shipped(), reading)
    assert (found.events, found.requests, found.refused_in_log) == (2, 2, 1)
    (change,) = found.incidents
    assert change.new is not None
    assert (change.new.severity.label, dict(change.new.outcomes)) == ("medium", {"denied": 1})


def two_sources(
    reading: Reading, *lines: tuple[str, bytes], text: str = POLICY
) -> tuple[Pipeline, list[AuditEvent]]:
    pipeline = Pipeline(parse(text.encode(), None), reading)
    pipeline.expect(source for source, _ in lines)
    events: list[AuditEvent] = []
    for number, (source, record) in enumerate(lines):
        events += pipeline.take(Block(source, [record.rstrip(b"\n")], 1000 * number, number + 1)).events
    return pipeline, events


ID = "0123456789abcdef"


def test_a_call_that_a_second_source_logs_is_a_repeat(reading: Reading) -> None:
    """It is counted as one and is no event; the lines still add up."""
    pipeline, events = two_sources(reading, ("gateway", whole(0, call=ID)), ("server", whole(1, call=ID)))
    assert [event.source for event in events] == ["gateway"]
    totals = pipeline.totals()
    assert (totals["lines"], totals["understood"], totals["repeated"], totals["events"]) == (2, 1, 1, 1)
    assert pipeline.summary()["events"] == 1


@pytest.mark.parametrize(
    "other",
    [
        {"call": ID[1:]},
        {"tool": "query"},
        {"args": {"path": "/app/data/b"}},
        {"outcome": "denied"},
        {"key": "k2"},
        {"session": "another"},
    ],
)
def test_whoever_reuses_an_id_hides_nothing(reading: Reading, other: dict[str, Any]) -> None:
    """What differs in anything that matters is a call of its own, and so is one with a short id."""
    first = {"call": other.get("call", ID)}
    _, events = two_sources(
        reading, ("gateway", whole(0, **first)), ("server", whole(1, **({"call": ID} | other)))
    )
    assert len(events) == 2


def test_one_record_is_repeated_once_in_each_other_source(reading: Reading) -> None:
    """A flood of calls with the id of one of somebody else's is a flood."""
    lines = [
        ("gateway", whole(0, call=ID)),
        *[("server", whole(1, call=ID))] * 5,
        ("third", whole(2, call=ID)),
    ]
    _, events = two_sources(reading, *lines)
    assert Counter(event.source for event in events) == {"gateway": 1, "server": 4}


def test_repeats_are_never_within_one_source_and_never_beyond_the_lateness(reading: Reading) -> None:
    _, events = two_sources(reading, ("gateway", whole(0, call=ID)), ("gateway", whole(0, call=ID)))
    assert len(events) == 2
    _, events = two_sources(reading, ("gateway", whole(0, call=ID)), ("server", whole(121, call=ID)))
    assert len(events) == 2
    _, events = two_sources(reading, ("gateway", whole(0, call=ID)), ("server", whole(120, call=ID)))
    assert len(events) == 1


def test_a_call_in_two_lines_is_known_again_when_it_has_ended(reading: Reading) -> None:
    """A gateway writes one line when a call is over, the server two."""
    lines = [("server", began(0, "1", call=ID)), ("server", over(1, "1")), ("gateway", whole(0, call=ID))]
    pipeline, events = two_sources(reading, *lines)
    assert [event.source for event in events] == ["server", "server"]
    assert pipeline.totals()["repeated"] == 1
    lines[1] = ("server", over(1, "1", "denied"))
    assert [event.source for event in two_sources(reading, *lines)[1]] == ["server", "server", "gateway"]
