"""What the judge promises about resource reads."""

from __future__ import annotations

import pytest

from mcpwatch.policy.decide import decide
from mcpwatch.policy.judge import Judge
from mcpwatch.policy.load import parse
from mcpwatch.policy.model import Policy, ToolPolicy
from mcpwatch.policy.resources import judge_of_resources
from mcpwatch.policy.verdict import Verdict

ROWS = {
    "file_read": ToolPolicy(allowed_paths=("/app/data/",)),
    "list_directory": ToolPolicy(allowed_paths=("/app/public/",)),
    "file_write": ToolPolicy(allowed_paths=("/app/output/",)),
    "read_old": ToolPolicy(enabled=False, allowed_paths=("/old/",)),
    "http_request": ToolPolicy(allowed_domains=("api.openai.com",)),
    "calculator": ToolPolicy(),
}


def verdict(policy: Policy, uri: str) -> tuple[str, ...]:
    """What is wrong with a read, without what nobody can tell."""
    found = judge_of_resources(policy).findings({"uri": uri})
    return tuple(f"{f.aspect} {f.verdict.value}" for f in found if f.verdict is not Verdict.NOT_EVALUABLE)


@pytest.mark.parametrize(
    ("uri", "wrong"),
    [
        ("file:///app/data/x", ()),
        ("file:///app/public/x", ()),
        ("file:///etc/passwd", ("path violation",)),
        ("file:///app/data/%2e%2e/x", ("path violation",)),
        ("file:///app/data/%252e%252e/x", ("path ambiguous",)),
        ("file:///app/output/x", ("path violation",)),
        ("file:///old/x", ("path violation",)),
        ("file://evil.com/app/data/x", ("path violation",)),
        ("https://api.openai.com/x", ()),
        ("https://evil.com/x", ("domain violation",)),
        ("http://169.254.169.254/latest", ("domain violation",)),
        ("memo://insights", ()),
        ("postgres://evil.com/table", ()),
    ],
)
def test_a_resource_may_be_read_where_a_tool_may_read(uri: str, wrong: tuple[str, ...]) -> None:
    assert verdict(Policy(tools=ROWS), uri) == wrong


def test_a_row_of_its_own_decides_alone() -> None:
    policy = Policy(tools={**ROWS, "resources/read": ToolPolicy(allowed_paths=("/res/",))})
    assert verdict(policy, "file:///res/x") == ()
    assert verdict(policy, "file:///app/data/x") == ("path violation",)
    assert verdict(policy, "https://evil.com/x") == ()


def test_a_policy_that_limits_nothing_limits_no_resource_but_metadata() -> None:
    policy = Policy(tools={"file_read": ToolPolicy(), "x": ToolPolicy()})
    assert verdict(policy, "file:///etc/passwd") == ()
    assert verdict(policy, "http://169.254.169.254/") == ("domain violation",)


@pytest.mark.parametrize(
    ("params", "status"),
    [
        ({"uri": "file:///etc/passwd"}, "denied"),
        ({"uri": "file:///app/data/x.csv"}, "success"),
        ({"uri": "memo://insights"}, "success"),
        ({"cursor": "/etc/passwd"}, "success"),
        (None, "success"),
    ],
)
def test_a_guard_refuses_a_resource_that_no_tool_may_read(
    params: dict[str, object] | None, status: str
) -> None:
    """What detection calls a violation is not let through, and a request that reads no file is not refused."""
    policy = parse(b"version: 1\ntools:\n  file_read: {allowed_paths: [/app/data/]}\n", None)
    nobody = dict.fromkeys(("key", "client", "session", "subject", "source_ip"))
    decided = decide(Judge(policy), **nobody, tool=None, params=params, scopes=None, at_ns=0)
    assert decided.status == status
