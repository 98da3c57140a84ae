"""Lockouts: how long, of whom, when mcpwatch writes them, and never twice."""

from __future__ import annotations

import shlex
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mcpwatch.detection.hit import Hit, Severity
from mcpwatch.incidents.incident import incident_id
from mcpwatch.policy.edit import Lock
from mcpwatch.policy.load import load
from mcpwatch.policy.model import Lockout, LockoutRules, Policy, PolicyError
from mcpwatch.response import lockout
from mcpwatch.response.lockout import (
    MOST_ENTRIES,
    Offender,
    Trigger,
    due,
    exempt,
    ladder_length,
    lock_command,
    shell_word,
    triggers,
    write_due,
)
from mcpwatch.text import safe
from mcpwatch.times import DAY, HOUR, MINUTE, SECOND, iso

NOW = 1_795_341_600 * SECOND
WHO = Offender("k1", "203.0.113.9")
SUBJECT = (("key", "k1"), ("source_ip", "203.0.113.9"))
FAILURE = Trigger(WHO, NOW, SUBJECT)
LADDER = (5 * MINUTE, 15 * MINUTE, HOUR, 4 * HOUR, 24 * HOUR)


def entry(at: int, until: int, key: str | None = "k1", ip: str | None = "203.0.113.9") -> Lockout:
    return Lockout(key, ip, at, until)


def policy_with(*entries: Lockout, **rules: object) -> Policy:
    return Policy(lockouts=entries, lockout=replace(LockoutRules(), **rules))  # type: ignore[arg-type]


def length(policy: Policy, trigger: Trigger = FAILURE, now: int = NOW) -> int | None:
    lock = due(policy, trigger, now)
    return None if lock is None else lock.until_ns - trigger.time_ns


@given(
    ends=st.lists(st.integers(0, 3 * DAY // SECOND), max_size=9, unique=True),
    others=st.lists(st.integers(0, 3 * DAY // SECOND), max_size=3),
    key=st.sampled_from([None, "k1"]),
    mapped=st.booleans(),
)
def test_the_ladder_counts_that_subjects_entries_of_the_day_before(
    ends: list[int], others: list[int], key: str | None, mapped: bool
) -> None:
    """However long they were, whoever wrote them, however the address is spelled; the last step repeats."""
    ip = "::ffff:203.0.113.9" if mapped else "203.0.113.9"
    mine = [entry(NOW - ago * SECOND, NOW - ago * SECOND + 1, key, ip) for ago in ends if ago]
    foreign = [entry(NOW - ago * SECOND, NOW, "k2", ip) for ago in others]
    foreign += [entry(NOW - ago * SECOND, NOW, key, "203.0.113.10") for ago in others]
    policy = policy_with(*mine, *foreign)
    earlier = sum(1 for ago in ends if 0 < ago < DAY // SECOND)
    expected = LADDER[min(earlier, 4)]
    who = Offender(key, "203.0.113.9")
    assert ladder_length(policy, who, NOW) == expected
    assert length(policy, Trigger(who, NOW, SUBJECT)) == expected


@given(st.lists(st.integers(1, 40 * HOUR), min_size=1, max_size=12))
def test_lockouts_written_one_after_the_other_climb_the_ladder(gaps: list[int]) -> None:
    """Replaying the same failures over the policy that came of them changes nothing more."""
    policy, now, asked = policy_with(), NOW, []
    for gap in gaps:
        now += gap
        failure = Trigger(WHO, now, SUBJECT)
        lock = due(policy, failure, now)
        active = [old for old in policy.lockouts if old.at <= now < old.until]
        assert (lock is None) == bool(active)
        if lock is not None:
            before = sum(1 for old in policy.lockouts if now - DAY < old.at <= now)
            assert lock.until_ns - lock.at_ns == LADDER[min(before, 4)]
            policy = replace(policy, lockouts=(*policy.lockouts, entry(lock.at_ns, lock.until_ns)))
        asked.append(failure)
    assert [due(policy, failure, now) for failure in asked] == [None] * len(asked)


def test_the_entry_says_from_when_to_when_by_which_rule_and_incident() -> None:
    lock = due(policy_with(), FAILURE, NOW + SECOND)
    day = iso(NOW)[:10]
    assert lock == Lock(
        "k1", "203.0.113.9", NOW, NOW + 5 * MINUTE, "auth-lockout", incident_id("auth-lockout", SUBJECT, day)
    )


@pytest.mark.parametrize(
    ("entries", "asks"),
    [
        pytest.param([entry(NOW - MINUTE, NOW + 1)], False, id="locked at the time of the failure"),
        pytest.param([entry(NOW - MINUTE, NOW)], True, id="just over"),
        pytest.param([entry(NOW + SECOND, NOW + 2 * SECOND)], False, id="written after it, by somebody else"),
        pytest.param([entry(NOW + HOUR, NOW + 2 * HOUR)], True, id="not begun"),
        pytest.param([entry(NOW - MINUTE, NOW + HOUR, None)], True, id="the address for everybody"),
        pytest.param([entry(NOW - MINUTE, NOW + HOUR, "k1", None)], True, id="the key from everywhere"),
        pytest.param([entry(NOW - MINUTE, NOW + HOUR, "k1", "::ffff:cb00:7109")], False, id="mapped address"),
    ],
)
def test_only_who_is_not_locked_out_is_locked_out(entries: list[Lockout], asks: bool) -> None:
    assert (due(policy_with(*entries), FAILURE, NOW + 2 * SECOND) is not None) is asks


def test_failures_of_long_ago_lock_nobody_out_now() -> None:
    """A log that is read again at the start holds old attacks."""
    assert length(policy_with(), now=NOW + 5 * MINUTE - 1_000) == 5 * MINUTE
    assert length(policy_with(), now=NOW + 5 * MINUTE) is None
    second = policy_with(entry(NOW - HOUR, NOW - HOUR + 5 * MINUTE))
    assert length(second, now=NOW + 10 * MINUTE) == 15 * MINUTE


def test_a_lockout_shorter_than_the_grace_is_not_written_when_it_is_over() -> None:
    short = policy_with(durations=(5 * SECOND,))
    assert length(short, now=NOW + 4 * SECOND) == 5 * SECOND
    assert length(short, now=NOW + 5 * SECOND) is None


def test_the_day_of_the_ladder_is_half_open() -> None:
    at_the_edge = policy_with(entry(NOW - DAY, NOW - DAY + 1), entry(NOW - DAY + 1, NOW - DAY + 2))
    assert ladder_length(at_the_edge, WHO, NOW) == 15 * MINUTE
    assert ladder_length(at_the_edge, WHO, NOW - 1) == HOUR


def test_a_lockout_that_is_written_late_begins_when_it_is_written() -> None:
    """Else what succeeded before anybody could know of it would look like an enforcement gap."""
    late = due(policy_with(), FAILURE, NOW + 11 * SECOND)
    assert late is not None and (late.at_ns, late.until_ns) == (NOW + 11 * SECOND, NOW + 5 * MINUTE)
    prompt = due(policy_with(), FAILURE, NOW + 10 * SECOND)
    assert prompt is not None and prompt.at_ns == NOW


def test_a_failure_from_the_future_locks_nobody_out() -> None:
    assert length(policy_with(), now=NOW - MINUTE) is not None
    assert length(policy_with(), now=NOW - MINUTE - 1) is None


@pytest.mark.parametrize("key", [None, "k1"])
@pytest.mark.parametrize(
    ("address", "why"),
    [
        ("127.0.0.1", "trusted proxy"), ("127.8.8.8", "trusted proxy"), ("::1", "trusted proxy"),
        ("::ffff:127.0.0.1", "trusted proxy"), ("10.0.0.5", "trusted proxy"), ("::ffff:10.0.0.5", "trusted proxy"),
        ("0.0.0.0", "trusted proxy"), ("not\x1ban address", "no IP address"),
        ("::127.0.0.1", "trusted proxy"), ("::ffff:0:127.0.0.1", "trusted proxy"),
        ("64:ff9b::127.0.0.1", "trusted proxy"), ("64:ff9b:1::7f00:1", "trusted proxy"),
        ("64:ff9b::10.0.0.5", "trusted proxy"), ("2002:7f00:1::", "trusted proxy"),
        ("224.0.0.1", "anybody calls from"), ("255.255.255.255", "anybody calls from"),
        ("ff02::1", "anybody calls from"), ("64:ff9b::240.0.0.1", "anybody calls from"),
    ],
)  # fmt: skip
def test_nobody_is_locked_out_with_everybody_behind_a_proxy(address: str, why: str, key: str | None) -> None:
    """Neither by address nor as a key from there: behind it, the key's owner looks the same."""
    policy = policy_with(trusted_proxies=("10.0.0.5",))
    who = Offender(key, address)
    spared = exempt(policy, who)
    assert spared is not None and why in spared and "\x1b" not in spared
    assert due(policy, Trigger(who, NOW, SUBJECT), NOW) is None


@pytest.mark.parametrize(
    "address", ["203.0.113.9", "64:ff9b::203.0.113.9", "2001:db8::5efe:7f00:1", "2001:db8::127.0.0.1"]
)
def test_an_address_that_its_caller_chose_spares_nobody(address: str) -> None:
    """Whoever has a network can take any address in it, also one that ends like this host's."""
    who = Offender(None, address)
    assert exempt(policy_with(), who) is None
    assert due(policy_with(), Trigger(who, NOW, SUBJECT), NOW) is not None


def test_only_hits_of_the_rule_ask_for_a_lockout() -> None:
    """And equal addresses are one subject, however a server spells them."""

    def hit(rule: str, *subject: tuple[str, str]) -> Hit:
        return Hit(rule, subject, NOW, Severity.HIGH, "unauthenticated", "", 3, "a", 1, 0)

    mapped = hit("auth-lockout", ("source_ip", "::ffff:203.0.113.9"))
    found = triggers([hit("key-rate", *SUBJECT), hit("auth-lockout", *SUBJECT), mapped, hit("auth-lockout")])
    assert [trigger.offender for trigger in found] == [WHO, Offender(None, "203.0.113.9")]
    assert found[1].incident == incident_id("auth-lockout", mapped.subject, iso(NOW)[:10])


def write(path: Path, *asked: Trigger, now: int = NOW, forced: bool = True) -> Policy:
    write_due(path, asked, now_ns=now, forced=forced, state_dir=path.parent / "state", actor="test")
    return load(path)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "policy.yaml"
    path.write_text("version: 1  # ours\nlockouts: []\n")
    return path


def test_what_failures_ask_for_is_written_once(file: Path) -> None:
    other = Trigger(Offender(None, "198.51.100.7"), NOW, (("source_ip", "198.51.100.7"),))
    policy = write(file, FAILURE, FAILURE, other, replace(FAILURE, time_ns=NOW + SECOND))
    assert [(found.key, found.source_ip) for found in policy.lockouts] == [
        ("k1", "203.0.113.9"), (None, "198.51.100.7"),
    ]  # fmt: skip
    before = file.read_bytes()
    assert before.startswith(b"version: 1  # ours\n")
    write(file, FAILURE, other)
    assert file.read_bytes() == before
    third = write(file, replace(FAILURE, time_ns=NOW + 5 * MINUTE), now=NOW + 5 * MINUTE).lockouts[-1]
    assert third.until - third.at == 15 * MINUTE


def test_the_policy_on_disk_decides_whether_anything_is_written(file: Path) -> None:
    """Not the one that was read when the failure came."""
    assert write(file, FAILURE, forced=False).lockouts == ()
    file.write_text(file.read_text() + "lockout: {enforce: true}\n")
    assert len(write(file, FAILURE, forced=False).lockouts) == 1


def test_endless_addresses_do_not_fill_the_policy(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert MOST_ENTRIES == 1_000
    monkeypatch.setattr(lockout, "MOST_ENTRIES", 3)
    many = [Trigger(Offender(None, f"2001:db8::{n:x}"), NOW, ()) for n in range(5)]
    with pytest.raises(PolicyError, match="3 lockouts of a day"):
        write(file, *many)
    assert len(load(file).lockouts) == 3
    later = replace(many[4], time_ns=NOW + 2 * DAY)
    assert len(write(file, later, now=NOW + 2 * DAY).lockouts) == 4, "those of the past don't count"


@given(st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=20))
def test_a_word_of_the_command_is_safe_to_show(text: str) -> None:
    word = shell_word(text)
    assert safe(word) == word
    if word[:2] != "$'":
        assert shlex.split(word) == [text]


def test_the_command_means_what_it_shows_in_a_real_shell() -> None:
    nasty = [
        "k1",
        "it's; rm -rf /",
        "\x1b]0;x\x07",
        "a\nb",
        "schlüssel\u202e\\'",
        "$(id)`id`",
        "-x",
        "é0",
        "",
    ]
    words = " ".join(shell_word(text) for text in nasty)
    shown = subprocess.run(["bash", "-c", f"printf '%s\\0' {words}"], capture_output=True, check=True).stdout
    assert shown.decode().split("\0")[:-1] == nasty


def test_the_command_names_everything() -> None:
    command = lock_command(Offender("k 1", "203.0.113.9"), "auth-lockout INC-X", Path("/etc/my policy.yaml"))
    assert command == (
        "mcpwatch lock --key 'k 1' --ip 203.0.113.9 --reason 'auth-lockout INC-X' --policy '/etc/my policy.yaml'"
    )
    assert lock_command(Offender(None, "::1"), "x") == "mcpwatch lock --ip ::1 --reason x"
