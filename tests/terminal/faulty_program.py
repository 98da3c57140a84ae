"""mcpwatch with a fault: `faulty_program.py console|monitor ARGS...`. Its message is what a log may hold."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import NoReturn

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from mcpwatch.cli import main
from mcpwatch.console.app import ConsoleApp
from mcpwatch.monitor.monitor import Monitor

WHERE = sys.argv.pop(1)
LINE = "can't judge '\x1b]0;pwned\x07\x9b2J' of ghp_16C7e42F292c6912E7710c838347Ae178B4c, password=hunter2hunter2"


def fault(*_: object) -> NoReturn:
    """What nobody thought of."""
    value = "sk-ant-api03-" + "x" * 80
    assert value
    raise RuntimeError(LINE) from ValueError(LINE)


if WHERE == "console":
    ConsoleApp.do_help = fault  # type: ignore[assignment,method-assign]
else:
    calls = 0
    check = Monitor.check_policy

    def later(self: Monitor) -> bool:
        """Some ticks after the start."""
        global calls
        calls += 1
        if calls > 8:
            fault()
        return check(self)

    Monitor.check_policy = later  # type: ignore[method-assign]
main()
