"""Lockouts as users meet them: advised or written, once, seen to bite, over."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from mcpwatch.incidents.incident import incident_id
from mcpwatch.policy.load import load
from mcpwatch.policy.model import Lockout
from mcpwatch.times import MINUTE, SECOND, iso, parse_rfc3339, utc_day
from tests.functional.program import MCPWATCH, Home, Json, Running, records, wait_until

POLICY = """\
version: 1   # ours
keys:
  k1: {client: bot, scopes: [read]}
lockouts: []   # none yet
"""
ATTACKER = "203.0.113.9"

SERVER = """
import json, sys, time
from pathlib import Path
from mcpwatch.policy.file import PolicyFile
from mcpwatch.policy.decide import decide
from mcpwatch.policy.judge import Judge
from mcpwatch.times import iso

log, policy = Path(sys.argv[1]), PolicyFile(Path(sys.argv[2]))

def write(at, **fields):
    with log.open("a") as file:
        file.write(json.dumps({"timestamp": iso(at), "source_ip": "203.0.113.9", **fields}) + "\\n")

for number in range(3):
    write(time.time_ns(), event="auth", status="unauthenticated", key_id=f"guess{number}")
while True:
    at = time.time_ns()
    policy.check()
    decision = decide(Judge(policy.policy), key="k1", client=None, session=None, subject=None,
                      source_ip="203.0.113.9", tool="file_read", params={}, scopes=None, at_ns=at)
    status = "success" if decision.allowed else decision.status
    write(at, tool="file_read", params={}, status=status, key_id="k1", session_id="s1", duration_ms=1)
    time.sleep(0.5)
"""
"""Somebody guesses keys three times, and then has a good one. The server obeys the policy."""


@pytest.fixture
def home(tmp_path: Path) -> Home:
    (tmp_path / "policy.yaml").write_text(POLICY)
    (tmp_path / "audit.jsonl").touch()
    return Home(tmp_path)


@pytest.fixture
def now() -> Iterator[int]:
    """A moment whose neighbours are of the same day: incidents are by day."""
    while (now := time.time_ns()) // SECOND % 86_400 < 10:
        time.sleep(1)
    yield now


def fail(home: Home, at_ns: int, address: str = ATTACKER, key: str | None = None, times: int = 3) -> None:
    """Failed logins, a millisecond apart; the last one is at `at_ns`."""
    lines = []
    for number in reversed(range(times)):
        record: dict[str, Any] = {
            "timestamp": iso(at_ns - number * 1_000_000), "event": "auth", "status": "unauthenticated",
            "source_ip": address, "key_id": key or f"guess{number}",
        }  # fmt: skip
        lines.append(json.dumps(record) + "\n")
    with (home.folder / "audit.jsonl").open("a") as log:
        log.write("".join(lines))


def lockouts(home: Home) -> tuple[Lockout, ...]:
    return load(home.folder / "policy.yaml").lockouts


def reports(text: str) -> list[Json]:
    return records(text[: text.rfind("\n") + 1], "restriction")


def started(tail: Running) -> None:
    """Wait until it has read what was in the log before: an old attack."""
    tail.wait_for("the start", lambda: "auth-lockout" in tail.out)


def moment(text: str) -> int:
    found = parse_rfc3339(text)
    assert found is not None
    return found[0]


def test_a_lockout_is_written_obeyed_and_confirmed(home: Home) -> None:
    """End to end: failures, entry, a server that obeys it, and the delay until it did."""
    log, policy = home.folder / "audit.jsonl", home.folder / "policy.yaml"
    with (
        home.start("tail", "audit.jsonl", "--json", "--enforce", "--since", "1m") as tail,
        subprocess.Popen([sys.executable, "-c", SERVER, log, policy]) as server,
    ):
        try:
            tail.wait_for("the confirmation", lambda: '"change":"in_force"' in tail.out)
        finally:
            server.terminate()
        assert tail.stop() == 0
    (entry,) = lockouts(home)
    subject = (("source_ip", ATTACKER),)
    third = moment(json.loads(log.read_text().splitlines()[2])["timestamp"])
    assert entry == Lockout(
        None, ATTACKER, third, third + 5 * MINUTE, "auth-lockout",
        incident_id("auth-lockout", subject, utc_day(third)),
    )  # fmt: skip
    written, in_force = reports(tail.out)
    assert (written["change"], written["kind"], written["subject"]) == (
        "written",
        "lockout",
        {"source_ip": ATTACKER},
    )
    assert (moment(written["at"]), moment(written["until"])) == (entry.at, entry.until)
    refused = next(
        moment(record["timestamp"])
        for line in log.read_text().splitlines()[3:]
        if (record := json.loads(line))["status"] == "unauthenticated"
    )
    assert moment(in_force["seen"]) == refused
    assert in_force["after_s"] == round((refused - third) / SECOND, 6)
    (summary,) = records(tail.out, "summary")
    assert [found["state"] for found in summary["restrictions"]] == ["in_force"]
    assert (home.folder / "policy.yaml").read_text().startswith("version: 1   # ours\n")
    # the saved log says the same, whoever asks
    replayed = home.run("replay", "audit.jsonl", "--json")
    (summary,) = records(replayed.stdout, "summary")
    assert [(found["state"], found["seen"]) for found in summary["restrictions"]] == [
        ("in_force", in_force["seen"])
    ]
    assert records(replayed.stdout, "restriction") == []


def test_two_who_watch_the_same_log_write_one_entry_for_each_subject(home: Home, now: int) -> None:
    addresses = [f"203.0.113.{n}" for n in range(1, 21)]
    fail(home, now - 6 * MINUTE, "198.51.100.1")
    with (
        home.start("tail", "audit.jsonl", "--plain", "--enforce", "--since", "1h") as one,
        home.start("tail", "audit.jsonl", "--json", "--enforce", "--since", "1h") as two,
    ):
        for tail in (one, two):
            started(tail)
        for address in addresses:
            fail(home, now, address)
            time.sleep(0.02)
        wait_until(lambda: len(lockouts(home)) >= 20, "twenty lockouts")
        two.wait_for("all of them in the JSON", lambda: two.out.count('"change":"written"') == 20)
        one.wait_for("all of them in the lines", lambda: one.out.count(" written ") == 20)
        assert (one.stop(), two.stop()) == (0, 0)
    assert sorted(entry.source_ip or "" for entry in lockouts(home)) == sorted(addresses)
    assert {entry.until for entry in lockouts(home)} == {now // 1_000 * 1_000 + 5 * MINUTE}
    assert one.err.count("not written") == two.err.count("not written") == 0


def test_killed_and_started_again_it_writes_no_second_entry_and_climbs_the_ladder(
    home: Home, now: int
) -> None:
    fail(home, now - 5 * SECOND, key="k1")
    with home.start("tail", "audit.jsonl", "--json", "--enforce") as tail:
        tail.wait_for("the lockout", lambda: lockouts(home))
        tail.process.send_signal(signal.SIGKILL)
        tail.process.wait()
    (entry,) = lockouts(home)
    assert (entry.key, entry.source_ip) == ("k1", ATTACKER)
    before = (home.folder / "policy.yaml").read_bytes()
    # more failures while locked are counted, and neither extend it nor write another
    fail(home, now - 4 * SECOND, key="k1")
    with home.start("tail", "audit.jsonl", "--json", "--enforce") as tail:
        tail.wait_for("the incident", lambda: '"type":"incident"' in tail.out)
        assert tail.stop() == 0
    assert (home.folder / "policy.yaml").read_bytes() == before
    (incident,) = (found for found in records(tail.out, "incident") if found["change"] == "final")
    assert incident["count"] == 4
    # ended by hand: what was before stays forgiven, also after a restart; the next one is longer
    done = home.run("unlock", "--key", "k1", "--ip", ATTACKER, "--reason", "our own scanner")
    assert "reason: our own scanner" in done.stdout
    (ended,) = lockouts(home)
    assert ended.at == entry.at < ended.until < entry.until
    with home.start("tail", "audit.jsonl", "--json", "--enforce") as tail:
        tail.wait_for("the incident", lambda: '"type":"incident"' in tail.out)
        assert lockouts(home) == (ended,)
        fail(home, time.time_ns(), key="k1")
        tail.wait_for("the next lockout", lambda: len(lockouts(home)) > 1)
        assert tail.stop() == 0
    assert lockouts(home)[1].until - lockouts(home)[1].at == 15 * MINUTE


def test_without_enforce_it_is_advice_with_a_command_that_works(home: Home, now: int) -> None:
    with home.start("tail", "audit.jsonl", "--json") as tail:
        fail(home, now, times=5)
        tail.wait_for("the advice", lambda: reports(tail.out))
        (advice,) = reports(tail.out)
        assert lockouts(home) == ()
        subprocess.run(
            advice["command"].replace("mcpwatch", str(MCPWATCH), 1),
            shell=True, check=True, cwd="/", env=home.environment(), stdout=subprocess.DEVNULL,
        )  # fmt: skip
        tail.wait_for("the entry", lambda: len(reports(tail.out)) > 1)
        assert tail.stop() == 0
    assert (advice["change"], advice["subject"]) == ("advised", {"source_ip": ATTACKER})
    assert moment(advice["until"]) - moment(advice["at"]) == 5 * MINUTE
    assert [found["change"] for found in reports(tail.out)] == ["advised", "written"]
    assert [entry.source_ip for entry in lockouts(home)] == [ATTACKER]


def test_enforce_in_the_policy_is_enough_for_tail_and_replay_never_writes(home: Home, now: int) -> None:
    policy = home.folder / "policy.yaml"
    policy.write_text(POLICY + "lockout: {enforce: true}\n")
    before = policy.read_bytes()
    fail(home, now)
    assert home.run("replay", "audit.jsonl", "--json").returncode == 0
    assert policy.read_bytes() == before
    done = home.run("tail", "-", "--plain", stdin=(home.folder / "audit.jsonl").read_bytes())
    assert done.returncode == 0
    assert len(lockouts(home)) == 1, "what is handed over is written before it ends"
    assert " written      lockout of address 203.0.113.9" in done.stdout


@pytest.mark.parametrize("how", ["read-only", "unwritable"])
def test_a_policy_that_may_not_be_written_is_said_once_and_tail_goes_on(
    home: Home, now: int, how: str
) -> None:
    policy = home.folder / "policy.yaml"
    if how == "unwritable":
        policy.chmod(0o444)
    more = ["--read-only"] if how == "read-only" else []
    with home.start("tail", "audit.jsonl", "--plain", "--enforce", *more) as tail:
        for number, address in enumerate(("203.0.113.1", "203.0.113.2")):
            fail(home, now + number, address)
            tail.wait_for("the advice", lambda: tail.out.count("mcpwatch lock --ip") > number)  # noqa: B023
        assert tail.stop() == 0
    assert tail.err.count("lockouts are advised, not written: ") == 1
    assert "read-only" in tail.err
    assert policy.read_text() == POLICY


def test_nobody_behind_a_proxy_is_locked_out_and_the_reason_is_said(home: Home, now: int) -> None:
    with home.start("tail", "audit.jsonl", "--plain", "--enforce") as tail:
        fail(home, now, "127.0.0.1", key="k1")
        tail.wait_for("the reason", lambda: "trusted proxy" in tail.err)
        assert tail.stop() == 0
    assert "auth-lockout" in tail.out
    assert "mcpwatch lock" not in tail.out
    assert lockouts(home) == ()


def test_an_attack_of_long_ago_locks_nobody_out_now(home: Home, now: int) -> None:
    fail(home, now - 6 * MINUTE)
    done = home.run("tail", "-", "--plain", "--enforce", stdin=(home.folder / "audit.jsonl").read_bytes())
    assert "auth-lockout" in done.stdout
    assert "mcpwatch lock" not in done.stdout
    assert lockouts(home) == ()


def test_changes_by_others_and_whether_they_bite_are_told_as_they_happen(home: Home, now: int) -> None:
    """Revocations and disabled tools as well; what was in the policy before is not news."""
    home.run("revoke", "old", "--reason", "x")
    fail(home, now - 6 * MINUTE, "198.51.100.1")

    def call(after: float, status: str, **fields: object) -> None:
        record = {"timestamp": iso(time.time_ns() + round(after * SECOND)), "tool": "file_read", "params": {},
                  "status": status, "key_id": "k1", "session_id": "s1", **fields}  # fmt: skip
        with (home.folder / "audit.jsonl").open("a") as log:
            log.write(json.dumps(record) + "\n")

    def changes() -> list[str]:
        return [found["change"] for found in reports(tail.out)]

    with home.start("tail", "audit.jsonl", "--json", "--since", "1h") as tail:
        started(tail)
        home.run("revoke", "k1", "--reason", "leaked")
        tail.wait_for("the revocation", lambda: changes() == ["written"])
        call(0, "unauthenticated")
        tail.wait_for("that it bites", lambda: changes()[1:] == ["in_force"])
        call(20, "success")
        tail.wait_for("that it does not", lambda: changes()[2:] == ["not_in_force"])
        call(21, "unauthenticated")
        tail.wait_for("that it does again", lambda: changes()[3:] == ["in_force"])
        home.run("restore", "k1")
        tail.wait_for("the end", lambda: changes()[4:] == ["ended"])
        home.run("disable", "shell", "--reason", "x")
        tail.wait_for("the tool", lambda: changes()[5:] == ["written"])
        assert tail.stop() == 0
    found = reports(tail.out)
    assert [(report["kind"], report["subject"]) for report in found[:5]] == [("key", {"key": "k1"})] * 5
    assert (found[5]["kind"], found[5]["subject"]) == ("tool", {"tool": "shell"})
    assert found[2]["after_s"] >= 20
    (summary,) = records(tail.out, "summary")
    assert [(entry["kind"], entry["state"]) for entry in summary["restrictions"]] == [
        ("key", "untested"), ("tool", "untested"),
    ]  # fmt: skip
