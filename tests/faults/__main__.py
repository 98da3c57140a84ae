"""Runs the fault matrix at its full size and prints it: `python -m tests.faults [--write] [ID...] [pytest options]`.

With `--write` the figures are also kept in figures.json, from which the table of docs/reliability.md is made.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
import textwrap
from collections import defaultdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

os.environ["MCPWATCH_FAULTS"] = "full"

import pytest

from tests.faults.matrix import FIGURES, ROWS

PROGRAMS: Final = (
    "strace",
    "logrotate",
    "tmux",
    "socat",
    "setfacl",
    "setfattr",
    "setpriv",
    "rsyslogd",
    "faketime",
)
"""What the matrix needs beside Python; the tests of a missing one are skipped, and the table says so."""


class Table:
    """Collects what every row's tests measured and how they ended."""

    def __init__(self) -> None:
        self.figures: dict[str, list[str]] = defaultdict(list)
        self.outcomes: dict[str, set[str]] = defaultdict(set)
        self.seconds: dict[str, float] = defaultdict(float)
        self._rows: dict[str, list[str]] = {}

    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        for item in items:
            self._rows[item.nodeid] = [mark.args[0] for mark in item.iter_markers("fault")]

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        for name in self._rows.get(report.nodeid, ()):
            self.seconds[name] += report.duration
            if report.when == "call" or report.outcome != "passed":
                self.outcomes[name].add(report.outcome)
            if report.when == "call":
                self.figures[name] += [str(value) for key, value in report.user_properties if key == "figure"]

    def verdict(self, name: str) -> str:
        """What became of a row."""
        outcomes = self.outcomes.get(name, set())
        if "failed" in outcomes:
            return "FAIL"
        return "pass" if outcomes == {"passed"} else "partly" if "passed" in outcomes else "not run"

    def figure(self, name: str) -> str:
        """What was measured, in one line."""
        return "; ".join(dict.fromkeys(self.figures.get(name, ())))

    def print(self) -> None:
        """The matrix, a row each, wrapped to the terminal."""
        width = max(100, shutil.get_terminal_size((132, 24)).columns)
        fault, figure = (width - 26) // 2, width - 26 - (width - 26) // 2
        print(f"\n{'id':<5}{'fault':<{fault}} {'measured':<{figure}} {'':<8}{'s':>6}")
        for name, entry in ROWS.items():
            left = textwrap.wrap(entry.fault, fault - 1) or [""]
            right = textwrap.wrap(self.figure(name) or "-", figure - 1) or [""]
            seconds = f"{self.seconds[name]:6.1f}" if name in self.seconds else ""
            for line in range(max(len(left), len(right))):
                ends = (f"{self.verdict(name):<8}", f"{seconds:>6}") if line == 0 else ("", "")
                print(
                    f"{name if line == 0 else '':<5}"
                    f"{left[line] if line < len(left) else '':<{fault}} "
                    f"{right[line] if line < len(right) else '':<{figure}} {''.join(ends)}".rstrip()
                )


def keep(table: Table) -> None:
    """Put what was measured into figures.json, beside what stands there of rows that did not run now."""
    kept: dict[str, dict[str, str]] = json.loads(FIGURES.read_text()) if FIGURES.exists() else {}
    today = datetime.now(UTC).date().isoformat()
    for name in ROWS:
        if name in table.outcomes:
            kept[name] = {"on": today, "verdict": table.verdict(name), "figure": table.figure(name)}
    in_order = {name: kept[name] for name in ROWS if name in kept}
    FIGURES.write_text(json.dumps(in_order, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    print(f"written: {FIGURES}; now run python -m docs.tables")


def main(arguments: list[str]) -> int:
    """Run the matrix, or the rows that are named."""
    write = "--write" in arguments
    wanted = {argument for argument in arguments if argument in ROWS}
    options = [argument for argument in arguments if argument not in wanted and argument != "--write"]
    missing = [program for program in PROGRAMS if shutil.which(program, path=_PATH) is None]
    if missing:
        print(
            f"not installed: {', '.join(missing)} (make faults installs them as root from Debian)",
            file=sys.stderr,
        )
    table = Table()

    class Chosen:
        def pytest_collection_modifyitems(self, config: pytest.Config, items: list[pytest.Item]) -> None:
            kept = [
                item
                for item in items
                if not wanted or wanted & {mark.args[0] for mark in item.iter_markers("fault")}
            ]
            config.hook.pytest_deselected(items=[item for item in items if item not in kept])
            items[:] = kept

    code = pytest.main(["tests/faults", "tests/terminal", "-p", "no:xdist", *options], [Chosen(), table])
    table.print()
    if write:
        keep(table)
    return int(code)


_PATH: Final = os.pathsep.join((os.environ.get("PATH", ""), "/usr/sbin", "/sbin"))

if __name__ == "__main__":
    os.chdir(Path(__file__).parent.parent.parent)
    sys.exit(main(sys.argv[1:]))
