"""Floods of identities and of alerts, and what runs out: memory, descriptors, the disk behind standard output."""

from __future__ import annotations

import json
import os
import resource
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from mcpwatch.detection.hit import Severity
from mcpwatch.incidents.fold import HELD_AT_MOST
from mcpwatch.times import DAY, SECOND, iso
from tests.faults.matrix import FULL, Figure, row
from tests.functional.program import MCPWATCH, Home, Json, Running, outcome, records
from tests.unit.monitor.monitor_runs import NOW, Room

CALLERS = 1_000_000 if FULL else 2_000
LIVE_CALLERS = 1_000_000 if FULL else 2_000
ALERTS_PER_SECOND = 10_000 if FULL else 2_000
ALERT_SECONDS = 60 if FULL else 1
MIB = 250
PATIENCE = 3_600.0 if FULL else 60.0

POLICY = """\
version: 1
tools:
  shell_execute: {enabled: true}
revoked:
  - {key: attacker, at: "2026-01-01T00:00:00Z"}
  - {key: finish, at: "2026-01-01T00:00:00Z"}
"""
NAMES: dict[str, Callable[[int], str]] = {
    "client_id": "client-{:x}".format,
    "session_id": "session-{:x}".format,
    "key_id": "key-{:x}".format,
    "source_ip": lambda n: f"2001:db8:{n >> 16:x}:{n & 0xFFFF:x}::1",
}


def line(at_ns: int, **fields: object) -> bytes:
    """A refused shell command, unless told otherwise: an alert each."""
    record = {
        "timestamp": iso(at_ns),
        "tool": "shell_execute",
        "params": {"command": "id"},
        "status": "denied",
    }
    return json.dumps(record | fields).encode() + b"\n"


def attack(at_ns: int, key: str = "attacker") -> bytes:
    """The one that matters: a revoked key still works."""
    return line(at_ns, tool="file_read", params={}, status="success", key_id=key, client_id=key, session_id=key,
                source_ip="203.0.113.9")  # fmt: skip


def flood(start_ns: int, count: int, *names: str) -> Iterator[bytes]:
    """Alerts, each by another caller, 500 a second; the attacker is among them once."""
    for n in range(count):
        at = start_ns + n * SECOND // 500
        if n == count // 3:
            yield attack(at)
        yield line(at, **{name: NAMES[name](n) for name in names})


@dataclass
class Ended:
    """A program that has ended, and the most memory that it had."""

    code: int
    out: Path
    mib: float


def measured(home: Home, *args: object) -> Ended:
    """Run a command to its end."""
    out = home.folder / "measured.jsonl"
    with out.open("wb") as file:
        process = subprocess.Popen(
            [MCPWATCH, *map(str, args)], stdout=file, stderr=subprocess.DEVNULL, cwd=home.folder,
            env=home.environment(),
        )  # fmt: skip
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    return Ended(process.returncode, out, usage.ru_maxrss / 1_024)


def stopped(tail: Running) -> int:
    """Ask it to end, and let it print all it has found."""
    tail.process.terminate()
    return tail.process.wait(PATIENCE)


@pytest.fixture
def home(tmp_path: Path) -> Home:
    (tmp_path / "policy.yaml").write_text(POLICY)
    return Home(tmp_path)


def found_in(path: Path) -> tuple[int, bool, Json]:
    """How many incidents a run lists in the end, whether the attacker's is among them, and the summary."""
    count, attacker, summary = 0, False, {}
    with path.open() as file:
        for text in file:
            record = json.loads(text)
            if record["type"] == "summary":
                summary = record
            elif record.get("change", "final") == "final":
                count += 1
                attacker |= record["rule"] == "enforcement-gap" and record["subject"]["key"] == "attacker"
    return count, attacker, summary


@row("F6")
@pytest.mark.parametrize("name", NAMES)
def test_a_million_callers_fill_no_memory_and_hide_nobody_in_replay(
    home: Home, figure: Figure, name: str
) -> None:
    """Every incident is printed once, the attacker's too, however many there are."""
    if not FULL and name != "client_id":
        pytest.skip("one kind of name is enough at small size")
    log = home.folder / "audit.jsonl"
    with log.open("wb") as file:
        file.writelines(flood(NOW - NOW % DAY, CALLERS, name))
    done = measured(home, "replay", log, "--json", "--policy", "policy.yaml")
    count, attacker, summary = found_in(done.out)
    assert done.code == 0
    assert summary["lines"] == summary["understood"] == CALLERS + 1
    assert count == sum(summary["incidents"].values()) >= CALLERS
    assert attacker
    figure(f"{CALLERS:,} of {name}: replay {done.mib:.0f} MiB")
    if (
        FULL
    ):  # a child's peak counts what its parent held at the fork, which is much in a worker of a parallel run
        assert done.mib <= MIB


def wait_for_the_end(home: Home, tail: Running) -> None:
    """Wait until the incident of the last line is told."""
    out, end, at = home.folder / "0.stdout", time.monotonic() + PATIENCE, 0
    while time.monotonic() < end:
        with out.open("rb") as file:
            file.seek(max(0, at - 1_000))
            told = file.read()
            at = file.tell()
        if b'"key":"finish"' in told:
            return
        assert tail.process.poll() is None, tail.err
        time.sleep(0.1)
    pytest.fail(f"the last line was not read within {PATIENCE:.0f} s")


@row("F6")
def test_a_million_callers_fill_no_memory_and_hide_nobody_live(home: Home, figure: Figure) -> None:
    log = home.folder / "audit.jsonl"
    with log.open("wb") as file:
        file.writelines(flood(NOW - NOW % DAY, LIVE_CALLERS, "client_id"))
        file.write(attack(NOW, "finish"))
    with home.start("tail", log.name, "--json", "--policy", "policy.yaml", "--from", iso(NOW - DAY)) as tail:
        wait_for_the_end(home, tail)
        status = Path(f"/proc/{tail.process.pid}/status").read_text()
        assert stopped(tail) == 0
    count, attacker, summary = found_in(home.folder / "0.stdout")
    assert summary["lines"] == LIVE_CALLERS + 2
    assert count == sum(summary["incidents"].values()) >= LIVE_CALLERS
    assert attacker
    mib = int(status.partition("VmHWM:")[2].split()[0]) / 1_024
    figure(f"{LIVE_CALLERS:,} clients: tail {mib:.0f} MiB")
    assert mib <= MIB


@row("F7")
@row("F8")
@pytest.mark.parametrize("others", ["same", "another"])
def test_ten_thousand_alerts_a_second_hide_the_real_one_from_nobody_live(
    home: Home, figure: Figure, others: str
) -> None:
    """It is told as it comes, it is in the final list, and no alert is lost or counted twice."""
    log, count = home.folder / "audit.jsonl", ALERTS_PER_SECOND * ALERT_SECONDS
    log.touch()
    with home.start("tail", log.name, "--json", "--policy", "policy.yaml") as tail, log.open("ab") as file:
        began = time.monotonic()
        for second in range(ALERT_SECONDS):
            now = time.time_ns()
            if second == ALERT_SECONDS // 2:
                file.write(attack(now))
            for n in range(ALERTS_PER_SECOND):
                who = f"c-{second}-{n}" if others == "another" else "noise"
                file.write(line(now, client_id=who))
            file.flush()
            time.sleep(max(0.0, began + second + 1 - time.monotonic()))
        file.write(attack(time.time_ns(), "finish"))
        file.flush()
        wait_for_the_end(home, tail)
        took = time.monotonic() - began
        assert stopped(tail) == 0
    listed, attacker, summary = found_in(home.folder / "0.stdout")
    assert summary["lines"] == count + 2
    assert attacker
    assert listed == sum(summary["incidents"].values())
    told = sum(1 for _ in (home.folder / "0.stdout").open()) - listed
    if others == "same":
        assert told <= 40
    figure(f"{count:,} of {others} subject read in {took:.0f} s, told in {told:,} lines")


@row("F7")
@row("F8")
@pytest.mark.parametrize("others", ["same", "another"])
def test_the_real_alert_is_on_top_of_the_picture_and_of_the_board(
    tmp_path: Path, figure: Figure, others: str
) -> None:
    """However much noise there is, older or newer, a picture costs little, and says how much it leaves out."""
    room, count = Room(tmp_path, POLICY), ALERTS_PER_SECOND * ALERT_SECONDS
    with room.log.open("ab") as file:
        for n in range(count):
            if n == count // 4:
                file.write(attack(NOW))
            file.write(line(NOW, client_id=f"c-{n}" if others == "another" else "noise"))
    snapshot = room.look()
    assert snapshot.alerts[0].rule == "enforcement-gap"
    assert snapshot.severities[0] == sum(alert.severity is Severity.CRITICAL for alert in snapshot.alerts)
    assert snapshot.alert_count == sum(snapshot.severities) >= (count if others == "another" else 2)
    began = time.process_time()
    for _ in range(5):
        room.monitor.publish()
    cost = (time.process_time() - began) / 5
    detail = room.monitor.incident(snapshot.alerts[0].id)
    assert detail is not None
    figure(f"{count:,} alerts of {others} subject: it is on top, a picture costs {cost * 1_000:.0f} ms")


@row("G1")
@pytest.mark.parametrize("command", [["replay"], ["tail", "--since", "1d"]])
@pytest.mark.parametrize("how", ["--json", "--plain"])
def test_a_full_disk_behind_standard_output_is_one_line_and_an_exit_code(
    home: Home, command: list[str], how: str
) -> None:
    (home.folder / "audit.jsonl").write_bytes(attack(time.time_ns()))
    with Path("/dev/full").open("wb") as full:
        done = subprocess.run(
            [MCPWATCH, *command, "audit.jsonl", how, "--policy", "policy.yaml"], stdout=full,
            stderr=subprocess.PIPE, cwd=home.folder, env=home.environment(), timeout=60, check=False, text=True,
        )  # fmt: skip
    assert done.stderr == "mcpwatch: standard output can't be written: no space left on the device\n"
    assert done.returncode == 3


@row("G1")
@pytest.mark.parametrize("command", [["replay"], ["tail", "--since", "1d"]])
def test_a_reader_that_leaves_ends_the_program_quietly(home: Home, command: list[str]) -> None:
    log = home.folder / "audit.jsonl"
    log.write_bytes(b"".join(flood(time.time_ns() - SECOND, 500, "client_id")))
    with subprocess.Popen(
        [MCPWATCH, *command, log, "--json", "--events", "--policy", "policy.yaml"], stdout=subprocess.PIPE,
        stderr=subprocess.PIPE, cwd=home.folder, env=home.environment(),
    ) as process:  # fmt: skip
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdout.readline().startswith(b'{"type":')
        process.stdout.close()
        assert process.stderr.read() == b""
        assert process.wait(60) == 0


def limited(home: Home, what: int, most: int, *args: object) -> subprocess.CompletedProcess[str]:
    """Run a command that may not have more of something."""
    return subprocess.run(
        [MCPWATCH, *map(str, args)], cwd=home.folder, env=home.environment(), timeout=120, check=False,
        capture_output=True, text=True, preexec_fn=lambda: resource.setrlimit(what, (most, most)),
    )  # fmt: skip


@row("G2", slow=True)
def test_few_descriptors_are_enough_for_one_log_and_for_many_incidents(home: Home) -> None:
    log = home.folder / "audit.jsonl"
    log.write_bytes(b"".join(flood(NOW, HELD_AT_MOST + 500, "client_id")))
    done = limited(home, resource.RLIMIT_NOFILE, 24, "replay", log, "--json", "--policy", "policy.yaml")
    assert (done.returncode, done.stderr) == (0, "")
    assert len(records(done.stdout, "incident")) >= HELD_AT_MOST + 501


@row("G2", slow=True)
def test_too_little_memory_is_one_line_that_says_so(home: Home) -> None:
    log = home.folder / "audit.jsonl"
    log.write_bytes(b"".join(flood(NOW, 40_000, *NAMES)))
    done = limited(home, resource.RLIMIT_AS, 80 << 20, "replay", log, "--json", "--policy", "policy.yaml")
    assert done.returncode == 3
    assert done.stderr.startswith("mcpwatch: out of memory: ")
    assert done.stderr.count("\n") == 1


@row("G2", slow=True)
def test_incidents_that_nothing_can_hold_are_counted_and_said(home: Home) -> None:
    """No room for the file of those that are not held in memory: the count is right, and one line says why."""
    log = home.folder / "audit.jsonl"
    log.write_bytes(b"".join(flood(NOW, HELD_AT_MOST + 500, "client_id")))
    with (home.folder / "out").open("wb") as out:
        # a pipe would do for standard output; a file is limited as well
        done = subprocess.run(
            f"(ulimit -f 1000; {MCPWATCH} replay {log} --json --policy policy.yaml) | cat", shell=True, stdout=out,
            stderr=subprocess.PIPE, cwd=home.folder, env=home.environment(), timeout=120, check=False, text=True,
        )  # fmt: skip
    found, summary = outcome((home.folder / "out").read_text())
    assert sum(summary["incidents"].values()) == HELD_AT_MOST + 501
    assert len(found) + summary["incidents_out_of_sight"] == HELD_AT_MOST + 501
    assert any(incident["rule"] == "enforcement-gap" for incident in found)
    assert "too many incidents for the memory" in done.stderr
