"""The screen of the logs: what is special about one is seen at once, and what could hide something is a banner."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from mcpwatch.console.lines import line_cells, plain
from mcpwatch.console.screens.sources import source_parts
from mcpwatch.snapshot import Counters, GapRow, SourceRow
from mcpwatch.sources.block import MAX_LINE, Gap
from mcpwatch.text import safe
from mcpwatch.times import SECOND
from tests.unit.monitor.monitor_runs import NOW, Room, call

ROW = SourceRow(
    safe("audit.jsonl"), safe("/var/log/audit.jsonl"), "reading", safe(""),
    Counters(lines=12_345_678, understood=12_000_000, not_understood=300_000, blank=45_000, repeated=600, joined=77,
             held=1, events=12_000_001, gaps=7),
    safe("native"), (), 0, 1.0,
    oversize=3, lost=1_234, rotations=4, truncations=1, filesystem=safe("nfs4"),
    senders=(safe("mcp (uid 1001, pid 77)"), safe("root (uid 0, pid 1)")),
    gaps=(GapRow(NOW, 17, 1_234, safe("the file was replaced and is gone")),
          GapRow(NOW, 0, None, safe("it was cut"))),
)  # fmt: skip


@pytest.mark.parametrize("width", [56, 78, 118, 200])
def test_a_log_shows_its_sum_its_badges_and_its_gaps_within_the_screen(width: int) -> None:
    lines = [line for line, _ in source_parts(ROW, width)]
    text = " ".join(" ".join(plain(line) for line in lines).split())
    total = (
        "12,345,678 lines = 12,000,000 understood + 300,000 not understood + 45,000 blank + 600 repeated + 77 joined"
        " + 1 held · 12,000,001 events · 7 gaps"
    )
    assert total in text
    for badge in (
        "nfs4: polled", "2 senders: mcp (uid 1001, pid 77), root (uid 0, pid 1)", "3 over 1 MiB, not judged",
        "4 rotations", "1 truncation", "1,234 bytes lost", "and 5 earlier gaps",
        "1,234 bytes lost: the file was replaced and is gone", "lost bytes unknown: it was cut",
    ):  # fmt: skip
        assert badge in text
    assert max(line_cells(line) for line in lines) <= max(width, 66)


def test_a_log_of_several_formats_shows_each_what_it_does_not_understand_and_open_calls(
    tmp_path: Path,
) -> None:
    room = Room(tmp_path)
    start = (
        b'{"event": "request_start", "method": "tools/call", "source": "client",'
        b' "payload": "{\\"name\\":\\"add\\"}"}\n'
    )
    room.write(call(NOW), call(NOW + SECOND), start, b"\x1b[31mno record\n", b"[]\n", b"no other\n")
    (row,) = room.look().sources
    room.sources.close()
    assert row.formats == (("native", 2), ("fastmcp-structured", 1))
    assert (row.reasons[0], row.open_calls, row.unended_calls) == (("not JSON", 2), 1, 0)
    for width in (56, 118):
        lines = [plain(line) for line, _ in source_parts(replace(row, unended_calls=2), width)]
        text = " ".join(" ".join(lines).split())
        for said in (
            "formats native 2, fastmcp-structured 1", "reasons 2 x not JSON", f"1 x {row.reasons[1][0]}",
            "calls 1 call open", "2 calls without an end, outcome unknown",
        ):  # fmt: skip
            assert said in text
        assert max(len(line) for line in lines if not line.startswith("file")) <= max(width, 66)
    (only,) = [plain(line) for line, _ in source_parts(ROW, 118) if "format" in plain(line)]
    assert only.split() == ["format", "native"]


def test_a_sum_that_is_wrong_says_so() -> None:
    wrong = replace(ROW, counters=replace(ROW.counters, lines=12_345_679))
    assert "DOES NOT ADD UP" in "".join(plain(line) for line, _ in source_parts(wrong, 78))


def test_lines_that_no_rule_has_judged_are_a_banner(tmp_path: Path) -> None:
    """A call can be hidden in a line that is too long; the count goes up with each of them."""
    room = Room(tmp_path)
    hidden = b'{"tool": "shell_execute", "pad": "' + b"x" * MAX_LINE + b'"}\n'
    shown = room.write(call(NOW), hidden)
    assert any("1 line over 1 MiB was not judged" in notice for notice in shown.notices)
    room.write(hidden, hidden)
    for _ in range(6):  # one look takes in a part of a long line at most
        shown = room.look()
    assert any("3 lines over 1 MiB were not judged" in notice for notice in shown.notices)
    (row,) = shown.sources
    assert (row.oversize, row.counters.not_understood, row.counters.lines) == (3, 3, 4)
    room.sources.close()


def test_each_gap_has_its_reason_and_the_newest_stand_first(tmp_path: Path) -> None:
    room = Room(tmp_path)
    room.write(call(NOW))
    gaps = [Gap("audit.jsonl", n, f"reason {n} \x1b[31m", n or None) for n in range(8)]
    for gap in gaps:
        room.monitor.take([gap], NOW + gap.offset * SECOND)
    (row,) = room.look().sources
    assert (row.counters.gaps, row.lost) == (8, sum(range(8)))
    assert [gap.offset for gap in row.gaps] == [7, 6, 5, 4, 3]
    assert row.gaps[0].reason == "reason 7 \\e[31m"
    assert room.monitor.snapshot().counters.gaps == 8
    room.sources.close()
