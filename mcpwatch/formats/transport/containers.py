"""Containers: Docker's and Kubernetes' log files, and what their tools print in front of each line.

Both kinds of file cut lines of more than 16 KiB into pieces; `Fragments` puts them together.
"""

from __future__ import annotations

import re
from typing import Final

import orjson

from mcpwatch.formats.transport.unwrapped import Unwrapped

_RFC3339: Final = rb"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d{1,9})?(?:Z|[+-]\d\d:\d\d)"
# the container runtime interface of Kubernetes (KEP "CRI log"): time, stream, tags (P: goes on, F: ends), text
_CRI: Final = re.compile(rb"(" + _RFC3339 + rb") (stdout|stderr) ([FP])(?::[^ ]{0,64})? (.*)", re.DOTALL)
_CRI_EMPTY: Final = re.compile(rb"(" + _RFC3339 + rb") (stdout|stderr) ([FP])", re.DOTALL)
# `docker logs -t` and `kubectl logs --timestamps`; a time before other text is that text's own beginning
_TIMED: Final = re.compile(rb"(" + _RFC3339 + rb") (\{.*)", re.DOTALL)
# `kubectl logs --prefix`: [pod/NAME/CONTAINER]
_KUBECTL: Final = re.compile(
    rb"\[pod/([a-z0-9][a-z0-9.-]{0,252})/([a-z0-9][a-z0-9-]{0,62})\](?: (.*))?", re.DOTALL
)
# Compose pads the names to the longest of them and one more, so that there are at least two blanks
_COMPOSE: Final = re.compile(rb"([A-Za-z0-9][\w.-]{0,127}) {2,128}\|(?: (.*))?", re.DOTALL)
# loguru and others write `INFO     | text`
_LEVELS: Final = frozenset(
    (b"trace", b"debug", b"info", b"notice", b"warn", b"warning", b"error", b"critical", b"fatal", b"success")
)
_PIECE: Final = 16 * 1024  # how long the pieces are that Docker cuts (daemon/logger/copier.go)
_DOCKER_KEYS: Final = frozenset({"log", "stream", "time", "attrs"})


def docker(line: bytes, written_ns: int | None) -> Unwrapped | None:
    r"""A line of Docker's json-file driver. A text without `\n` at its end goes on in the next line of its stream."""
    if b'"log"' not in line or b'"stream"' not in line:
        return None
    try:
        entry = orjson.loads(line)
    except (ValueError, RecursionError):
        return None
    # a record of somebody else's has other keys too, whatever it calls them
    if not isinstance(entry, dict) or not entry.keys() <= _DOCKER_KEYS:
        return None
    text, stream, time = (entry.get(name) for name in ("log", "stream", "time"))
    if not isinstance(text, str) or not isinstance(time, str) or stream not in ("stdout", "stderr"):
        return None
    inner = text.encode()
    more = None if len(inner) < _PIECE else True
    return Unwrapped(inner, time, stream=stream, more=False if text.endswith("\n") else more)


def kubernetes(line: bytes, written_ns: int | None) -> Unwrapped | None:
    """A line of a container's log file on a Kubernetes node."""
    found = _CRI.fullmatch(line) or _CRI_EMPTY.fullmatch(line)
    if found is None:
        return None
    text = found[4] if found.re is _CRI else b""
    return Unwrapped(text, found[1].decode(), stream=found[2].decode(), more=found[3] == b"P")


def timed(line: bytes, written_ns: int | None) -> Unwrapped | None:
    """A JSON object with a time before it."""
    found = _TIMED.fullmatch(line)
    return Unwrapped(found[2], found[1].decode()) if found is not None else None


def kubectl(line: bytes, written_ns: int | None) -> Unwrapped | None:
    """A line of `kubectl logs --prefix`."""
    found = _KUBECTL.fullmatch(line)
    return Unwrapped(found[3] or b"", None, found[1].decode(), found[2].decode()) if found else None


def compose(line: bytes, written_ns: int | None) -> Unwrapped | None:
    """A line of `docker compose logs`."""
    found = _COMPOSE.fullmatch(line)
    if found is None or found[1].lower() in _LEVELS:
        return None
    return Unwrapped(found[2] or b"", program=found[1].decode())
