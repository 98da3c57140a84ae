"""`mcpwatch status`: what runs, how it goes, what ended how; and `tail --since last`, which goes on from there."""

from __future__ import annotations

import fcntl
import json
import os
import re
import signal
import time
from pathlib import Path

import pytest

from mcpwatch.cli.status import UNHEARD_NS
from mcpwatch.times import DAY, SECOND, iso
from tests.functional.program import Home, Json, outcome, records, wait_until

WIDTH = 80


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(tmp_path)


def call(number: int, **fields: object) -> bytes:
    record = {
        "timestamp": iso(time.time_ns()),
        "tool": "file_read",
        "status": "success",
        "session_id": f"s{number}",
        "key_id": f"k{number}",
        "call_id": str(number),
    }
    return json.dumps(record | fields).encode() + b"\n"


def append(log: Path, *lines: bytes) -> None:
    with log.open("ab", buffering=0) as file:
        file.write(b"".join(lines))


def watches(home: Home) -> list[Json]:
    return records(home.run("status", "--json").stdout, "watch")


def lines_read(home: Home) -> int:
    """Lines that the running watch has counted and written down."""
    return next((watch["lines"] for watch in watches(home) if watch["state"] == "running"), -1)


def leave(home: Home, name: str = "00000000000000000001-1-x", **fields: object) -> Path:
    """A watch file as some process may have left it."""
    now = time.time_ns()
    record = {
        "version": 1, "mcpwatch": "0.1.0", "pid": os.getpid(), "host": "h", "user": "alice@bastion",
        "started_ns": now, "updated_ns": now, "sources": [],
    }  # fmt: skip
    folder = home.folder / "home/state/mcpwatch/watches"
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}.json"
    path.write_text(json.dumps(record | fields))
    return path


def test_status_shows_each_log_with_a_sum_that_is_right_and_fits_the_screen(home: Home) -> None:
    log = home.folder / "audit.jsonl"
    append(log, *(call(n) for n in range(40)), b"rubbish\n", b"\n", b"\0\n", call(1)[:20])
    with home.start("tail", log, "--json") as tail:
        wait_until(lambda: lines_read(home) == 44, "44 lines in status")
        shown = home.run("status")
        assert tail.stop() == 0
    text = shown.stdout
    assert shown.returncode == 0
    assert f"RUNNING  pid {tail.process.pid}, " in text
    total = (
        "44 lines = 40 understood + 1 not understood + 2 blank + 0 repeated + 0 joined + 1 held; 40 events"
    )
    assert total in " ".join(text.split())
    assert all(len(line) < WIDTH and line.isprintable() for line in text.splitlines())
    ended = home.run("status").stdout
    assert f"STOPPED  pid {tail.process.pid}, " in ended and "nothing is watched" in ended
    assert "tail --since last" in " ".join(ended.split())


def test_a_killed_watch_is_said_to_have_died_until_its_logs_are_watched_again(home: Home) -> None:
    log = home.folder / "audit.jsonl"
    append(log, *(call(n) for n in range(10)))
    with home.start("tail", log, "--json") as tail:
        wait_until(lambda: lines_read(home) == 10, "10 lines in status")
        tail.process.kill()
        tail.process.wait()
    died = home.run("status")
    assert (died.returncode, f"DIED     pid {tail.process.pid}, " in died.stdout) == (0, True)
    (watch,) = watches(home)
    assert (watch["state"], watch["ended"], watch["sources"][0]["read_on"]) == ("died", None, False)
    with home.start("tail", log, "--json") as again:
        wait_until(lambda: lines_read(home) == 10, "the second watch")
        states = {watch["state"]: watch["sources"][0]["read_on"] for watch in watches(home)}
        assert states == {"running": False, "died": True}
        assert "logs that were watched again since: 1" in home.run("status").stdout
        assert again.stop() == 0


@pytest.mark.parametrize("partial", [False, True])
def test_since_last_after_a_kill_reads_each_record_once(home: Home, partial: bool) -> None:
    """Over kill -9, also in the middle of a line, and a rotation: no record is lost and none comes twice."""
    log = home.folder / "audit.jsonl"
    append(log, *(call(n) for n in range(10)))
    with home.start("tail", log, "--json", "--events") as tail:
        if partial:
            append(log, call(10)[:40])
        wait_until(lambda: lines_read(home) == 10 + partial, "the checkpoint")
        tail.process.kill()
        tail.process.wait()
        first = [event["call_id"] for event in records(tail.out, "event")]
    append(log, call(10)[40:] if partial else call(10), call(11))
    log.rename(log.with_name("audit.jsonl.1"))
    append(log, *(call(n) for n in range(12, 15)))
    with home.start("tail", log, "--json", "--events", "--since", "last") as tail:
        tail.wait_for_records(5, "event")
        assert tail.stop() == 0
        second = records(tail.out, "event")
        assert outcome(tail.out)[1]["lines"] == 5
        assert "gap" not in tail.err
    assert [*first, *(event["call_id"] for event in second)] == [str(n) for n in range(15)]
    assert [event["line"] for event in second] == [11, 12, 1, 2, 3]


def test_since_last_without_a_checkpoint_begins_as_usual_and_says_so(home: Home) -> None:
    log = home.folder / "audit.jsonl"
    append(log, call(0))
    leave(home, sources=[{"name": "a", "path": str(log), "state": "reading", "place": {"dev": "rubbish"}}])
    with home.start("tail", log, "--json", "--events", "--since", "last") as tail:
        tail.wait_for_records(1, "event")
        tail.wait_for("a word", lambda: "no watch has read it before" in tail.err)
        assert tail.stop() == 0


def test_what_was_not_watched_is_said_at_the_next_start(home: Home) -> None:
    """Yesterday's lines that nobody has read are named, with the way to read them."""
    log = home.folder / "audit.jsonl"
    yesterday = time.time_ns() - DAY
    old = [call(n, timestamp=iso(yesterday)) for n in range(20)]
    append(log, *old[:10])
    with home.start("tail", log, "--json", "--since", "7d") as tail:
        wait_until(lambda: lines_read(home) == 10, "the checkpoint")
        tail.process.kill()
        tail.process.wait()
    (path,) = (home.folder / "home/state/mcpwatch/watches").glob("*.json")
    record = json.loads(path.read_text())
    path.write_text(json.dumps(record | {"updated_ns": yesterday}))
    append(log, *old[10:], call(20))
    with home.start("tail", log, "--json", "--events") as tail:
        tail.wait_for_records(1, "event")
        tail.wait_for("a word", lambda: "not watched from" in tail.err)
        assert f"({len(b''.join(old[10:])):,} bytes); --since last reads it" in tail.err
        assert tail.stop() == 0


def test_where_nothing_ever_ran_there_is_nothing_to_say(home: Home) -> None:
    done = home.run("status")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("nothing is watched with ")
    (record,) = records(home.run("status", "--json").stdout, "status")
    assert (record["running"], record["stopped"], record["died"], record["adds_up"]) == (0, 0, 0, True)


def test_a_state_folder_that_cannot_be_read_is_exit_3(home: Home) -> None:
    missing = home.run("status", "--state", home.folder / "typo")
    assert (missing.returncode, missing.stdout) == (3, "")
    assert "no such state folder" in missing.stderr
    watches = home.folder / "home/state/mcpwatch/watches"
    watches.parent.mkdir(parents=True)
    watches.write_text("x")
    assert home.run("status").returncode == 3


def test_hostile_files_cannot_reach_the_terminal_nor_end_anything(home: Home) -> None:
    bad = "\x1b]0;PWNED\x07\x9b31m\u202e\r\n"
    source = {"name": bad, "path": bad, "state": "reading", "note": bad, "filesystem": bad, "format": bad}
    gap = {"seen_ns": 1, "offset": 1, "size": None, "reason": bad}
    leave(home, user=bad, how=bad, ended_ns=1, policy=bad, sources=[source | {"gaps": 1, "last_gap": gap}])
    leave(home, "\x1b[31m-1-x", version=1, pid=-1)
    leave(home, "00000000000000000003-1-x", version=2)
    for options in ((), ("--json",)):
        done = home.run("status", *options)
        assert done.returncode == 0
        assert all(line.isprintable() for line in (done.stdout + done.stderr).splitlines())
        assert done.stderr.count("ignored") == 2
        assert "another version" in done.stderr
    log = home.folder / "a.jsonl"
    append(log, call(1))
    with home.start("tail", log, "--json", "--events", "--since", "last") as tail:
        tail.wait_for_records(1, "event")
        assert tail.stop() == 0
        assert tail.err.isascii() and "\x1b" not in tail.err


def test_counters_that_do_not_add_up_are_said_not_to(home: Home) -> None:
    counters = {"lines": 5, "understood": 4}
    leave(
        home, totals=counters, sources=[{"name": "a", "path": "/a", "state": "reading", "counters": counters}]
    )
    assert "DOES NOT ADD UP" in home.run("status").stdout
    out = home.run("status", "--json").stdout
    assert records(out, "watch")[0]["adds_up"] is False
    assert records(out, "status")[0]["adds_up"] is False


def test_a_process_that_hangs_is_said_not_to_be_heard_of(home: Home) -> None:
    """Its lock is held, and its file is older than it ever gets in a process that goes on."""
    updated = time.time_ns() - UNHEARD_NS - SECOND
    path = leave(home, started_ns=updated, updated_ns=updated)
    with path.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert "RUNNING" in home.run("status").stdout
        assert "NOT HEARD OF since" in home.run("status").stdout
        assert watches(home)[0]["unheard"] is True


def test_a_full_or_missing_state_folder_ends_nothing(home: Home) -> None:
    """It is said, and the log is read on."""
    log, state = home.folder / "audit.jsonl", home.folder / "state"
    append(log, call(0))
    state.mkdir()
    (state / "watches").write_text("in the way")
    with home.start("tail", log, "--json", "--events", "--state", state) as tail:
        tail.wait_for_records(1, "event")
        tail.wait_for("a word", lambda: "others don't see this watch" in tail.err)
        append(log, call(1))
        tail.wait_for_records(2, "event")
        assert tail.stop(signal.SIGTERM) == 0


def test_help_and_completion_know_of_last(home: Home) -> None:
    assert "read on where the last watch stopped" in " ".join(home.run("tail", "--help").stdout.split())
    assert "mcpwatch status --json" in home.run("status", "--help").stdout
    words = {"COMP_WORDS": "mcpwatch tail --since la", "COMP_CWORD": "3"}
    completing = Home(home.folder, env={"_MCPWATCH_COMPLETE": "bash_complete", **words})
    assert "plain,last" in completing.run().stdout
    assert home.run("tail", "x", "--since", "lastly", "--json").returncode == 2


def test_every_key_is_documented_and_no_other(home: Home) -> None:
    document = (Path(__file__).parents[2] / "docs/status.md").read_text().split("\n## JSON\n")[1]
    rows, sources = document.split("\nEach of `sources`: ")
    leave(home, sources=[{"name": "a", "path": "/a", "state": "reading"}])
    (watch, status) = (json.loads(line) for line in home.run("status", "--json").stdout.splitlines())
    words = {
        row.split("`")[1]: set(re.findall(r"`(\w+)`", row)) for row in rows.splitlines() if row[:3] == "| `"
    }
    values = {"running", "stopped", "died"}
    assert words["watch"] - values - {"watch"} == watch.keys() - {"type"}
    assert words["status"] - {"status"} == status.keys() - {"type"}
    counters = {"lines", "understood", "not_understood", "blank", "repeated", "joined", "held", "events"}
    values = {"waiting", "reading", "refused", "ended", "seen", "reason"}
    assert (set(re.findall(r"`(\w+)`", sources)) | counters) - values == watch["sources"][0].keys()
