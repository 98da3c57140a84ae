"""Addresses that mcpwatch receives records at: `unix:PATH`, `tcp://HOST:PORT`, `udp://HOST:PORT`."""

from __future__ import annotations

import hashlib
import ipaddress
import re
import socket
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

from mcpwatch.sources.block import SourceError
from mcpwatch.sources.rotation import rotated_name
from mcpwatch.text import SafeText, safe

Kind = Literal["unix", "tcp", "udp"]

_FORMS: Final = re.compile(r"(?P<kind>unix):(?P<path>.*)|(?P<net>tcp|udp):(?://)?(?P<place>.*)", re.DOTALL)
_PLACE: Final = re.compile(r"(?:\[(?P<six>[0-9A-Fa-f:.]+)\]|(?P<host>[^\[\]:/@]+)):(?P<port>\d{1,5})/?")
_LONGEST_UNIX: Final = 107
_PLAIN_NAME: Final = re.compile(r"[A-Za-z0-9._:]+")


@dataclass(frozen=True, slots=True)
class Address:
    """Where records arrive.

    Attributes:
        path: Absolute path of a unix socket; empty for the others.
        host: Numeric address; empty for a unix socket.
    """

    kind: Kind
    path: str = ""
    host: str = ""
    port: int = 0

    @property
    def name(self) -> SafeText:
        """The address as it is written on the command line: the source's name."""
        if self.kind == "unix":
            return safe(f"unix:{self.path}")
        return safe(f"{self.kind}://{f'[{self.host}]' if ':' in self.host else self.host}:{self.port}")

    @property
    def is_loopback(self) -> bool:
        """Whether only this machine can reach it."""
        return self.kind == "unix" or ipaddress.ip_address(self.host).is_loopback

    @property
    def spool_name(self) -> str:
        """Name of the file that its records are written to, one for each address.

        `unix-run-mcp.sock.jsonl`, `tcp-127.0.0.1-6514.jsonl`. A path that would share its name with another, or
        be taken for a rotated file, has a hash in it.
        """
        if self.kind != "unix":
            return f"{self.kind}-{self.host}-{self.port}.jsonl"
        plain = self.path.strip("/").replace("/", "-")
        name = f"unix-{plain}.jsonl"
        parts = self.path.strip("/").split("/")
        if all(map(_PLAIN_NAME.fullmatch, parts)) and rotated_name(name) is None:
            return name
        digest = hashlib.sha256(self.path.encode("utf-8", "surrogateescape")).hexdigest()[:8]
        readable = re.sub(r"[^A-Za-z0-9._-]", "_", plain)
        return f"unix-{readable}~{digest}.jsonl"


def is_address(spec: str) -> bool:
    """Whether a source is named by an address to receive at, and not by a path."""
    return _FORMS.fullmatch(spec) is not None


def parse_address(spec: str) -> Address:
    """Read an address.

    Raises:
        SourceError: It can't be used. The message says how to write it.
    """
    found = _FORMS.fullmatch(spec)
    if found is None:
        raise SourceError(f"{safe(spec, 200)}: write unix:PATH, tcp://HOST:PORT or udp://HOST:PORT")
    if found["kind"]:
        return _unix(spec, found["path"])
    kind: Kind = "tcp" if found["net"] == "tcp" else "udp"
    place = _PLACE.fullmatch(found["place"])
    if place is None or not 0 < int(place["port"]) < 1 << 16:
        raise SourceError(
            f"{safe(spec, 200)}: write {kind}://HOST:PORT, for example {kind}://127.0.0.1:6514 or "
            f"{kind}://[::1]:6514"
        )
    return Address(kind, host=_numeric(spec, place["six"] or place["host"]), port=int(place["port"]))


def _unix(spec: str, named: str) -> Address:
    if not named or named.startswith(("@", "\0")) or "\0" in named:
        raise SourceError(
            f"{safe(spec, 200)}: name a path, as in unix:/run/mcpwatch/audit.sock (a socket without a path has "
            "no permissions)"
        )
    # pathlib and the system both keep two leading slashes apart from one
    path = str(Path("/" + named.lstrip("/") if named.startswith("/") else named).absolute())
    if len(path.encode("utf-8", "surrogateescape")) > _LONGEST_UNIX:
        raise SourceError(
            f"{safe(spec, 200)}: the path of a socket has at most {_LONGEST_UNIX} bytes: choose a shorter one"
        )
    return Address("unix", path=path)


def _numeric(spec: str, host: str) -> str:
    try:
        return str(ipaddress.ip_address(host))
    except ValueError:
        pass
    try:
        found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError):
        raise SourceError(
            f"{safe(spec, 200)}: there is no address of that name: give it in numbers"
        ) from None
    return str(found[0][4][0])
