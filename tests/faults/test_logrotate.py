"""The real logrotate, under a writer that never stops."""

import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from mcpwatch.sources.block import Block, Gap
from mcpwatch.sources.follow import Follower

LOGROTATE = shutil.which("logrotate", path="/usr/sbin:/usr/bin:/sbin:/bin")
ROTATIONS = 20
TICKS = 4

# Writes about 5,000 lines a second, numbered, until its standard input closes; reopens its file on SIGHUP the
# way servers do, at some later moment, and meanwhile goes on writing to the renamed one.
WRITER = """
import os, select, signal, sys, time
path, hup = sys.argv[1], False
def reopen(*_):
    global hup
    hup = True
signal.signal(signal.SIGHUP, reopen)
log = open(path, "ab", buffering=0)
print("ready", flush=True)
n = 0
while not select.select([0], [], [], 0.002)[0]:
    for _ in range(10):
        log.write(b'{"n":%d,"pad":"%s"}\\n' % (n, b"x" * 100))
        n += 1
    if hup and n % 70 == 0:
        hup = False
        log.close()
        log = open(path, "ab", buffering=0)
print(n, flush=True)
"""


@pytest.mark.skipif(LOGROTATE is None, reason="logrotate is not installed (apt-get install logrotate)")
@pytest.mark.parametrize("mode", ["create", "create compress", "copytruncate"])
def test_real_rotations_under_a_writer_lose_and_repeat_no_line(tmp_path: Path, mode: str) -> None:
    """Nothing is lost or repeated against what is on disk, and what logrotate itself destroys shows as gaps."""
    assert LOGROTATE is not None
    log = tmp_path / "audit.jsonl"
    log.touch(mode=0o640)
    writer = subprocess.Popen(
        [sys.executable, "-c", WRITER, str(log)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert writer.stdin is not None
    assert writer.stdout is not None
    assert writer.stdout.readline() == "ready\n"
    hup = f"postrotate\n kill -HUP {writer.pid}\n endscript" if "create" in mode.split() else ""
    config = tmp_path / "logrotate.conf"
    options = mode.replace(" ", "\n ").replace("create", "create 0640", 1) if hup else mode
    config.write_text(f"{log} {{\n su root root\n rotate 200\n {options}\n {hup}\n}}\n")
    config.chmod(0o644)
    tmp_path.chmod(0o755)

    follower = Follower(log, "audit.jsonl")
    lines: list[bytes] = []
    gaps: list[Gap] = []

    def drain() -> None:
        for item in follower.tick(time.time_ns()):
            if isinstance(item, Block):
                lines.extend(item.lines)
            else:
                gaps.append(item)

    drain()
    command = [LOGROTATE, "-f", "-s", str(tmp_path / "state"), str(config)]
    for _ in range(ROTATIONS):
        with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as rotating:
            for _ in range(TICKS):
                drain()
                time.sleep(0.03)
            _, errors = rotating.communicate()
            assert rotating.returncode == 0, errors
    writer.stdin.close()
    written = int(writer.stdout.read())
    writer.wait()
    drain()
    while follower.more:
        drain()
    follower.close()

    numbers = [int(line[5 : line.index(b",")]) for line in lines]
    assert len(numbers) == len(set(numbers)), "lines came twice"
    assert numbers == sorted(numbers), "lines came out of order"
    if mode == "copytruncate":
        assert len(gaps) == ROTATIONS
        kept = set(numbers)
        assert set(_numbers_on_disk(tmp_path)) <= kept, "lines that are on disk were not delivered"
    else:
        assert numbers == list(range(written))
        assert gaps == []


def _numbers_on_disk(folder: Path) -> list[int]:
    texts = [path.read_bytes() for path in folder.glob("audit.jsonl*")]
    lines = [
        line
        for text in texts
        for line in text.split(b"\n")
        if line.startswith(b'{"n":') and line.endswith(b"}")
    ]
    return [int(line[5 : line.index(b",")]) for line in lines]
