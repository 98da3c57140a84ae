"""What detection may not touch: clocks, and the terminal."""

from __future__ import annotations

import ast
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

import mcpwatch

PACKAGE = Path(mcpwatch.__file__).parent
CLOCKLESS = sorted(
    [
        *(PACKAGE / "detection").glob("*.py"),
        *(PACKAGE / "incidents" / name for name in ("fold.py", "incident.py")),
    ]
)
CLOCK_MODULES = {"time", "datetime", "calendar", "sched", "zoneinfo", "timeit"}
CLOCK_NAMES = {
    "now",
    "utcnow",
    "today",
    "time_ns",
    "monotonic",
    "monotonic_ns",
    "perf_counter",
    "localtime",
    "gmtime",
}
HEADLESS = [
    name
    for name in (
        "documents",
        "credentials",
        "sources",
        "formats",
        "policy",
        "detection",
        "incidents",
        "response",
        "monitor",
        "filter",
        "snapshot",
    )
    if find_spec(f"mcpwatch.{name}") is not None
]


def clocks(code: str) -> list[str]:
    """Every import of a clock, and every call of one."""
    found = []
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names if alias.name.partition(".")[0] in CLOCK_MODULES]
        elif isinstance(node, ast.ImportFrom):
            names = {alias.name for alias in node.names}
            if (node.module or "").partition(".")[0] in CLOCK_MODULES or names & CLOCK_NAMES:
                found.append(node.module or "")
        elif isinstance(node, ast.Call):
            called = node.func
            if isinstance(called, ast.Name) and called.id == "__import__":
                found.append("__import__")
            if isinstance(called, ast.Attribute) and called.attr in CLOCK_NAMES | {"import_module"}:
                found.append(called.attr)
    return found


@pytest.mark.parametrize("file", CLOCKLESS, ids=lambda file: file.name)
def test_detection_and_folding_read_no_clock(file: Path) -> None:
    assert clocks(file.read_text()) == []


@pytest.mark.parametrize(
    "code",
    [
        "import time", "from time import time", "import datetime as d", "from datetime import datetime",
        "x.now()", "clock.monotonic()", "__import__('time')", "importlib.import_module('time')",
    ],
)  # fmt: skip
def test_the_search_for_clocks_finds_them(code: str) -> None:
    assert clocks(code)


@pytest.mark.parametrize("room", HEADLESS)
def test_headless_rooms_never_load_the_terminal_libraries(room: str) -> None:
    program = f"""
import importlib, pkgutil, sys
room = importlib.import_module("mcpwatch.{room}")
for module in pkgutil.walk_packages(getattr(room, "__path__", []), "mcpwatch.{room}."):
    importlib.import_module(module.name)
print(sorted({{name.partition(".")[0] for name in sys.modules}} & {{"textual", "rich"}}))
"""
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False, cwd=PACKAGE.parent
    )
    assert (done.stdout, done.stderr) == ("[]\n", "")
