"""Where an incident is held, in memory or in the temporary file, changes nothing that is asked of the fold."""

from __future__ import annotations

import gc
import os
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mcpwatch.detection.hit import Hit, Severity
from mcpwatch.detection.rule import RuleSet
from mcpwatch.detection.rulefile import shipped
from mcpwatch.incidents.fold import Change, Fold
from mcpwatch.incidents.incident import Incident
from mcpwatch.policy.model import Alerts
from mcpwatch.times import DAY, MINUTE, SECOND

NOON = 1_795_132_800 * SECOND + DAY // 2
YEAR_9998 = 253_370_764_800 * SECOND
ALERTS = Alerts()


def hit(time_ns: int, who: str, rule: str = "key-rate", **fields: Any) -> Hit:
    base = Hit(rule, (("key", who),), time_ns, Severity.MEDIUM, "success", "why", 6, "a.jsonl", 1, 0)
    return base._replace(**fields)


def subject(who: int) -> tuple[tuple[str, str], ...]:
    """Some share a key, some an address, some have lone surrogates or NULs in their names."""
    return (("key", f"k{who % 7}\ud800"), ("source_ip", f"ip{who}\0"))


hits = st.lists(
    st.builds(
        lambda at, who, rule, severity, outcome, limit: hit(
            at,
            "",
            rule,
            subject=subject(who),
            severity=severity,
            outcome=outcome,
            limit=limit,
            offset=at % 997,
        ),
        st.sampled_from([NOON, NOON + 1, NOON + 999, NOON + 1_000, NOON + DAY, YEAR_9998])
        | st.integers(NOON, NOON + 60 * MINUTE),
        st.integers(0, 30),
        st.sampled_from(["key-rate", "path-outside"]),
        st.sampled_from(Severity),
        st.sampled_from(["success", "denied"]),
        st.sampled_from([None, 50]),
    ),
    max_size=80,
)


def facts(incident: Incident) -> tuple[Any, ...]:
    return (
        incident.id, incident.rule, incident.subject, incident.day, incident.severity, incident.reason,
        incident.first_ns, incident.last_ns, incident.count, incident.peak, incident.outcomes, incident.episodes,
        incident.set_limit, incident.active, incident.evidence,
    )  # fmt: skip


def told(changes: list[Change]) -> list[tuple[Any, ...]]:
    return [(change.kind, *facts(change.incident)) for change in changes]


@settings(max_examples=150, deadline=None)
@given(hits, st.integers(1, 12), st.integers(1, 20))
def test_a_fold_without_room_says_the_same_as_one_with_room_enough(
    found: list[Hit], room: int, piece: int
) -> None:
    """Every change, the listing with its order, the counts, and each incident by its id."""
    wide, narrow = Fold(ALERTS), Fold(ALERTS, held_at_most=room)
    for at in range(0, len(found), piece):
        part = found[at : at + piece]
        assert told(narrow.add(part)) == told(wide.add(part))
        now = part[-1].time_ns + 11 * MINUTE
        assert sorted(told(narrow.settle(now)), key=repr) == sorted(told(wide.settle(now)), key=repr)
    assert list(map(facts, narrow)) == list(map(facts, wide))
    assert len(narrow) == len(wide) == len(list(wide))
    assert narrow.by_severity() == wide.by_severity()
    names = frozenset(pair for incident in wide for pair in incident.subject) | {("key", "nobody")}
    assert narrow.worst_of(names) == wide.worst_of(names)
    for incident in wide:
        same = narrow.find(incident.id)
        assert same is not None
        assert facts(same) == facts(incident)
        assert list(map(facts, narrow.related(same, 5))) == list(map(facts, wide.related(incident, 5)))
    assert (narrow.find("INC-NONE"), narrow.notice, narrow.out_of_sight) == (None, None, 0)


@settings(max_examples=100, deadline=None)
@given(hits, st.integers(4, 20))
def test_the_worst_are_never_spilled(found: list[Hit], room: int) -> None:
    wide, narrow = Fold(ALERTS), Fold(ALERTS, held_at_most=room)
    for each in found:
        wide.add([each])
        narrow.add([each])
        count = min(len(wide), room * 3 // 4)
        assert list(map(facts, narrow.worst(count))) == list(map(facts, wide.worst(count)))


def test_one_critical_incident_stays_on_top_of_a_flood_of_others() -> None:
    folded = Fold(ALERTS, held_at_most=1_000)
    for n in range(6_000):
        if n == 1_500:
            folded.add([hit(NOON, "attacker", "enforcement-gap", severity=Severity.CRITICAL)])
        folded.add([hit(NOON + n, f"noise-{n}", severity=Severity.HIGH)])
    assert folded.worst(1)[0].subject == (("key", "attacker"),)
    assert len(folded) == 6_001
    assert folded.by_severity()[Severity.CRITICAL] == 1
    assert sum(1 for _ in folded) == 6_001


def test_an_incident_keeps_the_rule_that_opened_it_in_the_file_too() -> None:
    folded = Fold(ALERTS, held_at_most=1)
    folded.add([hit(NOON, "a"), hit(NOON, "b")])
    folded.set_limits(ALERTS, RuleSet(()))
    assert [incident.rule for incident in folded] == [shipped().by_id["key-rate"]] * 2


def test_after_a_long_stop_not_all_are_told_to_be_quiet_at_once_but_every_one_is() -> None:
    folded = Fold(ALERTS, held_at_most=100)
    folded.add(hit(NOON + n, f"k{n}") for n in range(3_000))
    sizes = []
    ids: set[str] = set()
    while changes := folded.settle(NOON + DAY):
        sizes.append(len(changes))
        ids |= {change.incident.id for change in changes}
    assert max(sizes) <= 1_100
    assert sum(sizes) == len(ids) == 3_000


@contextmanager
def largest_file(size: int) -> Iterator[None]:
    """Nothing that is written may be larger: as on a disk that is full."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_full_disk_is_said_and_what_was_written_before_is_still_there() -> None:
    folded = Fold(ALERTS, held_at_most=100)
    folded.add(hit(NOON + n, f"k{n}", severity=Severity.HIGH) for n in range(200))
    with largest_file(200_000):
        folded.add(hit(NOON + 1_000 + n, f"l{n}") for n in range(2_000))
    assert folded.notice is not None
    assert f"{folded.out_of_sight:,} are counted" in folded.notice
    listed = [incident.id for incident in folded]
    assert len(listed) == len(set(listed))
    assert len(folded) == 2_200 == len(listed) + folded.out_of_sight
    first = {name for (_, name), *_ in (incident.subject for incident in folded)}
    assert {f"k{n}" for n in range(200)} <= first


def test_a_folder_that_can_not_be_written_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "gone"))
    monkeypatch.setenv("TMPDIR", str(tmp_path / "gone"))
    folded = Fold(ALERTS, held_at_most=8)
    folded.add(hit(NOON + n, f"k{n}") for n in range(20))
    assert folded.notice is not None
    assert "can't be shown (No such file or directory)" in folded.notice
    assert len(folded) == 20 == len(list(folded)) + folded.out_of_sight


def test_the_file_has_no_name_and_is_closed_with_the_fold(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is left behind, by kill -9 either, nor by a replay that makes a new fold at every step."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.setenv("TMPDIR", str(tmp_path))

    def opened() -> list[str]:
        links = [Path(f"/proc/self/fd/{name}") for name in os.listdir("/proc/self/fd")]  # noqa: PTH208
        return [link.name for link in links if link.is_symlink() and str(tmp_path) in str(link.readlink())]

    folded = Fold(ALERTS, held_at_most=8)
    folded.add(hit(NOON + n, f"k{n}") for n in range(20))
    assert list(tmp_path.iterdir()) == []
    assert len(opened()) == 1
    del folded
    gc.collect()
    assert opened() == []
