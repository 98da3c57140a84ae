"""The closed loop in words: what becomes of every restriction is told once, when it happens."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType

from mcpwatch.detection.enforcement import DisabledTool, Enforcement, Restriction
from mcpwatch.policy.model import Lockout, Policy, Revocation, ToolPolicy
from mcpwatch.response.confirm import Confirmations
from mcpwatch.response.lockout import Offender, Trigger
from mcpwatch.response.report import (
    Report,
    Reporter,
    advised,
    end_states,
    report_line,
    report_record,
)
from mcpwatch.text import SafeText, safe
from mcpwatch.times import MINUTE, SECOND, iso

NOW = 1_795_341_600 * SECOND
REVOKED = Revocation("key", "k1", NOW)
LOCKED = Lockout("k1", "203.0.113.9", NOW, NOW + 5 * MINUTE, "auth-lockout", "INC-X")
SHELL = DisabledTool("shell", NOW)
EMPTY = Policy()


def policy_with(*restrictions: Restriction) -> Policy:
    tools = {
        r.tool: ToolPolicy(enabled=False, since=r.since) for r in restrictions if isinstance(r, DisabledTool)
    }
    return Policy(
        tools=MappingProxyType(tools),
        revoked=tuple(r for r in restrictions if isinstance(r, Revocation)),
        lockouts=tuple(r for r in restrictions if isinstance(r, Lockout)),
    )


def told(reports: list[Report]) -> list[tuple[str, str]]:
    return [(report.change, report.kind) for report in reports]


def test_what_is_new_in_the_policy_is_told_once_and_what_was_there_is_not() -> None:
    reporter = Reporter(policy_with(REVOKED), NOW)
    assert reporter.look(policy_with(REVOKED), (), NOW) == []
    more = policy_with(REVOKED, LOCKED, SHELL)
    assert told(reporter.look(more, (), NOW)) == [("written", "lockout"), ("written", "tool")]
    assert reporter.look(more, (), NOW) == []
    assert reporter.look(policy_with(REVOKED, LOCKED, SHELL), (), NOW) == []
    assert told(reporter.look(EMPTY, (), NOW)) == [("ended", "key"), ("ended", "lockout"), ("ended", "tool")]


def test_a_lockout_ends_by_itself_or_by_being_unlocked_and_that_is_told_once() -> None:
    reporter = Reporter(EMPTY, NOW)
    policy = policy_with(LOCKED)
    reporter.look(policy, (), NOW)
    assert reporter.look(policy, (), LOCKED.until - 1) == []
    (over,) = reporter.look(policy, (), LOCKED.until + SECOND)
    assert (over.change, over.seen_ns) == ("ended", LOCKED.until)
    assert reporter.look(policy, (), LOCKED.until + SECOND) == []
    assert reporter.look(EMPTY, (), LOCKED.until + SECOND) == [], "it was over before it was removed"
    reporter = Reporter(policy, NOW)
    unlocked = policy_with(replace(LOCKED, until=NOW + SECOND))
    assert told(reporter.look(unlocked, (), NOW + SECOND)) == [("ended", "lockout")]
    again = reporter.look(policy, (), NOW + 2 * SECOND)
    assert again == [], "an unlock that is undone is no new lockout"
    assert told(reporter.look(policy, (), LOCKED.until)) == [("ended", "lockout")]


def test_every_turn_is_told_with_its_delay_even_if_all_come_at_once() -> None:
    confirmations = Confirmations()
    seen = [(SECOND, True), (2 * SECOND, True), (20 * SECOND, False), (30 * SECOND, True)]
    confirmations.observe(Enforcement(REVOKED, NOW + after, refused) for after, refused in seen)
    reports = Reporter(policy_with(REVOKED), NOW).look(
        policy_with(REVOKED), confirmations.turns, NOW + MINUTE
    )
    assert [(report.change, report.after_ns) for report in reports] == [
        ("in_force", SECOND), ("not_in_force", 20 * SECOND), ("in_force", 30 * SECOND),
    ]  # fmt: skip
    assert [report.seen_ns - NOW for report in reports] == [SECOND, 20 * SECOND, 30 * SECOND]


def test_a_success_within_the_grace_is_no_news() -> None:
    confirmations = Confirmations()
    confirmations.observe([Enforcement(REVOKED, NOW + SECOND, refused=False, early=True)])
    assert confirmations.turns == []


def test_the_record_has_every_key_whatever_happened() -> None:
    """Scripts read it: keys are stable, times are UTC, subjects are by kind."""
    reporter = Reporter(EMPTY, NOW)
    confirmations = Confirmations()
    confirmations.observe([Enforcement(LOCKED, NOW + SECOND // 2, refused=True)])
    written, in_force = reporter.look(policy_with(LOCKED), confirmations.turns, NOW)
    assert report_record(written) == {
        "type": "restriction", "schema": "mcpwatch/1", "change": "written", "kind": "lockout",
        "subject": {"key": "k1", "source_ip": "203.0.113.9"}, "at": iso(NOW), "until": iso(NOW + 5 * MINUTE),
        "seen": iso(NOW), "after_s": None,
    }  # fmt: skip
    assert report_record(in_force) == report_record(written) | {
        "change": "in_force", "seen": iso(NOW + SECOND // 2), "after_s": 0.5,
    }  # fmt: skip
    tool = report_record(Reporter(EMPTY, NOW).look(policy_with(DisabledTool("shell", None)), (), NOW)[0])
    assert (tool["kind"], tool["subject"], tool["at"], tool["until"]) == (
        "tool",
        {"tool": "shell"},
        None,
        None,
    )
    trigger = Trigger(Offender(None, "203.0.113.9"), NOW, ())
    advice = report_record(advised(trigger, NOW + MINUTE, SafeText("mcpwatch lock …")))
    assert (advice["change"], advice["command"], advice["at"], advice["until"]) == (
        "advised", "mcpwatch lock …", iso(NOW), iso(NOW + MINUTE),
    )  # fmt: skip


def test_plain_lines_say_it_in_words_and_spell_out_what_a_terminal_could_obey() -> None:
    def line(change: str, restriction: Restriction, **more: int) -> str:
        reporter, policy = Reporter(EMPTY, NOW), policy_with(restriction)
        (written,) = reporter.look(policy, (), NOW)
        return report_line(replace(written, change=change, **more))  # type: ignore[arg-type]

    at = iso(NOW)
    assert line("written", REVOKED) == f"{at} written      revoked key k1: untested, no attempt since"
    assert line("in_force", REVOKED, after_ns=SECOND) == (
        f"{at} in force     revoked key k1: refused 1.0 s after the change"
    )
    assert line("in_force", LOCKED, after_ns=SECOND) == (
        f"{at} confirmed    lockout of key k1 from address 203.0.113.9: refused 1.0 s after the change"
    )
    assert line("not_in_force", SHELL, after_ns=MINUTE) == (
        f"{at} NOT IN FORCE disabled tool shell: a success 1m after the change"
    )
    assert line("ended", LOCKED) == f"{at} ended        lockout of key k1 from address 203.0.113.9"
    hostile = line("written", Revocation("session", "\x1b]0;x\x07\n", NOW))
    assert safe(hostile) == hostile
    trigger = Trigger(Offender("k1", "203.0.113.9"), NOW, ())
    assert "mcpwatch lock --ip 1" in report_line(advised(trigger, NOW, SafeText("mcpwatch lock --ip 1")))
    assert "no policy file" in report_line(advised(trigger, NOW, None))


def test_the_end_states_name_every_entry_of_the_policy() -> None:
    confirmations = Confirmations()
    confirmations.observe([Enforcement(REVOKED, NOW + SECOND, True), Enforcement(SHELL, NOW + MINUTE, False)])
    states = end_states(policy_with(REVOKED, LOCKED, SHELL), confirmations)
    assert [(entry["kind"], entry["state"], entry["after_s"]) for entry in states] == [
        ("key", "in_force", 1.0), ("lockout", "untested", None), ("tool", "not_in_force", 60.0),
    ]  # fmt: skip


def test_the_keys_of_a_report_are_documented_and_no_others() -> None:
    document = (Path(__file__).parents[3] / "docs" / "json-output.md").read_text()
    table = document.split("\n## Restriction\n")[1].split("\n## ")[0]
    rows = [line.split(" | ")[0] for line in table.splitlines() if line.startswith("| `")]
    trigger = Trigger(Offender(None, "203.0.113.9"), NOW, ())
    record = report_record(advised(trigger, NOW, None))
    assert {name for row in rows for name in re.findall(r"`(\w+)`", row)} == set(record)
    shown = json.loads(table.split("```json\n")[1].split("```")[0])
    assert list(shown) == [name for name in record if name != "command"]
