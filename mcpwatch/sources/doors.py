"""Opens the sockets that a receiver listens on, and says who comes."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import socket
import stat
import struct
from pathlib import Path
from typing import Any, Final

from mcpwatch.sources.spool import Lock, TakenError

RXQ_OVFL: Final = 40
"""SO_RXQ_OVFL of Linux: with each datagram comes how many the kernel had to drop before it."""

_RCVBUFFORCE: Final = 33
_UDP_BUFFER: Final = 8 << 20
_WAITING: Final = 128
_KEEPALIVE_S: Final = 60
_UNIX_MASK: Final = 0o117


class DoorError(Exception):
    """Nothing can be received there. The message says why; it may hold hostile text."""


def taken(holder: str) -> DoorError:
    """Another process receives there already, as its lock says: hostile text."""
    try:
        note = json.loads(holder)
        process, spool = int(note["pid"]), str(note["spool"])
    except (ValueError, KeyError, TypeError, RecursionError):
        return DoorError("already received by another process")
    return DoorError(f"already received by process {process}: `mcpwatch tail {spool}` attaches to it")


class UnixDoor:
    """A listening unix socket: a group may write to it, others not."""

    def __init__(self, path: Path, note: dict[str, object]) -> None:
        """Make it, and its folder if that is missing. Raises DoorError or OSError."""
        self.path = path
        with contextlib.suppress(FileExistsError):
            path.parent.mkdir(mode=0o750, parents=True)
        try:
            self._lock = Lock(path.with_name(f"{path.name}.lock"), note)
        except TakenError as error:
            raise taken(str(error)) from None
        self._clear()
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.socket.setblocking(False)
        before = os.umask(_UNIX_MASK)
        try:
            self.socket.bind(str(path))
        finally:
            os.umask(before)
        self.socket.listen(_WAITING)
        self._identity = _identity(path)

    def close(self) -> None:
        """Take the socket away, if it still is ours."""
        with contextlib.suppress(OSError):
            if _identity(self.path) == self._identity:
                self.path.unlink()

    def _clear(self) -> None:
        """Take away a socket that nobody listens on any more; nothing else."""
        try:
            found = self.path.lstat()
        except FileNotFoundError:
            return
        if not stat.S_ISSOCK(found.st_mode):
            raise DoorError("there is a file that is no socket: move it away, or choose another path")
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
            probe.setblocking(False)
            answer = probe.connect_ex(str(self.path))
        if answer != errno.ECONNREFUSED:
            raise DoorError("another program listens on that socket: stop it, or choose another path")
        self.path.unlink()


def _identity(path: Path) -> tuple[int, int]:
    found = path.lstat()
    return found.st_dev, found.st_ino


def open_tcp(host: str, port: int) -> socket.socket:
    """A listening TCP socket. Raises OSError."""
    listener = socket.socket(_family(host), socket.SOCK_STREAM)
    _alone(listener, host)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, _KEEPALIVE_S)
    listener.setblocking(False)
    listener.bind((host, port))
    listener.listen(_WAITING)
    return listener


def open_udp(host: str, port: int) -> socket.socket:
    """A UDP socket with as large a buffer as we may have. Raises OSError."""
    receiver = socket.socket(_family(host), socket.SOCK_DGRAM)
    _alone(receiver, host)
    try:
        receiver.setsockopt(socket.SOL_SOCKET, _RCVBUFFORCE, _UDP_BUFFER)
    except OSError:
        receiver.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _UDP_BUFFER)
    receiver.setsockopt(socket.SOL_SOCKET, RXQ_OVFL, 1)
    receiver.setblocking(False)
    receiver.bind((host, port))
    return receiver


def _family(host: str) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in host else socket.AF_INET


def _alone(opened: socket.socket, host: str) -> None:
    if ":" in host:
        opened.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)


def peer(connection: socket.socket, address: Any) -> dict[str, Any]:
    """Who is at the other end: of a unix socket as the kernel says, else the address."""
    if connection.family == socket.AF_UNIX:
        size = struct.calcsize("3i")
        pid, uid, gid = struct.unpack(
            "3i", connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, size)
        )
        return {"pid": pid, "uid": uid, "gid": gid}
    host, port = address[:2]
    return {"address": f"[{host}]:{port}" if ":" in host else f"{host}:{port}"}
