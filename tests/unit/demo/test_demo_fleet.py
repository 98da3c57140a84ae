"""The demo fleet: a real log, obeying a real policy file, the same for the same seed."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mcpwatch.demo.cast import ATTACKER_ADDRESS, STOLEN_KEY
from mcpwatch.demo.fleet import RELOAD_EVERY, Fleet, write_policy
from mcpwatch.detection.engine import Engine
from mcpwatch.detection.hit import Severity
from mcpwatch.formats.reader import Reader
from mcpwatch.incidents.fold import Fold
from mcpwatch.policy.edit import Change, Disable, Lock, Revoke, plan
from mcpwatch.policy.load import load
from mcpwatch.policy.model import PolicyError
from mcpwatch.policy.write import Written, change
from mcpwatch.sources.saved import open_saved
from mcpwatch.times import HOUR, MINUTE, SECOND, parse_time

START = 1_795_317_247 * SECOND
Record = dict[str, Any]


def make_fleet(folder: Path, seed: int = 1) -> Fleet:
    policy = folder / "policy.yaml"
    write_policy(policy, START)
    return Fleet(folder / "audit.jsonl", policy, seed=seed, start_ns=START)


def records(folder: Path) -> list[Record]:
    return [orjson.loads(line) for line in (folder / "audit.jsonl").read_bytes().splitlines()]


def time_of(record: Record) -> int:
    found = parse_time(record["timestamp"])
    assert found is not None
    return found[0]


def write(folder: Path, step: Change) -> None:
    path = folder / "policy.yaml"
    _, written = change(
        path, lambda data: plan(data, step, path.name), state_dir=folder / "state", actor="test"
    )
    assert written is Written.APPLIED


def watch(folder: Path) -> tuple[Fold, Engine, Reader]:
    policy = load(folder / "policy.yaml")
    engine, fold, reader = Engine(policy), Fold(policy.alerts), Reader("audit.jsonl")
    for block in open_saved([folder / "audit.jsonl"])[0].blocks():
        fold.add(engine.observe(reader.read(block)))
    return fold, engine, reader


def test_a_step_appends_all_records_up_to_its_time_and_says_how_many(tmp_path: Path) -> None:
    fleet = make_fleet(tmp_path)
    first = fleet.step(START + 20 * SECOND)
    assert len(records(tmp_path)) == first > 40
    assert max(map(time_of, records(tmp_path))) <= START + 20 * SECOND
    assert fleet.step(START + 20 * SECOND) == 0
    second = fleet.step(START + 40 * SECOND)
    times = [time_of(record) for record in records(tmp_path)]
    assert len(times) == first + second
    assert times == sorted(times)
    assert times[first] > START + 20 * SECOND


@settings(max_examples=15, deadline=None)
@given(cuts=st.lists(st.integers(0, 60 * SECOND), max_size=8))
def test_the_log_does_not_depend_on_how_time_is_cut_into_steps(
    cuts: list[int], tmp_path_factory: pytest.TempPathFactory
) -> None:
    one, many = tmp_path_factory.mktemp("one"), tmp_path_factory.mktemp("many")
    make_fleet(one).step(START + MINUTE)
    fleet = make_fleet(many)
    for cut in (*sorted(cuts), MINUTE):
        fleet.step(START + cut)
    assert (one / "audit.jsonl").read_bytes() == (many / "audit.jsonl").read_bytes()


def test_another_seed_gives_another_log(tmp_path: Path) -> None:
    logs = set()
    for seed in (1, 2):
        folder = tmp_path / str(seed)
        folder.mkdir()
        make_fleet(folder, seed).step(START + MINUTE)
        logs.add((folder / "audit.jsonl").read_bytes())
    assert len(logs) == 2


def test_a_step_appends_to_what_others_wrote(tmp_path: Path) -> None:
    (tmp_path / "audit.jsonl").write_bytes(b'{"tool": "before"}\n')
    make_fleet(tmp_path).step(START + 10 * SECOND)
    assert records(tmp_path)[0] == {"tool": "before"}


def test_every_record_is_native_with_the_five_fields_and_all_that_identifies_it(tmp_path: Path) -> None:
    make_fleet(tmp_path).step(START + 2 * MINUTE)
    _, _, reader = watch(tmp_path)
    assert dict(reader.formats) == {"native": reader.lines}
    assert {(have, calls) for _, have, calls in reader.coverage} == {(reader.calls, reader.calls)}
    found = records(tmp_path)
    assert len({record["call_id"] for record in found}) == len(found)
    for record in found:
        assert record.keys() >= {"server", "source_ip", "duration_ms", "status", "key_id", "client_id"}
        assert record["auth"]["method"]
        assert "scopes" in record or record["event"] == "auth"
    assert {record["server"] for record in found} == {"files", "web", "data"}


@pytest.mark.parametrize("seed", range(6))
def test_only_the_attacker_raises_incidents(tmp_path: Path, seed: int) -> None:
    make_fleet(tmp_path, seed).step(START + 6 * MINUTE)
    attackers = {
        record["session_id"] for record in records(tmp_path)
        if record["source_ip"] == ATTACKER_ADDRESS and "session_id" in record
    }  # fmt: skip
    fold, _, reader = watch(tmp_path)
    about = {value for incident in fold for _, value in incident.subject}
    assert about <= {STOLEN_KEY, ATTACKER_ADDRESS, *attackers}
    assert 3.5 * 360 < reader.lines < 6 * 360


def test_the_attack_has_its_acts_and_the_worst_stands_first(tmp_path: Path) -> None:
    make_fleet(tmp_path).step(START + 40 * SECOND)
    fold, _, _ = watch(tmp_path)
    shown = sorted(fold, key=lambda incident: (-incident.severity, incident.first_ns))
    assert [(incident.severity, incident.rule.id, incident.count) for incident in shown[:7]] == [
        (Severity.CRITICAL, "domain-unexpected", 2),
        (Severity.HIGH, "auth-lockout", 4),
        (Severity.HIGH, "credential-spray", 2),
        (Severity.HIGH, "shell-execute", 2),
        (Severity.MEDIUM, "path-outside", 5),
        (Severity.MEDIUM, "tool-unlisted", 1),
        (Severity.MEDIUM, "scope-missing", 1),
    ]
    assert "session-rate" in {incident.rule.id for incident in shown[7:]}
    opened = {incident.rule.id: (incident.first_ns - START) / SECOND for incident in fold}
    assert 5 < opened["auth-lockout"] < 10 < opened["path-outside"] < 16 <= opened["domain-unexpected"] < 20
    assert 20 <= opened["shell-execute"] < 22


def test_the_servers_let_nothing_through_that_the_policy_forbids(tmp_path: Path) -> None:
    make_fleet(tmp_path).step(START + 3 * MINUTE)
    fold, _, _ = watch(tmp_path)
    assert "enforcement-gap" not in {incident.rule.id for incident in fold}
    assert not any("success" in incident.outcomes for incident in fold if incident.rule.id == "path-outside")


def test_a_revocation_bites_within_the_time_of_a_reload(tmp_path: Path) -> None:
    fleet = make_fleet(tmp_path)
    moment = START + 45 * SECOND
    for tenth in range(1, 451):
        fleet.step(START + tenth * SECOND // 10)
    write(tmp_path, Revoke("key", STOLEN_KEY, moment, "test", None))
    for tenth in range(451, 700):
        fleet.step(START + tenth * SECOND // 10)
    of_key = [
        record
        for record in records(tmp_path)
        if record["key_id"] == STOLEN_KEY and record["event"] == "tool_call"
    ]
    after = [record for record in of_key if time_of(record) > moment + RELOAD_EVERY]
    assert {record["status"] for record in after} == {"unauthenticated"}
    assert len(after) > 25
    assert of_key[len(of_key) - len(after) - 2]["status"] == "success"
    _, engine, _ = watch(tmp_path)
    proof = next(seen for seen in engine.enforcement if seen.refused)
    assert proof.time_ns - moment < 1.2 * SECOND
    assert all(seen.refused or seen.early for seen in engine.enforcement)


def test_servers_look_at_the_policy_only_every_300_ms(tmp_path: Path) -> None:
    """Right after a look, calls still pass although the file on disk forbids them already; after the next, none."""
    free, bound = tmp_path / "free", tmp_path / "bound"
    free.mkdir()
    bound.mkdir()
    make_fleet(free).step(START + MINUTE)
    times = [time_of(record) for record in records(free)]
    number = next(
        number
        for number, (one, other) in enumerate(pairwise(times))
        if number > 50 and one < other and one // RELOAD_EVERY == other // RELOAD_EVERY
    )
    fleet = make_fleet(bound)
    fleet.step(times[number])
    (bound / "policy.yaml").write_text("version: 1\nunlisted_tools: deny\nkeys: {key_0099: {}}\n")
    fleet.step(START + MINUTE)
    assert records(bound)[number + 1] == records(free)[number + 1]
    for record in records(bound)[number + 1 :]:
        told = time_of(record) // RELOAD_EVERY > times[number] // RELOAD_EVERY
        assert (record.get("error") == "credentials not accepted") is told


def test_a_lockout_of_the_address_and_a_disabled_tool_bite_too(tmp_path: Path) -> None:
    fleet = make_fleet(tmp_path)
    fleet.step(START + 19 * SECOND)
    write(tmp_path, Disable("shell_execute", START + 19 * SECOND))
    fleet.step(START + 30 * SECOND)
    shells = [record for record in records(tmp_path) if record.get("tool") == "shell_execute"]
    assert [record["status"] for record in shells] == ["denied", "denied"]
    write(tmp_path, Lock(None, ATTACKER_ADDRESS, START + 30 * SECOND, START + HOUR))
    fleet.step(START + 40 * SECOND)
    last = [record for record in records(tmp_path) if record["source_ip"] == ATTACKER_ADDRESS][-5:]
    assert {record["status"] for record in last} == {"unauthenticated"}


def test_a_broken_policy_leaves_the_last_good_one(tmp_path: Path) -> None:
    fleet = make_fleet(tmp_path)
    fleet.step(START + 30 * SECOND)
    (tmp_path / "policy.yaml").write_text("version: [")
    fleet.step(START + 35 * SECOND)
    late = [record for record in records(tmp_path) if time_of(record) > START + 31 * SECOND]
    assert "success" in {record["status"] for record in late}
    assert "unauthenticated" not in {record["status"] for record in late}


def test_without_a_policy_file_there_is_no_fleet(tmp_path: Path) -> None:
    with pytest.raises(PolicyError):
        Fleet(tmp_path / "audit.jsonl", tmp_path / "policy.yaml", seed=1, start_ns=START)
