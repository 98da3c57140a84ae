"""Headless commands start fast: they never load what draws the console."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.functional.program import SAMPLES, Home

SPY = """
import sys
sys.argv = ["mcpwatch", *sys.argv[1:]]
from mcpwatch.cli import main
try:
    main()
except SystemExit as end:
    assert not end.code, end.code
drawn = sorted({name.split(".")[0] for name in sys.modules} & {"textual", "rich"})
assert not drawn, f"loads {drawn}"
"""


@pytest.mark.parametrize(
    "command",
    [
        "--version",
        "--help",
        "replay LOGS/demo-incident.jsonl --json",
        "tail - --plain",
        "inspect LOGS/broken.jsonl",
        "revoke key_0001 --reason why --dry-run --policy LOGS/policy.yaml",
        "rules list",
        "policy init --from LOGS/quiet-day.jsonl",
        "demo --headless",
        "completion bash",
    ],
)
def test_headless_commands_never_import_textual_or_rich(tmp_path: Path, command: str) -> None:
    args = command.replace("LOGS", str(SAMPLES)).split(" ")
    done = subprocess.run(
        [sys.executable, "-c", SPY, *args], stdin=subprocess.DEVNULL, capture_output=True, text=True, cwd=tmp_path,
        env=Home(tmp_path).environment(), check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
