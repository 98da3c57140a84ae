"""A state folder that can't be written: what needs none works, and what needs it says so."""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import NamedTuple

import pytest
import yaml

from mcpwatch.times import iso
from tests.faults.matrix import Figure, row
from tests.functional.program import MCPWATCH, Home, records
from tests.terminal.console_pty import Terminal

POLICY = "version: 1\nkeys:\n  k1: {client: bot}\nrevoked: []\n"
BROKEN = ("read-only", "full", "missing", "a file", "another user's")


class Broken(NamedTuple):
    """What is broken, the home it is in, and how to call mcpwatch there."""

    kind: str
    home: Home
    command: list[str]

    def run(self, *args: str) -> subprocess.CompletedProcess[str]:
        """Run a command to its end."""
        done = subprocess.run(
            [*self.command, *args], cwd=self.home.folder, env=self.home.environment(), capture_output=True,
            text=True, timeout=60, check=False,
        )  # fmt: skip
        assert "Traceback" not in done.stderr
        return done

    def refused(self, done: subprocess.CompletedProcess[str]) -> bool:
        """Whether it would not begin, as it was told to keep its state in a file."""
        refused = self.kind == "a file"
        assert (done.returncode == 2) == refused, done.stderr
        assert not refused or "state' is a file" in done.stderr
        return refused


@contextmanager
def mounted(*command: str, at: Path) -> Iterator[None]:
    """A file system of its own, while a test runs."""
    subprocess.run(["mount", *command, str(at)], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", str(at)], check=True)


@pytest.fixture(params=BROKEN)
def broken(request: pytest.FixtureRequest) -> Iterator[Broken]:
    """A home whose state folder is broken in some way, and how to run a command in it."""
    kind = str(request.param)
    if os.geteuid() != 0 and kind not in ("missing", "a file"):
        pytest.skip("only root can mount, and be somebody else")
    # not below pytest's own folders, which only their owner may enter
    with tempfile.TemporaryDirectory(prefix="mcpwatch-state-") as name, ExitStack() as mounts:
        folder = Path(name)
        folder.chmod(0o755)
        state, command = folder / "state", [str(MCPWATCH)]
        (folder / "policy.yaml").write_text(POLICY)
        (folder / "audit.jsonl").write_bytes(shell_call())
        if kind == "missing":
            state = Path("/proc/nowhere/state")
        elif kind == "a file":
            state.write_text("")
        else:
            state.mkdir(mode=0o700)
        if kind == "read-only":
            mounts.enter_context(mounted("-t", "tmpfs", "-o", "ro,size=64k", "none", at=state))
        elif kind == "full":
            mounts.enter_context(mounted("-t", "tmpfs", "-o", "size=4k", "none", at=state))
            (state / "ballast").write_bytes(b"x" * 4_096)
        elif kind == "another user's":
            for path in (folder, folder / "policy.yaml"):
                os.chown(path, 65534, 65534)
            command = ["/usr/bin/setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", *command]
        yield Broken(kind, Home(folder, {"MCPWATCH_STATE": str(state)}), command)


def shell_call(key: str = "k1") -> bytes:
    record = {"timestamp": iso(time.time_ns()), "tool": "shell_execute", "status": "success", "key_id": key}
    return json.dumps(record).encode() + b"\n"


@row("G5")
def test_tail_finds_what_there_is_to_find(broken: Broken, figure: Figure) -> None:
    if broken.refused(broken.run("replay", "audit.jsonl", "--json", "--policy", "policy.yaml")):
        return
    with subprocess.Popen(
        [*broken.command, "tail", "audit.jsonl", "--json", "--policy", "policy.yaml"], stdout=subprocess.PIPE,
        stderr=subprocess.PIPE, cwd=broken.home.folder, env=broken.home.environment(), text=True,
    ) as process:  # fmt: skip
        assert process.stdout is not None
        assert '"type":"incident"' in process.stdout.readline()
        process.terminate()
        out, err = process.communicate(timeout=60)
    assert (process.returncode, "Traceback" in err) == (0, False), err
    assert len(records(out, "summary")) == 1
    figure(f"{broken.kind}: tail works")


@row("G5")
def test_the_console_starts_and_shows_the_incident(broken: Broken, figure: Figure) -> None:
    """With a banner, as others can't see this console in `mcpwatch status`."""
    if broken.kind == "a file":
        return
    terminal = Terminal(
        [*broken.command, "tail", "audit.jsonl", "--policy", "policy.yaml"], (120, 40), cwd=broken.home.folder,
        env=broken.home.environment(),
    )  # fmt: skip
    try:
        terminal.read_until(b"shell-execute", 60)
        terminal.read_until(b"others don't see", 60)
        terminal.send(b"q")
        assert terminal.ended(20)
        assert os.waitstatus_to_exitcode(terminal.status or 0) == 0
    finally:
        terminal.close()
    figure(f"{broken.kind}: the console works, with a banner")


@row("G5")
def test_revoking_works_or_says_why_not(broken: Broken, figure: Figure) -> None:
    """And the exit code is true of the policy file."""
    done = broken.run("revoke", "k1", "--reason", "leaked", "--policy", "policy.yaml")
    revoked = yaml.safe_load((broken.home.folder / "policy.yaml").read_text())["revoked"]
    if broken.refused(done):
        assert revoked == []
        return
    assert done.returncode in (0, 4), done.stderr
    assert len(revoked) == (1 if done.returncode == 0 else 0)
    if done.returncode:
        assert done.stderr.startswith("mcpwatch: ")
    figure(f"{broken.kind}: revoke " + ("writes" if done.returncode == 0 else "refuses and says why"))
