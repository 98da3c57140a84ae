# ruff: noqa: E501 - a table of whole files is easier to read with one file on each line
from __future__ import annotations

import re
from dataclasses import replace

import pytest
import yaml
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from mcpwatch.documents import tree
from mcpwatch.policy.edit import (
    ADDED,
    Change,
    Disable,
    Edit,
    Enable,
    Lock,
    LockAll,
    Restore,
    Revoke,
    Unlock,
    plan,
    quoted,
    undo_of,
)
from mcpwatch.policy.load import parse
from mcpwatch.policy.model import Lockout, Policy, PolicyError, PrincipalKind, Revocation
from mcpwatch.times import HOUR, iso

AT = 1_795_317_247_123_456_789
MICRO = AT // 1_000 * 1_000
ONE = "2026-01-01T00:00:00Z"
REVOKE = Revoke("key", "key_0007", AT, "alice@bastion", "leaked in a ticket")
LOCK = Lock("key_0009", "203.0.113.9", AT, AT + HOUR, "auth-lockout", "INC-5R3JIASZOBTCFJZK")
HOSTILE = ["yes", "# x", "a: b", "line\nbreak", "u\u2028\x85x", "x" * 10_000, "", "~", "0007", "'\"\\", "\x1b[31m", "😀é", "- a", "\ufeff", "{}"]  # fmt: skip


def meaning(policy: Policy) -> Policy:
    return replace(policy, path=None, sha256=None)


def step(data: bytes, change: Change) -> Edit:
    """Plan a change, and check what must hold of every edit."""
    edit = plan(data, change, "policy.yaml")
    assert edit.before == data
    assert edit.noop == (edit.after == data)
    assert edit.noop == (edit.diff == "")
    assert all(line.isprintable() for line in edit.diff.split("\n"))
    return edit


# The shapes in which a section can stand in a file. Where it says "same", undoing gives back the same bytes.
SHAPES = {
    "missing": ("version: 1\n", "same"),
    "missing, no last newline": ("version: 1", "same"),
    "missing, comment last": ("version: 1\n# end", "same"),
    "missing, CRLF": ("version: 1\r\nunlisted_tools: deny\r\n", "same"),
    "missing, CRLF, no last newline": ("version: 1\r\nunlisted_tools: deny", "same"),
    "missing, indented": ("  version: 1\n  keys: {a: {}}\n", "same"),
    "missing, end mark": ("%YAML 1.1\n---\nversion: 1\n...\n# after the end\n", "same"),
    "nothing": ("version: 1\nrevoked:\nlockouts:\nkeys: {a: {}}\n", "same"),
    "nothing, comments": ("version: 1\nrevoked:   # none yet\n  # really\nlockouts: #\n", "same"),
    "nothing, last": ("version: 1\nlockouts:\nrevoked:", "same"),
    "tilde": ("version: 1\nrevoked: ~ # none\nlockouts: null\n", ""),
    "brackets": ("version: 1\nrevoked: []\nlockouts: [ ]  # none\n", "same"),
    "brackets, entries": (f"version: 1\nrevoked: [{{key: a, at: {ONE}}}]\nlockouts: [{{key: a, at: {ONE}, until: 2027-01-01T00:00:00Z}},]\n", "same"),
    "brackets, lines": (f"version: 1\nrevoked: [ # é😀\n   {{key: a, at: {ONE}}}, # one\n   {{key: b, at: {ONE}}} # two\n]\n", "same"),
    "block": (f"version: 1\nrevoked:\n  # first\n  - {{key: a, at: {ONE}}}  # é😀\n\n  # last\nunlisted_tools: deny\n", "same"),
    "block, no indent": (f"version: 1\nrevoked:\n- key: a\n  at: '{ONE}'\n\n# x\nkeys: {{}}\n", "same"),
    "block, odd indent": (f"version: 1\nrevoked:\n       -   key: a\n           at: {ONE}", "same"),
    "block text last": (f"version: 1\nrevoked:\n - key: a\n   at: {ONE}\n   reason: |\n     one\n     two\n\n\nkeys:\n", "same"),
    "folded text last": (f"version: 1\nrevoked:\n - key: a\n   at: {ONE}\n   reason: >-\n     one\n     two\n", "same"),
    "text on two lines": (f"version: 1\nrevoked:\n - at: {ONE}\n   key: one\n     two\n", "same"),
    "braces": ("{version: 1}", ""),
    "braces, nothing": ("{version: 1, revoked: , lockouts: []}\n", ""),
    "json": ('{"version": 1, "revoked": [], "lockouts": []}', "same"),
}  # fmt: skip


@pytest.mark.parametrize("bom", ["", "\ufeff"])
@pytest.mark.parametrize("change", [REVOKE, LOCK], ids=["revoke", "lock"])
@pytest.mark.parametrize("shape", SHAPES)
def test_an_entry_is_added_to_every_shape_of_file_and_undone(shape: str, change: Change, bom: str) -> None:
    text, undone = SHAPES[shape]
    data = (bom + text).encode()
    old, edit = parse(data, None), step(data, change)
    new = parse(edit.after, None)
    if isinstance(change, Revoke):
        entry = Revocation("key", "key_0007", MICRO, "alice@bastion", "leaked in a ticket")
        assert meaning(new) == meaning(replace(old, revoked=(*old.revoked, entry)))
    else:
        lock = Lockout("key_0009", "203.0.113.9", MICRO, MICRO + HOUR, "auth-lockout", "INC-5R3JIASZOBTCFJZK")
        assert meaning(new) == meaning(replace(old, lockouts=(*old.lockouts, lock)))
    assert step(edit.after, change).noop
    undo = undo_of(change)
    assert undo is not None
    back = step(edit.after, undo)
    assert meaning(parse(back.after, None)) == meaning(old)
    if undone == "same":
        assert back.after == data


@pytest.mark.parametrize("kind", ["key", "client", "session", "subject"])
@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_ids_and_reasons_read_back_equal(kind: PrincipalKind, text: str) -> None:
    change = Revoke(kind, text or "a", AT, text, text, AT + HOUR)
    edit = step(b"version: 1\nrevoked: []\n", change)
    expected = Revocation(kind, text or "a", MICRO, text or None, text or None, MICRO + HOUR)
    assert parse(edit.after, None).revoked == (expected,)
    entry = yaml.safe_load(edit.after)["revoked"][0]
    assert entry[kind] == (text or "a")
    assert step(edit.after, Restore(kind, text or "a")).after == b"version: 1\nrevoked: []\n"


@given(st.text())
def test_any_text_survives_quoting(text: str) -> None:
    try:
        written = quoted(text)
    except PolicyError:
        assert any("\ud800" <= char < "\ue000" for char in text)
    else:
        assert written.isprintable()
        assert yaml.safe_load(written) == text


def test_a_revocation_that_holds_as_long_already_is_not_written_again() -> None:
    until = replace(REVOKE, until_ns=AT + HOUR)
    short = step(b"version: 1\n", until).after
    assert step(short, replace(until, at_ns=AT + 1_000_000, until_ns=AT + HOUR // 2)).noop
    forever = step(short, replace(REVOKE, at_ns=AT + 1_000_000))
    assert not forever.noop
    assert step(forever.after, replace(REVOKE, at_ns=AT + 2_000_000, until_ns=AT + 9 * HOUR)).noop
    undo = undo_of(replace(REVOKE, at_ns=AT + 1_000_000))
    assert undo is not None
    assert step(forever.after, undo).after == short
    assert parse(step(forever.after, Restore("key", "key_0007")).after, None).revoked == ()
    over = step(short, replace(REVOKE, at_ns=AT + 2 * HOUR))
    assert len(parse(over.after, None).revoked) == 2


def test_a_lockout_is_the_same_however_its_address_is_spelled() -> None:
    lock = Lock(None, "2001:db8::1", AT, AT + HOUR)
    data = step(b"version: 1\n", lock).after
    assert step(data, replace(lock, source_ip="2001:0DB8:0:0:0:0:0:1")).noop
    assert not step(data, replace(lock, until_ns=AT + 2 * HOUR)).noop
    assert not step(data, replace(lock, key="a")).noop
    assert step(data, Unlock("a", "2001:db8::1", AT)).noop
    assert step(data, Unlock(None, "2001:DB8::0:1", AT)).after == b"version: 1\n"
    mapped = step(b"version: 1\n", Lock(None, "::ffff:203.0.113.9", AT, AT + HOUR)).after
    assert step(mapped, Unlock(None, "203.0.113.9", AT)).after == b"version: 1\n"


UNLOCKED = {
    "brackets": ("lockouts: [{key: a, at: OLD, until: OLDER}, {key: a, at: NOW, until: LATE}]  # x\n",
                 "lockouts: [{key: a, at: OLD, until: OLDER}, {key: a, at: NOW, until: SOON}]  # x\n"),
    "block": ("lockouts:\n  - until: LATE  # é\n    key: a\n    at: NOW\n  - {key: b, at: NOW, until: LATE}\n",
              "lockouts:\n  - until: SOON  # é\n    key: a\n    at: NOW\n  - {key: b, at: NOW, until: LATE}\n"),
    "two": ("lockouts:\n - {key: a, at: OLD, until: LATE}\n - {key: a, at: NOW, until: LATE}\n",
            "lockouts:\n - {key: a, at: OLD, until: SOON}\n - {key: a, at: NOW, until: SOON}\n"),
    "not begun": ("lockouts:\n - {key: a, at: NOW, until: LATE}\n - {key: a, at: SOON, until: LATE}\n",
                  "lockouts:\n - {key: a, at: NOW, until: SOON}\n"),
}  # fmt: skip
MOMENTS = {"OLDER": AT - HOUR, "OLD": AT - 2 * HOUR, "NOW": AT, "LATE": AT + 2 * HOUR, "SOON": AT + HOUR}


@pytest.mark.parametrize("shape", UNLOCKED)
def test_unlocking_moves_the_end_and_nothing_else_and_its_undo_moves_it_back(shape: str) -> None:
    """The entry stays, so that the ladder counts it."""

    def filled(text: str) -> bytes:
        for name, moment in MOMENTS.items():
            text = re.sub(rf"\b{name}\b", f'"{iso(moment)}"', text)
        return b"version: 1\n" + text.encode()

    before, after = map(filled, UNLOCKED[shape])
    change = Unlock("a", None, AT + HOUR)
    edit = step(before, change)
    assert edit.after == after
    assert step(after, change).noop
    undo = undo_of(change, parse(before, None))
    if shape == "not begun":
        assert undo is None, "what was removed can't be put back"
    else:
        assert undo is not None
        assert step(after, undo).after == before
        assert undo_of(undo) is None


REMOVALS = [
    (f" [{{key: a, at: {ONE}}}, {{key: b, at: {ONE}}}, {{key: c, at: {ONE}}}]", "a", f" [{{key: b, at: {ONE}}}, {{key: c, at: {ONE}}}]"),
    (f" [{{key: a, at: {ONE}}}, {{key: b, at: {ONE}}}, {{key: c, at: {ONE}}}]", "b", f" [{{key: a, at: {ONE}}}, {{key: c, at: {ONE}}}]"),
    (f" [{{key: a, at: {ONE}}},]", "a", " []"),
    (f" [{{key: b, at: {ONE}}}, # b, really\n {{key: a, at: {ONE}}} # a\n ]", "a", f" [{{key: b, at: {ONE}}}, # b, really\n  # a\n ]"),
    (f" [{{key: a, at: {ONE}}}, {{key: b, at: {ONE}}}, {{key: a, at: {ONE}}}]", "a", f" [{{key: b, at: {ONE}}}]"),
    (f" [{{key: a, at: {ONE}}}, {{key: a, at: {ONE}}}]", "a", " []"),
    (f"\n - {{key: a, at: {ONE}}} # a\n # b\n - {{key: b, at: {ONE}}}\n", "a", f"\n # b\n - {{key: b, at: {ONE}}}\n"),
    (f"\n - key: b\n   at: {ONE}\n - key: a\n   # x\n   at: {ONE} # y\n\n # z", "a", f"\n - key: b\n   at: {ONE}\n\n # z"),
    (f"\n - {{key: a, at: {ONE}}}\n - {{key: b, at: {ONE}}}\n - {{key: a, at: {ONE}}}", "a", f"\n - {{key: b, at: {ONE}}}"),
    (f"\n - {{key: a, at: {ONE}}}\n - {{key: a, at: {ONE}}}", "a", ""),
]  # fmt: skip


@pytest.mark.parametrize(("section", "name", "left"), REMOVALS)
def test_restoring_removes_whole_entries_and_nothing_else(section: str, name: str, left: str) -> None:
    edit = step(f"version: 1\nrevoked:{section}".encode(), Restore("key", name))
    assert edit.after.decode() == f"version: 1\nrevoked:{left}"
    assert step(edit.after, Restore("key", name)).noop


TOOLS = [
    ("tools: {a: {}}", "tools: {a: {enabled: false, since: T}}"),
    ("tools: {a: , b: {}}", "tools: {a: {enabled: false, since: T} , b: {}}"),
    ("tools: {'a': {require_scope: x}}", "tools: {'a': {enabled: false, since: T, require_scope: x}}"),
    ("tools: {a: {enabled: yes, risk: low}}", "tools: {a: {enabled: false, since: T, risk: low}}"),
    (f"tools: {{a: {{since: {ONE}, enabled: true}}}}", "tools: {a: {since: T, enabled: false}}"),
    (f"tools: {{a: {{since: {ONE}}}}}", "tools: {a: {enabled: false, since: T}}"),
    ("tools:\n  a:   # é\n  b:\n", "tools:\n  a: {enabled: false, since: T}   # é\n  b:\n"),
    ("tools:\n  a: ~ # x\n", "tools:\n  a: {enabled: false, since: T} # x\n"),
    ("tools:\n  a:\n    # é\n    enabled: on  # y\n    risk: low", "tools:\n  a:\n    # é\n    enabled: false  # y\n    since: T\n    risk: low"),
    ("tools:\n  a:\n    risk: low", "tools:\n  a:\n    enabled: false\n    since: T\n    risk: low"),
    ("tools:\n  a:\n    risk: low\n    enabled: true", "tools:\n  a:\n    risk: low\n    enabled: false\n    since: T"),
    ("tools:\n  a:\n    enabled: true\n    since:", "tools:\n  a:\n    enabled: false\n    since: T"),
    ("tools:\n  b: {}  # x\nkeys:\n", f"tools:\n  b: {{}}  # x\n  a: {{enabled: false, since: T}}{ADDED}\nkeys:\n"),
    ("tools:\n    b:\n      risk: low\n\nkeys:", f"tools:\n    b:\n      risk: low\n    a: {{enabled: false, since: T}}{ADDED}\n\nkeys:"),
    ("tools:\n", f"tools:\n  a: {{enabled: false, since: T}}{ADDED}\n"),
    ("tools: {}\n", "tools: {a: {enabled: false, since: T}}\n"),
    ("tools: {b: {}}\n", "tools: {b: {}, a: {enabled: false, since: T}}\n"),
    ("keys:\n", f"keys:\ntools:{ADDED}\n  a: {{enabled: false, since: T}}{ADDED}\n"),
]  # fmt: skip


@pytest.mark.parametrize("newline", ["\n", "\r\n"])
@pytest.mark.parametrize(("before", "after"), TOOLS)
def test_a_tool_is_disabled_in_its_place(before: str, after: str, newline: str) -> None:
    data = f"version: 1\n{before}".replace("\n", newline).encode()
    edit = step(data, Disable("a", AT))
    moment = '"2026-11-22T03:14:07.123456Z"'
    expected = f"version: 1\n{after}".replace("since: T", f"since: {moment}").replace("\n", newline)
    assert edit.after.decode() == expected
    row = parse(edit.after, None).tools["a"]
    assert (row.enabled, row.since) == (False, MICRO)
    assert step(edit.after, Disable("a", AT + HOUR)).noop
    again = parse(step(edit.after, Enable("a", AT + HOUR)).after, None).tools["a"]
    assert (again.enabled, again.since) == (True, MICRO + HOUR)
    undo = undo_of(Disable("a", AT))
    assert undo is not None
    undone = step(edit.after, undo).after
    if ADDED in after:
        assert undone == data
    else:
        assert parse(undone, None).tools["a"].enabled


def test_undoing_a_disable_never_permits_what_was_not_permitted_before() -> None:
    """A tool that was not listed, where unlisted tools are denied, must not come back as one without limits."""
    for text in (
        "tools: {}\nunlisted_tools: deny\n",
        "unlisted_tools: deny\n",
        "tools:\n  b:\nunlisted_tools: deny\n",
    ):
        data = f"version: 1\n{text}".encode()
        disabled = step(data, Disable("a", AT))
        undo = undo_of(Disable("a", AT))
        assert undo is not None
        try:
            assert step(disabled.after, undo).after == data
        except PolicyError as error:
            assert "may not have been in the policy" in str(error)


def test_enabling_says_what_it_cannot_do() -> None:
    assert step(b"version: 1\n", Enable("a", AT)).noop
    assert step(b"version: 1\ntools: {a: {}}\nunlisted_tools: deny\n", Enable("a", AT)).noop
    with pytest.raises(PolicyError, match="not in the policy, which denies unlisted tools"):
        plan(b"version: 1\nunlisted_tools: deny\n", Enable("a", AT), "p")


@pytest.mark.parametrize("tool", [text for text in HOSTILE if text and len(text) < 1_000])
def test_hostile_tool_names_read_back_equal(tool: str) -> None:
    assert tool in parse(step(b"version: 1\ntools:\n  a:\n", Disable(tool, AT)).after, None).tools
    assert tool in yaml.safe_load(step(b"version: 1\ntools: {a: {}}\n", Disable(tool, AT)).after)["tools"]


REFUSED = [
    ("x: 1", REVOKE, "p:2: unknown key"),
    ("revoked: &r []", REVOKE, "p:2: not changed: the value here is anchored"),
    ("revoked: !!seq []", REVOKE, "p:2: not changed: the value here is tagged"),
    (f"revoked: [&a {{key: key_0007, at: {ONE}}}]", Restore("key", "key_0007"), "is anchored"),
    (f"revoked:\n -\n   key: key_0007\n   at: {ONE}", Restore("key", "key_0007"), "p:4: not changed: the entry does not start"),
    ("tools:\n  b: &b {}\n  a: *b", Disable("a", AT), "p:4: not changed: the value here is an alias"),
    ("tools:\n  b: &b {}\n  a: *b", Disable("b", AT), "p:3: not changed: the value here is anchored"),
    ("tools:\n  a: {enabled: &t true}", Disable("a", AT), "is anchored"),
    (f"revoked:\n  - {{key: x, at: {ONE}, reason: &r why}}\n  - {{key: y, at: {ONE}, reason: *r}}", Restore("key", "x"), "can't be edited safely"),
    ("revoked: []", Revoke("key", "", AT, None, None), "no key to revoke"),
    ("revoked: []", Revoke("key", "a\ud800", AT, None, None), "lone surrogate"),
    ("revoked: []", Revoke("key", "a", AT, None, None, AT), "end before it begins"),
    ("revoked: []", Lock(None, None, AT, AT + HOUR), "needs a key, an address"),
    ("revoked: []", Lock(None, "localhost", AT, AT + HOUR), "not an IP address"),
    ("revoked: []", Lock("a", None, AT, AT), "end before it begins"),
    ("tools: {}", Disable("x" * 1_001, AT), "1 to 1000 characters"),
    ("tools: {}", Disable("", AT), "1 to 1000 characters"),
]  # fmt: skip


@pytest.mark.parametrize(("text", "change", "message"), REFUSED)
def test_what_cannot_be_edited_without_risk_is_refused_with_its_line(
    text: str, change: Change, message: str
) -> None:
    with pytest.raises(PolicyError) as caught:
        plan(f"version: 1\n{text}\n".encode(), change, "p")
    assert message in str(caught.value)


def test_the_diff_shows_the_change_and_three_lines_around_it() -> None:
    text = "".join(f"# {number}\n" for number in range(9)) + "version: 1\nrevoked: []\n"
    assert step(text.encode(), REVOKE).diff.split("\n") == [
        "--- policy.yaml", "+++ policy.yaml", "@@ -8,4 +8,4 @@", " # 7", " # 8", " version: 1", "-revoked: []",
        '+revoked: [{key: "key_0007", at: "2026-11-22T03:14:07.123456Z", by: "alice@bastion", reason: "leaked in a ticket"}]',
    ]  # fmt: skip


@pytest.mark.parametrize("number", [0, 50, 99])
def test_the_diff_of_a_long_line_shows_the_change_and_not_the_line(number: int) -> None:
    """A list in brackets grows on one line: what is added to it, or taken from it, must not be out of sight."""
    entries = [f"{{key: k{each}, at: {ONE}, reason: '{'x' * 100}'}}" for each in range(100)]
    data = f"version: 1\nrevoked: [{', '.join(entries)}]\n".encode()
    added = step(data, REVOKE).diff.split("\n")[-1]
    assert added.startswith("+…") and len(added) < 500
    assert added.endswith(
        '{key: "key_0007", at: "2026-11-22T03:14:07.123456Z", by: "alice@bastion", reason: "leaked in a ticket"}]'
    )
    removed, rest = step(data, Restore("key", f"k{number}")).diff.split("\n")[-2:]
    assert entries[number] in removed and len(removed) < 800
    assert entries[number] not in rest and rest.startswith("+") and len(rest) < 800


names = st.text("abc_0#: 'é😀\u2028-", min_size=1, max_size=6) | st.sampled_from(
    [text for text in HOSTILE[:5] if text]
)
blanks = st.sampled_from(["", " ", "  "])
comments = st.sampled_from(["", "", "  # note", " # é: [{", "   "])


@st.composite
def sections(draw: st.DrawFn, name: str) -> str:
    """A `revoked` or `lockouts` section in one of the many ways to write it."""
    ids = draw(st.lists(names, max_size=4))
    rest = f"at: {ONE}" + (", until: '2027-01-01T00:00:00Z'" if name == "lockouts" else "")
    flows = [f"{{{draw(blanks)}key: {quoted(text)}, {rest}{draw(blanks)}}}" for text in ids]
    if draw(st.booleans()):
        between = [draw(st.sampled_from([", ", ",", " ,\n    ", ", # c\n   "])) for _ in flows]
        inner = "".join(f"{flow}{gap}" for flow, gap in zip(flows, between, strict=True))
        keep = draw(st.booleans()) and "#" not in between[-1:]
        inner = inner if keep or not between else inner[: len(inner) - len(between[-1])]
        return f"{name}: [{draw(blanks)}{inner}{draw(blanks)}]{draw(comments)}\n"
    indent = draw(st.sampled_from(["", " ", "  ", "     "]))
    lines = [f"{name}:{draw(comments)}"]
    for text, flow in zip(ids, flows, strict=True):
        lines += [f"{indent}# above"] * draw(st.integers(0, 1))
        if draw(st.booleans()):
            pieces = [f"key: {quoted(text)}", *rest.split(", ")]
            inside = f"\n{indent}   ".join(piece + draw(comments) for piece in draw(st.permutations(pieces)))
            lines.append(f"{indent}-  {inside}")
        else:
            lines.append(f"{indent}- {flow}{draw(comments)}")
        lines += [""] * draw(st.integers(0, 1))
    return "\n".join(lines) + "\n"


@st.composite
def documents(draw: st.DrawFn) -> bytes:
    parts = ["version: 1\n"]
    parts += [draw(sections(name)) for name in ("revoked", "lockouts") if draw(st.booleans())]
    parts += draw(
        st.lists(
            st.sampled_from(
                [
                    "unlisted_tools: deny\n",
                    "keys: {k: {client: 'é'}}  # 😀\n",
                    "alerts:\n  auth_failures: 4\n",
                ]
            ),
            unique=True,
        )
    )
    parts = draw(st.permutations(parts))
    parts = [draw(st.sampled_from(["", "", "# between\n", "\n\n"])) + part for part in parts]
    text = "".join(parts) + draw(st.sampled_from(["", "\n", "# end", "# end\n"]))
    text = text.rstrip("\n") if draw(st.booleans()) else text
    text = text.replace("\n", "\r\n") if draw(st.booleans()) else text
    return ((("\ufeff") if draw(st.booleans()) else "") + text).encode()


changes = st.builds(Revoke, st.sampled_from(["key", "client"]), names, st.just(AT), names, names) | st.builds(
    Lock, names | st.none(), st.just("203.0.113.9"), st.just(AT), st.just(AT + HOUR)
)


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(documents(), st.lists(changes, min_size=1, max_size=3))
def test_random_files_take_changes_and_give_back_the_same_bytes(data: bytes, steps: list[Change]) -> None:
    """Everything outside the new entry stays, and undoing in any order leaves the file as it was."""
    assume(parse(data, None))
    done, now = [], data
    for change in steps:
        edit = step(now, change)
        if not edit.noop:
            done.append(change)
            prefix = next(
                (i for i, (a, b) in enumerate(zip(now, edit.after, strict=False)) if a != b), len(now)
            )
            assert edit.after.endswith(now[prefix:])
        now = edit.after
    for change in done:
        undo = undo_of(change)
        assert undo is not None
        now = step(now, undo).after
    assert now == data


@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(documents(), st.data())
def test_random_files_lose_exactly_what_is_restored(data: bytes, choose: st.DataObject) -> None:
    policy = parse(data, None)
    assume(policy.revoked)
    gone = choose.draw(st.sampled_from(policy.revoked))
    edit = step(data, Restore(gone.kind, gone.id))
    kept = tuple(entry for entry in policy.revoked if entry.id != gone.id)
    assert meaning(parse(edit.after, None)) == meaning(replace(policy, revoked=kept))
    for comment in (b"# between", b"# end", b"# above"):
        assert edit.after.count(comment) >= data.count(comment)


def test_neighbours_behind_a_comment_in_brackets_go_together() -> None:
    data = (
        b"version: 1\nrevoked: [{key: a, at: 2026-01-01T00:00:00Z}, # c\n"
        b"  {key: b, at: 2026-01-01T00:00:00Z}, {key: b, at: 2026-01-02T00:00:00Z}]\n"
    )
    after = step(data, Restore("key", "b")).after
    assert [entry.id for entry in parse(after, None).revoked] == ["a"]
    assert b"# c" in after


def test_edits_are_the_same_without_the_c_library(monkeypatch: pytest.MonkeyPatch) -> None:
    texts = ["\ufeff" + text for text, _ in SHAPES.values()]
    with_c = [plan(text.encode(), REVOKE, "p").after for text in texts]
    monkeypatch.setattr(tree, "_LOADER", yaml.SafeLoader)
    assert [plan(text.encode(), REVOKE, "p").after for text in texts] == with_c


@pytest.mark.parametrize("shape", SHAPES)
def test_several_lockouts_in_one_go_are_the_same_as_one_after_the_other(shape: str) -> None:
    data = SHAPES[shape][0].encode()
    locks = tuple(Lock(None, f"203.0.113.{n}", AT, AT + HOUR) for n in range(3))
    one_by_one = data
    for lock in locks:
        one_by_one = step(one_by_one, lock).after
    together = plan(data, LockAll(locks), "policy.yaml").after
    assert meaning(parse(together, None)) == meaning(parse(one_by_one, None))
    assert plan(data, LockAll(()), "policy.yaml").noop
