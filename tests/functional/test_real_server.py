"""A real MCP server: FastMCP over HTTP, with a middleware that writes the audit log, under a tail."""

from __future__ import annotations

import asyncio
import json
import socket
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from fastmcp import Client, FastMCP
from fastmcp.exceptions import ToolError
from fastmcp.server.middleware import CallNext, Middleware, MiddlewareContext
from fastmcp.tools import ToolResult
from mcp.types import CallToolRequestParams

from mcpwatch.times import iso
from tests.functional.program import Home, outcome

POLICY = """\
version: 1
tools:
  file_read: {allowed_paths: [/app/data/], require_scope: read, require_audit_log: true}
  shell_execute: {enabled: false}
unlisted_tools: deny
"""


class Audit(Middleware):
    """Writes one record for each tool call; refuses what is not allowed here."""

    def __init__(self, log: Path, *, sessions: bool) -> None:
        self.log = log
        self.sessions = sessions

    async def on_call_tool(
        self,
        context: MiddlewareContext[CallToolRequestParams],
        call_next: CallNext[CallToolRequestParams, ToolResult],
    ) -> ToolResult:
        began = time.time_ns()
        assert context.fastmcp_context is not None
        status, error = "success", None
        try:
            if context.message.name == "shell_execute":
                status = "denied"
                raise ToolError("not allowed")
            return await call_next(context)
        except ToolError as raised:
            status, error = "error" if status == "success" else status, str(raised)
            raise
        finally:
            record: dict[str, Any] = {
                "timestamp": iso(began),
                "event": "tool_call",
                "tool": context.message.name,
                "params": context.message.arguments,
                "status": status,
                "error": error,
                "duration_ms": (time.time_ns() - began) / 1e6,
                "key_id": "key_0001",
                "client_id": "test",
                "session_id": context.fastmcp_context.session_id if self.sessions else None,
                "scopes": ["read"],
            }
            with self.log.open("a") as file:
                file.write(json.dumps(record) + "\n")


@asynccontextmanager
async def serving(audit: Audit) -> AsyncIterator[str]:
    """The server at work on a free port of the loopback; its URL."""
    server: FastMCP[Any] = FastMCP("files", middleware=[audit])

    @server.tool
    def file_read(path: str) -> str:
        if "absent" in path:
            raise ToolError("no such file")
        return f"content of {path}"

    @server.tool
    def shell_execute(command: str) -> str:
        return command

    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    work = asyncio.create_task(
        server.run_http_async(show_banner=False, host="127.0.0.1", port=port, log_level="critical")
    )
    try:
        for _ in range(500):
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    break
            assert not work.done(), "the server ended"
            await asyncio.sleep(0.02)
        yield f"http://127.0.0.1:{port}/mcp"
    finally:
        work.cancel()
        await asyncio.gather(work, return_exceptions=True)


@pytest.mark.parametrize(
    ("sessions", "rule"), [(False, "session-rate"), (True, "session-churn")], ids=["no sessions", "sessions"]
)
async def test_what_a_real_server_logs_is_watched_live_and_replayed_alike(
    tmp_path: Path, sessions: bool, rule: str
) -> None:
    """This server gives each request a session id of its own: too many calls then show as too many sessions."""
    home = Home(tmp_path)
    log = tmp_path / "audit.jsonl"
    (tmp_path / "policy.yaml").write_text(POLICY)
    with home.start("tail", log, "--json", "--events", "--since", "1h") as tail:
        async with serving(Audit(log, sessions=sessions)) as url, Client(url) as client:
            await client.call_tool("file_read", {"path": "/app/data/report.txt"})
            await client.call_tool("file_read", {"path": "/app/data/../../etc/passwd"})
            for call in (("file_read", {"path": "/app/data/absent"}), ("shell_execute", {"command": "id"})):
                with pytest.raises(ToolError):
                    await client.call_tool(*call)
            for number in range(4):
                await client.call_tool("file_read", {"path": f"/app/data/{number}"})
        await asyncio.to_thread(tail.wait_for_records, 8, "event")
        assert tail.stop() == 0
        live = tail.out
    incidents, summary = outcome(live)
    assert summary["lines"] == summary["understood"] == summary["tool_calls"] == 8
    assert summary["outcomes"] == {"denied": 1, "error": 1, "success": 6}
    assert (summary["sessions"], summary["keys"]) == (8 if sessions else 0, 1)
    found = {incident["rule"]: incident for incident in incidents}
    assert found["path-outside"]["severity"] == "critical"
    assert found["path-outside"]["count"] == 1
    assert found[rule]["subject"] == {"key": "key_0001", "client": "test"}
    assert (found[rule]["count"], found[rule]["peak"]) == (3, 8)
    assert found["shell-execute"]["outcomes"] == {"denied": 1}
    assert outcome(home.run("replay", log, "--json").stdout) == (incidents, summary)
