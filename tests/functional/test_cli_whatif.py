"""`mcpwatch policy what-if` from the outside: what it prints, its exit codes, and that its figures add up."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.functional.program import SAMPLES, Home, records

LOG = SAMPLES / "demo-incident.jsonl"


@pytest.fixture
def home(tmp_path: Path) -> Home:
    text = (SAMPLES / "policy.yaml").read_text()
    (tmp_path / "policy.yaml").write_text(text)
    (tmp_path / "same.yaml").write_text(text)
    (tmp_path / "alike.yaml").write_text(text + "# a word\n")
    (tmp_path / "stricter.yaml").write_text(
        text.replace('"/app/data/", "/app/public/"', '"/app/data/reports/"')
    )
    (tmp_path / "slower.yaml").write_text(text.replace("_per_minute: 12", "_per_minute: 6"))
    return Home(tmp_path)


def test_it_lists_what_would_change_with_places_in_the_log(home: Home) -> None:
    done = home.run("policy", "what-if", "stricter.yaml", LOG)
    assert (done.returncode, done.stderr) == (0, "")
    assert "requests would be refused, allowed until now:" in done.stdout
    assert "file_read: path: outside /app/data/reports/" in done.stdout
    assert "demo-incident.jsonl:25  2026-11-20T03:14:13.357428Z  key_0005  success" in done.stdout
    assert "file_read: path fine -> violation (outside /app/data/reports/)" in done.stdout
    assert "  + CRITICAL INC-" in done.stdout
    assert "What logs cannot tell" in done.stdout
    back = home.run("policy", "what-if", "policy.yaml", LOG, "--policy", "stricter.yaml").stdout
    assert "requests would be allowed, refused until now:" in back
    assert "  - CRITICAL INC-" in back


def test_json_lines_have_every_change_and_totals_that_are_those_of_replay(home: Home) -> None:
    done = home.run("policy", "what-if", "stricter.yaml", LOG, "--json")
    [total] = records(done.stdout, "what_if")
    decisions = records(done.stdout, "decision_change")
    gained = sum(each["count"] if not each["allowed"] else -each["count"] for each in decisions)
    assert total["new"]["refused"] - total["old"]["refused"] == gained > 0
    for name, file in (("old", "policy.yaml"), ("new", "stricter.yaml")):
        [summary] = records(home.run("replay", LOG, "--json", "--policy", file).stdout, "summary")
        assert total[name]["incidents"] == summary["incidents"]
        assert total[name]["tiers"] == summary["tiers"]
        assert total["events"] == summary["events"]
    news = {each["id"]: each["new"] for each in records(done.stdout, "incident_change") if each["new"]}
    replayed = records(home.run("replay", LOG, "--json", "--policy", "stricter.yaml").stdout, "incident")
    assert news
    assert all(news[each["id"]] == each for each in replayed if each["id"] in news)
    assert records(done.stdout, "verdict_change")


@pytest.mark.parametrize(
    ("new", "level", "code"),
    [
        ("stricter.yaml", "critical", 1),
        ("slower.yaml", "medium", 1),
        ("slower.yaml", "high", 0),
        ("same.yaml", "low", 0),
        ("slower.yaml", None, 0),
    ],
)
def test_fail_on_is_about_incidents_that_the_new_policy_brings(
    home: Home, new: str, level: str | None, code: int
) -> None:
    args = ["--fail-on", level] if level else []
    assert home.run("policy", "what-if", new, LOG, *args).returncode == code


@pytest.mark.parametrize(
    ("new", "said"),
    [("same.yaml", "the two files are the same"), ("alike.yaml", "the two policies judge these logs alike")],
)
def test_it_warns_when_nothing_differs(home: Home, new: str, said: str) -> None:
    done = home.run("policy", "what-if", new, LOG)
    assert (done.returncode, done.stderr) == (0, f"mcpwatch: nothing differs: {said}\n")


def test_files_that_cannot_be_used_are_one_line_each(home: Home) -> None:
    (home.folder / "bad.yaml").write_text("version: 1\ntools: 3\n")
    (home.folder / "text.jsonl").write_text("hello\n")
    for args, said in (
        (["absent.yaml", LOG], "absent.yaml"),
        (["bad.yaml", LOG], "bad.yaml:2"),
        (["stricter.yaml", "absent.jsonl"], "absent.jsonl: there is no such file"),
    ):
        done = home.run("policy", "what-if", *args)
        assert (done.returncode, done.stdout) == (3, "")
        assert said in done.stderr
        assert done.stderr.count("\n") == 1
    assert "not one of its lines" in home.run("policy", "what-if", "stricter.yaml", "text.jsonl").stderr


def test_hostile_names_of_tools_and_callers_reach_no_terminal(home: Home) -> None:
    (home.folder / "a.jsonl").write_text(
        '{"timestamp": "2026-11-20T03:00:00Z", "tool": "x\\u001b[2J", "status": "success", "key_id": "k\\u202e"}\n'
    )
    (home.folder / "deny.yaml").write_text("version: 1\nunlisted_tools: deny\n")
    (home.folder / "allow.yaml").write_text("version: 1\n")
    done = home.run("policy", "what-if", "deny.yaml", "a.jsonl", "--policy", "allow.yaml")
    assert "1 request would be refused" in done.stdout
    assert all(char == "\n" or char.isprintable() for char in done.stdout)
