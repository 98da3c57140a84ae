"""What is said of a record agrees with the engine, for every record of every log."""

from __future__ import annotations

import gzip
import json
import random
from datetime import date
from pathlib import Path
from typing import Any

import pytest

from mcpwatch.data import shipped as shipped_data
from mcpwatch.detection.engine import Engine
from mcpwatch.detection.explain import Explained, Standing
from mcpwatch.detection.hit import Hit
from mcpwatch.detection.rule import CHECK_NAMES, RuleSet
from mcpwatch.detection.rulefile import shipped
from mcpwatch.detection.rulefiles import load_rules
from mcpwatch.event import AuditEvent
from mcpwatch.formats.reader import Reader
from mcpwatch.monitor.explain import (
    Explanation,
    RecordError,
    explain_line,
    explain_record,
    tier_reason,
)
from mcpwatch.monitor.pipeline import Reading
from mcpwatch.policy.load import parse
from mcpwatch.policy.model import BUILT_IN, Policy
from mcpwatch.sources.saved import open_saved
from mcpwatch.times import DAY, SECOND
from tests.unit.monitor.monitor_runs import NOW, call

HOW = Reading(coverage=False)
SAMPLES = shipped_data("sample_logs")
POLICY = """\
version: 1
tools:
  file_read: {allowed_paths: [/app/data/], require_scope: read, require_audit_log: true}
  http_request: {allowed_domains: [api.example.com]}
  deploy_now: {risk: low, definition_sha256: "%s"}
  bash: {enabled: false, since: "2026-11-22T10:00:30Z"}
unlisted_tools: deny
risk_tiers: {high: [report_me]}
alerts: {session_calls_per_minute: 3, key_requests_per_minute: 6, enforcement_grace: 2s, auth_failures: 2}
keys:
  k1: {client: bot, owner: payments, scopes: [read], created: 2026-11-01}
  k2: {scopes: [], created: 2026-01-01}
revoked:
  - {key: k2, at: "2026-11-22T10:00:20Z", reason: leaked}
  - {session: s2, at: "2026-11-22T10:00:10Z", until: "2026-11-22T10:00:40Z"}
lockouts:
  - {source_ip: 192.0.2.1, at: "2026-11-22T10:00:30Z", until: "2026-11-22T10:01:00Z", rule: auth-lockout}
""" % ("0" * 64)  # fmt: skip
TUNING = {
    "quiet.yaml": """\
tune: session-rate
exceptions:
  - {fields: {key: k1, tool: file_read}, author: ann, reason: batch job, expires: 2026-11-23}
thresholds:
  - {fields: {client: bot}, gt: 9, author: ann, reason: fast on purpose}
""",
    "off.yaml": "tune: key-stale\nenabled: false\nreason: not ours\n",
    "own.yaml": """\
title: Two outside reads
id: two-outside
level: high
description: Two reads outside.
correlation: {type: event_count, check: path-outside, timespan: 60s, condition: {gte: 2}}
""",
    "filter.yaml": """\
title: Deploys
id: deploys
level: low
description: A deploy.
match: tool:deploy* status:success
""",
}


def policy(text: str = POLICY) -> Policy:
    return parse(text.encode(), None)


@pytest.fixture(scope="module")
def tuned(tmp_path_factory: pytest.TempPathFactory) -> RuleSet:
    folder = tmp_path_factory.mktemp("rules")
    for name, text in TUNING.items():
        (folder / name).write_text(text)
    rules = load_rules(folder, date(2026, 11, 22))
    assert rules.problems == ()
    return rules


def some_log(seed: int, size: int = 70) -> list[bytes]:
    """Records of a few callers, that make most rules fire: late ones, repeated calls and odd ones among them."""
    make = random.Random(seed)
    params: list[dict[str, Any] | None] = [
        {"path": "/app/data/a"}, {"path": "/app/data/../../etc/passwd"}, {"path": "/app/data/%2e%2e/x"},
        {"path": "[redacted]"}, {"path": "/home/ann/.ssh/id_rsa"}, {"url": "https://api.example.com/"},
        {"url": "http://169.254.169.254/"}, {"command": "rm -rf /"}, {"text": "\u202eevil"}, {}, None,
        {"token": "sk-ant-api03-" + "a" * 95}, {"path": "/home/ann/.bashrc"},
    ]  # fmt: skip
    lines, now = [], 0.0
    for number in range(size):
        now += make.choice([0, 0, 0.5, 0.5, 1, 2])
        back = make.choice([0, 0, 0, 0, 0, 0, 3, 30, 119, 500])
        record: dict[str, object] = {
            "event": make.choice(["tool_call"] * 7 + ["request", "auth", "session_end"]),
            "tool": make.choice(["file_read"] * 3 + ["http_request", "bash", "deploy_now", "odd", "drop_db"]),
            "params": make.choice(params),
            "status": make.choice(["success", "success", "success", "denied", "unauthenticated", "error", "unknown"]),
            "key_id": make.choice(["k1", "k1", "k1", "k2", "k3", None]),
            "client_id": make.choice(["bot", "bot", None]),
            "session_id": make.choice(["s1", "s1", "s2", f"new{make.randrange(5)}", None]),
            "source_ip": make.choice(["192.0.2.1", "198.51.100.7", None]),
            "call_id": make.choice([None, None, f"c{make.randrange(20)}"]),
            "auth": make.choice([None, None, {"method": "none"}, {"method": "jwt", "expires_at": 1}]),
            "definition_sha256": make.choice([None, "0" * 64, "f" * 64]),
            "sequence": make.choice([None, number, number]),
            "error": make.choice([None, None, "no\u200b\u200b\u200b\u200bsuch"]),
        }  # fmt: skip
        at = None if make.random() < 0.04 else NOW + round((now - back) * SECOND)
        lines.append(call(at, **record))
    return lines


def write(folder: Path, lines: list[bytes], name: str = "audit.jsonl") -> Path:
    path = folder / name
    data = b"".join(lines)
    path.write_bytes(gzip.compress(data) if name.endswith(".gz") else data)
    return path


def line(path: Path, number: int, by: Policy, rules: RuleSet | None = None) -> Explanation:
    return explain_line(open_saved([path])[0], number, by, rules or shipped(), HOW)


def of(found: Explanation, rule: str) -> Standing:
    return next(each for each in found.explained.standings if each.rule.id == rule)


def text(standing: Standing) -> str:
    return "; ".join(standing.reasons)


def check(explained: Explained, hits: list[Hit]) -> None:
    """That an explanation is the engine's word, and that its own figures say the same."""
    assert sorted(map(str, explained.hits)) == sorted(map(str, hits))
    fired = {hit.rule: hit for hit in hits}
    for each in explained.standings:
        where = f"{each.rule.id}: {text(each)}"
        assert (each.state == "fires") == (each.rule.id in fired), where
        assert each.reasons, where
        if each.state == "fires":
            assert each.severity == max(hit.severity for hit in hits if hit.rule == each.rule.id)
        if each.counts:
            full = [count.fill for count in each.counts if count.fill >= count.need]
            assert max(full, default=None) == (fired[each.rule.id].peak if each.rule.id in fired else None), (
                where
            )
        if each.steps:
            complete = all(step.time_ns is not None for step in each.steps)
            assert complete or each.rule.id not in fired, where
            assert sum(step.here for step in each.steps) == 1, where


@pytest.mark.parametrize("name", ["demo-incident", "exfiltration", "brute-force", "broken", "quiet-day"])
def test_of_the_sample_logs_rules_are_said_to_fire_where_the_engine_has_hits(name: str) -> None:
    """With everything before a record read first, out of the middle of the log."""
    path, by = SAMPLES / f"{name}.jsonl", parse((SAMPLES / "policy.yaml").read_bytes(), None)
    by_line = hits_by_line(path, by, shipped())
    telling = sorted(number for number, hits in by_line.items() if hits)[:: max(1, len(by_line) // 20)]
    others = list(by_line)[:: max(1, len(by_line) // 12)]
    for number in sorted({*telling[:12], *others}):
        check(line(path, number, by).explained, by_line[number])


def hits_by_line(path: Path, by: Policy, rules: RuleSet) -> dict[int, list[Hit]]:
    """The hits of the engine, for each line that is a record."""
    [log] = open_saved([path])
    reader = Reader(log.name)
    events: list[AuditEvent] = [event for block in log.blocks() for event in reader.read(block)]
    found: dict[int, list[Hit]] = {event.line: [] for event in events if event.line is not None}
    for hit in Engine(by, rules).observe(events):
        assert hit.line is not None
        found[hit.line].append(hit)
    return found


@pytest.mark.parametrize("seed", range(3))
def test_of_logs_of_all_kinds_every_record_is_explained_as_the_engine_judges_it(
    tmp_path: Path, tuned: RuleSet, seed: int
) -> None:
    """Late records, records without a time, repeated calls, broken chains, exceptions and limits of their own."""
    path = write(tmp_path, some_log(seed))
    by = policy()
    by_line = hits_by_line(path, by, tuned)
    fired = {hit.rule for hits in by_line.values() for hit in hits}
    assert len(fired) >= 20
    assert fired >= {"session-rate", "session-shared", "path-outside", "audit-gap"}
    for number, hits in list(by_line.items())[seed % 2 :: 2]:
        found = line(path, number, by, tuned)
        check(found.explained, hits)
        assert all(reason.isprintable() for each in found.explained.standings for reason in each.reasons)


def test_what_windows_held_is_what_the_log_says_and_own_limits_are_told(
    tmp_path: Path, tuned: RuleSet
) -> None:
    lines = [call(NOW + number * SECOND, tool="odd_one", session_id="s1", key_id="k1") for number in range(5)]
    lines.append(call(NOW + 70 * SECOND, tool="odd_one", session_id="s1", key_id="k1", client_id="other"))
    path = write(tmp_path, lines)
    rate = of(line(path, 4, policy()), "session-rate")
    assert (rate.state, [(each.fill, each.need) for each in rate.counts]) == ("fires", [(4, 4)])
    own = of(line(path, 5, policy(), tuned), "session-rate")
    assert (own.state, [(each.fill, each.need) for each in own.counts]) == ("does_not_fire", [(5, 10)])
    assert own.threshold is not None
    assert own.threshold.reason == "fast on purpose"
    assert own.limit == "more than 9 calls in 60 s"
    alone = of(line(path, 6, policy(), tuned), "session-rate")
    assert (alone.threshold, [(each.fill, each.need) for each in alone.counts]) == (None, [(1, 4)])


def test_an_exception_says_who_made_it_and_why_and_holds_until_it_expires(
    tmp_path: Path, tuned: RuleSet
) -> None:
    path = write(tmp_path, [call(NOW), call(NOW + 3 * DAY)])
    standing = of(line(path, 1, policy(), tuned), "session-rate")
    assert standing.state == "does_not_fire"
    assert standing.exception is not None
    assert "by ann: batch job" in text(standing)
    later = of(line(path, 2, policy(), tuned), "session-rate")
    assert (later.exception, [each.fill for each in later.counts]) == (None, [1])
    assert not any(each.rule.id == "key-stale" for each in line(path, 1, policy(), tuned).explained.standings)


def test_what_is_not_counted_says_why(tmp_path: Path) -> None:
    path = write(tmp_path, [
        call(NOW, call_id="c1"), call(NOW + SECOND, call_id="c1"), call(None), call(NOW, session_id=None,
        key_id=None, client_id=None, source_ip=None), call(NOW + 400 * SECOND), call(NOW + 400 * SECOND), call(NOW),
        call(NOW + 400 * SECOND, params={"path": "[redacted]"}), call(NOW + 400 * SECOND, params=None),
    ])  # fmt: skip
    by = policy()
    assert "call c1 was logged before" in text(of(line(path, 2, by), "session-rate"))
    assert "no readable time" in text(of(line(path, 3, by), "session-rate"))
    assert of(line(path, 4, by), "session-rate").state == "not_concerned"
    assert "names none of" in text(of(line(path, 4, by), "session-rate"))
    assert "behind its log" in text(of(line(path, 7, by), "session-rate"))
    assert "withholds" in text(of(line(path, 8, by), "runaway-loop"))
    assert "no parameters" in text(of(line(path, 9, by), "runaway-loop"))


def test_a_sequence_names_the_records_of_its_steps(tmp_path: Path) -> None:
    secret, send = {"path": "/home/ann/.ssh/id_rsa"}, {"url": "https://paste.example.net/"}
    path = write(tmp_path, [
        call(NOW, tool="read_file", params=secret), call(NOW + SECOND),
        call(NOW + 30 * SECOND, tool="http_request", params=send),
        call(NOW + 600 * SECOND, tool="http_request", params=send),
    ])  # fmt: skip
    first, last, late = (of(line(path, number, BUILT_IN), "exfil-sequence") for number in (1, 3, 4))
    assert [(step.here, step.line) for step in first.steps] == [(True, 1), (False, None)]
    assert (last.state, [(step.here, step.line) for step in last.steps]) == ("fires", [(False, 1), (True, 3)])
    assert late.state == "does_not_fire"
    assert "not within 10m" in text(late)
    assert text(of(line(path, 2, BUILT_IN), "exfil-sequence")) == "is none of its 2 steps"


def test_every_finding_is_told_with_its_parameter_the_fine_ones_too(tmp_path: Path) -> None:
    by = policy("version: 1\ntools: {move_file: {allowed_paths: [/app/data/], require_scope: write}}\n")
    record = call(
        NOW, tool="move_file", params={"source": "/app/data/x", "destination": "/etc/x"}, scopes=["read"]
    )
    found = line(write(tmp_path, [record]), 1, by)
    told = {(name, each.verdict.value, each.value) for name, each in found.findings}
    assert told == {("source", "allowed", "/app/data/x"), ("destination", "violation", "/etc/x")}
    assert found.scope is not None
    assert (found.scope.verdict.value, found.scope.reason) == ("violation", "lacks scope write")
    assert found.decision is not None
    assert (found.decision.allowed, found.decision.status) == (False, "denied")
    nested = call(NOW, tool="edit_files", params={"edits": [{"path": "/app/data/x"}]})
    by = policy("version: 1\ntools: {edit_files: {allowed_paths: [/app/data/], path_params: [path]}}\n")
    [(name, _)] = line(write(tmp_path, [nested]), 1, by).findings
    assert name == "edits.path"


@pytest.mark.parametrize(
    ("seconds", "states"),
    [(5, ["not_yet", "not_yet"]), (11, ["not_yet", "in_grace"]), (25, ["in_force", "in_force"]),
     (41, ["in_force", "over"])],
)  # fmt: skip
def test_restrictions_are_told_with_what_they_are_at_the_time_of_the_record(
    tmp_path: Path, seconds: int, states: list[str]
) -> None:
    record = call(NOW + seconds * SECOND, key_id="k2", session_id="s2")
    found = line(write(tmp_path, [record]), 1, policy())
    assert [each.state for each in found.restrictions] == states


def test_a_tier_is_explained_by_what_decides_it() -> None:
    by, words = policy(), {"deploy_now": "risk in its row", "report_me": "risk_tiers", "calculator": "well-known",
                           "mcp__x__bash": "well-known", "run_command": "a shell", "delete_user": "delete",
                           "frobnicate": "nothing in its name", "READ_ALL": "name"}  # fmt: skip
    for tool, expected in words.items():
        assert expected in tier_reason(by, tool), tool


def test_line_numbers_run_on_through_a_rotation_set_and_gzip(tmp_path: Path) -> None:
    lines = [call(NOW + number * SECOND) for number in range(6)]
    paths = [write(tmp_path, lines[:3], "audit.jsonl.1.gz"), write(tmp_path, lines[3:], "audit.jsonl")]
    [log] = open_saved(paths)
    found = explain_line(log, 5, policy(), shipped(), HOW)
    assert (found.event.line, found.before) == (5, 4)
    assert [each.fill for each in of(found, "session-rate").counts] == [5]


@pytest.mark.parametrize(
    ("number", "said"),
    [
        (1, "audit.jsonl: line 1: is blank"),
        (2, "audit.jsonl: line 2: is no audit record: not JSON; begins hello"),
        (3, "audit.jsonl: line 3: is no audit record: JSON, but not an object; 2 records in one line"),
        (4, "audit.jsonl: line 4: is no audit record: not JSON; 3 records in one line"),
        (5, "audit.jsonl: line 5: is no audit record: line of 1048577 bytes, over the limit of 1 MiB"),
        (7, "audit.jsonl: there is no line 7: it has 6 lines"),
    ],
)
def test_what_is_no_record_is_said_with_the_reason(tmp_path: Path, number: int, said: str) -> None:
    one = call(NOW).strip()
    lines = [b"  \n", b"hello\x1b[31m\n", b"[%b, %b]\n" % (one, one), one * 3 + b"\n", b"x" * ((1 << 20) + 1) + b"\n",
             one]  # fmt: skip
    path = write(tmp_path, lines)
    with pytest.raises(RecordError) as raised:
        line(path, number, policy())
    assert str(raised.value).startswith(said)
    assert str(raised.value).isprintable()
    assert line(path, 6, policy()).before == 0


def test_an_empty_log_has_no_lines(tmp_path: Path) -> None:
    with pytest.raises(RecordError, match="no line 1: it has no lines"):
        line(write(tmp_path, []), 1, policy())


def test_one_record_is_taken_without_a_log_in_one_line_or_several() -> None:
    record = json.loads(call(NOW, params={"path": "/etc/x"}))
    for data in (json.dumps(record), json.dumps(record, indent=2), f"\n{json.dumps(record)}\n\n"):
        found = explain_record(data.encode(), policy(), shipped(), HOW)
        assert of(found, "path-outside").state == "fires"
        assert found.before == 0
    for bad, said in [("{}\n{}", "2 lines"), ("", "is blank"), ("nope", "not JSON"), ("[]", "not an object")]:
        with pytest.raises(RecordError, match=said):
            explain_record(bad.encode(), policy(), shipped(), HOW)


def test_there_is_a_reason_for_every_check_that_finds_nothing(tmp_path: Path) -> None:
    """Each rule says something of its own about a quiet record, and nothing of it is empty."""
    found = line(write(tmp_path, [call(NOW, scopes=["read"])]), 1, BUILT_IN)
    said = {each.rule.id: text(each) for each in found.explained.standings}
    assert {rule for rule in said if rule in CHECK_NAMES} == set(CHECK_NAMES) - {"sensitive-read"}
    assert all(said.values())


@pytest.mark.parametrize(
    ("seconds", "status", "rule", "state", "said"),
    [
        (5, "success", "revoked-attempt", "not_concerned", "the caller is not revoked"),
        (25, "error", "revoked-attempt", "does_not_fire", "is revoked, and was not refused: outcome error"),
        (5, "success", "enforcement-gap", "not_concerned", "forbids neither the caller"),
        (25, "error", "enforcement-gap", "does_not_fire", "did not succeed: outcome error"),
        (21, "success", "enforcement-gap", "does_not_fire", "within the grace of 2.0 s"),
        (25, "success", "enforcement-gap", "fires", "the key is revoked, and the call succeeded"),
    ],
)
def test_rules_about_restrictions_say_which_condition_is_missing(
    tmp_path: Path, seconds: int, status: str, rule: str, state: str, said: str
) -> None:
    record = call(NOW + seconds * SECOND, key_id="k2", session_id="s1", status=status, scopes=["read"])
    standing = of(line(write(tmp_path, [record]), 1, policy()), rule)
    assert (standing.state, said in text(standing)) == (state, True), text(standing)
