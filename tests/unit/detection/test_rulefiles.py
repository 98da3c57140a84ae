"""A folder of rule files: good files always go on, bad ones are said, and a site can tune every rule."""

from __future__ import annotations

import os
import shutil
import threading
import time
from collections.abc import Callable
from datetime import date
from pathlib import Path

import pytest

from mcpwatch.detection.rule import RuleError, RuleSet
from mcpwatch.detection.rulefile import SHIPPED, shipped
from mcpwatch.detection.rulefiles import RuleFiles, load_rules
from mcpwatch.times import DAY

TODAY = date(2026, 11, 22)
SIGNED = "author: alice, reason: agreed"


def rule(rule_id: str, title: str = "T") -> str:
    return f"title: {title}\nid: {rule_id}\nlevel: low\ndescription: D\nmatch: 'tool:{rule_id}'\n"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "rules"
    made.mkdir()
    return made


@pytest.fixture
def put(folder: Path) -> Callable[[str, str], Path]:
    def write(name: str, text: str) -> Path:
        path = folder / name
        path.write_text(text)
        return path

    return write


Put = Callable[[str, str], Path]


def follow(folder: Path | None) -> RuleFiles:
    return RuleFiles(folder, lambda: TODAY)


def own(rules: RuleSet) -> list[str]:
    return [row.id for row in rules if not row.shipped]


def test_without_a_folder_there_are_the_shipped_rules() -> None:
    assert load_rules(None, TODAY) == shipped()
    assert not follow(None).check()


def test_a_folder_that_is_not_there_or_is_a_file_is_an_error_at_the_start(tmp_path: Path) -> None:
    with pytest.raises(RuleError, match="none: no such folder: check --rules"):
        load_rules(tmp_path / "none", TODAY)
    (tmp_path / "file").write_text("")
    with pytest.raises(RuleError, match="file: not a folder"):
        load_rules(tmp_path / "file", TODAY)


def test_own_rules_stand_behind_the_shipped_ones_by_file_name(folder: Path, put: Put) -> None:
    put("b.yml", rule("first"))
    put("c.yaml", rule("second"))
    put("a.txt", "no rule")
    put(".hidden.yaml", "no rule")
    put("a.yaml~", "no rule")
    rules = load_rules(folder, TODAY)
    assert [row.id for row in rules] == [*SHIPPED, "first", "second"]
    assert not rules.problems
    assert rules.rules[-1].place == str(folder / "c.yaml")


def test_a_bad_file_takes_nothing_away_from_the_good_ones(folder: Path, put: Put) -> None:
    put("a.yaml", "title: [broken\n")
    put("b.yaml", rule("good"))
    put("c.yaml", "title: \x1b[31m\n")
    (folder / "d.yaml").mkdir()
    (folder / "e.yaml").symlink_to("nowhere")
    os.mkfifo(folder / "f.yaml")
    rules = load_rules(folder, TODAY)
    assert own(rules) == ["good"]
    assert len(rules.rules) == len(SHIPPED) + 1
    places = [line.removeprefix(str(folder)).split(":")[0] for line in rules.problems]
    assert places == ["/a.yaml", "/c.yaml", "/d.yaml", "/e.yaml", "/f.yaml"]
    assert all(line.isprintable() for line in rules.problems)
    assert rules.problems[0].startswith(f"{folder}/a.yaml:2: not YAML")


def test_a_file_that_breaks_goes_on_as_it_last_was_until_it_is_good_again(folder: Path, put: Put) -> None:
    put("a.yaml", rule("own", "before"))
    files = follow(folder)
    put("a.yaml", rule("own", "broken").replace("tool:own", "tol:own"))
    assert files.check()
    assert files.rules.by_id["own"].title == "before"
    (problem,) = files.rules.problems
    assert problem.startswith(f"{folder}/a.yaml:5: match: unknown field 'tol'")
    assert not files.check()
    put("a.yaml", rule("own", "after"))
    assert files.check()
    assert files.rules.by_id["own"].title == "after"
    assert not files.rules.problems


def test_a_file_that_was_never_good_is_used_once_it_is(folder: Path, put: Put) -> None:
    put("a.yaml", "")
    files = follow(folder)
    assert own(files.rules) == []
    put("a.yaml", rule("own"))
    assert files.check()
    assert own(files.rules) == ["own"]


def test_files_that_come_and_go_are_rules_that_come_and_go(folder: Path, put: Put) -> None:
    files = follow(folder)
    assert not files.check()
    path = put("a.yaml", rule("own"))
    assert files.check()
    assert own(files.rules) == ["own"]
    path.unlink()
    assert files.check()
    assert own(files.rules) == []


def test_rules_outlive_their_folder(folder: Path, put: Put) -> None:
    """A folder that is gone for a moment, while it is being replaced, switches no rule off."""
    put("a.yaml", rule("own"))
    files = follow(folder)
    shutil.rmtree(folder)
    assert files.check()
    assert own(files.rules) == ["own"]
    assert files.rules.problems == (f"{folder}: no such folder: check --rules, or make it",)
    folder.mkdir()
    put("a.yaml", rule("own"))
    assert files.check()
    assert not files.rules.problems


def test_a_settled_file_is_not_read_again_until_it_changes(
    folder: Path, put: Put, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = put("a.yaml", rule("own"))
    reads: list[Path] = []

    def read(path: Path, _: object) -> bytes:
        reads.append(path)
        return path.read_bytes()

    shipped()
    monkeypatch.setattr("mcpwatch.documents.read.read", read)
    files = follow(folder)
    assert not files.check()
    assert len(reads) == 2  # just made: a second write in the same tick would look the same
    later = time.time_ns() + 10_000_000_000
    monkeypatch.setattr("mcpwatch.documents.watch.time.time_ns", lambda: later)
    assert not files.check()
    assert not files.check()
    assert len(reads) == 3
    os.utime(path, ns=(1, 1))
    assert not files.check()
    assert len(reads) == 4


def test_two_files_with_one_id_are_the_first_of_them_and_a_problem(folder: Path, put: Put) -> None:
    put("a.yaml", rule("own", "first"))
    put("b.yaml", rule("own", "second"))
    put("c.yaml", rule("key-rate"))
    rules = load_rules(folder, TODAY)
    assert rules.by_id["own"].title == "first"
    assert rules.by_id["key-rate"] == shipped().by_id["key-rate"]
    assert rules.problems == (
        f"{folder}/b.yaml: rule 'own' is also in {folder}/a.yaml: give one of them another id",
        f"{folder}/c.yaml:2: rule 'key-rate' comes with mcpwatch: tune it with `tune: key-rate`,"
        " or name yours otherwise",
    )


def test_a_site_goes_before_the_author_of_a_rule(folder: Path, put: Put) -> None:
    body = rule("own").replace("match: 'tool:own'", "correlation: {type: event_count, match: kind:tool_call,")
    body += f"  timespan: 1m, condition: {{gt: 5}}}}\nthresholds: [{{fields: {{key: a}}, gt: 6, {SIGNED}}}]\n"
    put("z.yaml", body + f"exceptions: [{{fields: {{key: a}}, {SIGNED}}}]\n")
    put(
        "a.yaml",
        f"tune: own\nthresholds: [{{fields: {{key: '*'}}, gt: 70, {SIGNED}}}]\n"
        f"exceptions: [{{fields: {{key: b}}, {SIGNED}}}]\n",
    )
    rules = load_rules(folder, TODAY)
    assert not rules.problems
    tuned = rules.by_id["own"]
    assert [(str(row.fields), row.limit) for row in tuned.thresholds] == [("key:*", 70), ("key:a", 6)]
    assert [str(row.fields) for row in tuned.exceptions] == ["key:b", "key:a"]


def test_tuning_changes_the_rule_of_this_run_and_never_the_shipped_one(folder: Path, put: Put) -> None:
    put(
        "a.yaml", f"tune: key-stale\nsettings: {{age: 10d}}\nexceptions: [{{fields: {{key: a}}, {SIGNED}}}]\n"
    )
    tuned = load_rules(folder, TODAY).by_id["key-stale"]
    assert tuned.settings == {"age": 10 * DAY}
    assert tuned.shipped
    assert shipped().by_id["key-stale"].settings == {"age": 90 * DAY}
    assert not shipped().by_id["key-stale"].exceptions


def test_a_rule_that_is_switched_off_is_left_out_and_named_with_the_reason(folder: Path, put: Put) -> None:
    put("a.yaml", "tune: session-churn\nenabled: false\nreason: no sessions here\n")
    files = follow(folder)
    assert "session-churn" not in files.rules.by_id
    assert files.rules.disabled == (f"{folder}/a.yaml:1: rule 'session-churn' is off: no sessions here",)
    assert not files.rules.problems
    put("a.yaml", "tune: session-churn\nenabled: true\nreason: again\n")
    assert files.check()
    assert files.rules == shipped()


TUNINGS = [
    ("tune: sesion-rate\nenabled: false\nreason: r\n", "no rule 'sesion-rate' to tune; did you mean 'session-rate'?"),
    (
        f"tune: key-stale\nthresholds: [{{fields: {{key: a}}, gt: 6, {SIGNED}}}]\n",
        "rule 'key-stale' counts nothing, so it has no thresholds",
    ),
    (
        f"tune: exfil-sequence\nthresholds: [{{fields: {{key: a}}, gt: 6, {SIGNED}}}]\n",
        "rule 'exfil-sequence' counts nothing, so it has no thresholds",
    ),
    (
        f"tune: auth-lockout\nthresholds: [{{fields: {{key: a}}, gt: 6, {SIGNED}}}]\n",
        "thresholds of rule 'auth-lockout' are written with gte",
    ),
    ("tune: key-stale\nsettings: {aeg: 6d}\n", "rule 'key-stale' has no setting 'aeg'; it has age"),
]  # fmt: skip


@pytest.mark.parametrize(("text", "message"), TUNINGS)
def test_a_tuning_that_does_not_fit_is_a_problem_and_the_rule_goes_on(
    folder: Path, put: Put, text: str, message: str
) -> None:
    put("a.yaml", text)
    rules = load_rules(folder, TODAY)
    (problem,) = rules.problems
    assert problem.startswith(f"{folder}/a.yaml:1: {message}")
    assert rules.rules == shipped().rules


def test_a_tuning_that_no_longer_fits_goes_on_as_it_last_did(folder: Path, put: Put) -> None:
    """A slip in a threshold must not bring back the alarms that the exceptions beside it silence."""
    good = f"tune: key-rate\nexceptions: [{{fields: {{client: a}}, {SIGNED}}}]\n"
    put("a.yaml", good)
    files = follow(folder)
    put("a.yaml", good + f"thresholds: [{{fields: {{key: a}}, gte: 6, {SIGNED}}}]\n")
    assert files.check()
    assert len(files.rules.problems) == 1
    assert len(files.rules.by_id["key-rate"].exceptions) == 1


def test_two_tunings_of_one_rule_are_the_first_of_them_and_a_problem(folder: Path, put: Put) -> None:
    for name in ("a", "b"):
        put(f"{name}.yaml", f"tune: key-rate\nexceptions: [{{fields: {{client: {name}}}, {SIGNED}}}]\n")
    rules = load_rules(folder, TODAY)
    assert [str(row.fields) for row in rules.by_id["key-rate"].exceptions] == ["client:a"]
    assert rules.problems == (
        f"{folder}/b.yaml:1: rule 'key-rate' is tuned in {folder}/a.yaml:1 too: make one file of both",
    )


@pytest.mark.parametrize(("today", "expired"), [(date(2026, 11, 22), False), (date(2026, 11, 23), True)])
def test_an_exception_holds_through_its_last_day(folder: Path, put: Put, today: date, expired: bool) -> None:
    put("a.yaml", f"tune: key-rate\nexceptions:\n  - {{fields: {{key: a}}, expires: 2026-11-22, {SIGNED}}}\n")
    rules = load_rules(folder, today)
    line = f"{folder}/a.yaml:3: exception of rule 'key-rate' by alice has expired: renew it or take it out"
    assert rules.problems == ((line,) if expired else ())
    assert len(rules.by_id["key-rate"].exceptions) == 1  # events of its time are still excepted


def test_midnight_alone_lets_an_exception_expire(folder: Path, put: Put) -> None:
    put("a.yaml", f"tune: key-rate\nexceptions:\n  - {{fields: {{key: a}}, expires: 2026-11-22, {SIGNED}}}\n")
    days = [date(2026, 11, 22)]
    files = RuleFiles(folder, lambda: days[-1])
    assert not files.check()
    days.append(date(2026, 11, 23))
    assert files.check()
    assert len(files.rules.problems) == 1


def test_the_watch_wakes_when_a_rule_file_is_written(folder: Path, put: Put) -> None:
    files = follow(folder)
    woken = threading.Event()
    with files.watch(woken.set):
        # the watch may start a moment after its thread, so the change is made until it is seen
        for number in range(100):
            put("a.yaml", rule("own", f"T{number}"))
            if woken.wait(0.1):
                break
        assert woken.is_set()
        assert files.check()
    assert "rules-watch" not in {thread.name for thread in threading.enumerate()}
