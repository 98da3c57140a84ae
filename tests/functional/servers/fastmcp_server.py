"""A FastMCP server as people run them, with every middleware that logs, each to a file of its own.

python -m tests.functional.servers.fastmcp_server FOLDER [PORT]

Without a port it speaks on standard input and output; with one over HTTP, to callers with a token.
"""

from __future__ import annotations

import asyncio
import copy
import logging
import logging.handlers
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

from fastmcp import FastMCP
from fastmcp.exceptions import ToolError
from fastmcp.server.middleware.error_handling import ErrorHandlingMiddleware
from fastmcp.server.middleware.logging import LoggingMiddleware, StructuredLoggingMiddleware
from fastmcp.server.middleware.timing import DetailedTimingMiddleware

PREFIXED: Final = "%(asctime)s %(levelname)s %(name)s %(message)s"
"""What `logging.basicConfig` of many servers puts before each message."""

TOKEN: Final = "right-token-of-alice"
USER: Final = "alice@example.com"


def logger(folder: Path, name: str, form: str) -> logging.Logger:
    """A logger that writes to a file, and nowhere else."""
    made = logging.getLogger(f"to.{name}")
    made.setLevel(logging.INFO)
    made.propagate = False
    handler = logging.handlers.WatchedFileHandler(folder / name)
    handler.setFormatter(logging.Formatter(form))
    made.addHandler(handler)
    return made


def add_middleware(server: FastMCP[Any], folder: Path) -> None:
    """Every middleware that logs, the outermost first, in the order that FastMCP recommends."""
    server.add_middleware(ErrorHandlingMiddleware(logger=logger(folder, "errors.log", PREFIXED)))
    server.add_middleware(DetailedTimingMiddleware(logger=logger(folder, "detailed.log", PREFIXED)))
    structured = StructuredLoggingMiddleware(logger=logger(folder, "structured.jsonl", "%(message)s"))
    server.add_middleware(structured)
    payloads = logger(folder, "payloads.jsonl", "%(message)s")
    server.add_middleware(StructuredLoggingMiddleware(logger=payloads, include_payloads=True))
    texts = logger(folder, "logging.log", PREFIXED)
    server.add_middleware(LoggingMiddleware(logger=texts, include_payloads=True))
    # the logger that FastMCP sets up itself: what it prints on standard error
    server.add_middleware(StructuredLoggingMiddleware())


def add_tools(server: FastMCP[Any]) -> None:
    """What the calls of `calls.py` ask for, and one call that takes as long as a test wants."""

    @server.tool
    def add(a: int, b: int) -> int:
        return a + b

    @server.tool
    def read_file(path: str) -> str:
        if path.startswith("/etc"):
            raise ToolError(f"access denied: {path}")
        return f"content of {path}"

    @server.tool
    async def run_query(sql: str, api_key: str) -> str:
        await asyncio.sleep(0.02)
        return f"{len(sql)} rows"

    @server.tool
    async def wait_for(path: str) -> str:
        while not Path(path).exists():
            await asyncio.sleep(0.01)
        return "it is there"


def authenticated() -> Any:
    """Who may call over HTTP."""
    from fastmcp.server.auth.providers.jwt import StaticTokenVerifier

    return StaticTokenVerifier({TOKEN: {"client_id": USER, "scopes": ["read", "write"]}})


def uvicorn_settings(folder: Path) -> dict[str, Any]:
    """uvicorn's own settings, with the access log in a file."""
    from uvicorn.config import LOGGING_CONFIG

    settings = copy.deepcopy(LOGGING_CONFIG)
    settings["formatters"]["access"]["use_colors"] = False
    settings["handlers"]["access"] = {
        "class": "logging.FileHandler",
        "filename": str(folder / "uvicorn.log"),
        "formatter": "access",
    }
    return {"log_config": settings}


def main() -> None:
    folder = Path(sys.argv[1])
    port = int(sys.argv[2]) if len(sys.argv) > 2 else None
    # older versions write no spans, and their environments have no OpenTelemetry
    with suppress(ImportError):
        from tests.functional.servers.otlp_file import export_to

        export_to(folder / "otlp.jsonl", "files")
    server: FastMCP[Any] = FastMCP("files", auth=authenticated() if port is not None else None)
    add_middleware(server, folder)
    add_tools(server)
    if port is None:
        server.run("stdio", show_banner=False)
    else:
        settings = uvicorn_settings(folder)
        server.run("http", show_banner=False, host="127.0.0.1", port=port, uvicorn_config=settings)


if __name__ == "__main__":
    main()
