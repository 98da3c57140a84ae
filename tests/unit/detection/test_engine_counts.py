"""The engine counts every event, whoever makes it and however often callers are met anew."""

from __future__ import annotations

from collections import Counter

from mcpwatch.detection.engine import Engine
from mcpwatch.policy.model import BUILT_IN
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
