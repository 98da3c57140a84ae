"""mcpwatch as its users run it: a program, with files, an environment and exit codes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mcpwatch.data import shipped
from mcpwatch.times import DAY, SECOND, iso, parse_rfc3339

MCPWATCH = Path(sys.executable).with_name("mcpwatch")
SAMPLES = shipped("sample_logs")
PATIENCE = 30.0
"""Seconds after which something that was to happen never will."""

Json = dict[str, Any]


def wait_until(true: Callable[[], object], what: str) -> None:
    """Wait for something that another process does; fails with `what` when it never comes."""
    end = time.monotonic() + PATIENCE
    while not true():
        assert time.monotonic() < end, f"waited {PATIENCE:g} s in vain for: {what}"
        time.sleep(0.02)


@dataclass
class Home:
    """A user with an empty home and one working folder, which is all that mcpwatch may read and write."""

    folder: Path
    env: dict[str, str] = field(default_factory=dict)

    def environment(self) -> dict[str, str]:
        own = {"HOME": "home", "XDG_CONFIG_HOME": "home/config", "XDG_STATE_HOME": "home/state"}
        paths = {name: str(self.folder / place) for name, place in own.items()}
        return {"PATH": os.environ["PATH"], "LANG": "C.UTF-8", **paths, **self.env}

    def configure(self, text: str) -> Path:
        """Write config.toml."""
        path = self.folder / "home/config/mcpwatch/config.toml"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        return path

    def run(self, *args: object, stdin: bytes = b"") -> subprocess.CompletedProcess[str]:
        """Run a command to its end."""
        done = subprocess.run(
            [MCPWATCH, *map(str, args)],
            input=stdin,
            capture_output=True,
            cwd=self.folder,
            env=self.environment(),
            timeout=PATIENCE,
            check=False,
        )
        out, err = done.stdout.decode(), done.stderr.decode()
        assert "Traceback" not in err, err
        return subprocess.CompletedProcess(done.args, done.returncode, out, err)

    def start(self, *args: object) -> Running:
        """Run a command that goes on until it is told to stop."""
        return Running(self, [str(MCPWATCH), *map(str, args)])


class Running:
    """A command at work; what it prints goes to files."""

    def __init__(self, home: Home, command: list[str]) -> None:
        number = len(list(home.folder.glob("*.stdout")))
        self._out, self._err = (home.folder / f"{number}.{name}" for name in ("stdout", "stderr"))
        with self._out.open("wb") as out, self._err.open("wb") as err:
            self.process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=out, stderr=err, cwd=home.folder,
                env=home.environment(),
            )  # fmt: skip

    @property
    def out(self) -> str:
        return self._out.read_text()

    @property
    def err(self) -> str:
        return self._err.read_text()

    def wait_for(self, what: str, true: Callable[[], object]) -> None:
        """Wait for something that it should bring about."""

        def come() -> bool:
            assert self.process.poll() is None, f"it ended while waiting for: {what}\n{self.err}"
            return bool(true())

        wait_until(come, what)

    def wait_for_records(self, count: int, kind: str) -> None:
        """Wait until so many JSON lines of a kind are out."""
        needle = f'{{"type":"{kind}"'
        self.wait_for(f"{count} {kind} lines", lambda: self.out.count(needle) >= count)

    def stop(self, number: int = signal.SIGTERM) -> int:
        """Send a signal, and wait for the end; the exit code."""
        self.process.send_signal(number)
        code = self.process.wait(PATIENCE)
        assert "Traceback" not in self.err, self.err
        return code

    def __enter__(self) -> Running:
        return self

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()


def records(text: str, kind: str) -> list[Json]:
    """The JSON lines of a kind; every line must be JSON, in ASCII."""
    assert text.isascii()
    assert text == "" or text.endswith("\n")
    found: list[Json] = [json.loads(line) for line in text.splitlines()]
    return [record for record in found if record["type"] == kind]


def outcome(text: str) -> tuple[list[Json], Json]:
    """What a run found in the end, without what depends on where it was read: the incidents, and the summary."""
    incidents = [
        {name: value for name, value in record.items() if name != "change"}
        | {"evidence": [item["time"] for item in record["evidence"]]}
        for record in records(text, "incident")
        if record.get("change", "final") == "final"
    ]
    (summary,) = records(text, "summary")
    return incidents, summary


def attack_of_today() -> list[bytes]:
    """The sample attack, as if it had just happened: its lines with times of this UTC day."""
    lines = (SAMPLES / "demo-incident.jsonl").read_bytes().splitlines(keepends=True)
    first = _time(json.loads(lines[0]))
    now = time.time_ns()
    shift = max(now - now % DAY, now - 120 * SECOND) - first
    moved = []
    for line in lines:
        record = json.loads(line)
        record["timestamp"] = iso(_time(record) + shift)
        moved.append(json.dumps(record).encode() + b"\n")
    return moved


def _time(record: Json) -> int:
    found = parse_rfc3339(record["timestamp"])
    assert found is not None
    return found[0]
