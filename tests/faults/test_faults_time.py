"""Clocks that step, a program that stands still, and lines that claim to come from the future."""

from __future__ import annotations

import json
import signal
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
import yaml

from mcpwatch.times import DAY, HOUR, MINUTE, SECOND, iso, parse_rfc3339
from tests.faults.matrix import FULL, Figure, row
from tests.functional.program import Home, Json, Running, outcome, records
from tests.unit.monitor.monitor_runs import NOW

FAKETIME = Path("/usr/lib/x86_64-linux-gnu/faketime/libfaketime.so.1")
STEPS = {"+0s": 0, "-1h": -HOUR, "+1h": HOUR, "+1d": DAY}
STOPPED_S = 60.0 if FULL else 3.0
PACE_S = 0.5

POLICY = """\
version: 1
tools:
  shell_execute: {enabled: true}
lockout: {enforce: true, durations: [5m, 15m]}
"""


@pytest.fixture
def home(tmp_path: Path) -> Home:
    (tmp_path / "policy.yaml").write_text(POLICY)
    return Home(tmp_path)


def line(at_ns: int, **fields: object) -> bytes:
    record: dict[str, object] = {"timestamp": iso(at_ns), "tool": "calculator", "status": "success"}
    return json.dumps(record | fields).encode() + b"\n"


def failed_login(at_ns: int, address: str) -> bytes:
    return line(at_ns, tool=None, event="auth", status="unauthenticated", source_ip=address)


class Clock:
    """The wall clock of a program, which can be set; that of the log's writer goes with it."""

    def __init__(self, home: Home) -> None:
        self._file = home.folder / "clock"
        self.offset_ns = 0
        self.set("+0s")
        home.env |= {
            "LD_PRELOAD": str(FAKETIME), "FAKETIME_TIMESTAMP_FILE": str(self._file), "FAKETIME_NO_CACHE": "1",
            # a step of the wall clock moves neither the monotonic clock nor the times of files
            "FAKETIME_DONT_FAKE_MONOTONIC": "1", "DONT_FAKE_MONOTONIC": "1", "NO_FAKE_STAT": "1",
        }  # fmt: skip

    def set(self, step: str) -> None:
        """Set it to the real time and some more."""
        beside = self._file.with_suffix(".new")
        beside.write_text(step + "\n")
        beside.rename(self._file)
        self.offset_ns = STEPS[step]

    @property
    def now(self) -> int:
        return time.time_ns() + self.offset_ns


@row("F1", slow=True)
@pytest.mark.skipif(not FAKETIME.exists(), reason="faketime is not installed (apt-get install faketime)")
def test_the_clock_steps_back_an_hour_on_an_hour_and_into_another_day(home: Home, figure: Figure) -> None:
    """The log is read on at once, rotated or new; what is found is what a replay finds, and lockouts are right."""
    clock, written = Clock(home), 0
    (home.folder / "logs").mkdir()
    log = home.folder / "logs/audit.jsonl"
    log.touch()
    with home.start("tail", "logs/*.jsonl", "--json", "--policy", "policy.yaml", "--since", "2h") as tail:
        tail.wait_for("it to begin", lambda: "logs/audit.jsonl" in tail.err or tail.err == "")
        for number, step in enumerate(STEPS):
            clock.set(step)
            log.rename(home.folder / f"logs/audit.jsonl.{len(STEPS) - number}")
            # after ten late records in a row a log has a new time: they are the price of a clock that was set back
            lines = [line(clock.now, session_id=f"before-{number}-{n}") for n in range(12)]
            lines += [line(clock.now, session_id=f"burst-{number}") for _ in range(20)]
            lines += [failed_login(clock.now, f"203.0.113.{number + 1}") for _ in range(4)]
            log.write_bytes(b"".join(lines))
            (home.folder / f"logs/other-{number}.jsonl").write_bytes(
                line(clock.now, session_id=f"new-{number}")
            )
            written += len(lines) + 1
            burst, address = f'"session":"burst-{number}"', f"203.0.113.{number + 1}"
            tail.wait_for(f"the burst after {step}", partial(_told, tail, burst))
            tail.wait_for(f"the failed logins after {step}", partial(_told, tail, address))
            policy = home.folder / "policy.yaml"
            tail.wait_for(f"the lockout after {step}", partial(_holds, policy, address))
            time.sleep(PACE_S)
        assert tail.stop() == 0
    found, summary = outcome(tail.out)
    assert (summary["lines"], summary["events"], summary["repeated"]) == (written, written, 0)
    bursts = [each for each in found if each["subject"].get("session", "").startswith("burst-")]
    assert [each["count"] for each in bursts if each["rule"] == "session-rate"] == [15] * len(STEPS)
    for entry in yaml.safe_load((home.folder / "policy.yaml").read_text())["lockouts"]:
        failed = next(each for each in found if each["subject"] == {"source_ip": entry["source_ip"]})
        assert _ns(entry["until"]) - _ns(failed["first_seen"]) == pytest.approx(5 * MINUTE, abs=SECOND)
    figure(
        f"{len(STEPS)} steps: lost 0, repeated 0 of {written}, {len(bursts)} bursts and 4 lockouts as they were"
    )


def _told(tail: Running, text: str) -> bool:
    return text in tail.out


def _holds(path: Path, text: str) -> bool:
    return text in path.read_text()


def _ns(text: str) -> int:
    found = parse_rfc3339(text)
    assert found is not None
    return found[0]


@row("F2", slow=True)
def test_stopped_for_a_minute_it_goes_on_by_itself_and_has_missed_nothing(home: Home, figure: Figure) -> None:
    """While it stands still the log is written on and rotated three times."""
    log, written = home.folder / "audit.jsonl", 0

    def write(count: int) -> None:
        nonlocal written
        with log.open("ab") as file:
            for _ in range(count):
                file.write(line(time.time_ns(), session_id=f"s-{written}", key_id="k", n=written))
                written += 1

    write(100)
    with home.start("tail", log.name, "--json", "--events", "--policy", "policy.yaml") as tail:
        tail.wait_for_records(100, "event")
        tail.process.send_signal(signal.SIGSTOP)
        for rotation in range(3):
            write(500)
            time.sleep(STOPPED_S / 4)
            write(500)
            for number in range(rotation, 0, -1):
                Path(f"{log}.{number}").rename(f"{log}.{number + 1}")
            log.rename(f"{log}.1")
        write(500)
        time.sleep(STOPPED_S / 4)
        tail.process.send_signal(signal.SIGCONT)
        tail.wait_for_records(written, "event")
        write(10)
        tail.wait_for_records(written, "event")
        assert tail.stop() == 0
    (summary,) = records(tail.out, "summary")
    seen = [event["session_id"] for event in records(tail.out, "event")]
    assert seen == [f"s-{n}" for n in range(written)]
    assert "gap" not in tail.err
    figure(f"stopped {STOPPED_S:.0f} s, 3 rotations: lost 0, repeated {summary['repeated']} of {written:,}")


def real_lines() -> Iterator[bytes]:
    """Ordinary calls, and one who guesses passwords, then bursts, then reads what he should not."""
    for n in range(600):
        at = NOW + n * SECOND // 2
        yield line(at, session_id=f"quiet-{n % 200}", key_id=f"k{n % 200}", source_ip="10.0.0.1")
        if n % 60 == 30:
            yield failed_login(at, "203.0.113.9")
        if n == 200:
            yield line(at, tool="shell_execute", params={"command": "id"}, key_id="bad")
        if n == 599:
            yield line(at, tool="shell_execute", params={"command": "id"}, key_id="last")
        if 300 <= n < 312:
            yield line(at, session_id="burst", key_id="bad", source_ip="203.0.113.9")


def with_hostile_lines(run: int, every: int, ahead_ns: int) -> Iterator[bytes]:
    """The same, and after so many lines a run of lines that are dated ahead."""
    for n, real in enumerate(real_lines()):
        yield real
        if n % every == 0:
            at = parse_rfc3339(json.loads(real)["timestamp"])
            assert at is not None
            hidden = [
                line(at[0] + ahead_ns, session_id=f"h{n}-{i}", source_ip="198.51.100.66") for i in range(run)
            ]
            yield from hidden


def about_the_real(found: list[Json]) -> list[Json]:
    """The incidents of the attacker, but where their records stand."""
    return [
        {name: value for name, value in each.items() if name not in ("evidence", "change")}
        for each in found
        if each["subject"].get("source_ip") == "203.0.113.9" or "bad" in each["subject"].values()
        or each["subject"].get("session") == "burst"
    ]  # fmt: skip


def replayed(home: Home, lines: Iterator[bytes]) -> tuple[list[Json], Json]:
    """What a replay of some lines finds of the attacker, and its summary."""
    (home.folder / "audit.jsonl").write_bytes(b"".join(lines))
    done = home.run("replay", "audit.jsonl", "--json", "--policy", "policy.yaml")
    assert done.returncode == 0, done.stderr
    found, summary = outcome(done.stdout)
    return about_the_real(found), summary


@row("F4")
@pytest.mark.parametrize("ahead", [10 * MINUTE, HOUR, 400 * DAY])
@pytest.mark.parametrize("every", [1, 3])
def test_a_line_from_the_future_after_every_real_one_hides_nobody(
    home: Home, figure: Figure, every: int, ahead: int
) -> None:
    """All about the attacker is as without them, in replay and live."""
    if not FULL and (ahead, every) != (HOUR, 1):
        pytest.skip("an hour ahead after every line is enough at small size")
    real, _ = replayed(home, real_lines())
    assert {each["rule"] for each in real} >= {"auth-lockout", "session-rate", "shell-execute"}
    both, summary = replayed(home, with_hostile_lines(1, every, ahead))
    assert both == real
    with home.start(
        "tail", "audit.jsonl", "--json", "--policy", "policy.yaml", "--from", iso(NOW - DAY)
    ) as tail:
        tail.wait_for("the end of the log", lambda: "2026-11-22T10:04:59" in tail.out)
        assert tail.stop() == 0
    assert about_the_real(outcome(tail.out)[0]) == real
    assert summary["late"] == 0
    figure(
        f"1 in {every + 1}, {ahead // MINUTE:,} min ahead: {len(both)} of {len(real)} incidents as without them"
    )


@row("F4")
@pytest.mark.parametrize(("run", "every"), [(2, 1), (2, 9), (30, 50)])
def test_runs_of_lines_from_the_future_are_counted_and_what_needs_no_window_is_found(
    home: Home, figure: Figure, run: int, every: int
) -> None:
    """Two such lines in a row are the log's own time: what comes after is late, is judged, and is told as late."""
    real, _ = replayed(home, real_lines())
    both, summary = replayed(home, with_hostile_lines(run, every, HOUR))
    shell = [each for each in real if each["rule"] == "shell-execute"]
    assert [each for each in both if each["rule"] == "shell-execute"] == shell != []
    assert {each["id"] for each in both} <= {each["id"] for each in real}
    assert summary["late"] > 100
    figure(
        f"runs of {run} after {every}: {len(both)} of {len(real)} incidents found, {summary['late']} lines late, told"
    )
