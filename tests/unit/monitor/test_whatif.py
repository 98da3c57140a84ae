"""What would change under another policy is exactly how two replays differ."""

from __future__ import annotations

import gzip
import random
from collections import Counter
from pathlib import Path

import pytest

from mcpwatch.data import shipped as shipped_data
from mcpwatch.detection.hit import Severity
from mcpwatch.detection.rulefile import shipped
from mcpwatch.monitor import whatif
from mcpwatch.monitor.pipeline import Pipeline, Reading, saved_events
from mcpwatch.monitor.whatif import EXAMPLES, WhatIf, compare
from mcpwatch.policy.decide import decide
from mcpwatch.policy.judge import Judge
from mcpwatch.policy.load import parse
from mcpwatch.policy.model import BUILT_IN, Policy
from mcpwatch.sources.saved import open_saved
from mcpwatch.times import SECOND
from tests.unit.monitor.monitor_runs import NOW, call

HOW = Reading(coverage=False)
SAMPLES = shipped_data("sample_logs")
OLD = (SAMPLES / "policy.yaml").read_text()
EDITS = {
    "paths": ('"/app/data/", "/app/public/"', '"/app/data/reports/"'),
    "domains": ('"docs.python.org", "*.wikipedia.org"', '"docs.python.org"'),
    "disabled": ("calculator: {}", "calculator: {enabled: false}"),
    "unlisted": ("unlisted_tools: deny", "unlisted_tools: allow"),
    "limit": ("session_calls_per_minute: 12", "session_calls_per_minute: 5"),
    "scopes": ("owner: support, scopes: [read, write]", "owner: support, scopes: [read]"),
    "required": ("http_get:\n", "http_get:\n    risk: high\n"),
    "revoked": ("revoked:\n", 'revoked:\n  - {key: key_0004, at: "2026-11-20T03:14:40Z"}\n'),
    "restored": ('  - {key: "key_0007", at: ', '  - {key: "key_0777", at: '),
    "locked": ("lockouts: []", 'lockouts: [{source_ip: 10.20.0.15, at: "2026-11-20T03:14:00Z", '
               'until: "2026-11-20T03:15:00Z"}]'),
    "bash": ("bash: {enabled: false}", "bash: {}"),
}  # fmt: skip


def policy(text: str) -> Policy:
    return parse(text.encode(), None)


def edited(*names: str) -> Policy:
    text = OLD
    for name in names:
        before, after = EDITS[name]
        assert before in text
        text = text.replace(before, after)
    return policy(text)


def run(old: Policy, new: Policy, *paths: Path) -> WhatIf:
    return compare(open_saved(paths), old, new, shipped(), HOW)


def replayed(by: Policy, *paths: Path) -> Pipeline:
    pipeline = Pipeline(by, HOW, shipped())
    for events in saved_events(open_saved(paths), pipeline):
        pipeline.observe(events)
    return pipeline


def decisions(by: Policy, path: Path) -> list[tuple[int | None, bool, str]]:
    """Line, answer and reason for every request, worked out one by one."""
    judge, pipeline, found = Judge(by), Pipeline(by, HOW), []
    for events in saved_events(open_saved([path]), pipeline):
        for event in events:
            if event.shape.kind in ("tool_call", "request"):
                caller = event.caller
                said = decide(
                    judge, key=caller.key, client=caller.client, session=caller.session, subject=caller.subject,
                    source_ip=caller.source_ip, tool=event.tool if event.shape.kind == "tool_call" else None,
                    params=event.params, scopes=event.scopes, at_ns=event.time_ns or 0,
                )  # fmt: skip
                found.append((event.line, said.allowed, said.reason))
    return found


@pytest.mark.parametrize(
    "names", [*[(name,) for name in EDITS], tuple(EDITS), ("limit", "restored")], ids="+".join
)
def test_what_changes_is_how_two_replays_differ(names: tuple[str, ...]) -> None:
    """Decisions, incidents and totals, for edits one by one and together, in both directions."""
    path, texts = SAMPLES / "demo-incident.jsonl", (edited(), edited(*names))
    for old, new in (texts, texts[::-1]):
        found = run(old, new, path)
        before, after = decisions(old, path), decisions(new, path)
        expected = Counter(
            (now, why_now or why)
            for (_, was, why), (_, now, why_now) in zip(before, after, strict=True)
            if was is not now
        )
        told = Counter[tuple[bool, str]]()
        for kind, change in found.decisions.items():
            told[kind.allowed, kind.reason] += change.count
        assert told == expected
        assert (found.old.refused, found.new.refused) == tuple(
            sum(not allowed for _, allowed, _ in each) for each in (before, after)
        )
        ours, theirs = replayed(old, path).fold, replayed(new, path).fold
        changed = {each.either.id: each.how for each in found.incidents}
        for incident in {each.id for side in (ours, theirs) for each in side}:
            a, b = ours.find(incident), theirs.find(incident)
            how = None
            if a is None or b is None:
                how = "appears" if a is None else "vanishes"
            elif (a.count, a.severity) != (b.count, b.severity):
                how = "changes"
            assert changed.pop(incident, None) == how
        assert changed == {}
        assert (found.old.incidents, found.new.incidents) == (ours.by_severity(), theirs.by_severity())


def test_nothing_differs_between_a_policy_and_itself_in_any_sample() -> None:
    for path in SAMPLES.glob("*.jsonl"):
        found = run(edited(), edited(), path)
        assert not found.differs, path
        assert found.worst_new is None


def test_each_change_names_its_first_records_and_how_they_ended(tmp_path: Path) -> None:
    path = tmp_path / "audit.jsonl"
    path.write_bytes(b"".join(
        call(NOW + number * 30 * SECOND, status="denied" if number == 1 else "success", params={"path": "/srv/x"})
        for number in range(5)
    ))  # fmt: skip
    old = policy("version: 1\ntools: {file_read: {allowed_paths: [/srv/]}}\n")
    new = policy("version: 1\ntools: {file_read: {allowed_paths: [/app/]}}\n")
    [(kind, change)] = run(old, new, path).decisions.items()
    assert (kind.allowed, kind.tool, kind.reason) == (False, "file_read", "path: outside /app/")
    assert (change.count, dict(change.outcomes)) == (5, {"success": 4, "denied": 1})
    assert [(each.line, each.who, each.outcome) for each in change.examples] == [
        (1, "k1", "success"), (2, "k1", "denied"), (3, "k1", "success"),
    ]  # fmt: skip
    assert len(change.examples) == EXAMPLES
    [(verdict, _)] = run(old, new, path).verdicts.items()
    assert (verdict.aspect, verdict.old, verdict.new) == ("path", "fine", "violation")
    [(verdict, _)] = run(new, old, path).verdicts.items()
    assert (verdict.old, verdict.new, verdict.reason) == ("violation", "fine", "outside /app/")
    assert run(old, new, path).refused_in_log == 1


def test_a_verdict_changes_also_where_the_call_is_refused_both_times(tmp_path: Path) -> None:
    path = tmp_path / "audit.jsonl"
    path.write_bytes(call(NOW, params={"path": "/srv/x"}))
    off = "version: 1\ntools: {file_read: {enabled: false, allowed_paths: [%s]}}\n"
    found = run(policy(off % "/srv/"), policy(off % "/app/"), path)
    assert found.decisions == {}
    assert [(kind.old, kind.new) for kind in found.verdicts] == [("fine", "violation")]


def test_resources_and_scopes_are_compared_too(tmp_path: Path) -> None:
    path = tmp_path / "audit.jsonl"
    read = call(NOW, event="request", tool=None, params={"uri": "file:///srv/x"})
    path.write_bytes(read + call(NOW, key_id="k1", params={"path": "/app/x"}))
    old = policy("version: 1\ntools: {file_read: {allowed_paths: [/app/, /srv/]}}\n")
    new = policy(
        "version: 1\ntools: {file_read: {allowed_paths: [/app/], require_scope: read}}\nkeys: {k1: {scopes: []}}"
    )
    told = {(kind.tool, kind.aspect, kind.new) for kind in run(old, new, path).verdicts}
    assert told == {("resources/read", "path", "violation"), ("file_read", "scope", "violation")}
    asked = "version: 1\ntools: {file_read: {require_scope: read}}\nkeys: {k1: {scopes: [%s]}}\n"
    [kind] = run(policy(asked % "read"), policy(asked % ""), path).decisions
    assert kind.reason == "scope: lacks scope read"


def test_the_worst_that_is_new_counts_what_appears_and_what_rises() -> None:
    path = SAMPLES / "demo-incident.jsonl"
    assert run(edited(), edited("limit"), path).worst_new is Severity.MEDIUM
    assert run(edited("limit"), edited(), path).worst_new is None
    assert run(edited(), edited("paths"), path).worst_new is Severity.CRITICAL


def test_a_log_full_of_different_tools_costs_bounded_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(whatif, "MAX_KINDS", 10)
    path = tmp_path / "audit.jsonl"
    path.write_bytes(b"".join(call(NOW + n * 60 * SECOND, tool=f"tool{n}", params=None) for n in range(25)))
    found = run(BUILT_IN, policy("version: 1\nunlisted_tools: deny\n"), path)
    assert len(found.decisions) == 10
    assert found.more == 15
    assert found.new.refused == 25


def test_rotation_sets_several_logs_and_broken_gzip_are_read_as_in_replay(tmp_path: Path) -> None:
    data = (SAMPLES / "demo-incident.jsonl").read_bytes().splitlines(keepends=True)
    whole = run(edited(), edited("paths"), SAMPLES / "demo-incident.jsonl")
    older, newer = tmp_path / "a.jsonl.1.gz", tmp_path / "a.jsonl"
    older.write_bytes(gzip.compress(b"".join(data[:200])))
    newer.write_bytes(b"".join(data[200:]))
    in_two = run(edited(), edited("paths"), newer, older)
    assert (in_two.requests, in_two.new.refused) == (whole.requests, whole.new.refused)
    assert [each.either.id for each in in_two.incidents] == [each.either.id for each in whole.incidents]
    noise = random.Random(1).randbytes(3_000)
    older.write_bytes(gzip.compress(b"".join(data[:200]) + noise, 0)[:-2_000])
    broken = run(edited(), edited("paths"), older)
    assert broken.broken is not None
    assert broken.requests > 100
