"""TLS with client certificates for receivers: who has none that we trust is not heard."""

from __future__ import annotations

import os
import socket
import ssl
from typing import Literal

from mcpwatch.sources.doors import DoorError
from mcpwatch.sources.protocol import TlsFiles


class TlsError(DoorError):
    """A certificate, key or list of authorities can't be used, or a handshake failed. The message says why."""


class Server:
    """Makes the contexts of connections; files that are renewed are read again."""

    def __init__(self, files: TlsFiles) -> None:
        """Read the files. Raises TlsError."""
        self.problem: str | None = None
        """Why renewed files are not in use; None while all is well."""
        self._files = files
        self._seen = self._look()
        self._context = _context(files)

    def wrap(self, connection: socket.socket) -> ssl.SSLSocket:
        """Begin TLS on a connection that does not wait; the handshake is still to be done."""
        seen = self._look()
        if seen != self._seen:
            self._seen = seen
            try:
                self._context = _context(self._files)
                self.problem = None
            except TlsError as error:
                self.problem = str(error)
        return self._context.wrap_socket(connection, server_side=True, do_handshake_on_connect=False)

    @staticmethod
    def shake(connection: ssl.SSLSocket) -> Literal["done", "read", "write"]:
        """Go on with the handshake: done, or what it waits for. Raises TlsError: it failed, and why."""
        try:
            connection.do_handshake()
        except ssl.SSLWantReadError:
            return "read"
        except ssl.SSLWantWriteError:
            return "write"
        except ssl.SSLCertVerificationError as error:
            raise TlsError(f"certificate refused: {error.verify_message}") from None
        except ssl.SSLError as error:
            raise TlsError(_reason(error)) from None
        except OSError as error:
            raise TlsError(error.strerror or "the connection ended") from None
        return "done"

    @staticmethod
    def subject(connection: ssl.SSLSocket) -> str:
        """Whose certificate the peer has shown: `CN=mcp-1,O=Example`."""
        certificate = connection.getpeercert() or {}
        parts = certificate.get("subject", ())
        names = {"commonName": "CN", "organizationName": "O", "organizationalUnitName": "OU"}
        pairs = [(str(pair[0]), str(pair[1])) for part in parts if isinstance(part, tuple) for pair in part]
        return ",".join(f"{names.get(name, name)}={value}" for name, value in reversed(pairs))[:300]

    @staticmethod
    def receive(connection: socket.socket, size: int) -> bytes | None:
        """Decrypted bytes, nothing at the end, None when there are none yet. Raises OSError."""
        try:
            return connection.recv(size)
        except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
            return None

    def _look(self) -> list[tuple[int, int] | None]:
        found: list[tuple[int, int] | None] = []
        for path in (self._files.cert, self._files.key, self._files.client_ca):
            try:
                status = os.stat(path)  # noqa: PTH116 - may be anything
                found.append((status.st_mtime_ns, status.st_ino))
            except OSError:
                found.append(None)
        return found


def _context(files: TlsFiles) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.verify_mode = ssl.CERT_REQUIRED
    # Tickets go to a client that never reads: when it closes, its system resets the connection, and what it sent
    # last is lost.
    context.num_tickets = 0
    for option, path in (("cert", files.cert), ("key", files.key), ("client-ca", files.client_ca)):
        try:
            with open(path, "rb"):  # noqa: PTH123
                pass
        except OSError as error:
            raise TlsError(f"--tls-{option} {path}: {error.strerror}") from None
    try:
        # without a function it would ask for the passphrase on the terminal
        context.load_cert_chain(files.cert, files.key, password=lambda: "")
    except (ssl.SSLError, ValueError) as error:
        why = _reason(error) if isinstance(error, ssl.SSLError) else str(error)
        raise TlsError(
            f"--tls-cert {files.cert} and --tls-key {files.key} cannot be used: {why}: both must be PEM, belong "
            "together, and the key have no passphrase"
        ) from None
    try:
        context.load_verify_locations(cafile=files.client_ca)
    except (ssl.SSLError, ValueError):
        raise TlsError(f"--tls-client-ca {files.client_ca}: no certificate in PEM form in it") from None
    return context


def _reason(error: ssl.SSLError) -> str:
    return (error.reason or str(error)).replace("_", " ").lower()
