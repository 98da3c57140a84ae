"""`mcpwatch rules` from the outside: list, show, test, test --on, export."""

from __future__ import annotations

import json
import os
import pty
import subprocess
from pathlib import Path

import pytest
import yaml
from sigma.collection import SigmaCollection

from mcpwatch.detection.rulefile import SHIPPED
from tests.functional.program import MCPWATCH, SAMPLES, Home, records

POLICY = SAMPLES / "policy.yaml"
DEMO = SAMPLES / "demo-incident.jsonl"

OWN = """\
title: Night work
id: night-work
level: low
description: Somebody works at night.
match: 'tool:night_*'
tests:
  - {name: at night, kind: positive, events: [{at: 0, tool: night_run, key_id: k}], fires: all}
  - {name: by day, kind: negative, events: [{at: 0, tool: day_run, key_id: k}], fires: []}
  - {name: first letter, kind: edge, events: [{at: 0, tool: night_, key_id: k}, {at: 1, tool: nigh, key_id: k}], fires: [1]}
  - {name: in capitals, kind: evasion, events: [{at: 0, tool: NIGHT_RUN, key_id: k}], fires: all}
"""  # noqa: E501 - a case is a line


@pytest.fixture
def home(tmp_path: Path) -> Home:
    (tmp_path / "rules").mkdir()
    return Home(tmp_path)


def write(home: Home, name: str, text: str) -> None:
    (home.folder / "rules" / name).write_text(text)


def test_list_has_the_rules_of_the_folder_and_those_that_are_off(home: Home) -> None:
    write(home, "night.yaml", OWN)
    write(home, "churn.yaml", "tune: session-churn\nenabled: false\nreason: stateless servers\n")
    done = home.run("rules", "list", "--rules", "rules", "--json")
    assert (done.returncode, done.stderr) == (0, "")
    listed = {rule["id"]: rule for rule in records(done.stdout, "rule")}
    assert list(listed) == [
        *(each for each in SHIPPED if each != "session-churn"),
        "night-work",
        "session-churn",
    ]
    own, off, rate = listed["night-work"], listed["session-churn"], listed["session-rate"]
    assert (own["shipped"], own["place"], own["severity"], own["correlation"]) == (
        False, "rules/night.yaml", "low", None
    )  # fmt: skip
    assert off["disabled"] == "rules/churn.yaml:1: rule 'session-churn' is off: stateless servers"
    assert (rate["disabled"], rate["correlation"], rate["group_by"][0]) == (None, "event_count", ["session"])
    assert Path(rate["place"]).read_text().startswith("title: Too many tool calls")
    plain = home.run("rules", "list", "--rules", "rules").stdout.splitlines()
    assert [line.split()[0] for line in plain] == list(listed)
    assert plain[-1].split(maxsplit=2)[1:] == ["off", off["disabled"]]


@pytest.mark.parametrize(
    "command", [["list"], ["show", "key-rate"], ["test", "night-work"], ["export", "--sigma", "night-work"]]
)
def test_a_broken_file_is_told_once_with_its_line_and_stops_no_good_rule(
    home: Home, command: list[str]
) -> None:
    write(home, "night.yaml", OWN)
    write(home, "bad.yaml", "title: x\nid: bad\nlevle: low\n")
    done = home.run("rules", *command, "--rules", "rules")
    assert done.stderr.count("rules/bad.yaml:3") == done.stderr.count("\n") == 1
    assert done.stdout
    assert done.returncode == (1 if command[0] == "test" else 0), (
        "what tests rule files fails when one is broken"
    )


@pytest.mark.parametrize("command", ["list", "test", "export --sigma"])
def test_a_folder_that_is_not_there_is_exit_3(home: Home, command: str) -> None:
    done = home.run("rules", *command.split(), "--rules", "absent")
    assert (done.returncode, done.stderr.count("\n")) == (3, 1)
    assert "absent: no such folder" in done.stderr


@pytest.mark.parametrize("command", ["show", "test", "export --sigma"])
def test_an_unknown_rule_is_exit_2_and_the_nearest_one_is_named(home: Home, command: str) -> None:
    done = home.run("rules", *command.split(), "sesion-rate")
    assert done.returncode == 2
    assert "there is no rule 'sesion-rate'; did you mean 'session-rate'?" in done.stderr


def test_show_has_everything_that_stands_in_the_file_and_in_what_tunes_it(home: Home) -> None:
    write(home, "night.yaml", OWN)
    write(
        home,
        "tune.yaml",
        "tune: session-rate\nthresholds:\n  - {fields: {client: ci-bot}, gt: 60, author: alice, reason: builds}\n"
        "exceptions:\n  - {fields: {client: probe}, author: bob, reason: health checks, expires: 2027-01-31}\n",
    )
    shown = home.run("rules", "show", "session-rate", "--rules", "rules", "--policy", POLICY).stdout
    for part in (
        "more than 12 calls in 60 s", "kind:tool_call", "session, else key+client",
        "client:ci-bot: more than 60 calls in 60 s; alice: builds (rules/tune.yaml:3)",
        "client:probe until 2027-02-01T00:00:00.000000Z; bob: health checks (rules/tune.yaml:5)",
    ):  # fmt: skip
        assert part in shown
    done = home.run("rules", "show", "night-work", "--rules", "rules", "--json")
    (record,) = records(done.stdout, "rule")
    assert record["events"] == [{"match": "tool:night_*", "check": None}]
    assert [(case["kind"], case["place"]) for case in record["tests"]] == [
        ("positive", "rules/night.yaml:7"), ("negative", "rules/night.yaml:8"),
        ("edge", "rules/night.yaml:9"), ("evasion", "rules/night.yaml:10"),
    ]  # fmt: skip
    assert "1 positive, 1 negative" in home.run("rules", "show", "night-work", "--rules", "rules").stdout


def test_cases_that_hold_are_exit_0_and_one_that_fails_is_named_with_file_and_line(home: Home) -> None:
    write(home, "night.yaml", OWN)
    done = home.run("rules", "test", "night-work", "--rules", "rules")
    assert done.returncode == 0
    assert done.stdout.splitlines()[-1] == "1 rules, 4 cases: 4 held, 0 failed"
    write(home, "night.yaml", OWN.replace("fires: [1]", "fires: [1, 2]"))
    done = home.run("rules", "test", "night-work", "--rules", "rules")
    assert done.returncode == 1
    assert "rules/night.yaml:9: " in done.stdout
    assert done.stdout.splitlines()[-1] == "1 rules, 4 cases: 3 held, 1 failed"
    done = home.run("rules", "test", "night-work", "--rules", "rules", "--json")
    (record,) = records(done.stdout, "rule_cases")
    assert (record["ok"], record["cases"], len(record["failures"])) == (False, 4, 1)
    assert records(done.stdout, "cases") == [{"type": "cases", "rules": 1, "cases": 4, "failed": 1}]


def test_an_own_rule_without_a_kind_of_case_is_warned_of_and_no_failure(home: Home) -> None:
    write(home, "night.yaml", OWN.rsplit("  - ", 2)[0])
    done = home.run("rules", "test", "night-work", "--rules", "rules")
    assert done.returncode == 0
    assert "rules/night.yaml: warning: rule 'night-work' has no edge and no evasion case" in done.stdout


def test_a_shipped_rule_is_tried_as_it_is_shipped_however_a_site_tunes_it(home: Home) -> None:
    before = home.run("rules", "test", "key-stale")
    write(home, "tune.yaml", "tune: key-stale\nsettings: {age: 1d}\n")
    assert home.run("rules", "test", "key-stale", "--rules", "rules").stdout == before.stdout


def test_on_a_log_it_says_what_a_replay_finds(home: Home) -> None:
    replayed = home.run("replay", DEMO, "--policy", POLICY, "--json").stdout
    done = home.run("rules", "test", "--on", DEMO, "--policy", POLICY, "--json")
    assert (done.returncode, done.stderr) == (0, "")
    rates = {rate["id"]: rate for rate in records(done.stdout, "rate")}
    assert list(rates) == list(SHIPPED)
    for rule, rate in rates.items():
        own = [each for each in records(replayed, "incident") if each["rule"] == rule]
        assert (rate["incidents"], rate["hits"]) == (len(own), sum(each["count"] for each in own))
        for severity, count in rate["by_severity"].items():
            assert count == sum(each["severity"] == severity for each in own)
    assert [each["limit"] for each in rates["session-rate"]["limits"]] == [5, 10, 12, 30, 60, 100, 300, 600]
    assert records(done.stdout, "rates") == [
        {"type": "rates", "events": 423, "hours": 1, "lines": 423, "understood": 423, "not_understood": 0}
    ]
    plain = home.run("rules", "test", "session-rate", "--on", DEMO, "--policy", POLICY).stdout
    assert "423 lines: 423 events in 1 hour" in plain
    (row,) = [line.split() for line in plain.splitlines() if line.startswith("session-rate ")]
    assert row[1:3] == [str(rates["session-rate"]["hits"]), str(rates["session-rate"]["incidents"])]
    assert "*12" in plain
    assert "auth-lockout" not in plain


def test_what_it_proposes_can_be_pasted_and_quiets_the_loudest(home: Home) -> None:
    def rate() -> dict[str, object]:
        done = home.run(
            "rules", "test", "session-rate", "--rules", "rules", "--on", DEMO, "--policy", POLICY, "--json"
        )
        assert done.stderr == ""
        (found,) = records(done.stdout, "rate")
        return found

    before = rate()
    quieter = before["quieter"]
    assert isinstance(quieter, dict)
    write(home, "tune.yaml", quieter["tune"])
    after = rate()
    assert isinstance(before["hits"], int)
    assert after["hits"] == before["hits"] - quieter["hits"]


def test_several_logs_may_follow_one_option(home: Home) -> None:
    """As `--on *.jsonl` gives them."""
    both = [SAMPLES / "quiet-day.jsonl", DEMO]
    done = home.run("rules", "test", "--on", *both, "shell-execute", "--policy", POLICY, "--json")
    assert done.returncode == 0
    assert [rate["id"] for rate in records(done.stdout, "rate")] == ["shell-execute"]
    assert records(done.stdout, "rates")[0]["lines"] == 423 + 1861


def test_a_log_that_cannot_be_read_is_exit_3(home: Home) -> None:
    done = home.run("rules", "test", "--on", "absent.jsonl", "--policy", POLICY)
    assert (done.returncode, done.stderr.count("\n")) == (3, 1)
    assert "absent.jsonl: there is no such file" in done.stderr


def test_progress_of_a_long_log_is_drawn_on_a_terminal_and_wiped(home: Home) -> None:
    log = home.folder / "long.jsonl"
    log.write_bytes((SAMPLES / "quiet-day.jsonl").read_bytes() * 60)
    reader, writer = pty.openpty()
    done = subprocess.run(
        [MCPWATCH, "rules", "test", "shell-execute", "--on", log, "--policy", POLICY, "--json"],
        stdout=subprocess.PIPE, stderr=writer, env=home.environment(), cwd=home.folder, check=True,
    )  # fmt: skip
    os.close(writer)
    drawn = os.read(reader, 65_536).decode()
    os.close(reader)
    assert "%" in drawn and "s left" in drawn
    assert drawn.endswith("\r" + " " * 60 + "\r")
    assert json.loads(done.stdout.splitlines()[-1])["lines"] == 1861 * 60


def test_export_gives_sigma_rules_with_the_limits_of_the_policy(home: Home) -> None:
    write(home, "night.yaml", OWN)
    done = home.run("rules", "export", "--sigma", "--rules", "rules", "--policy", POLICY)
    assert (done.returncode, done.stderr) == (0, "")
    found = SigmaCollection.from_yaml(done.stdout)
    found.resolve_rule_references()
    titles = {rule["title"].split(":")[0] for rule in yaml.safe_load_all(done.stdout)}
    listed = records(home.run("rules", "list", "--rules", "rules", "--json").stdout, "rule")
    assert titles == {rule["title"] for rule in listed}
    some = home.run("rules", "export", "--sigma", "session-rate", "--policy", POLICY).stdout
    limits = {
        rule["correlation"]["condition"]["gt"] for rule in yaml.safe_load_all(some) if "correlation" in rule
    }
    assert limits == {12}


def test_an_export_that_is_not_whole_says_so_in_itself_on_standard_error_and_by_its_exit_code(
    home: Home,
) -> None:
    write(home, "night.yaml", OWN.replace("'tool:night_*'", "'time>=22:00'"))
    done = home.run("rules", "export", "--sigma", "night-work", "shell-execute", "--rules", "rules")
    assert done.returncode == 1
    said = "not exported: rules/night.yaml: rule 'night-work': 'time>=22:00': Sigma rules say nothing about the time"
    assert done.stderr == f"mcpwatch: {said}\n"
    assert f"# {said}\n" in done.stdout
    assert [rule["title"] for rule in yaml.safe_load_all(done.stdout)] == ["Shell command"]


def test_export_wants_to_know_the_form(home: Home) -> None:
    done = home.run("rules", "export")
    assert done.returncode == 2
    assert "--sigma" in done.stderr
