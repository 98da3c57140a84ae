"""What real programs write, in what it really travels: syslog by `logger`, rotation by logrotate, one file of all."""

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
from collections import Counter
from pathlib import Path
from typing import Final

import pytest
from mcp.shared.exceptions import MCPError

from tests.functional.program import Home
from tests.functional.servers.calls import CALLS
from tests.functional.servers.fastmcp_client import client_at, make_calls
from tests.functional.servers.fastmcp_server import TOKEN
from tests.functional.servers.running import command_of, free_port, run_client, serving, status_of_post
from tests.functional.servers.watching import Tail, replayed

pytestmark = pytest.mark.xdist_group("real-transports")

LOGROTATE: Final = shutil.which("logrotate", path=f"{os.environ['PATH']}:/usr/sbin:/sbin")
LOGGER: Final = shutil.which("logger")
NAMES: Final = [tool for tool, _, _ in CALLS]
OUTCOMES: Final = ["success", "success", "success", "denied", "error", "error"]
ROTATIONS: Final = 3


def rotate(folder: Path, log: Path) -> None:
    """Rename the log as logrotate does; the server opens a new one."""
    assert LOGROTATE is not None
    config = folder / "logrotate.conf"
    owner = "su root root\n" if os.geteuid() == 0 else ""
    config.write_text(f"{log} {{\n{owner}rotate 9\nnocreate\n}}\n")
    config.chmod(0o644)
    folder.chmod(0o755)
    subprocess.run(
        [LOGROTATE, "-f", "-s", folder / "logrotate.state", config], check=True, capture_output=True
    )


@pytest.mark.skipif(LOGGER is None, reason="needs logger (apt-get install bsdutils)")
def test_syslog_around_lines_without_a_time_gives_them_its_own(tmp_path: Path) -> None:
    """The server's standard error goes through `logger` twice: in the new form of syslog, and in the old one."""
    home = Home(tmp_path)
    logs = [tmp_path / "5424.log", tmp_path / "3164.log"]
    logger = "logger --no-act --socket-errors=off --stderr --tag mcp-server --size 16KiB"
    pipeline = f"tee >({logger} --rfc5424 2>>{logs[0]}) | {logger} --rfc3164 2>>{logs[1]}"
    with Tail(home, logs) as tail:
        with subprocess.Popen(["bash", "-c", pipeline], stdin=subprocess.PIPE) as through:
            assert through.stdin is not None
            client = command_of("fastmcp_client", *command_of("fastmcp_server", tmp_path))
            run_client(client, stderr=through.stdin, env={"FASTMCP_ENABLE_RICH_LOGGING": "false"})
            through.stdin.close()
        seen = tail.end()
    again = replayed(home, logs)
    for log in logs:
        assert [status for _, status in seen.calls(log.name)] == OUTCOMES
        assert again.calls(log.name) == seen.calls(log.name)
        assert all("time" in event for event in again.events[log.name])


@pytest.mark.skipif(LOGROTATE is None, reason="needs logrotate (apt-get install logrotate)")
async def test_calls_that_began_in_a_file_and_ended_in_the_next_are_one_call_each(tmp_path: Path) -> None:
    """Each call waits until the log was rotated under it; its end is the first line of the new file."""
    home = Home(tmp_path)
    log, port = tmp_path / "payloads.jsonl", free_port()
    with Tail(home, [log]) as tail:
        with serving(command_of("fastmcp_server", tmp_path, port), port, output=tmp_path / "server.out"):
            async with client_at(f"http://127.0.0.1:{port}/mcp", TOKEN) as client:
                for number in range(ROTATIONS):
                    flag = tmp_path / f"rotated-{number}"
                    call = asyncio.create_task(client.call_tool("wait_for", {"path": str(flag)}))
                    while not log.exists() or str(flag) not in log.read_text():
                        assert not call.done(), call
                        await asyncio.sleep(0.02)
                    await asyncio.to_thread(rotate, tmp_path, log)
                    flag.touch()
                    await call
        seen = await asyncio.to_thread(tail.end)
    assert seen.calls(log.name) == [("wait_for", "success")] * ROTATIONS
    assert all(event["duration_ms"] > 0 for event in seen.of_kind(log.name, "tool_call"))
    assert (seen.summary["not_understood"], seen.summary["held"]) == (0, 0)
    again = replayed(home, [log, *sorted(tmp_path.glob(f"{log.name}.*"))])
    assert again.calls(log.name) == seen.calls(log.name)


def test_one_file_of_all_that_a_server_writes_is_read_line_by_line(tmp_path: Path) -> None:
    """As a container's output is: what the server prints, its access log, its audit log, its spans, as they come."""
    home = Home(tmp_path)
    log, port = tmp_path / "all.log", free_port()
    log.touch()
    for name in ("payloads.jsonl", "uvicorn.log", "otlp.jsonl"):
        (tmp_path / name).symlink_to(log)
    env = {"FASTMCP_ENABLE_RICH_LOGGING": "false"}
    url = f"http://127.0.0.1:{port}/mcp"
    with Tail(home, [log]) as tail:
        server = serving(command_of("fastmcp_server", tmp_path, port), port, output=log, env=env)
        with server:
            asyncio.run(make_calls(client_at(url, TOKEN)))
            assert status_of_post(url, {"Authorization": "Bearer wrong-token"}) == 401
        seen = tail.end()
    by_name = list(zip(NAMES, OUTCOMES, strict=True))
    # the audit log, the spans, and what is printed, which names no tool
    expected = Counter([*by_name, *by_name, *((None, outcome) for outcome in OUTCOMES)])
    assert Counter(seen.calls(log.name)) == expected
    assert Counter(event["status"] for event in seen.of_kind(log.name, "auth")) == {"unauthenticated": 2}
    assert Counter(replayed(home, [log]).calls(log.name)) == expected


async def test_of_two_calls_at_once_the_one_that_failed_is_no_success(tmp_path: Path) -> None:
    """The logs have no ids: whoever holds a slow call open must not be able to pass its outcome on to another."""
    port, flag = free_port(), tmp_path / "go-on"
    logs = [tmp_path / "payloads.jsonl", tmp_path / "logging.log"]
    with serving(command_of("fastmcp_server", tmp_path, port), port, output=tmp_path / "server.out"):
        async with client_at(f"http://127.0.0.1:{port}/mcp", TOKEN) as client:
            slow = asyncio.create_task(client.call_tool("wait_for", {"path": str(flag)}))
            while str(flag) not in logs[1].read_text():
                await asyncio.sleep(0.02)
            with pytest.raises(MCPError, match="access denied"):
                await client.call_tool("read_file", {"path": "/etc/passwd"})
            flag.touch()
            await slow
    seen = replayed(Home(tmp_path), logs)
    for log in logs:
        calls = dict(seen.calls(log.name))
        assert calls["read_file"] != "success", log.name
        assert calls["wait_for"] not in ("denied", "error"), log.name
