"""Exceptions: narrow, proved to mean what was asked for, and never written over what somebody else wrote."""

from __future__ import annotations

import os
import stat
import threading
from collections import Counter
from datetime import date
from pathlib import Path

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from mcpwatch.detection.hit import Subject
from mcpwatch.detection.rule import Rule
from mcpwatch.detection.rulefile import parse, shipped
from mcpwatch.detection.rulefiles import load_rules
from mcpwatch.detection.tuning import Tuning
from mcpwatch.event import AuditEvent, Auth
from mcpwatch.policy.model import Alerts
from mcpwatch.response.exception import FIELDS, Choice, Effect, Entry, Fields, Seen, choices, effect, entry_of
from mcpwatch.response.exceptionfile import ExceptionPlan, plan, render, written_here
from mcpwatch.response.plan import ResponseError
from mcpwatch.response.tuningfile import refusal, write
from mcpwatch.text import safe

TODAY = date(2026, 11, 22)
SOME = Effect(3, 2, 0, False)
RATE, PATHS = shipped().by_id["session-rate"], shipped().by_id["path-outside"]
CLIENT: Fields = (("client", "ci-bot"),)


def seen(subject: Subject, peaks: dict[int, int], critical: int = 0, **values: str) -> Seen:
    return Seen(
        subject, tuple(values.get(name) for name in FIELDS), sum(peaks.values()), critical, Counter(peaks)
    )


def offered(rule: Rule, subject: Subject, *hits: Seen) -> list[tuple[Fields, int | None]]:
    return [(choice.fields, choice.limit) for choice in choices(rule, subject, hits, Alerts())]


def entry(fields: Fields = CLIENT, limit: int | None = None, reason: str = "builds") -> Entry:
    term = "30d" if limit is None else str(limit)
    rule = PATHS if limit is None else RATE
    return entry_of(
        rule, Choice(safe("it"), fields, limit), reason, term, author="alice@bastion", today=TODAY
    )


def planned(entry: Entry, folder: Path | None, refusal: str | None = None) -> ExceptionPlan:
    return plan(PATHS if entry.limit is None else RATE, entry, SOME, folder=folder, refusal=refusal)


def put(plan: ExceptionPlan) -> bytes:
    assert plan.path is not None, plan.by_hand
    write(plan.path, plan.before, plan.after)
    return plan.path.read_bytes()


def test_the_narrowest_is_offered_first_with_client_and_tool_where_all_hits_have_the_same() -> None:
    key = (("key", "k1"),)
    one = seen(key, {0: 3}, key="k1", client="bot", tool="file_read")
    assert offered(PATHS, key, one) == [
        ((("key", "k1"), ("client", "bot"), ("tool", "file_read")), None), (key, None),
        ((("client", "bot"),), None), ((("tool", "file_read"),), None),
    ]  # fmt: skip
    other = seen(key, {0: 1}, key="k1", client="bot", tool="file_write")
    assert offered(PATHS, key, one, other) == [
        ((("key", "k1"), ("client", "bot")), None), (key, None), ((("client", "bot"),), None),
    ]  # fmt: skip


def test_a_rule_that_counts_is_given_the_limit_that_would_have_been_quiet_before_all() -> None:
    """For who lasts and not for a session, which never comes again; gt 30 and gte 31 both let 30 be."""
    session = (("session", "s1"),)
    hits = [seen(session, {6: 1, 30: 1}, session="s1", key="k1", client="bot", tool=tool) for tool in "ab"]
    assert offered(RATE, session, *hits)[:2] == [((("key", "k1"),), 30), ((("client", "bot"),), None)]
    lockout = shipped().by_id["auth-lockout"]
    address = (("source_ip", "203.0.113.9"),)
    assert offered(lockout, address, seen(address, {9: 4}, ip="203.0.113.9"))[0] == (
        (("ip", "203.0.113.9"),), 10,
    )  # fmt: skip
    assert all(limit is None for _, limit in offered(RATE, session, seen(session, {1_024: 1}, session="s1")))


def test_what_was_not_enforced_is_no_field_and_a_log_is_nobody() -> None:
    gap = (("key", "k1"), ("gap", "revoked"))
    assert offered(shipped().by_id["enforcement-gap"], gap) == [((("key", "k1"),), None)]
    with pytest.raises(ResponseError, match="about a log"):
        offered(shipped().by_id["audit-gap"], (("gap", "audit.jsonl"),))


@pytest.mark.parametrize("name", ["*", "bot?", "a*b"])
def test_nobody_gets_an_exception_for_everybody_by_the_name_that_they_take(name: str) -> None:
    """`*` would be everybody, and what is left without it is everybody who calls the tool."""
    session = (("session", name),)
    with pytest.raises(ResponseError, match="would stand for others too"):
        offered(RATE, session, seen(session, {8: 3}, session=name, tool="build"))
    hits = seen(session, {8: 3}, session=name, client="bot", tool="build")
    assert all(
        "client" in dict(fields) or "tool" in dict(fields) for fields, _ in offered(RATE, session, hits)
    )
    assert all(name not in dict(fields).values() for fields, _ in offered(RATE, session, hits))


ids = st.text(min_size=1, max_size=30) | st.sampled_from(
    ['"', "\\", "a: b", "# x", "{", "- a", "yes", "~", "0007", "a\nb", "\x1b[31m", "\u202e", "\u2028", "e\u0301" * 6,
     "\u2800", " a ", "or", "(x)", "a\\", '\\"', "'", "!tag", "&a", "\ufeff", "%", "@"]
)  # fmt: skip


@given(
    fields=st.dictionaries(st.sampled_from(FIELDS), ids, min_size=1), limit=st.none() | st.integers(1, 1_000)
)
def test_whatever_an_id_holds_the_file_reads_back_as_just_that_id(
    fields: dict[str, str], limit: int | None
) -> None:
    """And the lines that are shown and copied read back as the file does; else nothing is planned.

    Nothing is where an id cannot be written, or an address is a network, which would stand for others too.
    """
    assume(not any(char in value for value in fields.values() for char in "*?"))
    try:
        made = planned(entry(tuple(fields.items()), limit), None)
    except ResponseError:
        unwritable = any(0xD800 <= ord(char) < 0xE000 for value in fields.values() for char in value)
        assert unwritable or "/" in fields.get("ip", "")
        return
    for data in (made.after, "\n".join(made.lines).encode() + b"\n"):
        found = parse(data, "x")
        assert isinstance(found, Tuning)
        (row,) = found.exceptions if limit is None else found.limits.thresholds
        own = AuditEvent(
            event="tool_call", tool=fields.get("tool"), key_id=fields.get("key"), client_id=fields.get("client"),
            session_id=fields.get("session"), source_ip=fields.get("ip"), auth=Auth(subject=fields.get("subject")),
        )  # fmt: skip
        assert row.fields.match(own, None)
        for name in ("tool", "key_id", "client_id", "session_id", "source_ip"):
            before = getattr(own, name)
            if before is not None:
                setattr(own, name, before + "x")
                assert not row.fields.match(own, None)
                setattr(own, name, before)
    assert all(line.isprintable() for line in made.lines)
    assert written_here(made.after, made.rule) is not None


def test_an_id_with_a_star_is_refused_even_if_it_is_asked_for() -> None:
    with pytest.raises(ResponseError, match="can't be written"):
        planned(entry((("client", "a*"),)), None)


@pytest.mark.parametrize(
    ("term", "last"),
    [("2026-12-22", "2026-12-22"), ("30d", "2026-12-22"), ("never", "None"), (" 1d ", "2026-11-23")],
)
def test_an_exception_ends_when_its_author_says(term: str, last: str) -> None:
    choice = Choice(safe("it"), CLIENT)
    assert str(entry_of(PATHS, choice, "x", term, author="a", today=TODAY).expires) == last


@pytest.mark.parametrize(
    "term", ["", "2026-11-22", "2026-11-21", "0d", "soon", "99999d", "2126-01-01", "1d\n2d"]
)
def test_a_last_day_that_is_none_is_refused_with_one_that_is(term: str) -> None:
    with pytest.raises(ResponseError, match="such as 2026-12-22, 30d, or never"):
        entry_of(PATHS, Choice(safe("it"), CLIENT), "x", term, author="a", today=TODAY)


@pytest.mark.parametrize("term", ["", "0", "-1", "1001", "5.5", "many", "1e2"])
def test_a_limit_is_a_whole_number(term: str) -> None:
    with pytest.raises(ResponseError, match="whole number from 1 to 1000"):
        entry_of(RATE, Choice(safe("it"), CLIENT, 9), "x", term, author="a", today=TODAY)


def test_the_effect_counts_hits_and_says_when_there_may_be_more() -> None:
    """Below another limit, exactly; around an exception of a rule that counts, at least."""
    session = (("session", "s1"),)
    hits = [
        seen(session, {6: 10, 20: 5, 40: 2}, client="ci-bot", session="s1"),
        seen(session, {6: 7}, client="other", session="s1"),
    ]
    assert effect(RATE, entry(limit=20), hits, 24) == Effect(24, 15, 0, False)
    assert effect(RATE, entry((("client", "CI-Bot"),)), hits, 24) == Effect(24, 17, 0, True)
    assert effect(RATE, entry(limit=20), hits, 30).at_least, "hits of callers that are not kept"
    key = (("key", "k"),)
    critical = seen(key, {0: 4}, critical=3, client="ci-bot", key="k")
    assert effect(PATHS, entry(), [critical], 4) == Effect(4, 4, 3, False)


def test_a_file_is_made_then_added_to_and_says_one_thing_of_the_same_events(tmp_path: Path) -> None:
    put(planned(entry(limit=30, reason="first"), tmp_path))
    put(planned(entry((("key", "k1"),), limit=9), tmp_path))
    data = put(planned(entry((("client", "CI-BOT"),), limit=60, reason="second"), tmp_path))
    path = tmp_path / "tune-session-rate.yaml"
    assert stat.S_IMODE(path.stat().st_mode) == 0o644
    assert [each.name for each in tmp_path.iterdir()] == [path.name]
    rules = load_rules(tmp_path, TODAY)
    assert rules.problems == ()
    found = [(str(each.fields), each.limit, each.reason) for each in rules.by_id["session-rate"].thresholds]
    assert found == [("client:CI-BOT", 60, "second"), ("key:k1", 9, "builds")]
    assert written_here(data, "session-rate") is not None


OWN = render("path-outside", (entry(),))


@pytest.mark.parametrize(
    "data",
    [
        OWN + b"# mine\n",
        OWN.replace(b'"builds"', b"builds"),
        OWN.replace(b"\n", b"\r\n"),
        b"tune: path-outside\nenabled: false\nreason: noise\n",
        b"tune: path-outside\nexceptions: [\n",
        b"",
        b"\xff",
    ],
)
def test_what_somebody_wrote_by_hand_stays_as_it_is(data: bytes, tmp_path: Path) -> None:
    """One byte that mcpwatch would not have written is enough; the lines are shown instead, and where they go."""
    path = tmp_path / "tune-path-outside.yaml"
    path.write_bytes(data)
    made = planned(entry((("key", "k1"),)), tmp_path)
    assert made.path is None and path.read_bytes() == data
    assert made.by_hand is not None and str(path) in made.by_hand
    headed = made.lines[0] == "exceptions:"
    assert headed == (b"exceptions:" not in data) == ("under 'exceptions:'" not in made.by_hand)


def test_the_lines_for_a_file_by_hand_fit_into_it(tmp_path: Path) -> None:
    """Under another name too: a rule is tuned in one file only."""
    path = tmp_path / "ours.yaml"
    path.write_text(
        '# our own\ntune: "path-outside"\nexceptions:\n  - {fields: {client: x}, author: a, reason: b}\n'
    )
    made = planned(entry(), tmp_path)
    assert made.path is None
    path.write_text(path.read_text() + "\n".join(made.lines) + "\n")
    rules = load_rules(tmp_path, TODAY)
    assert rules.problems == ()
    assert len(rules.by_id["path-outside"].exceptions) == 2


def test_nothing_is_written_without_a_folder_read_only_or_through_a_link(tmp_path: Path) -> None:
    """The whole text is still shown."""
    for made, why in (
        (planned(entry(), None), "--rules"),
        (planned(entry(), tmp_path, "read-only: started with --read-only"), "--read-only"),
    ):
        assert made.path is None and made.by_hand is not None and why in made.by_hand
        assert made.after == OWN
    real = tmp_path / "elsewhere"
    real.write_bytes(OWN)
    (tmp_path / "tune-path-outside.yaml").symlink_to(real)
    made = planned(entry((("key", "k1"),)), tmp_path)
    assert made.path is None and made.by_hand is not None and "is a link" in made.by_hand


def test_only_what_was_shown_is_replaced(tmp_path: Path) -> None:
    """A file that appeared, changed or became something else since is left alone, and so is no leftover there."""
    path = tmp_path / "tune-x.yaml"
    write(path, None, b"a")
    for before in (None, b"b"):
        with pytest.raises(ResponseError, match="somebody else changed it"):
            write(path, before, b"c")
    assert path.read_bytes() == b"a"
    real = tmp_path / "real"
    path.rename(real)
    path.symlink_to(real)
    with pytest.raises(ResponseError, match="symbolic link"):
        write(path, b"a", b"c")
    path.unlink()
    os.link(real, path)
    with pytest.raises(ResponseError, match="second name"):
        write(path, b"a", b"c")
    path.unlink()
    path.mkdir()
    with pytest.raises(ResponseError, match="not a regular file"):
        write(path, None, b"c")
    assert real.read_bytes() == b"a"
    assert sorted(each.name for each in tmp_path.iterdir()) == ["real", "tune-x.yaml"]


def test_two_consoles_at_once_lose_nothing(tmp_path: Path) -> None:
    """Whoever is late is told, and plans again on what the other wrote."""
    wanted = [(("key", f"k{number}"),) for number in range(12)]

    def work(fields: Fields) -> None:
        while True:
            try:
                put(planned(entry(fields), tmp_path))
            except ResponseError:
                continue
            return

    threads = [threading.Thread(target=work, args=(fields,)) for fields in wanted]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    rules = load_rules(tmp_path, TODAY)
    assert rules.problems == () and len(rules.by_id["path-outside"].exceptions) == len(wanted)


def test_a_folder_that_everybody_may_write_is_no_place_for_rules(tmp_path: Path) -> None:
    assert refusal(tmp_path) is None
    tmp_path.chmod(0o777)
    assert "everybody may write" in (refusal(tmp_path) or "")
    assert refusal(tmp_path / "gone") is not None
