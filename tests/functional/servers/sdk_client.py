"""The official SDK's client, with its spans in a file: makes the calls of `calls.py`.

python -m tests.functional.servers.sdk_client SPANS URL MODE…
python -m tests.functional.servers.sdk_client SPANS -- COMMAND…
"""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path
from typing import Any

from mcp.client.client import Client
from mcp.client.stdio import StdioServerParameters
from mcp.types import CallToolResult

from tests.functional.servers.calls import CALLS, tell
from tests.functional.servers.otlp_file import export_to


async def make_calls(client: Client) -> None:
    """Make them, one after the other."""
    async with client:
        for tool, arguments, _ in CALLS:
            result = await client.call_tool(tool, arguments)
            tell(tool, isinstance(result, CallToolResult) and not result.is_error)


def main() -> None:
    export_to(Path(sys.argv[1]), "sdk-client")
    if sys.argv[2] == "--":
        server: Any = StdioServerParameters(command=sys.argv[3], args=sys.argv[4:])
        asyncio.run(make_calls(Client(server)))
        return
    for mode in sys.argv[3:]:
        asyncio.run(make_calls(Client(sys.argv[2], mode=mode)))


if __name__ == "__main__":
    main()
