"""`mcpwatch tail unix:… tcp://… udp://…`, sent to by the programs that people have."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import time
from pathlib import Path

import pytest

from mcpwatch.times import SECOND, iso
from tests.functional.program import Home, Running, outcome, records
from tests.unit.sources.receiving import connect, free_port

RSYSLOGD = shutil.which("rsyslogd", path=f"{os.environ['PATH']}:/usr/sbin")


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(tmp_path)


def calls(session: str, count: int) -> list[bytes]:
    """Calls of one session in one second: more than five are an incident."""
    now = time.time_ns() - SECOND
    return [
        json.dumps({"timestamp": iso(now + number), "tool": "file_read", "status": "success", "session_id": session})
        .encode() + b"\n"
        for number in range(count)
    ]  # fmt: skip


def wait_for_lines(running: Running, state: Path, count: int) -> None:
    def arrived() -> bool:
        return sum(path.read_bytes().count(b"\n") for path in (state / "spool").glob("*.jsonl")) >= count

    running.wait_for(f"{count} records in the spools", arrived)


def test_logger_is_understood_in_every_way_that_it_can_send(home: Home) -> None:
    """Datagrams, lines and counted records, RFC 3164 and 5424, over UDP, TCP and a unix socket."""
    tcp, udp = free_port(), free_port(socket.SOCK_DGRAM)
    path = home.folder / "run/audit.sock"
    net = ["logger", "--server", "127.0.0.1", "--tag", "mcp", "--port"]
    ways = [
        [*net, str(udp), "--udp"],
        [*net, str(udp), "--udp", "--rfc3164"],
        [*net, str(tcp), "--tcp"],
        [*net, str(tcp), "--tcp", "--rfc3164"],
        [*net, str(tcp), "--tcp", "--octet-count"],
        [*net, str(tcp), "--tcp", "--octet-count", "--rfc5424=notq,nohost"],
        ["logger", "--tag", "mcp", "--socket", str(path)],
    ]
    sources = [f"udp://127.0.0.1:{udp}", f"tcp://127.0.0.1:{tcp}", f"unix:{path}"]
    with home.start("tail", *sources, "--state", "state", "--json", "--events") as running:
        running.wait_for("the socket", path.exists)
        for number, way in enumerate(ways):
            (line,) = calls(f"s{number}", 1)
            subprocess.run([*way, line.decode().strip()], check=True, timeout=30)
        wait_for_lines(running, home.folder / "state", len(ways))
        running.wait_for_records(len(ways), "event")
        assert running.stop() == 0
    (summary,) = records(running.out, "summary")
    assert (summary["lines"], summary["understood"], summary["sessions"]) == (7, 7, 7)


@pytest.mark.skipif(RSYSLOGD is None, reason="rsyslog is not installed")
def test_rsyslog_forwards_to_it(home: Home) -> None:
    """Counted and by lines, as docs/sources.md says."""
    port, log = free_port(), home.folder / "log"
    (home.folder / "rsyslog.conf").write_text(
        f"""global(workDirectory="{home.folder}")
module(load="imuxsock" SysSock.Use="off")
input(type="imuxsock" Socket="{log}" RateLimit.Interval="0")
action(type="omfwd" target="127.0.0.1" port="{port}" protocol="tcp" TCP_Framing="octet-counted"
       template="RSYSLOG_SyslogProtocol23Format")
action(type="omfwd" target="127.0.0.1" port="{port}" protocol="tcp")
"""
    )
    with home.start("tail", f"tcp://127.0.0.1:{port}", "--state", "state", "--json") as running:
        running.wait_for("the spool", (home.folder / f"state/spool/tcp-127.0.0.1-{port}.jsonl").exists)
        command = [
            str(RSYSLOGD),
            "-n",
            "-f",
            str(home.folder / "rsyslog.conf"),
            "-i",
            str(home.folder / "pid"),
        ]
        daemon = subprocess.Popen(command)
        try:
            running.wait_for("rsyslog", log.exists)
            for line in calls("s1", 100):
                subprocess.run(
                    ["logger", "--socket", log, "--tag", "mcp", line.strip()], check=True, timeout=30
                )
            wait_for_lines(running, home.folder / "state", 200)
        finally:
            daemon.send_signal(signal.SIGTERM)
            daemon.wait(30)
        running.wait_for("the incident", lambda: '"rule":"session-rate"' in running.out)
        time.sleep(0.5)
        assert running.stop() == 0
    (summary,) = records(running.out, "summary")
    assert (summary["lines"], summary["understood"]) == (200, 200)


def test_a_second_one_is_told_how_to_attach_and_sees_the_same_through_the_spool(home: Home) -> None:
    """The spool is a log: who reads it later finds the same incidents, with the same ids and counts."""
    path = home.folder / "a.sock"
    spec = f"unix:{path}"
    with home.start("tail", spec, "--state", "state", "--json") as running:
        running.wait_for("the socket", path.exists)
        connect(path).sendall(b"".join(calls("s1", 30)))
        second = home.run("tail", spec, "--state", "state", "--json")
        assert second.returncode == 3
        (spool,) = (home.folder / "state/spool").glob("*.jsonl")
        attach = f"already received by process {running.process.pid}: `mcpwatch tail {spool}` attaches to it"
        assert attach in second.stderr
        with home.start("tail", spool, "--state", "state", "--json") as attached:
            attached.wait_for("the incident", lambda: '"count":10' in attached.out)
            running.wait_for("the incident", lambda: '"count":10' in running.out)
            assert attached.stop() == 0
        assert running.stop() == 0
    assert not path.exists()
    assert outcome(running.out) == outcome(attached.out)
    replayed = home.run("replay", spool, "--state", "state", "--json")
    assert outcome(replayed.stdout)[0] == outcome(running.out)[0]


def test_one_that_is_started_again_knows_what_came_before(home: Home) -> None:
    """Killed or not: what was sent is in the spool, and the day is read from its start."""
    path = home.folder / "a.sock"
    with home.start("tail", f"unix:{path}", "--state", "state", "--json") as running:
        running.wait_for("the socket", path.exists)
        connect(path).sendall(b"".join(calls("s1", 8)))
        wait_for_lines(running, home.folder / "state", 8)
        assert running.stop(signal.SIGKILL) == -signal.SIGKILL
    with home.start("tail", f"unix:{path}", "--state", "state", "--json") as running:
        running.wait_for("the incident", lambda: '"rule":"session-rate"' in running.out)
        sender = connect(path)
        sender.sendall(b"".join(calls("s1", 8)))
        wait_for_lines(running, home.folder / "state", 16)
        running.wait_for("all of it", lambda: '"count":10' in running.out)
        assert running.stop() == 0
    incidents, summary = outcome(running.out)
    assert summary["lines"] == 16
    assert [(incident["rule"], incident["count"]) for incident in incidents] == [("session-rate", 11)]


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["tcp://0.0.0.0:6514"], 3, "--tls-cert, --tls-key and --tls-client-ca"),
        (["tcp://127.0.0.1:6514", "--tls-cert", "a.pem"], 2, "TLS needs --tls-key, --tls-client-ca too"),
        (["udp://0.0.0.0:514"], 3, "this machine only"),
        (["unix:file"], 3, "no socket"),
        (["unix:" + "x" * 120], 3, "at most 107 bytes"),
    ],
)
def test_what_cannot_be_received_is_one_line_that_says_what_to_do(
    home: Home, arguments: list[str], code: int, words: str
) -> None:
    (home.folder / "file").write_text("mine")
    done = home.run("tail", *arguments, "--state", "state", "--plain")
    assert done.returncode == code
    assert words in done.stderr.splitlines()[-1]


def test_the_files_of_tls_may_stand_in_the_environment_and_in_config_toml(home: Home) -> None:
    """Like every option; a file that can't be used is named."""
    home.configure('tls-cert = "cert.pem"\ntls-key = "key.pem"\n')
    home.env["MCPWATCH_TLS_CLIENT_CA"] = "ca.pem"
    done = home.run("tail", f"tcp://0.0.0.0:{free_port()}", "--state", "state", "--plain")
    assert done.returncode == 3
    assert f"--tls-cert {home.folder}/cert.pem: No such file or directory" in done.stderr
