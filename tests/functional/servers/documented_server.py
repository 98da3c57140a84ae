"""A server with the logging middleware of docs/formats.md, taken from the document as it stands there.

python -m tests.functional.servers.documented_server PRODUCT FOLDER [PORT]

PRODUCT is the heading under which the middleware stands: `FastMCP` or `mcp SDK`.
"""

from __future__ import annotations

import re
import runpy
import sys
from pathlib import Path
from typing import Any, Final

from tests.functional.servers.running import ROOT

DOCUMENT: Final = ROOT / "docs/formats.md"


def middleware(product: str, folder: Path) -> dict[str, Any]:
    """The names that the first block of code under the heading defines."""
    found = re.search(
        rf"^### {product}\n.*?^```py\n(.*?)^```$", DOCUMENT.read_text(), re.MULTILINE | re.DOTALL
    )
    assert found is not None, f"no code under {product}"
    code = folder / "middleware.py"
    code.write_text(found[1])
    return runpy.run_path(str(code))


def read(path: str) -> str:
    """What the tool read_file does, on every server."""
    if path.startswith("/etc"):
        raise PermissionError(f"access denied: {path}")
    return f"content of {path}"


def serve_fastmcp(folder: Path, port: int | None) -> None:
    """FastMCP, with authentication over HTTP."""
    from fastmcp import FastMCP

    from tests.functional.servers.fastmcp_server import authenticated

    audit_log = middleware("FastMCP", folder)["AuditLog"]
    server: FastMCP[Any] = FastMCP("files", auth=authenticated() if port is not None else None)
    server.add_middleware(audit_log(str(folder / "audit.jsonl"), server="files"))

    @server.tool
    def add(a: int, b: int) -> int:
        return a + b

    @server.tool
    def run_query(sql: str, api_key: str) -> str:
        return f"{len(sql)} rows"

    server.tool(name="read_file")(read)
    if port is None:
        server.run("stdio", show_banner=False)
    else:
        server.run("http", show_banner=False, host="127.0.0.1", port=port)


def serve_sdk(folder: Path, port: int | None) -> None:
    """The official SDK."""
    from mcp.server.mcpserver import Context, MCPServer

    audited = middleware("mcp SDK", folder)["audited"](str(folder / "audit.jsonl"), server="files")
    server: MCPServer[Any] = MCPServer("files")

    def add(a: int, b: int, ctx: Context[Any, Any]) -> int:
        return a + b

    async def run_query(sql: str, api_key: str, ctx: Context[Any, Any]) -> str:
        return f"{len(sql)} rows"

    def read_file(path: str, ctx: Context[Any, Any]) -> str:
        return read(path)

    for tool in (add, run_query, read_file):
        # annotations of this module are texts, and Context is no name of it
        tool.__annotations__["ctx"] = Context
        server.tool()(audited(tool))
    if port is None:
        server.run("stdio")
    else:
        server.run("streamable-http", host="127.0.0.1", port=port)


def main() -> None:
    product, folder, *port = sys.argv[1:]
    serve = {"FastMCP": serve_fastmcp, "mcp SDK": serve_sdk}[product]
    serve(Path(folder), int(port[0]) if port else None)


if __name__ == "__main__":
    main()
