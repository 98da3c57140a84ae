from __future__ import annotations

import pytest

from mcpwatch.policy.model import BUILT_IN, Policy, Tier, ToolPolicy
from mcpwatch.policy.tiers import SHELL_TOOLS, is_shell, tier_of


@pytest.mark.parametrize(
    ("tier", "tools"),
    [
        (Tier.HIGH, "shell_execute bash file_write http_request database_write delete_user deleteUser "
                    "mcp__github__create_issue send-email execute.sql read_and_delete runSQL Bash terminal"),
        (Tier.MEDIUM, "file_read http_get memory_store list_files getUser mcp__fs__file_read fs.read search "
                      "database/query"),
        (Tier.LOW, "calculator datetime text_transform ping echo address_of thread mcp__delete__ping étude"),
    ],
)  # fmt: skip
def test_tools_without_a_word_in_the_policy_get_the_tier_of_their_name(tier: Tier, tools: str) -> None:
    assert {tool: tier_of(BUILT_IN, tool) for tool in tools.split()} == dict.fromkeys(tools.split(), tier)


def test_the_tools_own_risk_goes_before_the_tiers_of_the_policy_before_its_name() -> None:
    tools = {"bash": ToolPolicy(risk=Tier.LOW), "ping": ToolPolicy()}
    policy = Policy(tools=tools, risk_tiers={"bash": Tier.MEDIUM, "ping": Tier.HIGH})
    assert [tier_of(policy, tool) for tool in ("bash", "ping", "file_read")] == [
        Tier.LOW,
        Tier.HIGH,
        Tier.MEDIUM,
    ]


def test_every_shell_tool_is_high_risk_whatever_server_it_is_on() -> None:
    for tool in SHELL_TOOLS:
        assert tier_of(BUILT_IN, tool) is Tier.HIGH
        assert is_shell(f"mcp__host__{tool}")
    assert is_shell("run-command")
    assert not is_shell("shell_history_viewer")


def test_a_name_of_any_length_has_a_tier() -> None:
    assert tier_of(BUILT_IN, "") is Tier.LOW
    assert tier_of(BUILT_IN, "delete_" * 100_000) is Tier.HIGH
