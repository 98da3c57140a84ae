"""A server of the official SDK, with its spans in one file and what it logs in another.

python -m tests.functional.servers.sdk_server FOLDER [PORT]

Without a port it speaks on standard input and output, with one over streamable HTTP.
"""

from __future__ import annotations

import logging
import sys
from pathlib import Path
from typing import Any

from mcp.server.mcpserver import MCPServer
from mcp.server.mcpserver.exceptions import ToolError

from tests.functional.servers.otlp_file import export_to


def main() -> None:
    folder = Path(sys.argv[1])
    export_to(folder / "otlp.jsonl", "sdk-files")
    logging.basicConfig(
        filename=folder / "sdk.log",
        level=logging.INFO,
        format="%(asctime)s %(levelname)s %(name)s %(message)s",
    )
    server: MCPServer[Any] = MCPServer("sdk-files")

    @server.tool()
    def add(a: int, b: int) -> int:
        return a + b

    @server.tool()
    def read_file(path: str) -> str:
        if path.startswith("/etc"):
            raise ToolError(f"access denied: {path}")
        return f"content of {path}"

    @server.tool()
    def run_query(sql: str, api_key: str) -> str:
        return f"{len(sql)} rows"

    if len(sys.argv) == 2:
        server.run("stdio")
    else:
        server.run("streamable-http", host="127.0.0.1", port=int(sys.argv[2]))


if __name__ == "__main__":
    main()
