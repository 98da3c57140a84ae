"""Receives records on one address and writes them to a spool: a program of its own.

`python -m mcpwatch.sources.receiver`, started by `sources.listen`. Nothing that the monitor does may make a sender
wait: an unread unix socket blocks its writer after 278 records. So nothing is done here but to read, to find where
records end, and to hand them to the thread that writes. The configuration is one JSON line on standard input, which
then stays open as a life line; reports are JSON lines on standard output.
"""

from __future__ import annotations

import gc
import os
import selectors
import signal
import socket
import sys
import time
from collections import OrderedDict
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from mcpwatch.sources import doors
from mcpwatch.sources.doors import DoorError
from mcpwatch.sources.framing import Framer, one_line
from mcpwatch.sources.protocol import MAX_LINE, Config, Count, Reporter, State, Trouble, read_config
from mcpwatch.sources.spool import Backlog, Lock, Spool, TakenError, make_folder

if TYPE_CHECKING:
    import ssl

    from mcpwatch.sources.tls import Server

_PIECE: Final = 1 << 16
_TLS_PIECES: Final = 16
_DATAGRAMS: Final = 256
_DATAGRAM: Final = 1 << 16
_REPORT_S: Final = 0.25
_FAREWELL_S: Final = 1.0
_LAST_WRITE_S: Final = 5.0
_SWITCH_S: Final = 0.0005


@dataclass(slots=True, eq=False)
class _Connection:
    socket: socket.socket
    peer: dict[str, Any]
    deadline: float
    framer: Framer = field(default_factory=Framer)


class Receiver:
    """One address. `run` goes on until the life line is cut."""

    def __init__(self, config: Config, life_line: int, reporter: Reporter) -> None:
        """Take the locks and open the socket. Raises DoorError, TlsError or OSError."""
        self._limits = config.limits
        self._reporter = reporter
        self._state = State()
        self._selector = selectors.DefaultSelector()
        self._connections: dict[_Connection, None] = {}
        self._handshakes: OrderedDict[_Connection, None] = OrderedDict()
        self._ending = False
        self._kernel_dropped = 0
        note: dict[str, object] = {"pid": config.owner, "spool": config.spool}
        spool = Path(config.spool)
        make_folder(spool.parent)
        try:
            self._lock = Lock(spool.with_name(f"{spool.name}.lock"), note)
        except TakenError as error:
            raise doors.taken(str(error)) from None
        self._tls = _tls_server(config)
        self._unix = doors.UnixDoor(Path(config.path), note) if config.kind == "unix" else None
        opened = doors.open_udp if config.kind == "udp" else doors.open_tcp
        self._door = self._unix.socket if self._unix else opened(config.host, config.port)
        self._spool = Spool(spool, rotate_at=config.limits.rotate_at, kept=config.limits.kept)
        self._backlog = Backlog(self._spool, config.limits.backlog)
        self._selector.register(
            self._door, selectors.EVENT_READ, self._datagrams if config.kind == "udp" else self._accept
        )
        self._life_line = life_line
        self._selector.register(life_line, selectors.EVENT_READ, self._hold_on)

    def run(self) -> None:
        """Receive until the life line is cut, then take what is there and write it."""
        self._backlog.start()
        report_at = 0.0
        while not self._ending:
            ready = self._selector.select(self._timeout(time.monotonic()))
            now = time.monotonic()
            for key, _ in ready:
                key.data(now)
            self._close_overdue(now)
            if now >= report_at:
                report_at = now + _REPORT_S
                self._reporter.tell(self._look())
        self._leave()

    def _timeout(self, now: float) -> float:
        waiting = [each.deadline for each in (*self._handshakes, *self._connections)]
        return max(0.0, min([now + _REPORT_S, *waiting]) - now)

    def _hold_on(self, now: float) -> None:
        """The life line was cut; or it says that the spool is followed, and may be rotated from now on."""
        if os.read(self._life_line, 4_096):
            self._spool.may_rotate = True
        else:
            self._ending = True

    def _accept(self, now: float) -> None:
        for _ in range(self._limits.connections):
            try:
                accepted, address = self._door.accept()
            except BlockingIOError:
                return
            except OSError as error:  # out of descriptors: those waiting go on waiting
                self._count("refused", last=error.strerror or "")
                time.sleep(0.01)
                return
            accepted.setblocking(False)
            connection = _Connection(accepted, doors.peer(accepted, address), now + self._limits.silence_s)
            if self._tls is None:
                self._admit(connection)
            else:
                self._begin_handshake(connection, self._tls)

    def _admit(self, connection: _Connection) -> bool:
        if len(self._connections) >= self._limits.connections:
            self._count("refused", last=_who(connection))
            connection.socket.close()
            return False
        self._connections[connection] = None
        receive = self._receive if self._tls is None else self._receive_tls
        self._selector.register(connection.socket, selectors.EVENT_READ, partial(receive, connection))
        return True

    def _begin_handshake(self, connection: _Connection, server: Server) -> None:
        if len(self._handshakes) >= self._limits.handshakes:
            oldest = next(iter(self._handshakes))
            self._fail_handshake(oldest, "gave way to others")
        try:
            connection.socket = server.wrap(connection.socket)
        except OSError:
            connection.socket.close()
            return
        self._handshakes[connection] = None
        self._selector.register(connection.socket, selectors.EVENT_READ, partial(self._shake, connection))

    def _shake(self, connection: _Connection, now: float) -> None:
        if connection not in self._handshakes or self._tls is None:
            return
        encrypted: ssl.SSLSocket = connection.socket  # type: ignore[assignment]
        try:
            wants = self._tls.shake(encrypted)
        except DoorError as error:
            self._fail_handshake(connection, str(error))
            return
        if wants == "done":
            connection.peer["subject"] = self._tls.subject(encrypted)
            connection.deadline = now + self._limits.silence_s
            del self._handshakes[connection]
            self._selector.unregister(encrypted)
            if self._admit(connection):
                self._receive_tls(connection, now)
        else:
            mask = selectors.EVENT_READ if wants == "read" else selectors.EVENT_WRITE
            self._selector.modify(encrypted, mask, partial(self._shake, connection))

    def _fail_handshake(self, connection: _Connection, why: str) -> None:
        self._count("tls", last=f"{_who(connection)}: {why}")
        del self._handshakes[connection]
        self._selector.unregister(connection.socket)
        connection.socket.close()

    def _receive(self, connection: _Connection, now: float) -> None:
        try:
            data = connection.socket.recv(_PIECE)
        except BlockingIOError:
            return
        except OSError as error:
            self._end(connection, error.strerror or "")
            return
        self._take(connection, data)

    def _receive_tls(self, connection: _Connection, now: float) -> None:
        assert self._tls is not None
        for _ in range(_TLS_PIECES):
            try:
                data = self._tls.receive(connection.socket, _PIECE)
            except OSError as error:
                self._end(connection, error.strerror or "")
                return
            if data is None or not self._take(connection, data):
                return

    def _take(self, connection: _Connection, data: bytes) -> bool:
        """Frame what a connection gave; whether it goes on."""
        if not data:
            self._end(connection, "")
            return False
        framer = connection.framer
        records, cut_records, cut_bytes = framer.records, framer.cut_records, framer.cut_bytes
        self._state.bytes += len(data)
        self._backlog.put(framer.feed(data))
        self._state.records += framer.records - records
        if framer.cut_records != cut_records or framer.cut_bytes != cut_bytes:
            self._count(
                "cut",
                times=framer.cut_records - cut_records,
                records=framer.cut_records - cut_records,
                size=framer.cut_bytes - cut_bytes,
                last=_who(connection),
            )
        if framer.records:
            connection.deadline = float("inf")
        if framer.broken:
            self._count("framing", last=_who(connection))
            self._end(connection, "")
            return False
        return True

    def _end(self, connection: _Connection, why: str) -> None:
        framer = connection.framer
        if framer.torn and not framer.broken:
            self._count("torn", last=f"{_who(connection)}{f': {why}' if why else ''}")
        self._backlog.put(framer.finish())
        del self._connections[connection]
        self._selector.unregister(connection.socket)
        connection.socket.close()

    def _close_overdue(self, now: float) -> None:
        for connection in [each for each in self._handshakes if each.deadline <= now]:
            self._fail_handshake(connection, f"no handshake within {self._limits.silence_s:g} s")
        for connection in [each for each in self._connections if each.deadline <= now]:
            self._count("silent", last=_who(connection))
            self._end(connection, "")

    def _datagrams(self, now: float) -> None:
        lines = []
        for _ in range(_DATAGRAMS):
            try:
                data, ancillary, _, _ = self._door.recvmsg(_DATAGRAM, socket.CMSG_SPACE(4))
            except BlockingIOError:
                break
            except OSError:
                continue
            self._state.bytes += len(data)
            lines.append(one_line(data))
            for _, kind, value in ancillary:
                if kind == doors.RXQ_OVFL and len(value) == 4:
                    self._note_dropped(int.from_bytes(value, sys.byteorder))
        self._state.records += len(lines)
        self._backlog.put(b"".join(lines))

    def _note_dropped(self, total: int) -> None:
        new = (total - self._kernel_dropped) % (1 << 32)
        if new:
            self._kernel_dropped = total
            self._count("kernel", records=new)

    def _count(
        self, trouble: Trouble, *, times: int = 1, records: int = 0, size: int = 0, last: str = ""
    ) -> None:
        count = self._state.troubles.setdefault(trouble, Count())
        count.times += times
        count.records += records
        count.bytes += size
        count.last = last

    def _look(self) -> State:
        state, spool, backlog = self._state, self._spool, self._backlog
        state.senders = [each.peer for each in self._connections]
        state.offset, state.rotations = spool.offset, spool.rotations
        failure = spool.failure
        if failure or spool.lost_records:
            before = state.troubles.get("disk", Count())
            state.troubles["disk"] = Count(
                before.times + (failure is not None and not before.going_on),
                spool.lost_records,
                spool.lost_bytes,
                failure or before.last,
                failure is not None,
            )
        if backlog.full or backlog.lost_records:
            before = state.troubles.get("backlog", Count())
            state.troubles["backlog"] = Count(
                before.times + (backlog.full and not before.going_on),
                backlog.lost_records,
                backlog.lost_bytes,
                "",
                backlog.full,
            )
        if self._tls is not None and self._tls.problem:
            state.troubles.setdefault("tls", Count()).last = self._tls.problem
        return state

    def _leave(self) -> None:
        """Nobody new, but what was sent is taken: it has left the sender's hands."""
        if self._unix is not None:
            self._unix.close()
        self._selector.unregister(self._life_line)
        now = time.monotonic()
        end = now + _FAREWELL_S
        while now < end and (ready := self._selector.select(0)):
            for key, _ in ready:
                key.data(now)
            now = time.monotonic()
        for connection in [*self._connections]:
            self._end(connection, "mcpwatch ended")
        self._backlog.finish(_LAST_WRITE_S)
        self._reporter.tell(self._look())


def _who(connection: _Connection) -> str:
    peer = connection.peer
    subject = peer.get("subject")
    if "pid" in peer:
        return f"process {peer['pid']} of uid {peer['uid']}"
    return f"{peer['address']} ({subject})" if subject else str(peer["address"])


def _tls_server(config: Config) -> Server | None:
    if config.tls is None:
        return None
    from mcpwatch.sources.tls import Server  # who needs no TLS does not pay for it

    return Server(config.tls)


def _read_config(fd: int) -> bytes:
    line = b""
    while not line.endswith(b"\n") and len(line) <= MAX_LINE:
        more = os.read(fd, MAX_LINE)
        if not more:
            break
        line += more
    return line


def main() -> int:
    """Receive until standard input ends; the exit code."""
    # the terminal's keys and a service manager's signals are for the process that we work for: its end is ours
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    sys.setswitchinterval(_SWITCH_S)
    reporter = Reporter(1)
    try:
        receiver = Receiver(read_config(_read_config(0)), 0, reporter)
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        reporter.say("failed", reason=f"{where}{error.strerror or error}")
        return 1
    except DoorError as error:
        reporter.say("failed", reason=str(error))
        return 1
    reporter.say("ready")
    gc.collect()
    gc.freeze()
    receiver.run()
    return 0


if __name__ == "__main__":
    sys.exit(main())
