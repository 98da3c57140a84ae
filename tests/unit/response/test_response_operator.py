"""The operator's changes: shown as they will be, told as they ended, and an unlock that says what is still locked."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import pytest

from mcpwatch.policy.edit import Revoke
from mcpwatch.policy.load import load
from mcpwatch.policy.write import writing
from mcpwatch.response.operator import DOUBT, Operator, change_for
from mcpwatch.response.plan import Plan, ResponseError, Target, Verb
from mcpwatch.times import HOUR, MINUTE, SECOND, iso

NOW = 1_795_317_247_123_456_000
KEY, ADDRESS = Target("key", "k1"), Target("source_ip", "203.0.113.9")


class Desk:
    """An operator at a policy file, and a clock."""

    def __init__(self, folder: Path, text: str = "") -> None:
        self.path = folder / "policy.yaml"
        self.path.write_text(f"version: 1\ntools: {{fetch: {{}}}}\nrevoked: []\nlockouts:\n{text}")
        self.now = NOW
        self.operator = Operator(self.path, state_dir=folder / "state", clock=lambda: self.now)

    def plan_change(self, change: Revoke) -> Plan:
        return self.operator.plan_change("revoke", change, (KEY,))

    def plan(self, verb: Verb, *targets: Target, length: int | None = None) -> Plan:
        policy = load(self.path)
        change = change_for(verb, targets, "why", now_ns=self.now, by="me", policy=policy, length_ns=length)
        return self.operator.plan_change(verb, change, targets)


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    return Desk(tmp_path)


def locked(key: str | None, address: str | None, begun: int = HOUR, left: int = HOUR) -> str:
    who = (f"key: {key}, " if key else "") + (f'source_ip: "{address}", ' if address else "")
    return f'  - {{{who}at: "{iso(NOW - begun)}", until: "{iso(NOW + left)}"}}\n'


@pytest.mark.parametrize(
    ("verb", "targets", "length", "shown"),
    [
        ("revoke", (KEY,), None, 'revoked: [{key: "k1", at: now, by: "me", reason: "why"}]'),
        (
            "revoke",
            (KEY,),
            4 * HOUR,
            'revoked: [{key: "k1", at: now, until: now + 4h, by: "me", reason: "why"}]',
        ),
        ("lock", (KEY, ADDRESS), None, '{key: "k1", source_ip: "203.0.113.9", at: now, until: now + 5m}'),
        ("disable", (Target("tool", "fetch"),), None, "{fetch: {enabled: false, since: now}}"),
    ],
)
def test_what_is_written_differs_from_what_was_shown_in_the_moment_only(
    desk: Desk, verb: Verb, targets: tuple[Target, ...], length: int | None, shown: str
) -> None:
    """A dialog may stand open for minutes: the diff says `now`, and now is when it is written."""
    plan = desk.plan(verb, *targets, length=length)
    (added,) = [line for line in plan.diff if line.startswith("+") and not line.startswith("+++")]
    assert shown in added
    desk.now += 3 * MINUTE
    made = desk.operator.apply(plan)
    until = {"lock": 5 * MINUTE}.get(verb, length or 0)
    words = {f"now + {'4h' if verb == 'revoke' else '5m'}": iso(desk.now + until), "now": iso(desk.now)}
    line = str(added)
    for word, moment in words.items():
        line = line.replace(f": {word}", f': "{moment}"')
    assert line[1:] in desk.path.read_text().splitlines()
    assert made.at_ns == desk.now


def test_an_unlock_shows_that_it_ends_now(desk: Desk) -> None:
    desk.operator.apply(desk.plan("lock", KEY))
    desk.now += MINUTE
    plan = desk.plan("unlock", KEY)
    assert any("until: now}" in line for line in plan.diff)
    assert not any("until: now" in line for line in plan.diff if line.startswith("-"))


def test_an_id_that_is_written_like_the_moment_is_shown_as_it_is(desk: Desk) -> None:
    """Only the program's own moments are put into words: an id can't hold a quote that is not escaped."""
    plan = desk.plan("revoke", Target("key", f'"{iso(NOW)}"'))
    (added,) = [line for line in plan.diff if "key" in line and line.startswith("+")]
    assert f'key: "\\"{iso(NOW)}\\"", at: now' in added


def test_undo_takes_back_what_was_written_at_another_moment_than_it_was_shown(desk: Desk) -> None:
    before = desk.path.read_bytes()
    plan = desk.plan("revoke", KEY)
    desk.now += 40 * SECOND
    desk.operator.apply(plan)
    undo = desk.operator.plan_undo()
    desk.operator.apply(undo)
    assert desk.path.read_bytes() == before


STILL = [
    (locked("k1", "203.0.113.9"), (KEY,), ["--key k1 --ip 203.0.113.9"]),
    (locked("k1", "203.0.113.9"), (ADDRESS,), ["--key k1 --ip 203.0.113.9"]),
    (locked(None, "203.0.113.9"), (KEY, ADDRESS), ["--ip 203.0.113.9"]),
    (locked("k1", None), (KEY, ADDRESS), ["--key k1"]),
    (
        locked("k1", "::ffff:203.0.113.9") + locked("k1", "2001:db8::1"),
        (KEY,),
        ["--ip 203.0.113.9", "--ip 2001:db8::1"],
    ),
]


@pytest.mark.parametrize(("text", "targets", "commands"), STILL)
def test_unlocking_half_a_lockout_is_not_already_so(
    text: str, targets: tuple[Target, ...], commands: list[str], tmp_path: Path
) -> None:
    """Whoever is named is locked out still: it says by which entries, and what ends them."""
    desk = Desk(tmp_path, text)
    with pytest.raises(ResponseError, match="must be named as it was written: mcpwatch unlock --") as caught:
        desk.plan("unlock", *targets)
    for command in commands:
        assert command in str(caught.value)


@pytest.mark.parametrize(
    ("text", "targets"),
    [
        ("", (KEY,)),
        (locked("k1", "203.0.113.9", left=-MINUTE), (KEY,)),
        (locked("k2", "203.0.113.9"), (KEY, ADDRESS)),
        (locked("k1", "203.0.113.8"), (KEY, ADDRESS)),
        (locked(None, "203.0.113.9"), (KEY,)),
    ],
    ids=["none", "over", "another key", "another address", "an address, asked of a key"],
)
def test_unlocking_who_is_not_locked_out_is_already_so(
    text: str, targets: tuple[Target, ...], tmp_path: Path
) -> None:
    assert Desk(tmp_path, text).plan("unlock", *targets).noop


def test_an_unlock_says_who_stays_locked_out(tmp_path: Path) -> None:
    """The entry of the key alone ends; those of the key from addresses don't, the first three by name."""
    text = locked("k1", None) + "".join(locked("k1", f"203.0.113.{number}") for number in range(5))
    plan = Desk(tmp_path, text).plan("unlock", KEY)
    assert not plan.noop
    (note,) = plan.impact
    assert note.startswith("stays locked out: ")
    assert note.count("mcpwatch unlock") == 3
    assert note.endswith("; and 2 more")


def test_a_change_that_was_applied_but_not_confirmed_is_told_as_that(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither as done nor as not done: it is in the list of changes, with what to do."""
    really = writing._confirm

    def confirm(path: Path, folder: int, expected: bytes) -> writing.Written:
        path.write_bytes(path.read_bytes() + b"# mine\n")
        return really(path, folder, expected)

    monkeypatch.setattr(writing, "_confirm", confirm)
    made = desk.operator.apply(desk.plan("revoke", KEY))
    assert made.unconfirmed
    assert made.what == f"revoke key k1 ({DOUBT})"
    assert desk.operator.made == [made]
    assert load(desk.path).revoked[0].id == "k1"


def test_a_file_that_somebody_is_writing_is_waited_for_before_anything_is_planned(desk: Desk) -> None:
    """Half a file is no reason to say that the policy is broken, nor anything to show a diff of."""
    whole, begun = desk.path.read_text(), threading.Event()

    def edit() -> None:
        with desk.path.open("w") as file:
            file.write(whole[:40])
            file.flush()
            begun.set()
            time.sleep(0.2)
            file.write(whole[40:] + "# mine\n")

    editor = threading.Thread(target=edit)
    editor.start()
    begun.wait()
    plan = desk.plan_change(Revoke("key", "k1", NOW, "me", None))
    editor.join()
    assert plan.edit.before.endswith(b"# mine\n")


def test_a_file_that_changed_since_it_was_shown_is_not_written(desk: Desk) -> None:
    plan = desk.plan("revoke", KEY)
    desk.path.write_bytes(desk.path.read_bytes() + b"# mine\n")
    with pytest.raises(ResponseError, match="not written: somebody else changed it meanwhile: look again"):
        desk.operator.apply(plan)
    assert desk.operator.made == []
    assert not load(desk.path).revoked
