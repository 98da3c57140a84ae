"""What the judge promises about whole calls."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mcpwatch.policy.decide import Decision, decide
from mcpwatch.policy.judge import MAX_TOOLS, Judge
from mcpwatch.policy.model import BUILT_IN, Key, Lockout, Policy, Revocation, ToolPolicy
from mcpwatch.policy.verdict import Verdict

POLICY = Policy(
    tools={
        "file_read": ToolPolicy(allowed_paths=("/app/data/", "/app/public/"), require_scope="read"),
        "move_file": ToolPolicy(allowed_paths=("/app/data/",)),
        "shell_execute": ToolPolicy(enabled=False),
        "run_command": ToolPolicy(allowed_paths=("/app/",)),
        "http_request": ToolPolicy(allowed_domains=("api.openai.com",), require_scope="network"),
        "download": ToolPolicy(allowed_paths=("/app/data/",), allowed_domains=("api.openai.com",)),
        "export": ToolPolicy(allowed_paths=("/app/data/",), path_params=("out",)),
        "post": ToolPolicy(allowed_domains=("api.openai.com",), url_params=("to",)),
        "based": ToolPolicy(allowed_paths=("/app/data/",), base_dir="/srv"),
        "get_file_contents": ToolPolicy(allowed_paths=("/app/data/",)),
        "win": ToolPolicy(allowed_paths=("C:\\Data\\",)),
        "calculator": ToolPolicy(),
    },
    deny_unlisted=True,
    keys={"key_0001": Key("key_0001", scopes=("read", "network"))},
    revoked=(
        Revocation("key", "key_0007", 1_000, until=2_000),
        Revocation("client", "bot", 1_000),
        Revocation("session", "s", 1_000),
        Revocation("subject", "alice", 1_000),
    ),
    lockouts=(
        Lockout("key_0009", "203.0.113.9", 1_000, 2_000),
        Lockout(None, "2001:db8::1", 1_000, 2_000),
        Lockout("key_0008", None, 1_000, 2_000),
    ),
)
OPEN = Policy(tools=POLICY.tools)


def findings(tool: str, params: Any, policy: Policy = POLICY) -> list[str]:
    found = Judge(policy).for_tool(tool).findings(params)
    return [f"{finding.aspect} {finding.verdict.value}" + " critical" * finding.critical for finding in found]


PATH_OUT, PATH_UNKNOWN = "path violation", "path not_evaluable"
URL_OUT, URL_UNKNOWN = "domain violation", "domain not_evaluable"
METADATA = "domain violation critical"


@pytest.mark.parametrize(
    ("tool", "params", "expected"),
    [
        ("file_read", {"path": "/app/data/x", "limit": 3, "encoding": "utf-8"}, []),
        ("file_read", {"path": "/etc/passwd"}, [PATH_OUT]),
        ("file_read", {"filePath": "/etc/passwd"}, [PATH_OUT]),
        ("file_read", {"path": "/app/data/%2e%2e/%2e%2e/x"}, ["path ambiguous"]),
        # by the value's shape, whatever the name
        ("file_read", {"which": "/etc/passwd"}, [PATH_OUT]),
        ("file_read", {"which": "../../etc/passwd"}, [PATH_OUT]),
        ("file_read", {"uri": "file:///etc/passwd"}, [PATH_OUT]),
        # both ends of a move
        ("move_file", {"source": "/app/data/x", "destination": "/tmp/x"}, [PATH_OUT]),
        ("move_file", {"source": "/etc/x", "destination": "/app/data/x"}, [PATH_OUT]),
        # nested, listed, and JSON inside text
        ("file_read", {"options": {"file": {"path": "/etc/x"}}}, [PATH_OUT]),
        ("file_read", {"paths": ["/app/data/x", "/etc/x", "/etc/y"]}, [PATH_OUT, PATH_OUT]),
        ("file_read", {"arguments": '{"path": "/etc/x"}'}, [PATH_OUT]),
        ("file_read", {"paths": '["/app/data/x", "/etc/x"]'}, [PATH_OUT]),
        ("file_read", {"files": [{"path": "/etc/x", "content": "x"}]}, [PATH_OUT]),
        ("file_read", {"files": {"/etc/x": "content"}}, [PATH_OUT]),
        # free text is no path, and neither is a command or a payload
        ("file_read", {"path": "/app/data/x", "content": "/etc/hosts\nsee also"}, []),
        ("file_read", {"path": "/app/data/x", "message": "../../etc/passwd"}, []),
        ("file_read", {"path": "/app/data/x", "note": "see /etc/hosts"}, []),
        ("run_command", {"command": "/bin/ls /etc", "cwd": "/app/x"}, []),
        ("run_command", {"command": "ls", "cwd": "/etc"}, [PATH_OUT]),
        ("http_request", {"url": "https://api.openai.com/", "body": {"url": "https://evil.com"}}, []),
        # a repository's own paths
        ("get_file_contents", {"owner": "o", "repo": "r", "path": "/src/x"}, [PATH_UNKNOWN]),
        ("based", {"owner": "o", "repo": "r", "path": "src/x"}, []),
        ("based", {"owner": "o", "repo": "r", "path": "/etc/x"}, [PATH_OUT]),
        ("based", {"path": "src/x"}, [PATH_OUT]),
        ("win", {"path": "c:/data/x"}, []),
        ("win", {"path": "C:\\Windows\\x"}, [PATH_OUT]),
        # domains
        ("http_request", {"url": "https://api.openai.com/v1", "method": "GET"}, []),
        ("http_request", {"url": "https://evil.com"}, [URL_OUT]),
        ("http_request", {"host": "evil.com"}, [URL_OUT]),
        ("http_request", {"where": "https://evil.com/x"}, [URL_OUT]),
        ("http_request", {"url": "file:///etc/passwd"}, [URL_OUT]),
        ("http_request", {"url": "http://169.254.169.254/"}, [METADATA]),
        # the policy's own names are the only ones
        ("export", {"out": "/app/data/x", "path": "/etc/x"}, []),
        ("export", {"out": "/etc/x"}, [PATH_OUT]),
        ("export", {"path": "/app/data/x"}, [PATH_UNKNOWN]),
        ("export", {"out": 5}, [PATH_UNKNOWN]),
        ("export", {"out": None}, [PATH_UNKNOWN]),
        ("post", {"to": "https://evil.com", "url": "https://api.openai.com"}, [URL_OUT]),
        ("post", {"url": "https://api.openai.com"}, [URL_UNKNOWN]),
        # what the log withholds
        ("file_read", None, [PATH_UNKNOWN]),
        ("file_read", "[REDACTED]", [PATH_UNKNOWN]),
        ("file_read", {}, [PATH_UNKNOWN]),
        ("file_read", {"limit": 3}, [PATH_UNKNOWN]),
        ("file_read", {"path": 5}, [PATH_UNKNOWN]),
        ("file_read", {"path": "[REDACTED]"}, [PATH_UNKNOWN]),
        ("file_read", {"path": "***"}, [PATH_UNKNOWN]),
        ("file_read", {"path": "<redacted: path>"}, [PATH_UNKNOWN]),
        ("file_read", {"path": "/app/data/x...[123 chars truncated]..."}, [PATH_UNKNOWN]),
        ("file_read", {"path": "/ap...[123 chars truncated]..."}, [PATH_UNKNOWN]),
        ("file_read", {"path": "/etc/pas...[123 chars truncated]..."}, [PATH_OUT]),
        ("file_read", {"path": "/app/data/...[1 chars truncated].../../../../etc/x"}, [PATH_OUT]),
        ("http_request", {"url": "https://api.openai.com/x...[123 chars truncated]..."}, []),
        ("http_request", {"url": "https://api.open...[123 chars truncated]..."}, [URL_UNKNOWN]),
        # a caller can write the log's mark too
        ("file_read", {"path": "/...[1 chars truncated].../../etc/x"}, [PATH_OUT]),
        ("http_request", {"url": "https://evil.com?[1 chars truncated]"}, [URL_OUT]),
        ("http_request", {"url": "https://[1 chars truncated]@evil.com/"}, [URL_OUT]),
        ("http_request", None, [URL_UNKNOWN]),
        # restricted in both: paths first, the worst first; one of the two is enough
        ("download", {"url": "https://api.openai.com/x"}, []),
        ("download", {"url": "https://evil.com", "path": "/etc/x"}, [PATH_OUT, URL_OUT]),
        ("download", {"files": ["/app/data/`x`", "/etc/x"]}, [PATH_OUT, "path ambiguous"]),
        ("download", {"urls": ["https://evil.com", "http://169.254.169.254"]}, [METADATA, URL_OUT]),
        ("download", {}, [PATH_UNKNOWN, URL_UNKNOWN]),
        # unrestricted tools are still kept from cloud metadata
        ("some_tool", {"url": "http://169.254.169.254/"}, [METADATA]),
        ("some_tool", {"path": "http://169.254.169.254/"}, [METADATA]),
        ("some_tool", {"path": "/etc/passwd", "url": "https://evil.com", "domain": "metadata"}, []),
        ("some_tool", {"text": "do not open http://169.254.169.254/"}, []),
        ("some_tool", None, []),
    ],
)
def test_each_call_gets_its_findings(tool: str, params: Any, expected: list[str]) -> None:
    assert findings(tool, params) == expected


def test_padding_hides_no_path() -> None:
    """A violation is found among very many values; what is too much to be read through is ambiguous, never fine."""
    deep: Any = {"path": "/etc/x"}
    for _ in range(40):
        deep = {"inner": deep}
    fine = ["/app/data/x"]
    assert "path violation" in findings("file_read", {"paths": ["/etc/x", *fine * 1_200]})
    assert "path violation" in findings("file_read", {"paths": [*fine * 1_200, "/etc/x", *fine * 1_200]})
    assert "path violation" in findings(
        "file_read", {"path": "/app/data/x", "options": {"path": "/etc/x", "n": [1] * 3_000}}
    )
    assert findings("file_read", {"path": "/app/data/x", "options": deep}) == ["path ambiguous"]
    assert "path ambiguous" in findings("file_read", {"paths": fine * 20_000})


def test_a_call_without_findings_gives_the_same_empty_tuple() -> None:
    judge = Judge(POLICY)
    fine = judge.for_tool("file_read").findings({"path": "/app/data/x"})
    assert fine == () and fine is judge.for_tool("http_request").findings({"url": "https://api.openai.com"})


def test_explain_tells_the_fine_ones_too() -> None:
    found = Judge(POLICY).for_tool("move_file").explain({"source": "/app/data/x", "destination": "/etc/x"})
    assert [finding.verdict for finding in found] == [Verdict.VIOLATION, Verdict.ALLOWED]
    assert [finding.value for finding in found] == ["/etc/x", "/app/data/x"]


def test_the_tool_judge_knows_its_row() -> None:
    judge = Judge(POLICY)
    shell, unknown = judge.for_tool("shell_execute"), judge.for_tool("nobody_knows")
    assert (shell.listed, shell.enabled, shell.tier) == (True, False, "high")
    assert (unknown.listed, unknown.enabled, unknown.policy) == (False, True, None)
    assert judge.for_tool("file_read").needs_params and unknown.needs_params
    assert not judge.for_tool("calculator").needs_params


@pytest.mark.parametrize(
    ("tool", "scopes", "verdict"),
    [
        ("file_read", ["read"], Verdict.ALLOWED),
        ("file_read", ["READ", "write"], Verdict.VIOLATION),
        ("file_read", [], Verdict.VIOLATION),
        ("file_read", None, Verdict.NOT_EVALUABLE),
        ("move_file", None, Verdict.NOT_APPLICABLE),
        ("nobody_knows", None, Verdict.NOT_APPLICABLE),
    ],
)
def test_the_scope_must_be_among_the_callers(tool: str, scopes: list[str] | None, verdict: Verdict) -> None:
    assert Judge(POLICY).for_tool(tool).scope(scopes).verdict is verdict


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary()
    | st.sampled_from(["/etc/x", "/app/data/x", "https://evil.com", "[REDACTED]", '{"path": "/x"}', "[[[["]),
    lambda inner: st.lists(inner, max_size=4)
    | st.dictionaries(st.text() | st.sampled_from(["path", "url", "files", "owner", "repo"]), inner, max_size=4),
    max_leaves=12,
)  # fmt: skip
TOOLS = st.sampled_from([*POLICY.tools, "git_add", "other"])


@given(TOOLS, JSON)
def test_no_parameters_raise(tool: str, params: Any) -> None:
    judge = Judge(POLICY).for_tool(tool)
    assert all(not finding.fine for finding in judge.findings(params))
    judge.explain(params)


FLAT = st.dictionaries(
    st.sampled_from(["path", "url", "file", "owner", "repo", "q", "content", "out"]),
    st.sampled_from(
        ["/app/data/x", "/etc/x", "x", "https://evil.com", "https://api.openai.com", 1, True, None, "***"]
    )
    | st.sampled_from([{"path": "/etc/x"}, ["/app/data/x"], "/app/data/" + "x" * 600, '["/etc/x"]']),
    max_size=4,
)


@given(st.lists(st.tuples(TOOLS, FLAT), max_size=12))
@settings(max_examples=150)
def test_what_was_judged_before_changes_no_answer(calls: list[tuple[str, dict[str, Any]]]) -> None:
    judge = Judge(POLICY)
    for tool, params in calls * 2:
        assert judge.for_tool(tool).findings(params) == Judge(POLICY).for_tool(tool).findings(params)


@given(TOOLS, FLAT)
def test_findings_are_what_explain_says_is_not_fine(tool: str, params: dict[str, Any]) -> None:
    judge = Judge(POLICY).for_tool(tool)
    if judge.needs_params:
        assert judge.findings(params) == tuple(
            finding for finding in judge.explain(params) if not finding.fine
        )


def test_a_log_with_endless_names_and_values_fills_no_memory() -> None:
    judge = Judge(POLICY)
    for n in range(MAX_TOOLS + 10):
        judge.for_tool(f"tool_{n}")
    for n in range(40_000):
        assert not judge.for_tool(f"tool_{n % 50}").findings({"path": f"/app/data/{n}"})
        assert not judge.for_tool("file_read").findings({"path": f"/app/data/{n}"})
    for n in range(9_000):
        assert not judge.for_tool("move_file").findings({"path": f"/app/data/{n}"})
    kept = judge._tools.values()
    assert max(len(each._known) for each in kept) <= 8_192
    assert len(kept) <= MAX_TOOLS
    assert sum(len(each._known) for each in kept) <= 65_536
    assert judge.for_tool("one more").findings({"url": "http://169.254.169.254"})


def call(judge: Judge, **given: Any) -> Decision:
    usual: dict[str, Any] = {
        "key": "key_0001", "client": None, "session": None, "subject": None, "source_ip": "192.0.2.1",
        "tool": "file_read", "params": {"path": "/app/data/x"}, "scopes": None, "at_ns": 1_500,
    }  # fmt: skip
    return decide(judge, **(usual | given))


@pytest.mark.parametrize(
    ("given_", "status"),
    [
        ({}, "success"),
        ({"key": "key_0007"}, "unauthenticated"),
        ({"key": "key_0007", "at_ns": 999, "scopes": ["read"]}, "success"),
        ({"key": "key_0007", "at_ns": 1_000}, "unauthenticated"),
        ({"key": "key_0007", "at_ns": 2_000, "scopes": ["read"]}, "success"),
        ({"client": "bot", "at_ns": 10**18}, "unauthenticated"),
        ({"session": "s"}, "unauthenticated"),
        ({"subject": "alice"}, "unauthenticated"),
        ({"session": "alice"}, "success"),
        ({"key": "key_0009", "source_ip": "203.0.113.9"}, "unauthenticated"),
        ({"key": "key_0009", "source_ip": "::ffff:203.0.113.9"}, "unauthenticated"),
        ({"key": "key_0009", "scopes": ["read"]}, "success"),
        ({"source_ip": "203.0.113.9"}, "success"),
        ({"source_ip": "2001:DB8:0::1"}, "unauthenticated"),
        ({"source_ip": "2001:DB8:0::1", "at_ns": 2_000}, "success"),
        ({"key": "key_0008"}, "unauthenticated"),
        ({"tool": None, "params": None}, "success"),
        ({"tool": None, "key": "key_0008"}, "unauthenticated"),
        ({"tool": "shell_execute"}, "denied"),
        ({"tool": "nobody_knows"}, "denied"),
        ({"scopes": ["write"]}, "denied"),
        ({"key": None}, "denied"),
        ({"params": {"path": "/etc/passwd"}}, "denied"),
        ({"params": {"path": "/app/data/%2e%2e/%2e%2e/x"}}, "denied"),
        ({"params": None}, "denied"),
        ({"tool": "http_request", "params": {"url": "https://evil.com"}}, "denied"),
        ({"tool": "http_request", "params": {"url": "https://api.openai.com"}}, "success"),
    ],
)
def test_a_server_that_enforces_the_policy_refuses_whatever_is_not_surely_allowed(
    given_: Mapping[str, Any], status: str
) -> None:
    decision = call(Judge(POLICY), **given_)
    assert (decision.status, decision.allowed) == (status, status == "success")
    assert bool(decision.reason) == (status != "success")


def test_without_a_policy_everything_but_metadata_is_allowed() -> None:
    assert call(Judge(BUILT_IN), tool="nobody_knows", params=None).allowed
    assert call(Judge(OPEN), tool="nobody_knows").allowed
    assert not call(Judge(BUILT_IN), params={"url": "http://169.254.169.254/"}).allowed


def test_revocations_and_lockouts_are_told_whenever_they_hold() -> None:
    judge = Judge(POLICY)
    assert [r.id for r in judge.revocations(key="key_0007", client="bot", session=None, subject=None)] == [
        "key_0007",
        "bot",
    ]
    assert judge.revocations(key=None, client=None, session=None, subject=None) == ()
    assert [x.key for x in judge.lockouts(key="key_0008", source_ip="not an address")] == ["key_0008"]
    assert judge.lockouts(key="key_0009", source_ip=None) == ()
