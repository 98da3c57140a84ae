"""Rows B of the fault matrix: what happens to those who send to mcpwatch, and to what they send."""

from __future__ import annotations

import json
import os
import random
import re
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from mcpwatch.sources.protocol import Limits, TlsFiles
from tests.faults.certificates import make_certificates
from tests.faults.matrix import FULL, Figure, row
from tests.functional.program import MCPWATCH, Home, records
from tests.terminal.console_pty import Terminal
from tests.unit.sources.receiving import connect, free_port, is_closed, receiving

SENDER = Path(__file__).with_name("unix_sender.py")
LONGEST_WAIT_MS = 5.0


def send_steadily(path: Path, rate: int, seconds: float) -> dict[str, Any]:
    """What a sender in a process of its own measured."""
    command = [sys.executable, str(SENDER), str(path), str(rate), str(seconds)]
    done = subprocess.run(command, capture_output=True, check=True, timeout=seconds + 60)
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def lines_of(spools: Path) -> int:
    return sum(path.read_bytes().count(b"\n") for path in spools.glob("*.jsonl*") if path.suffix != ".lock")


def waited_for_a_cpu_ms(process: int) -> float:
    """How long the threads of a process were ready to run, and other programs ran."""
    stats = Path(f"/proc/{process}/task").glob("*/schedstat")
    return sum(int(stat.read_text().split()[1]) for stat in stats) / 1e6


def receiver_of(process: int) -> int:
    """The process that receives for another one."""
    (child,) = [
        int(child)
        for children in Path(f"/proc/{process}/task").glob("*/children")
        for child in children.read_text().split()
    ]
    return child


@row("B1")
def test_a_console_that_stands_still_makes_no_sender_wait(tmp_path: Path, figure: Figure) -> None:
    """Nobody reads the terminal: the console stands, what is sent is taken at once, and nothing is lost."""
    rate, seconds = (20_000, 60.0) if FULL else (5_000, 5.0)
    path, state = tmp_path / "a.sock", tmp_path / "state"
    command = [str(MCPWATCH), "tail", f"unix:{path}", "--state", str(state)]
    terminal = Terminal(command, (120, 40), cwd=tmp_path, env={"HOME": str(tmp_path)})
    try:
        terminal.read_until(b"Events", 30)
        receiver = receiver_of(terminal.pid)
        before = waited_for_a_cpu_ms(receiver)
        measured = send_steadily(path, rate, seconds)
        starved = waited_for_a_cpu_ms(receiver) - before
        time.sleep(0.5)
        spooled = lines_of(state / "spool")
    finally:
        terminal.close()
    figure(
        f"{measured['rate']:,} lines/s for {seconds:.0f} s: longest wait for room "
        f"{measured['longest_wait_ms']:g} ms in {measured['waits']} waits (longest send with all pauses "
        f"{measured['longest_send_ms']:g} ms), lost {measured['sent'] - spooled} of {measured['sent']:,}; "
        f"load {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores, receiver waited {starved:,.0f} ms for a CPU"
    )
    assert spooled == measured["sent"]
    if FULL:  # on a machine that does nothing else
        assert measured["rate"] > 0.9 * rate
        assert measured["longest_wait_ms"] <= LONGEST_WAIT_MS


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of half a MiB."""
    if os.geteuid() != 0:
        pytest.skip("only root may mount a file system")
    place = tmp_path / "disk"
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=512k,mode=0755", "tmpfs", str(place)]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("no file system can be mounted here")
    yield place
    subprocess.run(["umount", "-l", place], check=True)


@row("B2")
def test_a_full_disk_makes_no_sender_wait_and_what_is_lost_is_known_to_the_byte(
    small_disk: Path, tmp_path: Path, figure: Figure
) -> None:
    """One gap when it begins, one with the size when it is over, and the last line before it is whole or its own."""
    rate, seconds = (20_000, 10.0) if FULL else (5_000, 2.0)
    filler = small_disk / "filler"
    filler.write_bytes(b"x" * 300_000)
    path = tmp_path / "a.sock"
    with receiving(f"unix:{path}", small_disk) as got:
        measured = send_steadily(path, rate, seconds)
        begun = got.wait_for_gap("until it can be written again")
        assert begun.size is None
        assert "No space left on device" in begun.reason
        assert "No space left on device" in got.source.status.note
        filler.unlink()
        time.sleep(0.3)
        sender = connect(path)
        sender.sendall(b'{"after":1}\n')
        over = got.wait_for_gap("it is written again")
        got.wait_for(lambda: b'{"after":1}' in got.lines, "the record after it")
        spool = got.source.spool.read_bytes()
    lost = int(over.reason.split(": ")[-1].split(" records")[0].replace(",", ""))
    whole = [line for line in spool.split(b"\n")[:-1] if line.endswith(b"}")]
    figure(
        f"longest wait {measured['longest_wait_ms']:g} ms; {measured['sent']:,} sent, {len(whole) - 1:,} kept, "
        f"{lost:,} told as lost ({over.size or 0:,} bytes)"
    )
    assert measured["longest_wait_ms"] <= LONGEST_WAIT_MS
    assert len(whole) - 1 + lost == measured["sent"]
    assert [line for line in got.lines if line.endswith(b"}")] == whole


def rubbish(seed: int) -> bytes:
    """What no logger sends: lengths that lie, binary, frames without end, a TLS greeting, half records."""
    chance = random.Random(seed)
    return chance.choice(
        (
            b"99999999999 <34>" + chance.randbytes(300),
            b"0 ",
            b"-1 {}",
            b"9999999 {" + chance.randbytes(5_000),
            b"7 {" + b"x" * 50 + b"\n" * 50,
            chance.randbytes(20_000),
            b"\x16\x03\x01\x02\x00" + chance.randbytes(300),
            b"\0" * 10_000,
            b"\n" * 10_000,
            b"<34>" + b"\0\n" * 500,
            b"{" * 70_000,
        )
    )


@row("B3")
def test_whatever_some_send_the_others_are_heard(tmp_path: Path, figure: Figure) -> None:
    """Silence, dripping, 200 at once, rubbish, a line without end: an honest sender loses nothing meanwhile."""
    rounds = 40 if FULL else 4
    path = tmp_path / "a.sock"
    silence_s = 1.0
    with receiving(f"unix:{path}", tmp_path, Limits(silence_s=silence_s)) as got:
        honest = connect(path)
        endless = connect(path)
        endless.settimeout(5)
        sent = [b'{"honest":%d}' % number for number in range(rounds * 200)]
        waiting: list[socket.socket] = []
        refused = 0
        for turn in range(rounds):
            honest.sendall(b"".join(line + b"\n" for line in sent[turn * 200 : (turn + 1) * 200]))
            endless.sendall(b"{}\n" if turn == 0 else b"x" * 500_000)
            for seed in range(10):
                sender = connect(path)
                try:
                    sender.sendall(rubbish(turn * 10 + seed))
                except ConnectionError:
                    refused += 1
                sender.close()
            if turn == rounds // 2:
                waiting = [connect(path) for _ in range(200)]
            got.tick()
        honest.sendall(b'{"last":1}\n')
        got.wait_for(lambda: b'{"last":1}' in got.lines, "the honest sender's last record")
        closed = sum(map(is_closed, waiting))
        told = got.wait_for_gap("too many are open").reason
        got.wait_for_gap("over 1 MiB")
        assert [line for line in got.lines if line.startswith(b'{"honest":')] == sent
    figure(
        f"{closed} of 200 silent ones closed, {told.split(' (')[0]}; honest sender lost 0 of {len(sent):,}"
    )
    assert closed == 200


@row("B3", slow=True)
def test_the_real_limits_of_the_real_program(tmp_path: Path, figure: Figure) -> None:
    """64 connections, ten seconds, 1 MiB; and the memory that all of them together can take."""
    home = Home(tmp_path)
    path = tmp_path / "a.sock"
    with home.start("tail", f"unix:{path}", "--state", "state", "--json") as running:
        running.wait_for("the socket", path.exists)
        silent = [connect(path) for _ in range(200)]
        began = time.monotonic()
        running.wait_for("a refusal", lambda: "refused because too many are open" in running.err)
        early = sum(is_closed(sender) for sender in silent[64:])
        assert all(map(is_closed, silent[:64]))
        took = time.monotonic() - began
        holding = [connect(path) for _ in range(64)]
        for sender in holding:
            sender.sendall(b"{}\n{" + b"x" * 1_000_000)
        time.sleep(2)
        receiver = receiver_of(running.process.pid)
        status = Path(f"/proc/{receiver}/status").read_text()
        peak = int(status.split("VmHWM:")[1].split()[0]) // 1_024
        for sender in holding:
            sender.close()
        running.wait_for("the torn ones", lambda: "middle of a record" in running.err)
        assert running.stop() == 0
    figure(
        f"{early} of 200 refused at once, 64 closed after {took:.1f} s; 64 MB held back in part: receiver {peak} MiB"
    )
    assert early == 136
    assert 9 < took < 15
    assert peak < 200


def tls_client(certificates: Path, name: str | None) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=certificates / "ca.pem")
    if name is not None:
        context.load_cert_chain(certificates / f"{name}.pem", certificates / f"{name}.key")
    return context


def try_to_send(port: int, context: ssl.SSLContext | None, line: bytes) -> bool:
    """Send a record; whether the connection was still open afterwards."""
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=10) as plain:
            if context is None:
                plain.sendall(line)
                return not is_closed(plain)
            with context.wrap_socket(plain, server_hostname="127.0.0.1") as encrypted:
                encrypted.sendall(line)
                encrypted.settimeout(0.5)
                try:
                    return encrypted.recv(1) != b""
                except TimeoutError:
                    return True
    except (ssl.SSLError, ConnectionError):
        return False


@pytest.mark.filterwarnings("ignore:ssl.TLSVersion.TLSv1")
@row("B4")
def test_only_who_shows_a_certificate_of_our_authority_is_heard(tmp_path: Path, figure: Figure) -> None:
    """Not in plain text, not without one, not with one of another authority, an expired one, or a server's."""
    certificates = tmp_path / "certificates"
    make_certificates(certificates)
    port = free_port()
    home = Home(tmp_path)
    tls = [f"--tls-{name}={certificates / file}" for name, file in
           (("cert", "watch.pem"), ("key", "watch.key"), ("client-ca", "ca.pem"))]  # fmt: skip
    right = '{"timestamp":"2026-11-22T10:00:00Z","tool":"file_read","status":"success","session_id":"right"}'
    wrong = right.replace("right", "WRONG").encode() + b"\n"
    with home.start("tail", f"tcp://127.0.0.1:{port}", "--state", "state", "--json", *tls) as running:
        spool = tmp_path / f"state/spool/tcp-127.0.0.1-{port}.jsonl"
        running.wait_for("the spool", spool.exists)
        assert not try_to_send(port, None, wrong)
        for name in (None, "foreign", "expired", "watch"):
            assert not try_to_send(port, tls_client(certificates, name), wrong), name
        old = tls_client(certificates, "mcp-1")
        old.minimum_version = ssl.TLSVersion.TLSv1
        old.maximum_version = ssl.TLSVersion.TLSv1_1
        old.set_ciphers("ALL:@SECLEVEL=0")
        assert not try_to_send(port, old, wrong)
        assert try_to_send(port, tls_client(certificates, "mcp-1"), right.encode() + b"\n")
        two = tls_client(certificates, "mcp-1")
        two.maximum_version = ssl.TLSVersion.TLSv1_2
        assert try_to_send(port, two, right.encode() + b"\n")
        files = ",".join(f"{option}={certificates / name}" for option, name in
                         (("cert", "mcp-1.pem"), ("key", "mcp-1.key"), ("cafile", "ca.pem")))  # fmt: skip
        command = ["socat", "-u", "-", f"OPENSSL:127.0.0.1:{port},{files}"]
        subprocess.run(command, input=right.encode() + b"\n", check=True, timeout=30)
        running.wait_for("three records", lambda: spool.read_bytes().count(b"\n") == 3)
        running.wait_for("the refusals", lambda: "handshakes that failed: 6" in running.err)
        assert running.stop() == 0
        assert b"WRONG" not in spool.read_bytes()
        (summary,) = records(running.out, "summary")
        assert (summary["lines"], summary["understood"], summary["sessions"]) == (3, 3, 1)
    figure(
        "plain, without, foreign, expired, a server's, TLS 1.1: 6 of 6 refused and told; right: 3 of 3 read"
    )


@row("B4")
def test_half_a_handshake_keeps_nobody_out(tmp_path: Path, figure: Figure) -> None:
    """Who has no certificate can open connections for ever: they give way to each other, never a sender to them."""
    certificates = tmp_path / "certificates"
    make_certificates(certificates)
    tls = TlsFiles(*(str(certificates / name) for name in ("watch.pem", "watch.key", "ca.pem")))
    port = free_port()
    with receiving(f"tcp://127.0.0.1:{port}", tmp_path, Limits(silence_s=60), tls) as got:
        halves = []
        for number in range(201):
            half = socket.create_connection(("127.0.0.1", port))
            half.sendall((b"", b"\x16\x03\x01\x02\x00\x01", b"GET / HTTP/1.0\r\n\r\n")[number % 3])
            halves.append(half)
        with (
            socket.create_connection(("127.0.0.1", port), timeout=10) as plain,
            tls_client(certificates, "mcp-1").wrap_socket(plain, server_hostname="127.0.0.1") as sender,
        ):
            sender.sendall(b'{"a":1}\n' * 50_000)
            got.wait_for_lines(50_000)
            got.wait_for(lambda: got.source.status.senders, "a sender")
            assert got.source.status.senders[0].startswith("CN=mcp-1,O=Example (127.0.0.1:")

            def failed() -> int:
                found = re.search(r"handshakes that failed: (\d+)", got.source.status.note)
                return int(found[1]) if found else 0

            got.wait_for(lambda: failed() >= 201 - 64, "all but 64 to be given up")
            sender.sendall(b'{"b":1}\n')
            got.wait_for_lines(50_001)
    figure(
        "of 201 half handshakes at most 64 are waited for at a time; the sender beside them lost 0 of 50,001"
    )


@row("B4")
def test_who_sends_and_leaves_at_once_is_heard_to_the_end(tmp_path: Path, figure: Figure) -> None:
    """It never reads: what TLS sent it after the handshake would reset the connection, and lose records."""
    certificates = tmp_path / "certificates"
    make_certificates(certificates)
    tls = TlsFiles(*(str(certificates / name) for name in ("watch.pem", "watch.key", "ca.pem")))
    port, context = free_port(), tls_client(certificates, "mcp-1")
    with receiving(f"tcp://127.0.0.1:{port}", tmp_path, Limits(), tls) as got:
        for number in range(20):
            with socket.create_connection(("127.0.0.1", port), timeout=10) as plain:
                sender = context.wrap_socket(plain, server_hostname="127.0.0.1")
                sender.sendall(b'{"n":%d}\n' % number * 5_000)
                sender.close()
        got.wait_for_lines(100_000)
        assert got.gaps == []
    figure("20 senders that leave at once: lost 0 of 100,000")


@row("B4")
def test_renewed_certificates_are_used_without_a_restart(tmp_path: Path) -> None:
    """And where the new files can't be used, the old ones stay and it is said."""
    certificates = tmp_path / "certificates"
    make_certificates(certificates)
    tls = TlsFiles(*(str(certificates / name) for name in ("watch.pem", "watch.key", "ca.pem")))
    port = free_port()
    with receiving(f"tcp://127.0.0.1:{port}", tmp_path, Limits(), tls) as got:
        good = (certificates / "ca.pem").read_bytes()
        (certificates / "ca.pem").write_bytes(b"half a fi")
        context = ssl.create_default_context(cadata=good.decode())
        context.load_cert_chain(certificates / "mcp-1.pem", certificates / "mcp-1.key")
        assert try_to_send(port, context, b'{"a":1}\n')
        got.wait_for(lambda: "no certificate in PEM form" in got.source.status.note, "a note")
        (certificates / "ca.pem").write_bytes((certificates / "other-ca.pem").read_bytes())
        assert not try_to_send(port, context, b'{"b":1}\n')
        context.load_cert_chain(certificates / "foreign.pem", certificates / "foreign.key")
        assert try_to_send(port, context, b'{"c":1}\n')
        assert got.wait_for_lines(2) == [b'{"a":1}', b'{"c":1}']
