"""A FastMCP client that makes the calls of `calls.py`.

python -m tests.functional.servers.fastmcp_client COMMAND…

starts a server by its command, and speaks with it over standard input and output.
"""

from __future__ import annotations

import asyncio
import os
import sys
from typing import Any

from fastmcp import Client
from fastmcp.client.transports import StdioTransport, StreamableHttpTransport

from tests.functional.servers.calls import CALLS, tell


async def make_calls(client: Client[Any]) -> list[tuple[str, bool]]:
    """Make them, one after the other: what came of each."""
    seen = []
    async with client:
        for tool, arguments, _ in CALLS:
            try:
                await client.call_tool(tool, arguments)
            except Exception:  # each version has its own classes of refusals
                seen.append((tool, False))
            else:
                seen.append((tool, True))
    return seen


def client_of(command: list[str]) -> Client[Any]:
    """A client of a server that it starts itself."""
    return Client(StdioTransport(command[0], command[1:], env=dict(os.environ)))


def client_at(url: str, token: str, **options: Any) -> Client[Any]:
    """A client over HTTP."""
    return Client(StreamableHttpTransport(url, auth=token), **options)


def main() -> None:
    for tool, worked in asyncio.run(make_calls(client_of(sys.argv[1:]))):
        tell(tool, worked)


if __name__ == "__main__":
    main()
