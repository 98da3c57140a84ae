"""Whether a restriction bites, from what was seen in the log."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mcpwatch.detection.enforcement import DisabledTool, Enforcement
from mcpwatch.event import AuditEvent
from mcpwatch.policy.model import Lockout, Revocation
from mcpwatch.response import confirm
from mcpwatch.response.confirm import Confirmations, SavedSightings, sentence
from mcpwatch.sources.block import Block
from mcpwatch.times import SECOND

ENTRY = Revocation("key", "k1", 0)


def after(*seen: tuple[float, bool]) -> tuple[str, str]:
    """State and detail after (seconds, refused)."""
    found = Confirmations()
    found.observe(Enforcement(ENTRY, round(at * SECOND), refused=refused) for at, refused in seen)
    return found.state(ENTRY, 0)


@pytest.mark.parametrize(
    ("seen", "state"),
    [
        ((), ("untested", "no attempt since")),
        (((0.8, True),), ("in force", "after 0.8 s")),
        (((0.8, True), (5, True)), ("in force", "after 0.8 s")),
        (((12, False),), ("NOT IN FORCE", "success 12 s after the change")),
        (((1, True), (12, False)), ("NOT IN FORCE", "success 12 s after the change")),
        (((1, True), (12, False), (90, True)), ("in force", "after 1m 30s")),
        (((12, False), (11, True)), ("NOT IN FORCE", "success 12 s after the change")),
        (((30, True), (12, False)), ("in force", "after 30 s")),
    ],
)
def test_a_refusal_puts_it_in_force_and_a_later_success_withdraws_that(
    seen: tuple[tuple[float, bool], ...], state: tuple[str, str]
) -> None:
    assert after(*seen) == state


def test_a_success_within_the_grace_is_no_proof_but_withdraws_one() -> None:
    found = Confirmations()
    found.observe(
        [Enforcement(ENTRY, SECOND, refused=True), Enforcement(ENTRY, 2 * SECOND, refused=False, early=True)]
    )
    assert found.state(ENTRY, 0)[0] == "untested"
    found.observe([Enforcement(ENTRY, 3 * SECOND, refused=True)])
    assert found.state(ENTRY, 0) == ("in force", "after 3.0 s")


@given(st.lists(st.tuples(st.integers(0, 50), st.booleans()), min_size=1))
def test_in_order_the_last_sighting_decides(seen: list[tuple[int, bool]]) -> None:
    seen.sort(key=lambda sighting: sighting[0])
    times = [at for at, _ in seen]
    if len(set(times)) == len(times):
        assert after(*seen)[0] == ("in force" if seen[-1][1] else "NOT IN FORCE")


def test_one_restriction_says_nothing_about_another() -> None:
    found = Confirmations()
    found.observe([Enforcement(ENTRY, SECOND, refused=True)])
    assert found.state(Revocation("key", "k2", 0), 0)[0] == "untested"
    assert found.state(DisabledTool("shell_execute", 0), 0)[0] == "untested"


def test_memory_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(confirm, "_MAX", 10)
    found = Confirmations()
    found.observe(Enforcement(DisabledTool(f"tool{n}", 0), SECOND, refused=True) for n in range(105))
    assert len(found._seen) <= 10
    assert found.state(DisabledTool("tool104", 0), 0)[0] == "in force"


def test_state_and_detail_read_as_one_sentence() -> None:
    assert sentence("in force", "after 0.4 s") == "in force after 0.4 s"
    assert sentence("untested", "no attempt since") == "untested, no attempt since"
    assert sentence("written", "") == "written"


def test_a_success_within_the_grace_takes_back_what_a_refusal_seemed_to_prove() -> None:
    found = Confirmations()
    found.observe(
        [Enforcement(ENTRY, SECOND, refused=True), Enforcement(ENTRY, 8 * SECOND, False, early=True)]
    )
    assert found.state(ENTRY, 0)[0] == "untested"
    found.observe([Enforcement(ENTRY, 9 * SECOND, refused=True)])
    assert found.state(ENTRY, 0) == ("in force", "after 9.0 s")


def test_a_tool_switched_off_again_is_untested_again() -> None:
    found = Confirmations()
    found.observe([Enforcement(DisabledTool("shell", 1), SECOND, refused=True)])
    assert found.state(DisabledTool("shell", 1), 0)[0] == "in force"
    assert found.state(DisabledTool("shell", 500), 500)[0] == "untested"


def test_a_reason_or_an_end_that_is_changed_leaves_what_was_proved() -> None:
    found = Confirmations()
    found.observe([Enforcement(ENTRY, SECOND, refused=True)])
    assert found.state(Revocation("key", "k1", 0, reason="typo", until=5), 0)[0] == "in force"
    lock = Lockout("k1", "203.0.113.9", 0, 100)
    found.observe([Enforcement(lock, SECOND, refused=True)])
    assert found.state(Lockout("k1", "203.0.113.9", 0, 50), 0)[0] == "in force"
    assert found.state(Lockout("k1", "203.0.113.9", 7, 100), 0)[0] == "untested"


def saved(*seconds: float, source: str = "a") -> list[AuditEvent]:
    origin = Block(source, [b""], 0, 1)
    return [AuditEvent(time_ns=round(at * SECOND), origin=origin) for at in seconds]


def kept(*batches: tuple[list[AuditEvent], list[float]]) -> list[float]:
    """The sightings that count, by their seconds."""
    held = SavedSightings(120 * SECOND)
    found = []
    for events, sighted in batches:
        found += held.take(events, [Enforcement(ENTRY, round(at * SECOND), refused=True) for at in sighted])
    return [seen.time_ns / SECOND for seen in (*found, *held.rest())]


def test_a_saved_record_from_the_future_proves_nothing() -> None:
    """Nothing after it could ever take that back."""
    assert kept((saved(0, 4e9, 1), [4e9, 1])) == [1]
    assert kept((saved(0, 4e9), [4e9]), (saved(1), [])) == [], "also where a block ends behind it"
    assert kept((saved(0, 4e9), [4e9]), (saved(1), [1])) == [1]


def test_saved_records_that_are_out_of_order_within_the_lateness_count() -> None:
    assert kept((saved(0, 120, 0.5), [0, 120])) == [0, 120]
    assert kept((saved(0, 121, 0.5), [0, 121])) == [0]


def test_a_refusal_after_a_quiet_hour_counts_even_as_the_last_record() -> None:
    assert kept((saved(0, 3_600), [3_600])) == [3_600]
    assert kept((saved(0), []), (saved(3_600), [3_600]), (saved(7_200), [])) == [3_600]


def test_logs_of_several_clocks_say_nothing_about_each_other() -> None:
    merged = [*saved(0), *saved(4_000, source="b"), *saved(1), *saved(4_001, source="b")]
    assert kept((merged, [4_000, 4_001])) == [4_000, 4_001]
