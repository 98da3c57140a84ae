"""Makes the benchmark log: the same million records every time, with incidents planted among the noise."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import orjson

from mcpwatch.times import SECOND, iso

SESSIONS: Final = 1_200
KEYS: Final = 400
PLANTED: Final = 60
_START: Final = 1_795_132_800 * SECOND  # 2026-11-20T00:00:00Z
_TOOLS: Final = (
    ("file_read", 40), ("http_get", 12), ("http_request", 8), ("calculator", 12), ("datetime", 8),
    ("text_transform", 8), ("memory_store", 5), ("file_write", 5), ("database_read", 1), ("database_write", 1),
)  # fmt: skip
_OUTCOMES: Final = (("success", 960), ("error", 25), ("denied", 10), ("timeout", 5))

POLICY: Final = """version: 1
tools:
  file_read: {allowed_paths: ["/app/data/", "/app/public/"], require_scope: read}
  file_write: {allowed_paths: ["/app/output/"], require_scope: write, require_audit_log: true}
  http_request: {allowed_domains: ["api.openai.com", "api.anthropic.com"], require_scope: network}
  http_get: {allowed_domains: ["*.example.com"]}
  shell_execute: {enabled: false}
unlisted_tools: allow
revoked:
  - {key: key_0007, at: "2026-11-20T06:00:00Z"}
"""


def _params(tool: str, rng: random.Random) -> dict[str, object]:
    number = rng.randrange(4_000)
    if tool == "file_read":
        return {"path": f"/app/data/reports/2026/11/report-{number}.csv"}
    if tool == "file_write":
        return {"path": f"/app/output/summary-{number}.md", "content": "x" * 40}
    if tool in ("http_request", "http_get"):
        host = "api.openai.com" if tool == "http_request" else f"docs{number % 50}.example.com"
        return {"url": f"https://{host}/v1/items/{number}", "method": "GET"}
    return {"expression": f"{number} * 7 + {number % 13}", "precision": 4}


def records(count: int, seed: int = 7) -> Iterator[bytes]:
    """`count` lines of about 270 bytes over one day, in order of time, without newlines."""
    rng = random.Random(seed)
    tools = [tool for tool, weight in _TOOLS for _ in range(weight)]
    outcomes = [outcome for outcome, weight in _OUTCOMES for _ in range(weight)]
    step = 86_000 * SECOND // count
    planted = {count * (n + 1) // (PLANTED + 2): n for n in range(PLANTED)}
    now = _START
    for number in range(count):
        now += rng.randrange(2 * step)
        session = rng.randrange(SESSIONS)
        key = session % KEYS
        tool = rng.choice(tools)
        record: dict[str, object] = {
            "timestamp": iso(now), "event": "tool_call", "tool": tool, "params": _params(tool, rng),
            "status": rng.choice(outcomes), "duration_ms": round(rng.expovariate(1 / 40), 2),
            "key_id": f"key_{key:04d}", "client_id": f"client-{key % 40:02d}", "session_id": f"s-{session:04x}",
            "source_ip": f"10.20.{key % 256}.{session % 250 + 1}", "scopes": ["read", "write", "network"],
        }  # fmt: skip
        yield orjson.dumps(record)
        if number in planted:
            yield from _attack(planted[number], now, record)


def _attack(kind: int, now: int, record: dict[str, object]) -> Iterator[bytes]:
    """One planted incident: a burst, a brute force, a traversal, a metadata fetch, a shell call."""
    base = {
        **record,
        "session_id": f"bad-{kind}",
        "key_id": f"key_{900 + kind:04d}",
        "source_ip": f"203.0.113.{kind}",
    }
    times = [now + i * SECOND // 10 for i in range(40)]
    if kind % 5 == 0:
        lines = [{**base, "timestamp": iso(time)} for time in times]
    elif kind % 5 == 1:
        lines = [
            {
                "timestamp": iso(time),
                "event": "auth",
                "status": "unauthenticated",
                "source_ip": base["source_ip"],
            }
            for time in times[:6]
        ]
    elif kind % 5 == 2:
        path = {"path": "/app/data/../../etc/passwd"}
        lines = [
            {**base, "timestamp": iso(times[0]), "tool": "file_read", "params": path, "status": "denied"}
        ]
    elif kind % 5 == 3:
        url = {"url": "http://169.254.169.254/latest/meta-data/"}
        lines = [
            {**base, "timestamp": iso(times[0]), "tool": "http_request", "params": url, "status": "denied"}
        ]
    else:
        lines = [{**base, "timestamp": iso(times[0]), "tool": "shell_execute", "params": {"command": "id"}}]
    yield from map(orjson.dumps, lines)


def write(path: Path, count: int) -> Path:
    """Write the log unless it is there."""
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("wb", buffering=1 << 20) as out:
            for line in records(count):
                out.write(line + b"\n")
    return path
