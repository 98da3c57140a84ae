"""`make bench`: replay against a bare JSON loop, memory, start-up, and bytes sent to the terminal.

Every time is a ratio to something run in the same minute, in turn with it: machines differ, and the same machine
differs from one minute to the next.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Final, NamedTuple

from benchmarks.formats import costs
from benchmarks.generate import POLICY, write
from benchmarks.terminal import four_rows, idle

DATA: Final = Path(__file__).parent / "data"
JSON_LOOP: Final = "import sys, orjson\nfor line in open(sys.argv[1], 'rb'): orjson.loads(line)"


class Cost(NamedTuple):
    """What one run of a program cost."""

    cpu_s: float
    wall_s: float
    peak_mib: float


def run(command: Sequence[str]) -> Cost:
    """Run a program to its end, its output thrown away."""
    started = os.times().elapsed
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        assert process.stderr is not None
        raise SystemExit(f"{command[0]}: {process.stderr.read().decode()}")
    return Cost(usage.ru_utime + usage.ru_stime, os.times().elapsed - started, usage.ru_maxrss / 1024)


def pairs(one: Sequence[str], other: Sequence[str], runs: int) -> list[tuple[Cost, Cost]]:
    """Both programs in turn, after a run of each that does not count."""
    run(one), run(other)
    return [(run(one), run(other)) for _ in range(runs)]


def say(what: str, figure: str) -> None:
    """One row of the table."""
    print(f"{what:58} {figure}", flush=True)


def ratio(found: list[tuple[Cost, Cost]]) -> str:
    """Median of the ratios, pair by pair."""
    cpu = [one.cpu_s / other.cpu_s for one, other in found]
    wall = [one.wall_s / other.wall_s for one, other in found]
    spread = f"cpu {min(cpu):.2f} to {max(cpu):.2f}"
    return f"{statistics.median(cpu):.2f} x cpu, {statistics.median(wall):.2f} x wall ({spread})"


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument(
        "--records", type=int, default=1_000_000, help="length of the log (default: %(default)s)"
    )
    parser.add_argument("--runs", type=int, default=5, help="pairs of runs (default: %(default)s)")
    options = parser.parse_args()
    mcpwatch = str(Path(sys.executable).with_name("mcpwatch"))
    log = write(DATA / f"{options.records}.jsonl", options.records)
    with tempfile.TemporaryDirectory() as folder:
        policy = Path(folder) / "policy.yaml"
        policy.write_text(POLICY)
        say(
            "machine",
            f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}, Python {sys.version.split()[0]}",
        )
        replay = [mcpwatch, "replay", "--json", "--policy", str(policy), str(log)]
        found = pairs(replay, [sys.executable, "-c", JSON_LOOP, str(log)], options.runs)
        say(f"replay --json of {options.records:,} records to a bare orjson loop", ratio(found))
        say("  peak memory", f"{max(one.peak_mib for one, _ in found):.0f} MiB")
        for form, times, _ in costs():
            say(f"read a record by {form}, to a native one", f"{times:.2f} x cpu")
        found = pairs([mcpwatch, "--version"], [sys.executable, "-c", "pass"], max(options.runs, 5))
        say("mcpwatch --version to a bare interpreter", ratio(found))
        say("bytes to the terminal from an idle console, 5 s", str(idle(mcpwatch, Path(folder))))
        say("bytes to the terminal when four rows change", str(four_rows(mcpwatch, Path(folder))))


if __name__ == "__main__":
    main()
