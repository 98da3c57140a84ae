"""`make bench-rules`: what the rules find, what they miss, what they cost, and what they hold in memory.

Times are ratios to something run in the same minute, in turn with it.
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import subprocess
import sys
import tempfile
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import orjson

from benchmarks.__main__ import DATA, JSON_LOOP, pairs, run, say
from benchmarks.generate import POLICY, write
from mcpwatch.detection.engine import Engine
from mcpwatch.detection.rulefile import SHIPPED, shipped
from mcpwatch.formats.reader import Reader
from mcpwatch.incidents.fold import Fold
from mcpwatch.policy.model import BUILT_IN
from mcpwatch.sources.block import Block
from mcpwatch.times import DAY, MINUTE, SECOND, iso

CORE: Final = 15
"""The first so many of the shipped rules are the core ones."""
START: Final = 1_795_132_800 * SECOND  # 2026-11-20T00:00:00Z
LIMIT: Final = 5


def without_further(folder: Path) -> Path:
    """A folder of rule files that switches the further rules off."""
    folder.mkdir()
    for rule in SHIPPED[CORE:]:
        (folder / f"{rule}.yaml").write_text(f'tune: {rule}\nenabled: false\nreason: "measured without it"\n')
    return folder


def cost(records: int, runs: int, folder: Path) -> None:
    """CPU time per record with all rules, against the core rules alone."""
    mcpwatch = str(Path(sys.executable).with_name("mcpwatch"))
    log = write(DATA / f"{records}.jsonl", records)
    policy = folder / "policy.yaml"
    policy.write_text(POLICY)
    replay = [mcpwatch, "replay", "--json", "--policy", str(policy), str(log)]
    core = [*replay, "--rules", str(without_further(folder / "core"))]
    found = pairs(replay, core, runs)
    ratios = [one.cpu_s / other.cpu_s for one, other in found]
    loop = min(run([sys.executable, "-c", JSON_LOOP, str(log)]).cpu_s for _ in range(3))
    each = [min(cost.cpu_s for cost in costs) / records * 1e6 for costs in zip(*found, strict=True)]
    say(
        f"all rules to the core rules alone, {records:,} records",
        f"{statistics.median(ratios):.2f} x cpu ({min(ratios):.2f} to {max(ratios):.2f}); at best "
        f"{each[0]:.1f} and {each[1]:.1f} us a record, a bare orjson loop {loop / records * 1e6:.1f}",
    )


def simulated(sessions: int, seed: int) -> Iterator[tuple[int, str]]:
    """(time, session) of calls, each session in one of eight manners, some of them bursts to the nanosecond."""
    rng = random.Random(seed)
    for number in range(sessions):
        now = START + rng.randrange(DAY - 30 * MINUTE)
        for _ in range(rng.randrange(1, 25)):
            yield now, f"s-{number}"
            now += (
                rng.randrange(60 * SECOND), 12 * SECOND, 12 * SECOND - 1, 10 * SECOND, rng.randrange(20 * SECOND),
                rng.choice((0, 20 * SECOND)), rng.choice((1, 59 * SECOND)), 11_999_999_999 + rng.randrange(3),
            )[number % 8]  # fmt: skip


def bursts(sessions: int) -> None:
    """True bursts found and false alarms, call by call, against the definition worked out the long way."""
    calls = sorted(simulated(sessions, seed=3))
    lines = [
        orjson.dumps({"timestamp": _exact(time), "tool": "calculator", "session_id": session})
        for time, session in calls
    ]
    hits = [hit for hit in _observed(lines) if hit[0] == "session-rate"]
    by_session: dict[str, list[int]] = defaultdict(list)
    expected = set()
    for offset, (time, session) in zip(_offsets(lines), calls, strict=True):
        times = by_session[session]
        times.append(time)
        # lines are in order of time, so a window that holds the call and fires ends at it
        if sum(time - MINUTE < each <= time for each in times) > LIMIT:
            expected.add(offset)
    found = {offset for _, offset in hits}
    say(
        f"bursts in {sessions:,} simulated sessions, {len(calls):,} calls",
        f"{len(found & expected):,} of {len(expected):,} found, {len(found - expected)} false alarms "
        f"among {len(calls) - len(expected):,} other calls",
    )


def _exact(time: int) -> str:
    return f"{iso(time)[:-1]}{time % 1000:03d}Z"


def _offsets(lines: list[bytes]) -> Iterator[int]:
    offset = 0
    for line in lines:
        yield offset
        offset += len(line) + 1


def _observed(lines: list[bytes]) -> Iterator[tuple[str, int]]:
    engine, reader = Engine(BUILT_IN), Reader("log")
    for hit in engine.observe(reader.read(Block("log", lines, 0, 1))):
        yield hit.rule, hit.offset


def flood(hits: int) -> None:
    """Many hits of one rule on one subject: how many incidents and notifications come of it."""
    lines = [
        orjson.dumps(
            {"timestamp": iso(START + n * SECOND), "tool": "bash", "params": {"command": f"echo {n}"},
             "key_id": "key_0001", "status": "success", "duration_ms": 1}
        )
        for n in range(hits)
    ]  # fmt: skip
    engine, fold = Engine(BUILT_IN, shipped().only("shell-execute")), Fold(BUILT_IN.alerts)
    changes = fold.add(engine.observe(Reader("log").read(Block("log", lines, 0, 1))))
    counts = [incident.count for incident in fold]
    say(f"{hits:,} hits of one rule", f"incidents with counts {counts}, {len(changes)} notifications")


def memory(sessions: int, folder: Path) -> None:
    """Peak memory with so many different session ids, and whether the attacker among them is found."""
    log = folder / "sessions.jsonl"
    with log.open("wb", buffering=1 << 20) as out:
        for n in range(sessions):
            time = START + n * (DAY - MINUTE) // sessions
            record = {
                "timestamp": iso(time), "tool": "calculator", "params": {"expression": f"{n} + 1"},
                "status": "success", "duration_ms": 1, "session_id": f"s-{n:08x}", "client_id": f"c-{n % 50}",
                "source_ip": f"10.0.{n % 200}.9",
            }  # fmt: skip
            out.write(orjson.dumps(record) + b"\n")
            if n % (sessions // 20) == sessions // 40:
                for k in range(6):
                    attack = {**record, "timestamp": iso(time + k * SECOND), "session_id": "attacker"}
                    out.write(orjson.dumps(attack) + b"\n")
    mcpwatch = str(Path(sys.executable).with_name("mcpwatch"))
    replay = [mcpwatch, "replay", "--json", str(log)]
    peak = run(replay).peak_mib
    printed = subprocess.run(replay, capture_output=True, check=True).stdout.splitlines()
    records = [json.loads(line) for line in printed]
    found = [r["count"] for r in records if r.get("subject") == {"session": "attacker"}]
    summary = records[-1]
    say(
        f"{sessions:,} different session ids",
        f"peak {peak:.0f} MiB; attacker's incidents have counts {found}; {summary['sessions']:,} sessions counted; "
        f"evicted {summary.get('evictions', {})}",
    )


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.rules", description=__doc__)
    parser.add_argument(
        "--records", type=int, default=1_000_000, help="length of the log (default: %(default)s)"
    )
    parser.add_argument("--runs", type=int, default=5, help="pairs of runs (default: %(default)s)")
    parser.add_argument(
        "--sessions", type=int, default=20_000, help="simulated sessions (default: %(default)s)"
    )
    parser.add_argument(
        "--ids", type=int, default=2_000_000, help="different session ids (default: %(default)s)"
    )
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        bursts(options.sessions)
        flood(10_000)
        memory(options.ids, Path(folder))
        cost(options.records, options.runs, Path(folder))


if __name__ == "__main__":
    main()
