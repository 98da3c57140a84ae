"""The endurance test: `python -m tests.soak [--minutes 60]`, also `make soak`.

A writer at 2,000 records a second, a real logrotate every two minutes, the real `mcpwatch tail --json` and a real
console on a pseudo-terminal beside it. Every ten seconds it notes what both hold; in the end what `tail` found is
compared with a replay of the rotation set.
"""

from __future__ import annotations

import argparse
import contextlib
import csv
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

from tests.functional.program import MCPWATCH, Home, Running, outcome
from tests.soak_writer import POLICY
from tests.terminal.console_pty import Terminal

WARM_UP_S: Final = 600.0
"""Until then memory grows to its size; the slope is that of the rest. At most a third of the run."""
SAMPLE_EVERY_S: Final = 10.0
ROTATE_EVERY_S: Final = 120.0
MAX_SLOPE: Final = 12.0
"""MiB an hour, of either program, judged from 20 minutes on."""
MAX_MORE_DESCRIPTORS: Final = 8
_ROOT: Final = Path(__file__).resolve().parents[1]
_SAME: Final = ("lines", "understood", "not_understood", "blank", "joined", "events", "late", "tool_calls",
                "tiers", "outcomes", "sessions", "keys", "first_event", "last_event", "incidents")  # fmt: skip


class Sample(NamedTuple):
    """What a program holds."""

    seconds: float
    program: str
    rss_mib: float
    descriptors: int
    threads: int
    cpu_percent: float
    """Since the sample before."""
    state_bytes: int


class Probe:
    """Looks at a program through /proc."""

    def __init__(self, name: str, pid: int, state: Path) -> None:
        self._name, self._proc, self._state = name, Path(f"/proc/{pid}"), state
        self._ticks, self._at = self._cpu(), time.monotonic()

    def _cpu(self) -> int:
        fields = (self._proc / "stat").read_text().rpartition(")")[2].split()
        return int(fields[11]) + int(fields[12])

    def look(self, seconds: float) -> Sample:
        """What it holds now."""
        status = dict(line.split(":", 1) for line in (self._proc / "status").read_text().splitlines())
        ticks, at = self._cpu(), time.monotonic()
        cpu = (ticks - self._ticks) / os.sysconf("SC_CLK_TCK") / max(at - self._at, 0.001)
        self._ticks, self._at = ticks, at
        size = sum(path.stat().st_size for path in self._state.rglob("*") if path.is_file())
        return Sample(
            round(seconds, 1), self._name, round(int(status["VmRSS"].split()[0]) / 1024, 2),
            len(list((self._proc / "fd").iterdir())), int(status["Threads"]), round(100 * cpu, 1), size,
        )  # fmt: skip


def slope(samples: Sequence[Sample]) -> float:
    """By how much memory grows, MiB an hour: the line of least squares."""
    if len(samples) < 2:
        return 0.0
    mean_t = sum(each.seconds for each in samples) / len(samples)
    mean_m = sum(each.rss_mib for each in samples) / len(samples)
    over = sum((each.seconds - mean_t) * (each.rss_mib - mean_m) for each in samples)
    return 3_600 * over / sum((each.seconds - mean_t) ** 2 for each in samples)


class Logrotate:
    """The real one, told to rotate now."""

    def __init__(self, folder: Path, log: Path, writer: int) -> None:
        program = shutil.which("logrotate", path="/usr/sbin:/usr/bin:/sbin:/bin")
        if program is None:
            sys.exit("logrotate is not installed: apt-get install logrotate")
        config = folder / "logrotate.conf"
        config.write_text(
            f"{log} {{\n rotate 1000\n create 0640\n compress\n delaycompress\n"
            f" postrotate\n  kill -HUP {writer}\n endscript\n}}\n"
        )
        config.chmod(0o644)
        self._command = [program, "-f", "-s", str(folder / "logrotate.state"), str(config)]
        self.count = 0

    def rotate(self) -> None:
        """Rotate once, and wait until the older file is compressed."""
        subprocess.run(self._command, check=True)
        self.count += 1


@contextlib.contextmanager
def _writer(log: Path, rate: float) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-m", "tests.soak_writer", str(log), str(rate)]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=_ROOT
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        yield process


@contextlib.contextmanager
def _console(home: Home, *args: object) -> Iterator[Terminal]:
    """A console whose terminal takes whatever it paints."""
    terminal = Terminal([str(MCPWATCH), *map(str, args)], (120, 40), cwd=home.folder, env=home.environment())

    def drain() -> None:
        with contextlib.suppress(OSError):  # the console has left its terminal
            while os.read(terminal.fd, 65_536):
                pass

    thread = threading.Thread(target=drain, daemon=True)
    thread.start()
    try:
        yield terminal
    finally:
        os.kill(terminal.pid, signal.SIGTERM)
        thread.join(20)
        terminal.close()


def _copy(folder: Path) -> Path:
    """The programs as they are now: whoever works on them during the hour changes nothing in it."""
    copy = folder / "programs"
    for name in ("mcpwatch", "rules", "themes", "sample_logs"):
        shutil.copytree(_ROOT / name, copy / name, ignore=shutil.ignore_patterns("__pycache__"))
    return copy


def _watch(probes: Sequence[Probe], logrotate: Logrotate, seconds: float, out: Path) -> list[Sample]:
    """Sample and rotate until the time is over."""
    began = time.monotonic()
    sample_at, rotate_at = SAMPLE_EVERY_S, min(ROTATE_EVERY_S, seconds / 3)
    samples: list[Sample] = []
    with out.open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(Sample._fields)
        while (now := time.monotonic() - began) < seconds:
            if now >= rotate_at:
                rotate_at += ROTATE_EVERY_S
                threading.Thread(target=logrotate.rotate, daemon=True).start()
            if now >= sample_at:
                sample_at += SAMPLE_EVERY_S
                try:
                    found = [probe.look(now) for probe in probes]
                except (OSError, KeyError):  # it has ended: the caller says how
                    break
                table.writerows(found)
                file.flush()
                samples += found
            time.sleep(0.2)
    return samples


def rotation_set(log: Path) -> list[Path]:
    """The log with all that was rotated away from it."""
    return [path for path in log.parent.iterdir() if path.name.startswith(log.name)]


def _differences(live: str, replayed: str) -> list[str]:
    """In what two runs differ, one line each."""
    (ours, our_sum), (theirs, their_sum) = outcome(live), outcome(replayed)
    found = [
        f"{name}: live {our_sum.get(name)}, replay {their_sum.get(name)}"
        for name in _SAME
        if our_sum.get(name) != their_sum.get(name)
    ]
    mine, other = ({each["id"]: each for each in incidents} for incidents in (ours, theirs))
    found += [f"only in live: {mine[name]}" for name in mine.keys() - other.keys()]
    found += [f"only in replay: {other[name]}" for name in other.keys() - mine.keys()]
    return found + [
        f"{name}: live {mine[name]}, replay {other[name]}"
        for name in mine.keys() & other.keys()
        if mine[name] != other[name]
    ]


def _caught_up(running: Running, seconds: float = 60.0) -> None:
    """Wait until a program has next to nothing to do any more."""
    probe = Probe("", running.process.pid, Path("/nonexistent"))
    end = time.monotonic() + seconds
    quiet = 0
    while quiet < 3 and time.monotonic() < end:
        time.sleep(1)
        quiet = quiet + 1 if probe.look(0).cpu_percent < 30 else 0


def _report(samples: Sequence[Sample], minutes: float) -> list[str]:
    """Print what the programs held; what is wrong with it."""
    wrong = []
    warm_up = min(WARM_UP_S, minutes * 20)
    for name in dict.fromkeys(each.program for each in samples):
        own = [each for each in samples if each.program == name]
        level = [each for each in own if each.seconds >= warm_up]
        growth = slope(level)
        descriptors = [each.descriptors for each in level]
        print(
            f"{name:8} memory {min(each.rss_mib for each in own):.1f} to {max(each.rss_mib for each in own):.1f} MiB,"
            f" slope {growth:+.2f} MiB/h after {warm_up / 60:.0f} min;"
            f" descriptors {min(descriptors)} to {max(descriptors)}; threads {min(each.threads for each in level)}"
            f" to {max(each.threads for each in level)};"
            f" CPU {sum(each.cpu_percent for each in level) / len(level):.0f} %;"
            f" state folder {own[0].state_bytes:,} to {own[-1].state_bytes:,} bytes"
        )
        if minutes >= 20 and growth > MAX_SLOPE:
            wrong.append(f"{name}: memory grows by {growth:.1f} MiB/h (at most {MAX_SLOPE:g})")
        if max(descriptors) - min(descriptors) > MAX_MORE_DESCRIPTORS:
            wrong.append(f"{name}: descriptors go from {min(descriptors)} to {max(descriptors)}")
    return wrong


def _compare(home: Home, tail: Running, log: Path, written: int) -> list[str]:
    """Print what was lost and repeated; in what live and replay differ."""
    files = [str(path) for path in rotation_set(log)]
    began = time.monotonic()
    replayed = subprocess.run(
        [MCPWATCH, "replay", *files, "--json", "--policy", "policy.yaml"],
        cwd=home.folder, env=home.environment(), capture_output=True, text=True, check=False,
    )  # fmt: skip
    took = time.monotonic() - began
    if replayed.returncode:
        return [f"replay ended with {replayed.returncode}: {replayed.stderr}"]
    incidents, live = outcome(tail.out)
    lost, repeated = max(written - live["lines"], 0), live["repeated"] + max(live["lines"] - written, 0)
    print(f"lines    {written:,} written, {live['lines']:,} read: lost {lost:,}, repeated {repeated:,}")
    print(f"replay   {took:.0f} s; {len(incidents):,} incidents, {live['events']:,} events in live")
    wrong = _differences(tail.out, replayed.stdout)
    if lost or repeated:
        wrong.insert(0, f"lost {lost:,} lines, repeated {repeated:,}")
    notes = [line for line in tail.err.splitlines() if line]
    print(f"notes    {len(notes)}" + "".join(f"\n         {line}" for line in notes[:10]))
    return wrong


def soak(folder: Path, out: Path, minutes: float, rate: float) -> int:
    """Run it; 0 when everything held."""
    home = Home(folder, {"PYTHONPATH": str(_copy(folder))})
    home.folder.chmod(0o755)  # logrotate refuses a folder that others may write into
    log, state = folder / "audit.jsonl", folder / "state"
    log.touch(mode=0o640)
    (folder / "policy.yaml").write_text(POLICY)
    watch: Final[tuple[Any, ...]] = ("tail", log.name, "--policy", "policy.yaml", "--state", state)
    with (
        home.start(*watch, "--json") as tail,
        _console(home, *watch) as console,
        _writer(log, rate) as writer,
    ):
        logrotate = Logrotate(folder, log, writer.pid)
        probes = [Probe("tail", tail.process.pid, state), Probe("console", console.pid, state)]
        samples = _watch(probes, logrotate, minutes * 60, out)
        written, _ = writer.communicate()
        _caught_up(tail)
        died = [name for name, ended in (("tail", tail.process.poll() is not None), ("console", console.ended(0.1)))
                if ended]  # fmt: skip
        code = tail.stop()
    if died:
        print(f"WRONG    ended by itself: {', '.join(died)}: {tail.err[-2_000:]}")
        return 1
    print(
        f"soak     {minutes:g} minutes, {int(written) / minutes / 60:,.0f} records/s, {logrotate.count} rotations"
    )
    wrong = _report(samples, minutes) + _compare(home, tail, log, int(written))
    if code:
        wrong.append(f"tail ended with {code}: {tail.err[-2_000:]}")
    for line in wrong[:20]:
        print(f"WRONG    {line[:500]}")
    print(f"samples  {out}\nresult   {'FAIL' if wrong else 'pass'}")
    return 1 if wrong else 0


def main() -> int:
    """Read the options, run in a folder that is removed afterwards."""
    options = argparse.ArgumentParser(prog="python -m tests.soak", description=__doc__)
    options.add_argument("--minutes", type=float, default=60.0)
    options.add_argument("--rate", type=float, default=2_000.0, help="records a second")
    options.add_argument("--csv", type=Path, default=Path("build/soak.csv"), help="where the samples go")
    options.add_argument("--keep", type=Path, help="work in this folder, and leave everything in it")
    given = options.parse_args()
    given.csv.parent.mkdir(parents=True, exist_ok=True)
    if given.keep is not None:
        given.keep.mkdir(parents=True)
        return soak(given.keep.absolute(), given.csv, given.minutes, given.rate)
    with tempfile.TemporaryDirectory(prefix="mcpwatch-soak-") as folder:
        return soak(Path(folder), given.csv, given.minutes, given.rate)


if __name__ == "__main__":
    sys.exit(main())
