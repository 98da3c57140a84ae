"""What the real program sends to a terminal while nothing happens, and when little does."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest

from mcpwatch.times import SECOND, iso
from tests.terminal.hostile import at_work


def test_an_idle_console_writes_nothing_and_a_change_little(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A real log that rests: not a byte in three seconds. Four records: only the rows that changed."""
    log = tmp_path / "a.jsonl"
    now = time.time_ns()

    def line(n: int, at: int) -> bytes:
        record = {"timestamp": iso(at), "tool": "file_read", "params": {"path": f"/app/{n}"}, "status": "success",
                  "key_id": f"k{n % 4}", "session_id": f"s{n % 4}", "duration_ms": 2}  # fmt: skip
        return json.dumps(record).encode() + b"\n"

    log.write_bytes(b"".join(line(n, now - 7200 * SECOND + n) for n in range(200)))
    with at_work(tmp_path, "tail", str(log), "--since", "1d") as found:
        found.read(6.0)  # the rate of the first seconds has to fade away
        found.settle()
        assert found.read(3.0) == b""
        with log.open("ab") as file:
            file.write(b"".join(line(n, time.time_ns()) for n in range(4)))
        sent = found.read(1.0)
        with capsys.disabled():
            print(f"\nfour new records at 120x40: {len(sent)} bytes in the first second")
        assert 0 < len(sent) < 8_000
        found.send(b"q")
        assert found.ended(5)
