"""The judge of resource reads: MCP requests that name a file or a page by its URI instead of calling a tool."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from mcpwatch.policy.judge import ToolJudge
from mcpwatch.policy.model import Policy, ToolPolicy
from mcpwatch.policy.params import RESOURCE_READ
from mcpwatch.policy.tiers import may_read


def judge_of_resources(policy: Policy) -> ToolJudge:
    """The judge of resource reads under a policy; it is asked with the parameters of the request.

    The policy's row `resources/read` applies if there is one. Otherwise a client may read by a resource what it
    may read by any tool: `file:` URIs are judged by the folders of all tools that may read files, URIs of the web by
    the domains of all tools. URIs of other schemes are names that the server gave, and nothing is said of them.
    """
    row = policy.tools.get(RESOURCE_READ) or row_of_resources(policy)
    return ToolJudge(replace(policy, tools={**policy.tools, RESOURCE_READ: row}), RESOURCE_READ)


def row_of_resources(policy: Policy) -> ToolPolicy:
    """What the rows of the tools together allow to be read. A row that limits nothing says nothing here."""
    rows = {tool: row for tool, row in policy.tools.items() if row.enabled}
    return ToolPolicy(
        allowed_paths=_together(row.allowed_paths for tool, row in rows.items() if may_read(tool)),
        allowed_domains=_together(row.allowed_domains for row in rows.values()),
    )


def _together(limits: Iterable[tuple[str, ...] | None]) -> tuple[str, ...] | None:
    given = [limit for limit in limits if limit is not None]
    return tuple(dict.fromkeys(entry for limit in given for entry in limit)) if given else None
