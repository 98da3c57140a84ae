"""Sources that others send to: sockets, their limits, and the process that receives."""

from __future__ import annotations

import os
import signal
import socket
import stat
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from mcpwatch.sources.address import is_address, parse_address
from mcpwatch.sources.block import SourceError
from mcpwatch.sources.follow import Follower
from mcpwatch.sources.listen import TROUBLES, Listening, ListenSource
from mcpwatch.sources.live import LiveSet
from mcpwatch.sources.protocol import Limits
from tests.unit.sources.receiving import PATIENCE, Receiving, connect, free_port, is_closed, receiving

FEW = Limits(connections=3, silence_s=0.4)


def child_of(got: Receiving) -> int:
    """The receiving process."""
    (child,) = Path(f"/proc/{os.getpid()}/task/{os.getpid()}/children").read_text().split()
    assert b"receiver" in Path(f"/proc/{child}/cmdline").read_bytes()
    return int(child)


@pytest.mark.parametrize(
    ("spec", "name", "spool"),
    [
        ("unix:/run/mcp.sock", "unix:/run/mcp.sock", "unix-run-mcp.sock.jsonl"),
        ("unix:///run/mcp.sock", "unix:/run/mcp.sock", "unix-run-mcp.sock.jsonl"),
        ("tcp://127.0.0.1:6514", "tcp://127.0.0.1:6514", "tcp-127.0.0.1-6514.jsonl"),
        ("tcp:127.0.0.1:6514", "tcp://127.0.0.1:6514", "tcp-127.0.0.1-6514.jsonl"),
        ("udp://[0:0::1]:514", "udp://[::1]:514", "udp-::1-514.jsonl"),
    ],
)
def test_an_address_names_its_source_and_its_spool(spec: str, name: str, spool: str) -> None:
    address = parse_address(spec)
    assert is_address(spec)
    assert (address.name, address.spool_name) == (name, spool)


def test_two_addresses_never_share_a_spool() -> None:
    """Nor is one's spool taken for a rotated one of another."""
    paths = [
        "/run/a/b",
        "/run/a-b",
        "/run-a-b",
        "/run/a b",
        "/run/a\nb",
        "/run/a",
        "/run/a.20261122",
        "/run/a.1",
    ]
    names = [parse_address(f"unix:{path}").spool_name for path in paths]
    assert len(set(names)) == len(names)
    assert all("/" not in name and name.isprintable() for name in names)
    assert parse_address("unix:/run/a.20261122").spool_name != "unix-run-a.20261122.jsonl"


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        ("unix:", "name a path"),
        ("unix:@abstract", "no permissions"),
        (f"unix:/{'x' * 120}", "at most 107 bytes"),
        ("tcp://6514", "write tcp://HOST:PORT"),
        ("tcp://[::1:6514", "write tcp://HOST:PORT"),
        ("tcp://127.0.0.1:0", "write tcp://HOST:PORT"),
        ("udp://127.0.0.1:70000", "write udp://HOST:PORT"),
        ("tcp://u:p@127.0.0.1:1", "write tcp://HOST:PORT"),
        ("tcp://no.such.host.invalid:1", "give it in numbers"),
        ("tcp://0.0.0.0:6514", "--tls-cert, --tls-key and --tls-client-ca, or listen on 127.0.0.1"),
        ("tcp://[::]:6514", "only with TLS"),
        ("udp://0.0.0.0:6514", "this machine only"),
    ],
)
def test_what_cannot_be_listened_on_is_refused_with_a_way_out(spec: str, words: str, tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=words):
        LiveSet([spec], listening=Listening(tmp_path))


def test_records_of_several_senders_arrive_whole_and_the_kernel_says_who_sent_them(tmp_path: Path) -> None:
    """However they are interleaved on the wire: every line of the spool is of one sender."""
    path = tmp_path / "run/a.sock"
    with receiving(f"unix:{path}", tmp_path) as got:
        assert stat.S_IMODE(path.stat().st_mode) == 0o660
        assert stat.S_IMODE(path.parent.stat().st_mode) == 0o750
        senders = [connect(path) for _ in range(5)]

        def send(number: int) -> None:
            for record in range(200):
                line = b'{"n":%d,"r":%d,"x":"%s"}\n' % (number, record, b"x" * (record % 50))
                senders[number].sendall(line[:7])
                senders[number].sendall(line[7:])

        threads = [threading.Thread(target=send, args=(number,)) for number in range(5)]
        for thread in threads:
            thread.start()
        lines = got.wait_for_lines(1_000)
        for thread in threads:
            thread.join()
        for number in range(5):
            mine = [line for line in lines if line.startswith(b'{"n":%d,' % number)]
            assert mine == [b'{"n":%d,"r":%d,"x":"%s"}' % (number, r, b"x" * (r % 50)) for r in range(200)]
        got.wait_for(lambda: len(got.source.status.senders) == 5, "five senders")
        assert f"(uid {os.getuid()}, pid {os.getpid()})" in got.source.status.senders[0]
        for sender in senders:
            sender.close()
        got.wait_for(lambda: not got.source.status.senders, "nobody connected")
        assert got.gaps == []
        assert got.source.spool.read_bytes().split(b"\n")[:-1] == lines
    assert not path.exists()


def test_a_connection_that_ends_in_the_middle_of_a_record_is_told_and_shown(tmp_path: Path) -> None:
    with receiving(f"unix:{tmp_path}/a.sock", tmp_path) as got:
        sender = connect(tmp_path / "a.sock")
        sender.sendall(b'{"a":1}\n{"b"')
        sender.close()
        assert got.wait_for_lines(2) == [b'{"a":1}', b'{"b"']
        assert f"process {os.getpid()}" in got.wait_for_gap("middle of a record").reason


def test_a_sender_that_is_killed_in_the_middle_costs_only_its_own_record(tmp_path: Path) -> None:
    code = (
        "import socket, sys, time; s = socket.socket(socket.AF_UNIX); s.connect(sys.argv[1])\n"
        "s.sendall(b'{\"a\":1}\\n' * 1000 + b'{\"tor'); time.sleep(60)"
    )
    with receiving(f"unix:{tmp_path}/a.sock", tmp_path) as got:
        other = connect(tmp_path / "a.sock")
        with subprocess.Popen([sys.executable, "-c", code, tmp_path / "a.sock"]) as sender:
            got.wait_for_lines(1_000)
            sender.kill()
        got.wait_for_gap("middle of a record")
        other.sendall(b'{"b":2}\n')
        lines = got.wait_for_lines(1_002)
        assert lines[1_000:] == [b'{"tor', b'{"b":2}']


def test_a_sender_that_says_nothing_or_drips_is_closed_and_the_place_is_free_again(tmp_path: Path) -> None:
    """The time runs until the first whole record: a byte now and then does not buy more."""
    with receiving(f"unix:{tmp_path}/a.sock", tmp_path, FEW) as got:
        silent, dripping, speaking = (connect(tmp_path / "a.sock") for _ in range(3))
        speaking.sendall(b"{}\n")
        end = time.monotonic() + PATIENCE
        with pytest.raises(OSError):
            while time.monotonic() < end:
                dripping.sendall(b"x")
                got.tick()
                time.sleep(0.05)
        assert is_closed(silent)
        got.wait_for(lambda: "sent no record in time: 2" in got.source.status.note, "a note")
        speaking.sendall(b'{"later":1}\n')
        connect(tmp_path / "a.sock").sendall(b'{"new":1}\n')
        got.wait_for(lambda: {b'{"later":1}', b'{"new":1}'} <= set(got.lines), "both records")


def test_connections_beyond_the_limit_are_refused_at_once_and_told(tmp_path: Path) -> None:
    with receiving(f"unix:{tmp_path}/a.sock", tmp_path, Limits(connections=3)) as got:
        kept = [connect(tmp_path / "a.sock") for _ in range(3)]
        for number, sender in enumerate(kept):
            sender.sendall(b"%d\n" % number)
        got.wait_for_lines(3)
        refused = [connect(tmp_path / "a.sock") for _ in range(20)]
        assert all(map(is_closed, refused))
        got.wait_for_gap("refused because too many are open")
        kept[0].sendall(b"still here\n")
        got.wait_for(lambda: b"still here" in got.lines, "the record of one that was there")


def test_a_lying_length_ends_its_connection_and_no_other(tmp_path: Path) -> None:
    with receiving(f"unix:{tmp_path}/a.sock", tmp_path) as got:
        liar, other = connect(tmp_path / "a.sock"), connect(tmp_path / "a.sock")
        liar.sendall(b'6 {"a":1}5 {forged}\n{"tool":"forged"}\n')
        assert is_closed(liar)
        got.wait_for_gap("no length came")
        other.sendall(b'{"b":2}\n')
        lines = got.wait_for_lines(3)
        assert sorted(lines) == sorted([b'{"a":1', b'}5 {forged} {"tool":"forged"}', b'{"b":2}'])


def test_an_endless_line_is_cut_told_and_an_oversize_record(tmp_path: Path) -> None:
    with receiving(f"unix:{tmp_path}/a.sock", tmp_path) as got:
        sender = connect(tmp_path / "a.sock")
        for _ in range(3 * 16):
            sender.sendall(b"x" * 65_536)
        sender.sendall(b"\n{}\n")
        assert [len(line) for line in got.wait_for_lines(2)] == [4_096, 2]
        gap = got.wait_for_gap("over 1 MiB")
        got.wait_for(
            lambda: sum(gap.size or 0 for gap in got.gaps) == 2 * (1 << 20) - 1, "the size of what is gone"
        )
        assert gap.source == got.source.address.name


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_tcp_and_udp_are_received_and_a_datagram_is_one_record(host: str, tmp_path: Path) -> None:
    shown = f"[{host}]" if ":" in host else host
    tcp, udp = free_port(host=host), free_port(socket.SOCK_DGRAM, host)
    with receiving(f"tcp://{shown}:{tcp}", tmp_path) as got, socket.create_connection((host, tcp)) as sender:
        sender.sendall(b'{"a":1}\n')
        got.wait_for_lines(1)
        got.wait_for(lambda: got.source.status.senders, "a sender")
        assert got.source.status.senders[0] == f"{shown}:{sender.getsockname()[1]}"
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with receiving(f"udp://{shown}:{udp}", tmp_path) as got, socket.socket(family, socket.SOCK_DGRAM) as out:
        for record in (b'{"a":1}', b'{"b":1}\n{"forged":1}', b"c\n", b"", b"\xff\x00\n\x01"):
            out.sendto(record, (host, udp))
        assert got.wait_for_lines(5) == [b'{"a":1}', b'{"b":1} {"forged":1}', b"c", b"", b"\xff\x00 \x01"]


def test_datagrams_that_the_kernel_drops_are_counted_and_told(tmp_path: Path) -> None:
    """UDP has no way to hold its sender back; what is lost is at least known."""
    port = free_port(socket.SOCK_DGRAM)
    with receiving(f"udp://127.0.0.1:{port}", tmp_path) as got:
        child = child_of(got)
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as out:
            os.kill(child, signal.SIGSTOP)
            for _ in range(60_000):
                out.sendto(b"x" * 1_000, ("127.0.0.1", port))
            os.kill(child, signal.SIGCONT)
            got.wait_for(lambda: got.lines, "lines")
            out.sendto(b"last", ("127.0.0.1", port))
            reason = got.wait_for_gap("faster than they could be read").reason
            got.wait_for(lambda: b"last" in got.lines, "the last one")
        lost = int(reason.rsplit(": ", 1)[1].replace(",", ""))
        assert lost + len(got.lines) == 60_001


def test_a_receiver_that_is_killed_is_started_again_and_it_is_said(tmp_path: Path) -> None:
    """What it had written is there; a sender that connects again is heard."""
    path = tmp_path / "a.sock"
    with receiving(f"unix:{path}", tmp_path) as got:
        connect(path).sendall(b"1\n")
        got.wait_for_lines(1)
        os.kill(child_of(got), signal.SIGKILL)
        assert "killed by SIGKILL" in got.wait_for_gap("receiver ended").reason
        assert got.source.status.state == "waiting"
        assert "killed by SIGKILL" in got.source.status.note
        got.wait_for(lambda: got.source.status.state == "reading", "a new receiver")
        connect(path).sendall(b"2\n")
        assert got.wait_for_lines(2) == [b"1", b"2"]


def test_it_ends_with_the_process_that_started_it_and_what_was_sent_by_then_is_kept(tmp_path: Path) -> None:
    """Even when that one is killed and can say nothing."""
    code = (
        "import sys, time; from pathlib import Path\n"
        "from tests.unit.sources.receiving import receiving\n"
        "with receiving('unix:' + sys.argv[1] + '/a.sock', Path(sys.argv[1])):\n"
        "    print('up', flush=True); time.sleep(60)"
    )
    folder = Path(__file__).parents[3]
    owner = subprocess.Popen([sys.executable, "-c", code, tmp_path], stdout=subprocess.PIPE, cwd=folder)
    with owner:
        assert owner.stdout is not None
        assert owner.stdout.readline() == b"up\n"
        sender = connect(tmp_path / "a.sock")
        sender.sendall(b"1\n" * 10_000)
        owner.kill()
    assert is_closed(sender)
    end = time.monotonic() + PATIENCE
    while (tmp_path / "a.sock").exists():
        assert time.monotonic() < end
        time.sleep(0.01)
    with receiving(f"unix:{tmp_path}/a.sock", tmp_path) as got:
        assert got.wait_for_lines(10_000) == [b"1"] * 10_000


def test_a_second_process_is_told_who_receives_and_how_to_attach(tmp_path: Path) -> None:
    """With the same state folder and with another one."""
    spec = f"unix:{tmp_path}/a.sock"
    with receiving(spec, tmp_path) as got:
        for folder in (tmp_path, tmp_path / "other"):
            words = f"already received by process {os.getpid()}: `mcpwatch tail {got.source.spool}` attaches to it"
            with pytest.raises(SourceError, match=words), receiving(spec, folder):
                pass
        connect(tmp_path / "a.sock").sendall(b"1\n")
        assert got.wait_for_lines(1) == [b"1"]


def test_only_a_socket_that_nobody_listens_on_is_taken_away(tmp_path: Path) -> None:
    file, folder, link, used, datagrams, stale = (
        tmp_path / name for name in ("file", "folder", "link", "used", "dgram", "stale")
    )
    file.write_text("mine")
    folder.mkdir()
    link.symlink_to(file)
    with (
        socket.socket(socket.AF_UNIX) as listener,
        socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as receiver,
        socket.socket(socket.AF_UNIX) as left,
    ):
        listener.bind(str(used))
        listener.listen()
        receiver.bind(str(datagrams))
        left.bind(str(stale))
        left.close()
        for path, words in (
            (file, "no socket"),
            (folder, "no socket"),
            (link, "no socket"),
            (used, "another program listens"),
            (datagrams, "another program listens"),
        ):
            with pytest.raises(SourceError, match=words), receiving(f"unix:{path}", tmp_path):
                pass
            assert os.path.lexists(path)
        with receiving(f"unix:{stale}", tmp_path) as got:
            connect(stale).sendall(b"1\n")
            got.wait_for_lines(1)
    assert file.read_text() == "mine"


def test_the_keys_of_the_terminal_are_not_for_the_receiver(tmp_path: Path) -> None:
    """Ctrl-Z stops the console and not what senders depend on; nor do signals for a whole service end it early."""
    with receiving(f"unix:{tmp_path}/a.sock", tmp_path) as got:
        child = child_of(got)
        assert os.getsid(child) != os.getsid(0)
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            os.kill(child, number)
        connect(tmp_path / "a.sock").sendall(b"1\n")
        got.wait_for_lines(1)
        assert child_of(got) == child


def test_what_it_started_from_cannot_slip_it_modules(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The receiver does not import from the working folder, which may be anybody's."""
    (tmp_path / "selectors.py").write_text("open('evil', 'w')")
    (tmp_path / "mcpwatch").mkdir()
    (tmp_path / "mcpwatch/__init__.py").write_text("open('evil', 'w')")
    monkeypatch.chdir(tmp_path)
    with receiving(f"unix:{tmp_path}/a.sock", tmp_path):
        assert not (tmp_path / "evil").exists()


def test_spools_that_were_rotated_away_unread_are_a_gap(tmp_path: Path) -> None:
    """While the monitor stood still: how many files are gone is known and told, and the rest is read."""
    limits = Limits(rotate_at=10_000, kept=3)
    with receiving(f"unix:{tmp_path}/a.sock", tmp_path, limits) as got:
        sender = connect(tmp_path / "a.sock")
        sender.sendall(b"first\n")
        got.wait_for_lines(1)
        for number in range(20):
            sender.sendall(
                b"".join(b"%09d\n" % record for record in range(number * 1_000, (number + 1) * 1_000))
            )
            end = time.monotonic() + PATIENCE
            while b"%09d\n" % (number * 1_000 + 999) not in got.source.spool.read_bytes():
                assert time.monotonic() < end
                time.sleep(0.005)
        got.wait_for(lambda: got.lines[-1:] == [b"000019999"], "the last record")

        def told() -> int:
            return sum(int(gap.reason.split()[0]) for gap in got.gaps if "rotated away" in gap.reason)

        got.wait_for(
            lambda: len(got.lines) + told() * 1_000 == 20_001, "a gap for each thousand that is missing"
        )
        assert told() > 0
        assert got.lines[1:] == sorted(got.lines[1:])


def test_what_the_spool_holds_from_before_is_read_from_where_the_session_begins(tmp_path: Path) -> None:
    """As in any log: the start is asked for the spool's path, under the source's name."""
    spec = f"unix:{tmp_path}/a.sock"
    with receiving(spec, tmp_path) as got:
        connect(tmp_path / "a.sock").sendall(b"1\n2\n")
        got.wait_for_lines(2)
    asked: list[tuple[Path, str]] = []

    def start(path: Path, name: str) -> tuple[int, int | None]:
        asked.append((path, name))
        return 2, None

    live = LiveSet([spec, spec], listening=Listening(tmp_path / "state/spool"), start=start)
    try:
        assert asked == [(got.source.spool, spec)]
        (block,) = live.tick(time.time_ns())
        assert block.source == spec
        assert getattr(block, "lines", None) == [b"2"]
        assert live.places[spec].offset == 4
    finally:
        live.close()


def test_a_session_that_cannot_begin_leaves_no_receiver_behind(tmp_path: Path) -> None:
    """The first address is let go when the second can't be used."""
    spec = f"unix:{tmp_path}/a.sock"
    with pytest.raises(SourceError):
        LiveSet([spec, "tcp://0.0.0.0:1"], listening=Listening(tmp_path / "state/spool"))
    with receiving(spec, tmp_path):
        pass


def test_the_receiver_is_light() -> None:
    """It starts at once and needs little memory: none of what the monitor needs, and no TLS unless asked for."""
    code = "import sys, mcpwatch.sources.receiver as r; print(*sorted(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = set(done.stdout.split())
    assert loaded.isdisjoint(
        {"ssl", "msgspec", "orjson", "click", "mcpwatch.text", "mcpwatch.formats", "asyncio"}
    )


def test_every_trouble_has_its_words() -> None:
    for meaning in TROUBLES.values():
        assert meaning.text.format(times=1_234, records=1_234, last="x")


def test_the_source_of_a_source_that_was_closed_is_ended(tmp_path: Path) -> None:
    listening = Listening(tmp_path / "state/spool")
    source = ListenSource(parse_address(f"unix:{tmp_path}/a.sock"), listening, lambda p, n: Follower(p, n))
    source.close()
    assert source.status.state == "ended"
    assert source.tick(0) == []
