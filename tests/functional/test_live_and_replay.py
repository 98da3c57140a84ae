"""Live and replay find the same; and how tail goes on while logs come, go, and are no logs."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest

from mcpwatch.monitor.begin import begin
from mcpwatch.monitor.monitor import Monitor, Settings
from mcpwatch.monitor.pipeline import Reading
from mcpwatch.policy.file import PolicyFile
from mcpwatch.times import SECOND, iso
from tests.functional.program import (
    MCPWATCH,
    SAMPLES,
    Home,
    Json,
    attack_of_today,
    outcome,
    records,
)

POLICY = SAMPLES / "policy.yaml"
DEMO = SAMPLES / "demo-incident.jsonl"
LONG_AGO = "365d"
"""Reaches back to the sample logs."""


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(tmp_path)


def append(log: Path, *lines: bytes) -> None:
    with log.open("ab", buffering=0) as file:
        for line in lines:
            file.write(line)


def call(at_ns: int, **fields: object) -> bytes:
    record = {
        "timestamp": iso(at_ns),
        "tool": "file_read",
        "params": {"path": "/app/data/a"},
        "status": "success",
    }
    return json.dumps(record | fields).encode() + b"\n"


def counted(text: str) -> dict[str, int]:
    return {record["id"]: record["count"] for record in outcome(text)[0]}


def test_tail_finds_what_replay_finds_while_the_log_grows_and_rotates(home: Home) -> None:
    """Written in one piece, in bursts, line by line and in pieces of lines, with a rotation in between."""
    lines = attack_of_today()
    log = home.folder / "audit.jsonl"
    append(log, *lines[:40])
    with home.start("tail", log, "--policy", POLICY, "--json", "--events") as tail:
        tail.wait_for_records(40, "event")
        for start in range(40, 160, 30):
            append(log, b"".join(lines[start : start + 30]))
        for line in lines[160:200]:
            append(log, line[:50], line[50:])
        log.rename(log.with_name("audit.jsonl.1"))
        append(log.with_name("audit.jsonl.1"), *lines[200:210])
        append(log, *lines[210:])
        tail.wait_for_records(len(lines), "event")
        assert tail.stop(signal.SIGINT) == 0
        live = tail.out
    replayed = home.run("replay", log, f"{log}.1", "--policy", POLICY, "--json")
    assert outcome(live) == outcome(replayed.stdout)
    assert outcome(live)[1]["lines"] == len(lines)
    assert len(outcome(live)[0]) >= 12


def test_tail_says_when_incidents_open_grow_and_end(home: Home) -> None:
    log = home.folder / "audit.jsonl"
    shutil.copy(DEMO, log)
    with home.start("tail", log, "--policy", POLICY, "--json", "--since", LONG_AGO) as tail:
        tail.wait_for_records(20, "incident")
        assert tail.stop() == 0
        found = records(tail.out, "incident")
    changes: dict[str, list[tuple[str, int, str]]] = {}
    for record in found:
        told = (record["change"], record["count"], record["severity"])
        changes.setdefault(record["id"], []).append(told)
    assert len(changes) == 12
    for history in changes.values():
        assert history[0][0] == "opened"
        assert history[-1][0] == "final"
    churn = [record for record in found if record["rule"] == "session-rate" and record["count"] >= 10]
    assert {record["change"] for record in churn} >= {"count", "quiet", "final"}


def test_a_killed_tail_finds_the_same_when_it_is_started_again(home: Home) -> None:
    """Nothing needs saving: the log is the state."""
    lines = attack_of_today()
    log = home.folder / "audit.jsonl"
    append(log, *lines[:250], lines[250][:30])
    with home.start("tail", log, "--policy", POLICY, "--json", "--events") as first:
        first.wait_for_records(250, "event")
        first.process.kill()
        first.process.wait()
        before = records(first.out, "incident")
    append(log, lines[250][30:], *lines[251:])
    replayed = home.run("replay", log, "--policy", POLICY, "--json").stdout
    # once from where tail begins by itself, once from far back
    for start in ([], ["--since", "30d"]):
        with home.start("tail", log, "--policy", POLICY, "--json", "--events", *start) as again:
            again.wait_for_records(len(lines), "event")
            assert again.stop() == 0
            assert outcome(again.out) == outcome(replayed)
    assert {record["id"] for record in before} <= counted(replayed).keys()


def test_a_start_in_the_middle_finds_the_same_from_there_on_and_says_so(home: Home) -> None:
    """An incident that has hits only after the start has the exact count; the day's counts say since when."""
    now = time.time_ns()
    log = home.folder / "audit.jsonl"
    old = [call(now - 3600 * SECOND + n * SECOND, session_id="old") for n in range(20)]
    # eight calls within the minute, of which the start cuts off the first three, however slowly the program starts
    new = [call(now - ago * SECOND, session_id="new") for ago in (63, 62, 61, 50, 49, 48, 47, 46)]
    append(log, *old, *new)
    whole = counted(home.run("replay", log, "--json").stdout)
    with home.start("tail", log, "--json", "--events", "--since", "60s") as tail:
        tail.wait_for("the fast session", lambda: '"session":"new"' in tail.out)
        tail.wait_for_records(1, "event")
        assert tail.stop() == 0
        (found,), summary = outcome(tail.out)
        assert "audit.jsonl: began at byte" in tail.err
    assert found["subject"] == {"session": "new"}
    assert found["count"] == whole[found["id"]] == 3
    assert found["count_since"] < iso(now)
    assert 0 < summary["lines"] < 8


@pytest.mark.parametrize("long_line", [b"", b"x" * (3 << 20) + b"\n"], ids=["short lines", "a long line"])
def test_a_start_near_the_end_is_at_the_start_of_a_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, long_line: bytes
) -> None:
    """Without --since a huge log is read from a fixed distance before its end, wherever in a line that falls."""
    now = time.time_ns()
    log = tmp_path / "a.jsonl"
    lines = [call(now - (60 - n) * SECOND) for n in range(60)]
    log.write_bytes(b"".join(lines[:30]) + long_line + b"".join(lines[30:]))
    size, tail = log.stat().st_size, len(b"".join(lines[30:]))
    starts = {30 * len(lines[0]) + len(long_line) + n * len(line) for n, line in enumerate(lines[30:])}
    monitor = Monitor(PolicyFile(None), Reading(), Settings(tmp_path), lambda: now)
    for back in (*range(tail - 2 * len(lines[0]), tail + 1, 7), tail + len(long_line) // 2):
        monkeypatch.setattr("mcpwatch.monitor.begin.NEAREST_START", back)
        offset, line = begin(monitor, log, "a.jsonl", 0, cap=True)[:2]
        assert line == 1 + log.read_bytes()[:offset].count(b"\n")
        assert offset == min(start for start in starts if start >= size - back)


def test_tail_of_a_pipe_ends_with_it(home: Home) -> None:
    done = home.run("tail", "-", "--policy", POLICY, "--json", stdin=DEMO.read_bytes().rstrip(b"\n"))
    assert done.returncode == 0
    assert outcome(done.stdout) == outcome(home.run("replay", DEMO, "--policy", POLICY, "--json").stdout)
    assert (
        home.run("tail", "-", "--policy", POLICY, "--fail-on", "high", stdin=DEMO.read_bytes()).returncode
        == 1
    )


def test_an_unfinished_line_is_held_and_counted_as_that(home: Home) -> None:
    log = home.folder / "audit.jsonl"
    now = time.time_ns()
    append(log, call(now), call(now)[:-1])
    with home.start("tail", log, "--json", "--events", "--since", "1h") as tail:
        tail.wait_for_records(1, "event")
        assert tail.stop() == 0
        _, summary = outcome(tail.out)
    assert (summary["lines"], summary["understood"], summary["held"]) == (2, 1, 1)


def test_the_filter_changes_the_shown_events_and_nothing_else(home: Home) -> None:
    lines = DEMO.read_bytes()
    shown = home.run(
        "tail", "-", "--policy", POLICY, "--json", "--events", "--filter", "key:key_0007", stdin=lines
    )
    events = records(shown.stdout, "event")
    assert {event["key_id"] for event in events} == {"key_0007"}
    assert outcome(shown.stdout) == outcome(home.run("replay", DEMO, "--policy", POLICY, "--json").stdout)


def test_a_log_that_is_not_there_yet_is_waited_for(home: Home) -> None:
    """File, glob and folder: each is said to be waited for, and each log is read from its start when it comes."""
    logs = home.folder / "logs"
    logs.mkdir()
    log = home.folder / "late.jsonl"
    with home.start("tail", log, "--json", "--events") as tail:
        tail.wait_for("a note", lambda: "late.jsonl is not there: waiting for it" in tail.err)
        append(log, call(time.time_ns()))
        tail.wait_for_records(1, "event")
        assert tail.err.count("is not there") == 1
        tail.wait_for("a second note", lambda: "late.jsonl: reading" in tail.err)
    with home.start("tail", logs, f"{home.folder}/globbed-*.txt", "--json", "--events") as tail:
        tail.wait_for("a note", lambda: "waiting for one" in tail.err)
        append(logs / "a.jsonl", call(time.time_ns()))
        append(home.folder / "globbed-1.txt", call(time.time_ns()))
        tail.wait_for_records(2, "event")
        assert tail.stop() == 0
        assert {event["source"] for event in records(tail.out, "event")} == {"a.jsonl", "globbed-1.txt"}


def test_what_is_no_file_is_refused_with_its_reason_and_the_others_go_on(home: Home) -> None:
    os.mkfifo(home.folder / "fifo")
    (home.folder / "link").symlink_to(DEMO)
    (home.folder / "binary").write_bytes(bytes(range(1, 10)) + b"\0\1\2\n" * 100)
    append(home.folder / "a.jsonl", call(time.time_ns()))
    with home.start(
        "tail", "fifo", "link", "binary", "a.jsonl", "--json", "--events", "--since", "1h"
    ) as tail:
        tail.wait_for_records(1, "event")
        tail.wait_for("a reason", lambda: "is a FIFO" in tail.err)
        tail.wait_for(
            "a reason", lambda: "is a symbolic link: name its target, or use --follow-symlinks" in tail.err
        )
        assert tail.stop() == 0
        _, summary = outcome(tail.out)
        assert (summary["lines"], summary["understood"]) == (101, 1)
        assert "binary: not one of its lines is an audit record" in tail.err


def test_a_log_that_was_cut_is_a_gap_that_is_said(home: Home) -> None:
    log = home.folder / "a.jsonl"
    append(log, *(call(time.time_ns()) for _ in range(10)))
    with home.start("tail", log, "--json", "--events", "--since", "1h") as tail:
        tail.wait_for_records(10, "event")
        log.write_bytes(call(time.time_ns()))
        tail.wait_for_records(11, "event")
        assert "a.jsonl: gap at byte" in tail.err


def test_every_line_of_a_hostile_log_is_printable_also_live(home: Home) -> None:
    done = home.run("tail", "-", "--plain", "--events", stdin=(SAMPLES / "broken.jsonl").read_bytes())
    assert done.returncode == 0
    assert done.stdout.count("\n") > 77
    for line in (done.stdout + done.stderr).split("\n"):
        assert line == "" or line.isprintable()


def test_a_reader_that_went_away_ends_tail_without_a_word(home: Home) -> None:
    read, write = os.pipe()
    log = home.folder / "a.jsonl"
    now = time.time_ns()
    append(log, call(now))
    with subprocess.Popen(
        [MCPWATCH, "tail", log, "--policy", POLICY, "--json", "--events", "--since", "1h"],
        stdout=write,
        stderr=subprocess.PIPE,
        env=home.environment(),
    ) as process:
        os.close(write)
        assert os.read(read, 1 << 16)
        os.close(read)
        append(log, call(now))
        _, err = process.communicate(timeout=30)
    assert (process.returncode, err) == (0, b"")


def test_a_revocation_is_watched_until_it_bites_and_a_broken_policy_is_said(home: Home) -> None:
    """The whole loop: an attack, a change by another process, a server that does not obey it."""
    policy, log = home.folder / "policy.yaml", home.folder / "a.jsonl"
    policy.write_text("version: 1\nkeys:\n  k1: {scopes: [read]}\n  k2: {scopes: [read]}\n")
    append(log, call(time.time_ns(), key_id="k1"))
    with home.start("tail", log, "--json", "--events", "--since", "1h") as tail:
        tail.wait_for_records(1, "event")
        assert home.run("revoke", "k1", "--reason", "stolen").returncode == 0
        later = time.time_ns() + 12 * SECOND

        def refused() -> bool:
            append(log, call(time.time_ns(), key_id="k1", status="unauthenticated"))
            return '"rule":"revoked-attempt"' in tail.out

        tail.wait_for("the new policy to be in use", refused)
        assert '"rule":"enforcement-gap"' not in tail.out
        append(log, call(later, key_id="k1"))
        tail.wait_for("the gap", lambda: '"rule":"enforcement-gap"' in tail.out)
        policy.write_text("version: 1\nnonsense: 1\n")
        tail.wait_for("a word on the broken policy", lambda: "the last good one stays" in tail.err)
        append(log, call(later + SECOND, key_id="k1"))
        tail.wait_for("all events", lambda: iso(later + SECOND) in tail.out)
        assert tail.stop() == 0
        gaps: list[Json] = [i for i in outcome(tail.out)[0] if i["rule"] == "enforcement-gap"]
    assert [(gap["subject"], gap["count"], gap["severity"]) for gap in gaps] == [
        ({"key": "k1", "gap": "revoked"}, 2, "critical")
    ]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_stopped_tail_prints_the_summary_and_exits_0(home: Home, number: int) -> None:
    log = home.folder / "a.jsonl"
    append(log, call(time.time_ns()))
    with home.start("tail", log, "--events") as tail:
        tail.wait_for("an event", lambda: tail.out)
        assert tail.stop(number) == 0
        assert tail.out.splitlines()[-1].startswith("1 lines: 1 understood; 1 events; incidents: 0 critical")


def test_a_long_line_before_the_start_costs_no_memory(home: Home) -> None:
    """Yesterday's line of 100 MB lies in the stretch that warms the windows up."""
    log = home.folder / "a.jsonl"
    now = time.time_ns()
    with log.open("wb") as file:
        file.write(call(now - 130 * SECOND))
        file.write(b'{"tool":"')
        for _ in range(60):
            file.write(b"x" * 1_000_000)
        file.write(b'"}\n')
        file.write(call(now - 30 * SECOND))
    with home.start("tail", log, "--json", "--events", "--since", "60s") as tail:
        tail.wait_for_records(1, "event")
        used = Path(f"/proc/{tail.process.pid}/status").read_text()
        assert tail.stop() == 0
        _, summary = outcome(tail.out)
    peak_kb = next(int(line.split()[1]) for line in used.splitlines() if line.startswith("VmHWM"))
    assert peak_kb < 120_000
    assert summary["lines"] <= 2
