"""The engine counts every event, whoever makes it and however often callers are met anew."""

from __future__ import annotations

import json
from collections import Counter

from mcpwatch.detection.engine import Engine
from mcpwatch.formats.reader import Reader
from mcpwatch.policy.model import BUILT_IN
from mcpwatch.sources.block import Block
from tests.oracle import read, stamp

SECOND = 1_000_000_000


def test_new_callers_of_a_known_tool_lose_no_count() -> None:
    lines = [
        {"timestamp": stamp(number * SECOND), "tool": f"tool_{number % 3}", "session_id": f"s{number}",
         "status": "success"}
        for number in range(300)
    ]  # fmt: skip
    engine = Engine(BUILT_IN)
    events = read(lines)
    for start in range(0, 300, 7):
        engine.observe(events[start : start + 7])
    assert engine.counts.total() == 300
    assert Counter({status: n for (_, _, status), n in engine.counts.items()}) == {"success": 300}
    assert len(engine.sessions) == 300


def test_where_nothing_was_evicted_nothing_is_said() -> None:
    """A summary that names a rule with zero evictions would read like a loss."""
    engine = Engine(BUILT_IN)
    call = {"timestamp": "2026-11-20T08:00:00Z", "tool": "echo", "params": {"x": 1}, "session_id": "s"}
    engine.observe(Reader("a.jsonl").read(Block("a.jsonl", [json.dumps(call).encode()], 0, 1)))
    engine._sweep()
    assert dict(engine.evictions) == {}
