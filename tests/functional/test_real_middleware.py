"""The logging middlewares of docs/formats.md, run as they stand there: their logs have all that a log should have."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Final

import pytest

from tests.functional.program import Home, Json
from tests.functional.servers.calls import CALLS
from tests.functional.servers.fastmcp_client import client_at, client_of, make_calls
from tests.functional.servers.fastmcp_server import TOKEN, USER
from tests.functional.servers.running import command_of, free_port, serving
from tests.functional.servers.watching import Seen, Tail

pytestmark = pytest.mark.xdist_group("real-middleware")

TRUTH: Final = [(tool, works) for tool, _, works in CALLS]
OUTCOMES: Final = ["success", "success", "success", "denied", "error", "error"]
LOGGED: Final = {"FastMCP": len(CALLS), "mcp SDK": 4}
"""The SDK refuses unknown tools and invalid arguments by itself: the last two calls."""


def complete_calls(seen: Seen, count: int) -> list[Json]:
    """The calls that were seen: every one with every field that a call should have."""
    tools = [tool for tool, _ in TRUTH[:count]]
    assert seen.calls("audit.jsonl") == list(zip(tools, OUTCOMES[:count], strict=True))
    assert seen.summary["not_understood"] == 0
    calls = seen.of_kind("audit.jsonl", "tool_call")
    for call, (_, arguments, _) in zip(calls, CALLS, strict=False):
        assert call["params"].keys() == arguments.keys()
        assert {"time", "client_id", "duration_ms"} <= call.keys()
    return calls


@pytest.mark.parametrize("product", ["FastMCP", pytest.param("mcp SDK", marks=pytest.mark.slow)])
def test_over_standard_input_and_output(tmp_path: Path, product: str) -> None:
    with Tail(Home(tmp_path), [tmp_path / "audit.jsonl"]) as tail:
        client = client_of(command_of("documented_server", product, tmp_path))
        assert asyncio.run(make_calls(client)) == TRUTH
        seen = tail.end()
    calls = complete_calls(seen, LOGGED[product])
    assert [call["server"] for call in calls] == ["files"] * len(calls)


@pytest.mark.parametrize("product", sorted(LOGGED))
def test_over_http(tmp_path: Path, product: str) -> None:
    """A client of the old protocol has a session."""
    port = free_port()
    command = command_of("documented_server", product, tmp_path, port)
    url = f"http://127.0.0.1:{port}/mcp"
    with Tail(Home(tmp_path), [tmp_path / "audit.jsonl"]) as tail:
        with serving(command, port, output=tmp_path / "server.out"):
            assert asyncio.run(make_calls(client_at(url, TOKEN, mode="legacy"))) == TRUTH
        seen = tail.end()
    calls = complete_calls(seen, LOGGED[product])
    assert len({call["session_id"] for call in calls}) == 1
    assert {call["source_ip"] for call in calls} == {"127.0.0.1"}
    if product == "FastMCP":
        assert {call["key_id"] for call in calls} == {USER}
