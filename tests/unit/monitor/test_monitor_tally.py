"""How often rules fire in a run, and exceptions made of that: what they are said to silence, they silence."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from mcpwatch.cli.options import Show
from mcpwatch.cli.output import Printer
from mcpwatch.data import shipped as shipped_data
from mcpwatch.detection.rulefiles import load_rules
from mcpwatch.monitor import tally
from mcpwatch.monitor.pipeline import Pipeline, Reading, saved_events
from mcpwatch.policy.file import PolicyFile
from mcpwatch.response.exception import Choice
from mcpwatch.response.exceptionfile import ExceptionPlan
from mcpwatch.response.plan import ResponseError
from mcpwatch.snapshot import IncidentDetail, RuleRate
from mcpwatch.sources.saved import open_saved
from mcpwatch.times import HOUR, SECOND
from tests.unit.monitor.monitor_runs import NOW, Deck, Room, call
from tests.unit.monitor.test_monitor_details import outside

SAMPLES = shipped_data("sample_logs")
TODAY_30 = "2026-12-22"


@pytest.fixture
def room(tmp_path: Path) -> Room:
    (tmp_path / "rules").mkdir()
    return Room(tmp_path, rules=tmp_path / "rules")


def opened(room: Room, rule: str, subject: str | None = None) -> IncidentDetail:
    alert = next(a for a in room.look().alerts if a.rule == rule and subject in (None, a.subject))
    detail = room.monitor.incident(alert.id)
    assert detail is not None
    return detail


def choice(room: Room, detail: IncidentDetail, number: int = 0) -> Choice:
    return room.monitor.exceptions(detail.row.id)[number]


def planned(room: Room, detail: IncidentDetail, number: int = 0, term: str | None = None) -> ExceptionPlan:
    chosen = choice(room, detail, number)
    term = room.monitor.first_term(chosen) if term is None else term
    return room.monitor.plan_exception(detail.row.id, chosen, "normal here", term)


def test_an_incident_tells_how_often_its_rule_fired_and_which_limit_would_fit(room: Room) -> None:
    for at, session, count in ((0, "s1", 8), (0, "s2", 13), (2 * HOUR, "s1", 6)):
        room.write(*(call(NOW + at + n * SECOND, session_id=session, key_id=None) for n in range(count)))
    detail = opened(room, "session-rate", "s1")
    assert detail.rate == RuleRate(
        hits=3 + 8 + 1, incidents=2, subjects=2, capped=False, hours=2, unit="calls", peak=13,
        limits=((10, 3), (13, 0)),
    )  # fmt: skip
    room.write(outside(NOW, key_id="k1"))
    rate = opened(room, "path-outside").rate
    assert rate is not None and (rate.hits, rate.peak, rate.limits) == (1, None, ())


def test_counting_is_bounded(room: Room, monkeypatch: pytest.MonkeyPatch) -> None:
    """Callers without end: exact hits, the rest at least; ids too long for a file are not kept."""
    monkeypatch.setattr(tally, "MAX_CALLERS", 5)
    monkeypatch.setattr(tally, "MAX_SUBJECTS", 5)
    room.write(*(outside(NOW, key_id=f"k{n}") for n in range(9)), outside(NOW, key_id="k" * 5_000))
    detail = opened(room, "path-outside", "k0")
    assert detail.rate is not None
    assert (detail.rate.hits, detail.rate.incidents, detail.rate.capped) == (10, 5, True)
    effect = planned(room, detail, 1).effect
    assert (effect.hits, effect.silenced, effect.at_least) == (10, 1, True)
    assert len(room.monitor.tally.seen("path-outside")) == 5


@pytest.mark.parametrize(("rule", "subject", "number"), [
    ("session-rate", "s1", 0), ("session-rate", "s1", 1), ("session-rate", "s2", 1), ("session-rate", "s2", 4),
    ("path-outside", "k1", 0), ("path-outside", "k1", 1), ("path-outside", "k1", 2),
])  # fmt: skip
def test_what_an_exception_is_said_to_silence_it_silences(
    room: Room, rule: str, subject: str, number: int
) -> None:
    """Shown by a second run over the same log with the file that was written."""
    for n in range(20):
        room.write(
            call(NOW + n * SECOND, tool="build", key_id="k1", session_id="s1"),
            call(NOW + n * SECOND, tool="test", key_id="k1", session_id="s1", client_id="other"),
            call(NOW + n * SECOND, tool="build", key_id="k2", session_id="s2"),
            outside(NOW + n * SECOND, key_id="k1", session_id="s3"),
            outside(NOW + n * SECOND, key_id="k2", session_id="s4", tool="file_write"),
        )
    plan = planned(room, opened(room, rule, subject), number)
    before = sum(incident.count for incident in room.monitor.pipeline.fold if incident.rule.id == rule)
    assert plan.effect.hits == before and plan.effect.silenced > 0
    assert room.monitor.write_exception(plan).in_use
    again = Pipeline(PolicyFile(room.policy_path).policy, Reading(), room.monitor.pipeline.engine.rules)
    for events in saved_events(open_saved([room.log]), again):
        again.observe(events)
    silenced = before - sum(incident.count for incident in again.fold if incident.rule.id == rule)
    if plan.effect.at_least:
        assert silenced >= plan.effect.silenced
    else:
        assert silenced == plan.effect.silenced


def test_an_exception_is_in_use_as_soon_as_it_is_written_and_the_incident_says_so(room: Room) -> None:
    room.write(outside(NOW))
    detail = opened(room, "path-outside")
    assert (detail.tuned, detail.place) == ((), None)
    written = room.monitor.write_exception(planned(room, detail))
    assert (written.in_use, written.note) == (True, "")
    assert (room.folder / "rules/tune-path-outside.yaml").read_text().count(f"expires: {TODAY_30}") == 1
    room.write(outside(room.after(5)))
    detail = opened(room, "path-outside")
    assert detail.row.count == 1
    (tuned,) = detail.tuned
    assert "key:k1" in tuned and f"until {TODAY_30}" in tuned and "normal here" in tuned


def test_a_file_that_is_not_used_says_why(room: Room) -> None:
    room.write(outside(NOW))
    plan = planned(room, opened(room, "path-outside"))
    (room.folder / "rules/a.yaml").write_text("tune: path-outside\nenabled: false\nreason: noise\n")
    written = room.monitor.write_exception(plan)
    assert not written.in_use and "tuned in" in written.note and "a.yaml" in written.note


def test_read_only_and_without_rules_nothing_is_written_and_all_is_shown(tmp_path: Path) -> None:
    (tmp_path / "rules").mkdir()
    for room in (
        Room(tmp_path, rules=tmp_path / "rules", read_only=True),
        Room(tmp_path),
    ):
        room.write(outside(NOW))
        plan = planned(room, opened(room, "path-outside"))
        assert plan.path is None and plan.by_hand is not None and "tune: path-outside" in plan.lines
        with pytest.raises(ResponseError):
            room.monitor.write_exception(plan)
    assert list((tmp_path / "rules").iterdir()) == []


def test_a_gap_in_a_log_is_about_nobody(room: Room) -> None:
    """Whoever its newest record names did nothing: there is nothing to do to them, and nobody to except."""
    room.write(call(NOW, sequence=1), call(NOW + SECOND, sequence=9))
    detail = opened(room, "audit-gap")
    assert detail.row.targets == () and detail.related == ()
    assert detail.row.note == "success"
    with pytest.raises(ResponseError, match="about a log"):
        room.monitor.exceptions(detail.row.id)


def test_an_incident_of_a_rule_of_ones_own_names_its_file(room: Room) -> None:
    path = room.folder / "rules/deploys.yaml"
    path.write_text("title: A\nid: deploys\nlevel: low\ndescription: D.\nmatch: 'tool:deploy'\n")
    room.write(call(NOW, tool="deploy"))
    assert opened(room, "deploys").place == str(path)


def test_a_replay_counts_every_hit_of_its_log_once_wherever_it_goes() -> None:
    log, policy = SAMPLES / "demo-incident.jsonl", SAMPLES / "policy.yaml"
    deck = Deck([log], policy)
    deck.until_paused()
    incident = max(deck.monitor.pipeline.fold, key=lambda incident: incident.count)
    whole = deck.monitor.tally.rate(incident.rule, deck.monitor.pipeline.fold.alerts)
    same = [each.count for each in deck.monitor.pipeline.fold if each.rule.id == incident.rule.id]
    assert whole is not None and (whole.hits, whole.incidents) == (sum(same), len(same))
    deck.player.seek(incident.first_ns)
    deck.turn()
    deck.play_to_the_end()
    assert deck.monitor.tally.rate(incident.rule, deck.monitor.pipeline.fold.alerts) == whole


def test_a_replay_writes_but_goes_on_with_its_rules(tmp_path: Path) -> None:
    """What was found before and after a file would otherwise be found by different rules."""
    (tmp_path / "rules").mkdir()
    room = Room(tmp_path, rules=tmp_path / "rules")
    room.write(outside(NOW))
    deck = Deck([room.log], room.policy_path)
    deck.monitor.rule_files = room.monitor.rule_files
    object.__setattr__(deck.monitor.settings, "read_only", False)
    shown = deck.until_paused()
    detail = deck.monitor.incident(shown.alerts[0].id)
    assert detail is not None
    chosen = deck.monitor.exceptions(detail.row.id)[0]
    plan = deck.monitor.plan_exception(detail.row.id, chosen, "normal here", "30d")
    rules = deck.monitor.pipeline.engine.rules
    written = deck.monitor.write_exception(plan)
    assert not written.in_use and "start it again" in written.note
    assert deck.monitor.pipeline.engine.rules is rules


def test_event_lines_name_what_the_checks_found(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Whatever rules, tunings and exceptions there are; only by the names of the shipped checks."""
    log, folder = tmp_path / "audit.jsonl", tmp_path / "rules"
    folder.mkdir()
    (folder / "own.yaml").write_text(
        "title: A\nid: own\nlevel: low\ndescription: D.\nmatch: 'tool:file_read'\n"
    )
    (folder / "tune.yaml").write_text(
        "tune: path-outside\nexceptions: [{fields: {key: k1}, author: a, reason: b}]\n"
    )
    log.write_bytes(
        outside(NOW, sequence=1) + call(NOW + SECOND, sequence=7) + call(NOW + 2 * SECOND, sequence=8)
    )
    policy = tmp_path / "policy.yaml"
    policy.write_text(
        "version: 1\ntools: {file_read: {allowed_paths: [/app/data/]}}\nkeys: {k1: {created: 2020-01-01}}\n"
    )
    rules = load_rules(folder, Room(tmp_path, policy=None).monitor._today())
    pipeline = Pipeline(PolicyFile(policy).policy, Reading(), rules)
    show = Show(
        from_ns=None, to_ns=None, filter_text="", plain=False, as_json=True, events=True, fail_on=None, reveal=False,
        read_only=False, theme=None, low_bandwidth=False, utc=True,
    )  # fmt: skip
    printer = Printer(show, pipeline)
    for events in saved_events(open_saved([log]), pipeline):
        printer.events(pipeline.observe(events).events)
    found = [json.loads(line)["checks"] for line in capsys.readouterr().out.splitlines()]
    assert found == [
        ["key-stale", "path-outside", "sensitive-read"], ["audit-gap", "key-stale"], ["key-stale"],
    ]  # fmt: skip
