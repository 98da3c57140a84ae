"""The shipped sample logs: what each of them shows, to the incident id and the last counter."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import pytest

from mcpwatch.data import shipped
from mcpwatch.demo.broken import HOSTILE
from mcpwatch.demo.samples import REVOKED_NS
from mcpwatch.detection.engine import Engine
from mcpwatch.event import AuditEvent
from mcpwatch.formats.reader import Reader
from mcpwatch.incidents.fold import Fold
from mcpwatch.incidents.incident import Incident
from mcpwatch.policy.load import load
from mcpwatch.sources.saved import open_saved
from mcpwatch.text import safe
from mcpwatch.times import HOUR, SECOND, utc_day

SAMPLES = shipped("sample_logs")

Row = tuple[str, str, dict[str, str], str, int]
"""Id, rule, subject, severity, count."""

INCIDENTS: dict[str, list[Row]] = {
    "broken.jsonl": [
        ("INC-BKTT7ZDJHZQC23EV", "audit-missing", {"key": "key_0004"}, "medium", 11),
        ("INC-PLL3NSLOQWM3CZMC", "hostile-text", {"key": "key_0004"}, "medium", 29),
        ("INC-6FGGTBTNFVMY6OA4", "tool-unlisted", {"key": "key_0004"}, "medium", 13),
        ("INC-SLFU7DVQII3MSZT3", "tool-enumeration", {"key": "key_0004"}, "medium", 10),
        # the record from 2099 uses a key of this year
        ("INC-ECLCXX5QNZH3UOVP", "key-stale", {"key": "key_0004"}, "low", 1),
    ],
    "brute-force.jsonl": [
        ("INC-676AMNRLT2ZWI6OL", "auth-lockout", {"source_ip": "203.0.113.77"}, "high", 43),
    ],
    "demo-incident.jsonl": [
        ("INC-DNZZD4Q2JS3IP36R", "auth-lockout", {"source_ip": "203.0.113.9"}, "high", 4),
        ("INC-MMV7IXR4CO3ZOE5M", "credential-spray", {"source_ip": "203.0.113.9"}, "high", 69),
        ("INC-P4H3RKKABZLVUUSI", "path-outside", {"key": "key_0007"}, "medium", 5),
        ("INC-54FYJQNSRMNSEUQG", "domain-unexpected", {"key": "key_0007"}, "critical", 2),
        ("INC-X7RG2EMLY642GUBZ", "tool-unlisted", {"key": "key_0007"}, "medium", 1),
        ("INC-3DEFX2VBRMWUWRVW", "shell-execute", {"key": "key_0007"}, "high", 2),
        ("INC-KR4J76EU3PSDY4M5", "scope-missing", {"key": "key_0007"}, "medium", 1),
        ("INC-LYZJMDF6QSMFQ27I", "session-rate", {"session": "s-535e53a3"}, "medium", 54),
        ("INC-WS7MWG6WVOR53TAH", "revoked-attempt", {"key": "key_0007"}, "low", 67),
        ("INC-PFLFAC5VNV3HBR3X", "auth-lockout", {"key": "key_0007", "source_ip": "203.0.113.9"}, "high", 65),
        ("INC-ZYSLWC23PHHYF5IN", "session-rate", {"session": "s-c5bcf4a4"}, "medium", 15),
        ("INC-Y3HUYF3X5BV6SE2T", "session-rate", {"session": "s-8fdc6d5a"}, "medium", 4),
    ],
    "exfiltration.jsonl": [
        (
            "INC-C564GA5XBWMY7V52",
            "session-churn",
            {"key": "key_0003", "client": "research-agent"},
            "medium",
            82,
        ),
        ("INC-PUZ2GWIF25X7LCNG", "domain-unexpected", {"key": "key_0003"}, "critical", 3),
    ],
    "quiet-day.jsonl": [],
}

COUNTERS = {
    # lines, understood, not understood, blank, events, late, sessions, keys
    "broken.jsonl": (98, 77, 16, 5, 77, 1, 27, 1),
    "brute-force.jsonl": (157, 157, 0, 0, 157, 0, 7, 6),
    "demo-incident.jsonl": (423, 423, 0, 0, 423, 0, 27, 13),
    "exfiltration.jsonl": (176, 176, 0, 0, 176, 0, 99, 6),
    "quiet-day.jsonl": (1861, 1861, 0, 0, 1861, 0, 121, 6),
}


@dataclass
class Replayed:
    engine: Engine
    fold: Fold
    reader: Reader
    events: list[AuditEvent]


def replay(name: str) -> Replayed:
    policy = load(SAMPLES / "policy.yaml")
    engine, fold, reader = Engine(policy), Fold(policy.alerts), Reader(name)
    events = []
    for block in open_saved([SAMPLES / name])[0].blocks():
        read = reader.read(block)
        events += read
        fold.add(engine.observe(read))
    return Replayed(engine, fold, reader, events)


def row(incident: Incident) -> Row:
    return (
        incident.id,
        incident.rule.id,
        dict(incident.subject),
        incident.severity.label,
        incident.count,
    )


@pytest.mark.parametrize("name", INCIDENTS)
def test_replay_finds_exactly_these_incidents(name: str) -> None:
    assert [row(incident) for incident in replay(name).fold] == INCIDENTS[name]


@pytest.mark.parametrize("name", COUNTERS)
def test_every_line_is_counted(name: str) -> None:
    seen = replay(name)
    reader, engine = seen.reader, seen.engine
    assert reader.lines == reader.understood + reader.not_understood + reader.blank
    assert (
        reader.lines,
        reader.understood,
        reader.not_understood,
        reader.blank,
        reader.events,
        engine.late,
        len(engine.sessions),
        len(engine.keys),
    ) == COUNTERS[name]


def test_the_files_are_what_the_program_makes(tmp_path: Path) -> None:
    """In a process of its own: nothing may hang on the order of a set or on the clock."""
    subprocess.run([sys.executable, "-m", "mcpwatch.demo.samples", str(tmp_path)], check=True)
    made = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    assert made.keys() == INCIDENTS.keys() | {"policy.yaml"}
    for name, data in made.items():
        assert (SAMPLES / name).read_bytes() == data, (
            f"{name}: run python -m mcpwatch.demo.samples sample_logs"
        )


def test_they_are_small_and_hold_no_code() -> None:
    files = [path for path in SAMPLES.iterdir() if path.is_file()]
    assert sum(path.stat().st_size for path in files) < 1_500_000
    assert not [path for path in files if path.suffix == ".py"]
    readme = (SAMPLES / "README.md").read_text()
    assert all(f"`{name}`" in readme for name in (*INCIDENTS, "policy.yaml"))


def test_the_revocation_of_the_demo_incident_is_in_force_half_a_second_later() -> None:
    first, *others = replay("demo-incident.jsonl").engine.enforcement
    assert first.refused
    assert 0 < first.time_ns - REVOKED_NS < SECOND
    assert all(other.refused for other in others)


def test_the_quiet_day_is_one_whole_day_of_six_clients() -> None:
    events = replay("quiet-day.jsonl").events
    assert {utc_day(event.time_ns or 0) for event in events} == {"2026-11-20"}
    assert len({event.client_id for event in events}) == 6
    times = [event.time_ns or 0 for event in events]
    assert times[-1] - times[0] > 23 * HOUR
    assert max(later - earlier for earlier, later in pairwise(times)) < 2 * HOUR


def test_the_slow_guesser_stays_below_the_threshold_and_the_fast_one_gets_in() -> None:
    seen = replay("brute-force.jsonl")
    slow = [event for event in seen.events if event.source_ip == "198.51.100.23"]
    assert len(slow) >= 10
    assert {event.status for event in slow} == {"unauthenticated"}
    fast = [event.status for event in seen.events if event.source_ip == "203.0.113.77"]
    assert fast[-1] == "success"


def test_the_broken_log_holds_every_hostile_text_and_none_of_it_is_shown() -> None:
    seen = replay("broken.jsonl")
    assert {event.tool for event in seen.events} >= set(HOSTILE)
    shown = [*(str(example.head) for example in seen.reader.examples)]
    shown += [safe(value) for event in seen.events for value in (event.tool, event.session_id, event.params)]
    assert all(text.isprintable() for text in shown)


def test_the_broken_log_is_hard_to_read_in_every_way() -> None:
    reader = replay("broken.jsonl").reader
    assert reader.reasons.keys() == {
        "not JSON",
        "in syslog 3164: not JSON",
        "JSON nested too deep",
        "JSON, but not an object",
        "no field of it is known",
    }
    assert reader.bad_utf8 >= 2
    assert reader.formats["generic"] >= 1
